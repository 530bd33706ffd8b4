# Commands that change what our work stands on, each given while all kinds of work
# are under way: what becomes of each.  No pull mixes tenants, no action is lost,
# sent twice, or sent to whoever has got a name.
#
# The table at the end has a row for each command and a cell for each kind of work,
# a line each: a session's pull and the worker's, in the middle; an action that is
# queued, one that is on its way, one whose answer was lost and that is being looked
# for; a job that is enabled, between two pulls.  A cell is a pattern of what is
# seen then, or "-" and why it makes no sense.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = accessreq_node('matrix', extension => 0,
	conf => "accessreq.launcher_naptime = '1s'\naccessreq.max_retries = 0\nmax_worker_processes = 20\nclient_min_messages = warning\n");
my $main = new_session($node);
my @kinds = qw(session worker queued sending unknown enabled);

# A tenant for each kind, and the one that is put in their place.
my %sandbox = (
	session => new_sandbox(rows => 2500),
	worker => new_sandbox(rows => 2500, seed => 2),
	map { $_ => new_sandbox(rows => 60, seed => 10 + length) } qw(queued sending unknown enabled));
my $other = new_sandbox(rows => 50, seed => 3);
my %tenant_rows = map { $_ => { map { $_->{accountActivityItemId} => 1 } @{ $sandbox{$_}->dump } } } qw(session worker);

my ($db, $role, $admin, $actor, $n, %id, %runs);
$n = 0;
sub value { return $admin->value(@_) }
sub rows { my ($server) = @_; return value("SELECT count(*) FROM accessreq.request_status WHERE server = '$server'") }
sub action { my ($kind, $what) = @_; return value("SELECT $what FROM accessreq.action WHERE id = $id{$kind}") }
sub token { my ($kind) = @_; return action($kind, 'client_token') }

sub server
{
	my ($name, $tenant, $client) = @_;
	my $url = $tenant->url;

	return "CREATE SERVER $name FOREIGN DATA WRAPPER accessreq OPTIONS (base_url '$url', api 'v2024', rate_limit '0', max_concurrency '1'); GRANT USAGE ON FOREIGN SERVER $name TO $role; "
	  . mapping($name, $client);
}

sub mapping { my ($name, $client) = @_; return "CREATE USER MAPPING FOR $role SERVER $name OPTIONS (client_id '$client', client_secret 'sandbox-secret'); " }

# All that is under way.
sub begin
{
	my ($row) = @_;

	$db = "m$row";
	$role = "actor$row";
	$_->no_faults for values %sandbox;
	$main->value("CREATE ROLE $role LOGIN; ");
	$main->value("CREATE DATABASE $db");
	$admin = new_session($node, db => $db);
	value('CREATE EXTENSION accessreq');
	value("GRANT EXECUTE ON ALL ROUTINES IN SCHEMA accessreq TO $role; GRANT SELECT ON ALL TABLES IN SCHEMA accessreq TO $role");
	value(server($_, $sandbox{$_}, 'c')) for @kinds;
	my $session = new_session($node, db => $db, user => $role);
	$actor = new_session($node, db => $db, user => $role);
	$sandbox{$_}->admin('POST', 'latency', { ms => 700 }) for qw(session worker);
	$session->value("SELECT accessreq.start_sync('enabled', every => '1 second')");
	poll_until('the job to be well', sub { value("SELECT health FROM accessreq.sync_status WHERE server = 'enabled'") eq 'ok' }) or die;
	$sandbox{sending}->forget;
	# whose tenant the servers are is known from what they have done
	for my $kind (qw(queued unknown sending))
	{
		my $first = $session->value("SELECT accessreq.enqueue_create(b, server => '$kind') FROM accessreq.grant_request(ARRAY['person'], 'ROLE', 'first$row', 'c') b");
		is($session->value("CALL accessreq.wait_for_action($first, '" . PATIENCE . " s')"), 'done', "a first action of $kind");
	}
	$session->value("SELECT accessreq.hold_actions('queued')");
	for my $kind (qw(queued unknown sending))
	{
		$n++;
		$sandbox{$kind}->fault('drop_answer', method => 'POST', path => '/access-requests') if $kind eq 'unknown';
		$sandbox{$kind}->fault('status', status => 503, path => 'access-request-status', count => -1) if $kind eq 'unknown';
		$sandbox{$kind}->fault('late', method => 'POST', path => '/access-requests', delay_ms => 4000) if $kind eq 'sending';
		if ($kind eq 'sending')
		{
			# the pulls are in their middle when the last goes on its way
			$actor->send("CALL accessreq.sync('session')");
			$session->value("SELECT accessreq.start_sync('worker', every => '1 second')");
			poll_until("pages of $_", sub { my $rows = rows($_); return $rows > 0 && $rows < 2000 }) or die $_ for qw(session worker);
		}
		$id{$kind} = $session->value("SELECT accessreq.enqueue_create(b, server => '$kind') FROM accessreq.grant_request(ARRAY['person$n'], 'ROLE', 'role$n', 'c') b");
		poll_until('the action to be unknown', sub { action($kind, 'state') eq 'unknown' }) or die if $kind eq 'unknown';
		$sandbox{$kind}->await(qr{POST .*/access-requests$}, 2) if $kind eq 'sending';
	}
	$session->quit;
	%runs = map { $_ => value("SELECT coalesce(max(run_id), 0) FROM accessreq.sync_run WHERE server = '$_'") } @kinds;
	return;
}

