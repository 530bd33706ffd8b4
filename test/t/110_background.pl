# What workers pull: several tenants side by side, for the owner of each job,
# and how that is seen and mended when something is wrong.

use strict;
use warnings;
use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = accessreq_node('background', conf => "max_worker_processes = 16\nlog_min_messages = log\n");
my $sandbox = new_sandbox(rows => 600);
my $admin = new_session($node);
my $r;

sub value { return $admin->value(@_) }
sub status { my ($server, $what) = @_; return value("SELECT $what FROM accessreq.sync_status WHERE server = '$server'") }
sub rows { my ($server) = @_; return value("SELECT count(*) FROM accessreq.request_status WHERE server = '$server'") }
sub cycles { my ($server) = @_; return value("SELECT count(*) FROM accessreq.sync_run WHERE server = '$server' AND kind = 'cycle' AND finished IS NOT NULL AND error IS NULL") }

# Wait until the health of a server is this, with a reason that fits.
sub health_becomes
{
	my ($server, $health, $reason, $name) = @_;

	ok(poll_until("$server to be $health", sub { status($server, 'health') eq $health }), "$name: $health")
	  or diag(status($server, 'health, reason, last_error'));
	like(status($server, 'reason'), $reason, 'and why') if $reason;
	return;
}

# Two more cycles that end well.
sub goes_on
{
	my ($server, $name) = @_;
	my $before = cycles($server);

	return ok(poll_until("cycles of $server", sub { cycles($server) >= $before + 2 }), $name);
}

sub start { my ($server, $more) = @_; return value("SELECT accessreq.start_sync('$server', every => '1 second'" . ($more ? ", $more" : '') . ')') }
sub stop { my ($server) = @_; return value("SELECT accessreq.stop_sync('$server')") }

# --------------------------------------------------------- a tenant, its events

add_server($node, 'acme', $sandbox->url);
my $log = -s $node->logfile;
my $listener = new_session($node);
$listener->value('LISTEN accessreq');
start('acme');
health_becomes('acme', 'ok', undef, 'a first pull');
is(rows('acme'), 600, 'all rows are there');
is(value('SELECT count(*) FROM accessreq.state_change WHERE old_state IS NULL'), '600', 'each with its first sight');
$sandbox->admin('POST', 'add', { n => 3 });
ok(poll_until('new rows', sub { rows('acme') == 603 }), 'new rows come by themselves');
$r = $listener->run('SELECT 1');
my @told = map { decode_json($_) } $r->{out} =~ /with payload "(\{.*?\})" received/g;
my $new = 0;
$new += $_->{new} for @told;
is($new, 603, 'who listens was told of each');
is_deeply([ sort keys %{ $told[0] } ], [ sort qw(server run new changed) ], 'in these words');
goes_on('acme', 'it goes on');
my $said = slurp_from($node->logfile, $log);
my @lines = grep { /accessreq worker|full scan|cycle of/ } grep { /LOG:/ } split /\n/, $said;
is(scalar(grep { /full scan of server "acme" started/ } @lines), 1, 'the log has the start of the scan');
is(scalar(grep { /full scan of server "acme" finished: 600 rows, 600 new/ } @lines), 1, 'its end');
is(scalar(grep { /cycle of server "acme" finished: .*3 new/ } @lines), 1, 'the cycle that found something');
is(scalar(grep { /server "acme"/ } @lines), 3, 'and nothing else');

# An act from SQL is read first in the next cycle.
my ($open) = split /\n/, value("SELECT access_request_id FROM accessreq.request_status WHERE state = 'EXECUTING' AND cancelable AND access_request_id IS NOT NULL ORDER BY created LIMIT 1");
my $item = value("SELECT account_activity_item_id FROM accessreq.request_status WHERE access_request_id = '$open' ORDER BY 1 LIMIT 1");
stop('acme');
poll_until('no pull', sub { value("SELECT count(*) FROM pg_locks WHERE classid = 'pg_foreign_server'::regclass AND locktype = 'object'") == 0 });
value("SELECT accessreq.cancel('$open', 'not needed', server => 'acme')");
$sandbox->forget;
start('acme');
ok(poll_until('the cancel to be seen', sub { value("SELECT state FROM accessreq.request_status WHERE account_activity_item_id = '$item'") eq 'CANCELLED' }),
	'a request that was cancelled is seen');
my ($first) = $sandbox->requests(qr/access-request-status/);
like($first->{query}, qr/\Q$item\E/, 'and was what the cycle read first');

# ------------------------------------------------------- side by side

my $dead = new_listener(sub { my ($socket) = @_; sleep 600 });
my $busy = new_sandbox(rows => 50);
add_server($node, 'dead', $dead->url, options => { request_timeout => '2s' });
add_server($node, 'busy', $busy->url);
$busy->fault('status', status => 429, count => -1, headers => { 'Retry-After' => '300' });
start($_) for qw(dead busy);
$busy->await(qr/oauth/, 1);
health_becomes('busy', 'failing', qr/300|budget|wait/, 'a tenant that sends us away');
cmp_ok(status('busy', 'extract(epoch FROM retry_after - now())'), '>', 200, 'is left alone for as long as it says');
ok($dead->await('accepted', 1), 'a tenant that does not answer is asked');
goes_on('acme', 'and the third goes on');
$busy->no_faults;
$busy->forget;
health_becomes('dead', 'failing', qr/fetch a token/, 'the one that does not answer');
goes_on('acme', 'still');
my $tries = $dead->noted('accepted');
is(scalar($busy->requests), 0, 'nobody asks the one that sent us away');
$node->restart;
$admin = new_session($node);
goes_on('acme', 'after a restart');
is(scalar($busy->requests), 0, 'the time it named is kept over a restart');
value("UPDATE accessreq.sync_job SET retry_after = NULL WHERE server = 'busy'");
start('busy');
health_becomes('busy', 'ok', undef, 'when it is over');
$busy->fault('status', status => 503, count => -1, headers => { 'Retry-After' => '200' });
health_becomes('busy', 'failing', qr/problem of its own/, 'a 503 that names a time');
cmp_ok(status('busy', 'extract(epoch FROM retry_after - now())'), '>', 150, 'is obeyed as well');
$busy->no_faults;
value("UPDATE accessreq.sync_job SET retry_after = NULL WHERE server = 'busy'");
start('busy');
health_becomes('busy', 'ok', undef, 'when it is over');
stop($_) for qw(dead busy);

# A tenant that is dead is asked less and less often.
my $refused = new_listener(sub { my ($socket) = @_; close $socket });
add_server($node, 'refused', $refused->url);
start('refused');
# an attempt is never early, so from one planned moment to the next is a pause at least
my %planned;
poll_until('failures', sub {
	my ($n, $at) = split /\|/, value("SELECT failures, extract(epoch FROM next_attempt_at) FROM accessreq.sync_job WHERE server = 'refused'");
	$planned{$n} = $at if $n && $at;
	$n >= 4;
});
my @pauses = map { $planned{$_} && $planned{ $_ - 1 } ? $planned{$_} - $planned{ $_ - 1 } : () } 2 .. 4;
ok(@pauses > 0 && $pauses[-1] > 3, 'failures make the pauses longer') or diag("@pauses");
value("UPDATE accessreq.sync_job SET failures = 1000, next_attempt_at = now() WHERE server = 'refused'; SELECT accessreq.start_sync('refused')");
poll_until('another failure', sub { status('refused', 'failures') == 1001 });
my $pause = status('refused', 'extract(epoch FROM next_attempt_at - clock_timestamp())');
ok($pause > 600 - PATIENCE && $pause <= 600, 'up to ten minutes, and no more') or diag("$pause s");
stop('refused');