# What is seen of it now.
my %seen = (
	session => sub {
		my $r = $_[0];
		return ($r->{sqlstate} || ($r->{ended} ? 'ended' : 'ended well')) . ' ' . ($r->{err} =~ /ERROR:  \w+: (.*)/ ? $1 : '');
	},
	worker => sub {
		my ($kind) = @_;
		my $name = $_[1] // $kind;
		my $well = value("SELECT count(*) FROM accessreq.sync_run WHERE server = '$name' AND run_id > $runs{$kind} AND finished IS NOT NULL AND error IS NULL");
		return value("SELECT health || CASE WHEN health = 'ok' AND $well > 0 THEN ', pulled' ELSE '' END || coalesce(': ' || reason, '') FROM accessreq.sync_status WHERE server = '$name'");
	},
	action => sub { return action($_[0], "state || coalesce(' ' || error_code || ' ' || error, '') || CASE WHEN settled_at IS NULL THEN ' (not settled)' ELSE '' END") });
$seen{enabled} = $seen{worker};
$seen{$_} = $seen{action} for qw(queued sending unknown);

# Nobody is left to look in: what is seen is what arrives.
sub silence
{
	my ($what) = @_;

	$_->forget for values %sandbox, $other;
	sleep 2;
	is(scalar(map { $_->requests } values %sandbox, $other), 0, "$what: nothing leaves any more");
	return;
}

sub posts { return map { @{ $_->admin('GET', 'requests') } } values %sandbox, $other }

sub check_cell
{
	my ($command, $kind, $pattern, $r) = @_;
	my $got;

	if ($pattern =~ /^- /)
	{
		note("$command, $kind: $pattern");
		return;
	}
	if ($kind eq 'session') { $got = $seen{session}->($r); like($got, qr/^$pattern/, "$command: $kind") ; return }
	ok(poll_until("$command: $kind", sub { $got = $seen{$kind}->($kind); return $got =~ /^$pattern/ }), "$command: $kind") or diag("seen: $got\nexpected: $pattern");
	return;
}