# Two databases, two tenants each.
$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION accessreq');
add_server($node, $_->[0], $_->[1]->url, db => 'second') for [ 'acme', $sandbox ], [ 'busy', $busy ];
$node->safe_psql('second', "SELECT accessreq.start_sync('$_', every => '1 second')") for qw(acme busy);
start('busy');
for my $box ([ acme => $sandbox ], [ busy => $busy ])
{
	$box->[1]->admin('POST', 'add', { n => 2 });
	my $n = $box->[1]->stats->{rows};
	ok(poll_until('both databases', sub {
		my $sql = "SELECT count(*) FROM accessreq.request_status WHERE server = '$box->[0]'";
		$node->safe_psql('postgres', $sql) == $n && $node->safe_psql('second', $sql) == $n;
	}), "two databases follow two tenants: $box->[0]");
}
$node->safe_psql('postgres', 'DROP DATABASE second');

# ------------------------------------------------ a scan and cycles beside it

# What only a scan asks for hangs: pages by date with both ends, or of one row.
stop('busy');
$sandbox->forget;
$sandbox->fault('hang', path => 'limit=1&', count => -1);
value("UPDATE accessreq.sync_job SET next_scan_at = now() WHERE server = 'acme'");
start('acme');
poll_until('a scan', sub { value("SELECT count(*) FROM accessreq.sync_progress WHERE server = 'acme' AND kind = 'full'") == 1 });
goes_on('acme', 'cycles go on while a scan hangs');
$sandbox->admin('POST', 'add', { n => 1 });
my $n = $sandbox->stats->{rows};
ok(poll_until('a new row', sub { rows('acme') == $n }), 'and bring what is new');
is(value("SELECT count(*) FROM accessreq.sync_progress WHERE server = 'acme' AND kind = 'full'"), '1', 'the scan is still there');
$sandbox->no_faults;
ok(poll_until('the end of the scan', sub { value("SELECT count(*) FROM accessreq.sync_progress WHERE server = 'acme' AND kind = 'full'") == 0 }), 'it ends');
is(value("SELECT error IS NULL FROM accessreq.sync_run WHERE server = 'acme' AND kind = 'full' ORDER BY run_id DESC LIMIT 1"), 't', 'well');

# Progress of a first scan.
my $large = new_sandbox(rows => 3000);
add_server($node, 'large', $large->url);
$large->fault('hang', path => 'access-request-status', skip => 5, count => -1);
start('large');
ok(poll_until('some pages', sub { value("SELECT coalesce(max(rows_seen), 0) FROM accessreq.sync_progress WHERE server = 'large'") >= 250 }), 'a first scan');
is(status('large', 'health'), 'partial', 'whose server is partial');
is(value("SELECT rows_total FROM accessreq.sync_progress WHERE server = 'large'"), '3000', 'sync_progress: of how many');
is(value("SELECT percent = round(100.0 * rows_seen / rows_total, 1) AND rows_per_second > 0 AND seconds_left > 0 AND pid = (SELECT pid FROM accessreq.worker()) FROM accessreq.sync_progress WHERE server = 'large'"), 't', 'how far, how fast, how long');
$large->no_faults;
health_becomes('large', 'ok', undef, 'when it has ended');
is(rows('large'), 3000, 'all rows are there');

# A token that sees less: nothing is marked, and cycles do not make that good.
my @gone = split /\n/, value("SELECT account_activity_item_id FROM accessreq.request_status WHERE server = 'large' AND state = 'EXECUTING'");
$large->admin('DELETE', "items?id=$_") for @gone[0 .. int(@gone / 2)];
value("UPDATE accessreq.sync_job SET next_scan_at = now() WHERE server = 'large'");
start('large');
health_becomes('large', 'failing', qr/missing/, 'half of what is open is gone');
goes_on('large', 'cycles go on');
is(status('large', 'health'), 'failing', 'and it is failing all the same');
is(value("SELECT count(*) FROM accessreq.request_status WHERE server = 'large' AND missing_since IS NOT NULL"), '0', 'nothing is marked');
my $scans = "SELECT count(*) FROM accessreq.sync_run WHERE server = 'large' AND kind = 'full'";
$n = value($scans);
goes_on('large', 'on and on');
is(value($scans), $n, 'the scan is not tried again at once');
value("ALTER SYSTEM SET accessreq.missing_limit = 1; SELECT pg_reload_conf()");
poll_until('the reload', sub { $node->safe_psql('postgres', "SELECT current_setting('accessreq.missing_limit')") eq '1' });
goes_on('large', 'after a reload');
value("UPDATE accessreq.sync_job SET next_scan_at = now() WHERE server = 'large'");
start('large');
health_becomes('large', 'ok', undef, 'where that is allowed');
is(value("SELECT count(*) FROM accessreq.request_status WHERE server = 'large' AND missing_since IS NOT NULL"), int(@gone / 2) + 1, 'they are marked');
value("ALTER SYSTEM RESET accessreq.missing_limit; SELECT pg_reload_conf()");

# The server is made anew while it is pulled.
$large->fault('hang', path => 'limit=1&', count => -1);
value("UPDATE accessreq.sync_job SET next_scan_at = now() WHERE server = 'large'");
start('large');
poll_until('a scan', sub { value("SELECT count(*) FROM accessreq.sync_progress WHERE server = 'large' AND kind = 'full'") == 1 });
value("BEGIN; DROP SERVER large CASCADE; CREATE SERVER large FOREIGN DATA WRAPPER accessreq OPTIONS (base_url '" . $large->url
	  . "', api 'v2024', rate_limit '0'); CREATE USER MAPPING FOR PUBLIC SERVER large OPTIONS (client_id 'tester', client_secret 'sandbox-secret'); COMMIT");
ok(poll_until('the end of the pull', sub { value("SELECT count(*) FROM accessreq.sync_run WHERE server = 'large' AND error ~ 'created anew'") >= 1 }),
	'a server that is dropped and made anew: the pull under way ends');
$large->no_faults;
health_becomes('large', 'ok', undef, 'and the next is of the new one');
ok(poll_until('the scan', sub { value("SELECT finished IS NOT NULL AND error IS NULL FROM accessreq.sync_run WHERE server = 'large' AND kind = 'full' ORDER BY run_id DESC LIMIT 1") eq 't' }),
	'and takes the scan up');

# REINDEX locks an index, which a window that begins wants.
my $reindexer = new_session($node);
$reindexer->value('BEGIN; REINDEX INDEX accessreq.request_status_modified_idx');
my $since = value('SELECT clock_timestamp()');
value("UPDATE accessreq.sync_job SET next_scan_at = now() WHERE server = 'large'");
value('SELECT pg_sleep(3)');
$reindexer->value('COMMIT');
$reindexer->quit;
start('large');
ok(poll_until('a scan', sub { value("$scans AND started > '$since' AND finished IS NOT NULL AND error IS NULL") > 0 }),
	'an index that is locked for a while holds a scan up and no more');
health_becomes('large', 'ok', undef, 'afterwards');

# Late is what nobody pulls.
value("SELECT accessreq.stop_worker()");
value("UPDATE accessreq.sync_job SET last_success_at = now() - interval '10 minutes'");
is(status('large', 'health'), 'late', 'without a worker a server gets late');
like(status('large', 'reason'), qr/not running: stopped by/, 'and why');
cmp_ok(status('large', 'lag_seconds'), '>=', 600, 'by so much');
value('SELECT accessreq.start_worker()');
health_becomes('large', 'ok', undef, 'with one');
stop('large');

# ---------------------------------------------------------- locks in the way