# Commands whose words are not all of it.
my %sql = (
	'DROP SERVER, CREATE SERVER' => sub { return 'BEGIN; ' . join('; ', map { "DROP SERVER $_ CASCADE; " . server($_, $other, 'othertenant') } @kinds) . 'COMMIT' },
	'ALTER SERVER, to another tenant' => sub { return join('; ', map { "ALTER SERVER $_ OPTIONS (SET base_url '" . $other->url . "'); ALTER USER MAPPING FOR $role SERVER $_ OPTIONS (SET client_id 'othertenant')" } @kinds) },
	'ALTER SERVER, RENAME' => sub { return join('; ', map { "ALTER SERVER $_ RENAME TO ${_}2" } @kinds) },
	'ALTER USER MAPPING' => sub { return join('; ', map { "ALTER USER MAPPING FOR $role SERVER $_ OPTIONS (SET client_id 'rotated')" } @kinds) },
	'DROP USER MAPPING' => sub { return join('; ', map { "DROP USER MAPPING FOR $role SERVER $_" } @kinds) },
	'REVOKE USAGE' => sub { return 'REVOKE USAGE ON FOREIGN SERVER ' . join(', ', @kinds) . " FROM $role" },
	'REVOKE EXECUTE' => sub { return "REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA accessreq FROM $role" },
	'ALTER ROLE, RENAME' => sub { return "ALTER ROLE $role RENAME TO renamed_$role; CREATE ROLE $role LOGIN" },
	'DROP OWNED, DROP ROLE' => sub { return "BEGIN; DROP OWNED BY $role; DROP ROLE $role; CREATE ROLE $role LOGIN; COMMIT" },
	'REASSIGN OWNED' => sub { return join('; ', map { "ALTER SERVER $_ OWNER TO $role" } @kinds) . "; REASSIGN OWNED BY $role TO postgres" },
	'ALTER TABLE, ADD COLUMN' => sub { return "ALTER TABLE accessreq.request_status ADD COLUMN mine text DEFAULT 'x'; ALTER TABLE accessreq.action ADD COLUMN mine text; ALTER TABLE accessreq.sync_job ADD COLUMN mine text" },
	'ALTER TABLE, DROP COLUMN' => sub { return 'ALTER TABLE accessreq.sync_run DROP COLUMN replaced_characters; ALTER TABLE accessreq.action DROP COLUMN tracking_id' },
	'CREATE TRIGGER of a stranger' => sub { return "CREATE ROLE stranger_$role; CREATE SCHEMA s AUTHORIZATION stranger_$role; SET ROLE stranger_$role; CREATE FUNCTION s.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; RESET ROLE; CREATE TRIGGER t BEFORE INSERT OR UPDATE ON accessreq.request_status FOR EACH ROW EXECUTE FUNCTION s.f(); CREATE TRIGGER t BEFORE INSERT OR UPDATE ON accessreq.action FOR EACH ROW EXECUTE FUNCTION s.f()" },
	'ALTER TABLE, OWNER' => sub { return "CREATE ROLE keeper_$role; GRANT USAGE ON SCHEMA accessreq TO keeper_$role; " . q{DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT c.oid FROM pg_class c WHERE relnamespace = 'accessreq'::regnamespace AND relkind = 'r' LOOP EXECUTE format('ALTER TABLE %s OWNER TO keeper_} . $role . q{', t); END LOOP; END $$} },
	'DROP INDEX' => sub { return 'DROP INDEX accessreq.request_status_open_idx, accessreq.request_status_created_idx, accessreq.action_due_idx, accessreq.sync_run_unfinished_idx' },
	'ALTER TYPE' => sub { return 'ALTER TYPE accessreq.item_status ADD ATTRIBUTE mine text; ALTER TYPE accessreq.planned_action ADD ATTRIBUTE mine text' },
	'DROP EXTENSION' => sub { return 'DROP EXTENSION accessreq CASCADE' },
	'ALTER DATABASE, RENAME' => sub { return "ALTER DATABASE $db RENAME TO ${db}_renamed" },
	'DROP DATABASE' => sub { return "DROP DATABASE $db" });