# A page that cannot be stored is put back, and others go on.
my $locker = new_session($node);
start('busy');
health_becomes('busy', 'ok', undef, 'another tenant');
my $request = value("SELECT access_request_id FROM accessreq.request_status WHERE server = 'acme' AND access_request_id IS NOT NULL LIMIT 1");
$locker->value("BEGIN; SELECT count(*) FROM accessreq.refresh(ARRAY['$request'], server => 'acme')");
$sandbox->admin('POST', 'add', { n => 1 });
$n = $sandbox->stats->{rows};
goes_on('busy', 'while a transaction holds a page lock the other tenant goes on');
is(rows('acme'), $n - 1, 'and this one waits');
$locker->value('COMMIT');
ok(poll_until('the row', sub { rows('acme') == $n }), 'until it ends');
$locker->value('BEGIN; LOCK TABLE accessreq.request_status IN SHARE MODE');
$sandbox->admin('POST', 'add', { n => 1 });
sleep 2.5;
$locker->value('COMMIT');
ok(poll_until('the row', sub { rows('acme') == $n + 1 }), 'a locked table is waited for too');
$locker->value('BEGIN; LOCK TABLE accessreq.sync_job IN SHARE MODE; LOCK TABLE accessreq.sync_run IN ACCESS EXCLUSIVE MODE');
sleep 4;
$locker->value('COMMIT');
is(status('acme', 'failures'), '0', 'a job is not failing because of a lock');
goes_on('acme', 'and goes on');
value("UPDATE accessreq.sync_job SET next_scan_at = now() WHERE server = 'acme'");
$locker->value("BEGIN; SELECT count(*) FROM accessreq.refresh(ARRAY['$request'], server => 'acme')");
my ($lost) = split /\n/, value("SELECT account_activity_item_id FROM accessreq.request_status WHERE server = 'acme' AND state = 'REQUEST_COMPLETED' AND access_request_id <> '$request' LIMIT 1");
$sandbox->admin('DELETE', "items?id=$lost");
start('acme');
sleep 4;
$locker->value('COMMIT');
ok(poll_until('the mark', sub { value("SELECT missing_since IS NOT NULL FROM accessreq.request_status WHERE server = 'acme' AND account_activity_item_id = '$lost'") eq 't' }),
	'a scan that cannot mark what is missing for want of a lock does so later');
$n = $sandbox->stats->{rows};
is(value('SELECT count(*) FROM accessreq.quarantined_item'), '0', 'nothing went to quarantine');
is(value("SELECT count(*) FROM accessreq.sync_run WHERE server = 'acme' AND error IS NOT NULL AND error NOT IN ('interrupted', 'stopped')"), '0', 'and no run failed')
  or diag(value("SELECT kind, error FROM accessreq.sync_run WHERE server = 'acme' AND error IS NOT NULL"));
stop('busy');

# A session pulls: the worker waits; the worker pulls: the session waits.
my $hang = $sandbox->fault('hang', path => 'access-request-status', count => -1);
ok(poll_until('the worker to hang', sub { grep { $_->{id} == $hang && $_->{hits} > 0 } @{ $sandbox->admin('GET', 'fault') } }), 'the worker pulls');
$locker->send("CALL accessreq.sync('acme')");
ok(poll_until('a notice', sub { $locker->said =~ /waiting for the pull of server "acme" by process (\d+)/ }), 'a session waits for it');
is(($locker->said =~ /by process (\d+)/)[0], value('SELECT pid FROM accessreq.worker()'), 'and names it');
stop('acme');
ok(poll_until('the session to have the lock', sub { value("SELECT count(*) FROM pg_locks WHERE classid = 'pg_foreign_server'::regclass AND objsubid = 1 AND granted AND pid = " . $locker->backend) == 1 }), 'stop_sync() ends what is under way');
is(value("SELECT count(*) FROM accessreq.sync_run WHERE server = 'acme' AND finished IS NULL"), '0', 'with its end noted');
start('acme');
sleep 1.5;
is(status('acme', 'failures'), '0', 'while a session pulls the worker does not fail');
$sandbox->no_faults;
is($locker->finish->{sqlstate}, '', 'the session ends');
goes_on('acme', 'and the worker goes on');

# --------------------------------------------------------- an item that is bad

$admin->value(<<'SQL');
CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN IF NEW.item_name = 'Poison' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END$$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON accessreq.request_status FOR EACH ROW EXECUTE FUNCTION public.refuse();
SQL
my $ids = $sandbox->admin('POST', 'change', { n => 1, set => { name => 'Poison' } })->{changed};
health_becomes('acme', 'partial', qr/quarantined_item/, "a user's trigger that raises");
is(value('SELECT account_activity_item_id, error_code FROM accessreq.quarantined_item'), "$ids->[0]|P0001", 'the item is in quarantine');
goes_on('acme', 'and the pull goes on');
value('DROP TRIGGER refuse ON accessreq.request_status');
$sandbox->admin('POST', 'change', { id => $ids->[0], set => { name => 'Better' } });
health_becomes('acme', 'ok', undef, 'when the item is stored');
$r = $admin->run(<<'SQL');
CREATE FUNCTION public.nothing() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER later AFTER INSERT OR UPDATE ON accessreq.request_status
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.nothing();
SQL
is($r->{sqlstate}, '', 'a deferred trigger');
health_becomes('acme', 'failing', qr/permission denied for trigger "later"/, 'is refused');
value('DROP TRIGGER later ON accessreq.request_status');
health_becomes('acme', 'ok', undef, 'without it');

# ------------------------------------------------------------------- keep, runs

value("UPDATE accessreq.sync_run SET started = started - interval '60 days', finished = finished - interval '60 days' WHERE server = 'large'");
stop('acme');
value('SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()');
start('acme', "keep => '1 year', keep_raw => false");
ok(poll_until('old rows to go', sub {
	value("SELECT count(*) FROM accessreq.request_status WHERE server = 'acme' AND coalesce(modified, created) < now() - interval '1 year' AND state NOT IN ('EXECUTING', 'PROVISIONING_VERIFICATION_PENDING')") == 0
}), 'closed items older than keep go');
cmp_ok(rows('acme'), '>', 50, 'the others stay');
is(value("SELECT count(*) FROM accessreq.state_change c WHERE server = 'acme' AND NOT EXISTS (SELECT FROM accessreq.request_status s WHERE s.server = c.server AND s.account_activity_item_id = c.account_activity_item_id)"), '0', 'their history with them');
ok(poll_until('old runs to go', sub { value("SELECT count(*) FROM accessreq.sync_run WHERE server = 'large'") == 0 }), 'and runs older than run_retention');
$sandbox->admin('POST', 'add', { n => 1 });
ok(poll_until('a row without raw', sub { value("SELECT count(*) FROM accessreq.request_status WHERE server = 'acme' AND raw IS NULL") >= 1 }), 'keep_raw => false');
stop('acme');

# ------------------------------------------------------------------- the owner

$admin->value(<<'SQL');
CREATE ROLE joe LOGIN; CREATE ROLE eve LOGIN; CREATE ROLE joes_friend LOGIN IN ROLE joe;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accessreq TO joe, eve;
GRANT EXECUTE ON PROCEDURE accessreq.sync(name, boolean, boolean) TO joe, eve;
SQL
my $owned = new_sandbox(rows => 40);
$admin->value("CREATE SERVER owned FOREIGN DATA WRAPPER accessreq OPTIONS (base_url '" . $owned->url . "', api 'v2024', rate_limit '0');"
	  . "GRANT USAGE ON FOREIGN SERVER owned TO joe, eve;"
	  . "CREATE USER MAPPING FOR joe SERVER owned OPTIONS (client_id 'joe', client_secret 'sandbox-secret');"
	  . "CREATE USER MAPPING FOR eve SERVER owned OPTIONS (client_id 'eve', client_secret 'sandbox-secret')");