my $row = 0;
my @table;
while (my $line = <DATA>)
{
	next if $line =~ /^#/;
	chomp $line;
	if ($line =~ /^\t(.*)/) { push @{ $table[-1] }, $1 } else { push @table, [$line] }
}
for (@table)
{
	my ($command, @cells) = @$_;
	my %cell;

	die "$command: not a cell for each kind" if @cells != @kinds;
	@cell{@kinds} = @cells;
	# one row alone, for who looks into it
	next if $ENV{ACCESSREQ_MATRIX_ROW} && $command !~ /$ENV{ACCESSREQ_MATRIX_ROW}/;
	$row++;
	begin($row);
	my $of_database = $command =~ /DATABASE/;
	my $sql = $sql{$command}->();
	my %token = map { $_ => token($_) } qw(queued sending unknown);

	if ($of_database)
	{
		# the session itself is in its way; then without
		$admin->quit;
		is($main->run($sql)->{sqlstate}, '55006', "$command: refused while a session pulls");
		$sandbox{session}->admin('POST', 'latency', { ms => 0 });
		check_cell($command, 'session', $cell{session}, $actor->finish);
		$actor->quit;
		is($main->run($sql)->{sqlstate}, '', "$command: given, while the worker works");
	}
	else
	{
		my $r = $admin->run($sql);
		is($r->{sqlstate}, '', "$command: given") or diag($r->{err});
	}
	$sandbox{$_}->admin('POST', 'latency', { ms => 0 }) for qw(session worker);
	$sandbox{unknown}->no_faults;
	check_cell($command, 'session', $cell{session}, $actor->finish) unless $of_database;
	if ($command =~ /^DROP (DATABASE|EXTENSION)/)
	{
		silence($command);
	}
	else
	{
		$admin = new_session($node, db => "${db}_renamed") if $of_database;
		value("SELECT accessreq.release_actions('queued')");
		$sandbox{$_}->admin('POST', 'advance', { ms => 60000 }) for qw(queued sending unknown);
		# what is not settled then was so before: it has had time to be tried
		sleep 3 if grep { /not settled/ } @cells;
		check_cell($command, $_, $cell{$_}) for grep { $_ ne 'session' } @kinds;
		# rows of one tenant alone, which is its own
		for my $kind (qw(session worker))
		{
			my @strange = grep { !$tenant_rows{$kind}{$_} } split /\n/, value("SELECT account_activity_item_id FROM accessreq.request_status WHERE server = '$kind'");
			is(scalar(@strange), 0, "$command: no row of another tenant in $kind");
		}
	}
	my %sent;
	for (grep { $_->{method} eq 'POST' && ($_->{body} // '') =~ /accessreq_client_token/ } posts()) { $sent{ $_->{body} =~ /accessreq_client_token":"([^"]+)/ ? $1 : '' }++ }
	is(scalar(grep { ($sent{ $token{$_} } // 0) > 1 } keys %token), 0, "$command: no action was sent twice");
	is(scalar(grep { $_->{method} eq 'POST' && $_->{path} !~ /oauth/ } $other->requests), 0, "$command: none to another tenant");
	$_->quit for $admin, $actor;
	$main->run("DROP DATABASE IF EXISTS $db; DROP DATABASE IF EXISTS ${db}_renamed");
}
$main->quit;
$node->stop;
done_testing();

__DATA__
# command | session | worker | queued | sending | unknown | enabled
DROP SERVER, CREATE SERVER
	42704 could not go on pulling from server "session": it was dropped since
	failing: server "worker" leads to another tenant than the one its rows came from
	failed 42704 server "queued" was dropped, and another has its name: accessreq.retry_action\(\) sends it there
	done$
	unknown 42704 its role or server does not exist any more, so nobody can look what became of it$
	failing: server "enabled" leads to another tenant than the one its rows came from
# a pull that has begun goes on where it began; the next does not begin
ALTER SERVER, to another tenant
	ended well
	failing: server "worker" leads to another tenant than the one its rows came from
	queued 55000 server "queued" leads to another tenant .*\(not settled\)
	done$
	unknown 08007 .*\(not settled\)
	failing: server "enabled" leads to another tenant than the one its rows came from
ALTER SERVER, RENAME
	55000 could not go on pulling from server "session": it is "session2" now; accessreq.rename_server\(\) moves its rows
	failing: server "worker" is "worker2" now: accessreq.rename_server\('worker', 'worker2'\) moves its rows
	done$
	done$
	done$
	failing: server "enabled" is "enabled2" now: accessreq.rename_server\('enabled', 'enabled2'\) moves its rows
ALTER USER MAPPING
	ended well
	ok, pulled
	done$
	done$
	done$
	ok, pulled
DROP USER MAPPING
	42704 there is no user mapping for role
	failing: there is no user mapping for role "\w+" on server "worker"
	queued 42704 there is no user mapping .*\(not settled\)
	done$
	unknown 08007 .*\(not settled\)
	failing: there is no user mapping for role "\w+" on server "enabled"
REVOKE USAGE
	42501 permission denied for foreign server "session"
	failing: permission denied for foreign server "worker"
	failed 42501 permission denied for foreign server "queued"
	done$
	unknown 08007 .*\(not settled\)
	failing: permission denied for foreign server "enabled"
REVOKE EXECUTE
	42501 could not go on pulling from server "session": role "\w+" has no EXECUTE on accessreq.sync
	failing: role "\w+" has no EXECUTE on accessreq.start_sync\(\) any more
	failed 42501 role "\w+" has no EXECUTE on accessreq.enqueue_create\(\) any more
	done$
	done$
	failing: role "\w+" has no EXECUTE on accessreq.start_sync\(\) any more
# another role has the name
ALTER ROLE, RENAME
	ended well
	ok, pulled
	done$
	done$
	done$
	ok, pulled
DROP OWNED, DROP ROLE
	42704 could not go on pulling from server "session": role "\w+" was dropped since
	stopped: role "\w+" does not exist any more: accessreq.adopt\(\)
	failed 42704 role "\w+" does not exist any more
	done$
	unknown 42704 its role or server does not exist any more, so nobody can look what became of it$
	stopped: role "\w+" does not exist any more: accessreq.adopt\(\)
# a role that used servers because they were its own
REASSIGN OWNED
	42501 permission denied for foreign server "session"
	failing: permission denied for foreign server "worker"
	failed 42501 permission denied for foreign server "queued"
	done$
	unknown 08007 .*\(not settled\)
	failing: permission denied for foreign server "enabled"
ALTER TABLE, ADD COLUMN
	ended well
	ok, pulled
	done$
	done$
	done$
	ok, pulled
# what has been sent waits to be written down
ALTER TABLE, DROP COLUMN
	42703 column "\w+".* does not exist
	failing: column "\w+".* does not exist
	sending \(not settled\)
	sending \(not settled\)
	unknown 08007 .*\(not settled\)
	failing: column "\w+".* does not exist
CREATE TRIGGER of a stranger
	42501 permission denied for trigger "t" on table "accessreq.request_status"
	failing: permission denied for trigger "t" on table "accessreq.request_status"
	queued \(not settled\)
	sending \(not settled\)
	unknown 08007 .*\(not settled\)
	failing: permission denied for trigger "t" on table "accessreq.request_status"
ALTER TABLE, OWNER
	ended well
	ok, pulled
	done$
	done$
	done$
	ok, pulled
DROP INDEX
	ended well
	ok, pulled
	done$
	done$
	done$
	ok, pulled
ALTER TYPE
	ended well
	ok, pulled
	done$
	done$
	done$
	ok, pulled
DROP EXTENSION
	42(704|P01) .* (does not exist|is not installed)
	- there is no job
	- there is no action
	- there is no action: its answer comes to nobody
	- there is no action
	- there is no job
# refused, until the session has ended
ALTER DATABASE, RENAME
	ended well
	ok, pulled
	done$
	done$
	done$
	ok, pulled
DROP DATABASE
	ended well
	- there is no database
	- there is no database
	- there is no database: its answer comes to nobody
	- there is no database
	- there is no database