my %as = map { $_ => new_session($node, user => $_) } qw(joe eve joes_friend);
is($as{eve}->run("CALL accessreq.sync('owned')")->{sqlstate}, '', 'eve pulls first');
is(value("SELECT owner, enabled FROM accessreq.sync_job WHERE server = 'owned'"), 'eve|f', 'the job is hers, not enabled');
is($as{joe}->run("SELECT accessreq.start_sync('owned', every => '1 second')")->{sqlstate}, '', 'joe has it pulled from the background');
is(value("SELECT owner, enabled FROM accessreq.sync_job WHERE server = 'owned'"), 'joe|t', 'it is his now');
health_becomes('owned', 'ok', undef, 'it is pulled');
is(value("SELECT count(*) FROM accessreq.sync_run WHERE server = 'owned' AND owner = 'joe' AND kind = 'full'"), '1', 'from a full scan of his own on');
is($as{eve}->run("SELECT accessreq.start_sync('owned')")->{sqlstate}, '42501', 'eve may not start it');
is($as{eve}->run("SELECT accessreq.stop_sync('owned')")->{sqlstate}, '42501', 'nor stop it');
is($as{joes_friend}->run("SELECT accessreq.stop_sync('owned')")->{sqlstate}, '', 'a member of the owner may');
is($as{joe}->run("SELECT accessreq.start_sync('owned')")->{sqlstate}, '', 'and the owner');
is($as{joe}->run("SELECT accessreq.start_sync('owned', every => '0')")->{sqlstate}, '22023', 'every must be a second at least');
is($as{joe}->run("SELECT accessreq.start_sync('owned', keep => '-1 day')")->{sqlstate}, '22023', 'and keep');
is($as{joe}->run("SELECT accessreq.start_sync('owned', $_ => '101 years')")->{sqlstate}, '22023', "$_ has an upper limit") for qw(every reconcile_every);
is($as{joe}->run("SELECT accessreq.start_sync('owned', keep => '90 years')")->{sqlstate}, '', 'keep');
is($as{joe}->run("SELECT accessreq.start_sync('owned', keep => '10000 years')")->{sqlstate}, '', 'keep for ever');
is(value("SELECT keep IS NULL FROM accessreq.sync_job WHERE server = 'owned'"), 't', 'is no limit');
is($as{joe}->run("SELECT accessreq.stop_sync('nothing')")->{sqlstate}, '42704', 'there must be a job');
is($as{joe}->run("BEGIN READ ONLY; SELECT accessreq.start_sync('owned'); ROLLBACK")->{err} =~ /25006/ ? 1 : 0, 1, 'not in a read-only transaction');
$as{joe}->run('ROLLBACK');
goes_on('owned', 'it is pulled');

# Each of these is shown, backs off, and is over when it is mended.
my @troubles = (
	[ 'USAGE revoked', 'REVOKE USAGE ON FOREIGN SERVER owned FROM joe', qr/permission denied/, 'GRANT USAGE ON FOREIGN SERVER owned TO joe' ],
	[ 'EXECUTE revoked', 'REVOKE EXECUTE ON FUNCTION accessreq.start_sync(name, interval, interval, interval, boolean) FROM joe', qr/no EXECUTE/,
		'GRANT EXECUTE ON FUNCTION accessreq.start_sync(name, interval, interval, interval, boolean) TO joe' ],
	[ 'mapping dropped', 'DROP USER MAPPING FOR joe SERVER owned', qr/no user mapping/,
		"CREATE USER MAPPING FOR joe SERVER owned OPTIONS (client_id 'joe', client_secret 'sandbox-secret')" ],
	[ 'wrong secret', "ALTER USER MAPPING FOR joe SERVER owned OPTIONS (SET client_secret 'wrong')", qr/token/,
		"ALTER USER MAPPING FOR joe SERVER owned OPTIONS (SET client_secret 'sandbox-secret')" ],
	[ 'another tenant', "ALTER USER MAPPING FOR joe SERVER owned OPTIONS (SET client_id 'othertenant')", qr/another tenant/,
		"ALTER USER MAPPING FOR joe SERVER owned OPTIONS (SET client_id 'joe')" ],
	[ 'host not allowed', "ALTER SERVER owned OPTIONS (SET base_url 'https://elsewhere.example')", qr/allowed_hosts|not .*allowed/,
		"ALTER SERVER owned OPTIONS (SET base_url '" . $owned->url . "')" ],
	[ 'server renamed', 'ALTER SERVER owned RENAME TO named', qr/server "owned" is "named" now: accessreq\.rename_server\('owned', 'named'\)/, 'ALTER SERVER named RENAME TO owned' ]);
for my $trouble (@troubles)
{
	my ($name, $break, $reason, $mend) = @$trouble;

	value($break);
	health_becomes('owned', 'failing', $reason, $name);
	$owned->forget;
	poll_until('more failures', sub { status('owned', 'failures') >= 2 });
	cmp_ok(scalar($owned->requests), '<=', 4, 'it backs off');
	value($mend);
	health_becomes('owned', 'ok', undef, "$name, mended");
	is(status('owned', 'failures'), '0', 'and counts from nought again');
}

# A new name, followed.
value('ALTER SERVER owned RENAME TO named');
value("SELECT accessreq.rename_server('owned', 'named')");
goes_on('named', 'rename_server(): the job goes on under the new name');
is(rows('owned'), 0, 'no row is left under the old one');
is(rows('named'), 40, 'nor lost');

# A scan may go on for hours; its owner's rights are looked at meanwhile.
$owned->fault('hang', path => 'limit=1&', count => -1);
value("UPDATE accessreq.sync_job SET next_scan_at = now() WHERE server = 'named'");
$as{joe}->value("SELECT accessreq.start_sync('named')");
poll_until('a scan', sub { value("SELECT count(*) FROM accessreq.sync_progress WHERE server = 'named' AND kind = 'full'") == 1 });
value('BEGIN; ALTER SERVER named RENAME TO x');
is($admin->run("SELECT accessreq.rename_server('named', 'x')")->{sqlstate}, '55006', 'rename_server() does not wait for it');
value('ROLLBACK');
value('REVOKE USAGE ON FOREIGN SERVER named FROM joe');
health_becomes('named', 'failing', qr/permission denied/, 'USAGE revoked during a scan');
is(value("SELECT count(*) FROM accessreq.sync_progress WHERE server = 'named'"), '0', 'which ends');
$owned->no_faults;
value('GRANT USAGE ON FOREIGN SERVER named TO joe');
health_becomes('named', 'ok', undef, 'granted again');

# A dropped owner, and one who is made again.
$_->quit for values %as;
value('DROP USER MAPPING FOR joe SERVER named; DROP OWNED BY joe; DROP ROLE joe');
health_becomes('named', 'stopped', qr/role "joe" does not exist/, 'a dropped owner');
value('CREATE ROLE joe LOGIN');
is(status('named', 'health'), 'stopped', 'another by his name is not him');
is($admin->run("SELECT accessreq.start_sync('named')")->{sqlstate}, '42704', 'a superuser needs a mapping');
value("CREATE USER MAPPING FOR postgres SERVER named OPTIONS (client_id 'me', client_secret 'sandbox-secret')");
is($admin->run("SELECT accessreq.start_sync('named')")->{sqlstate}, '55000', 'and adopt() first');
value('DROP ROLE joe');
value("SELECT accessreq.adopt('named')");
health_becomes('named', 'ok', undef, 'adopt() by a superuser');
is(status('named', 'owner'), 'postgres', 'whose it is now');
is($admin->run("SELECT * FROM accessreq.forget('named')")->{sqlstate}, '55000', 'forget() wants it stopped');
stop('named');
value("SELECT count(*) FROM accessreq.forget('named')");
sleep 1.2;
is(rows('named'), 0, 'forget(): nothing comes back');
$node->stop;
done_testing();
