# doc/cookbook.md and doc/bi.md: what they show is run as it stands there.

use strict;
use warnings;
use AccessReq;
use Cwd 'abs_path';
use File::Basename;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @blocks = document_blocks('doc/cookbook.md', 'sql');
is(scalar(@blocks), 10, 'blocks of SQL');
my ($look, $read, $cron, $follow, $grants, $left, $copy, $people, $forget, $team) = @blocks;

# pg_cron is a package of Debian's; where it cannot be had, its recipe alone is left out
my $have_cron = -e PostgreSQL::Test::Utils::run_command([ 'pg_config', '--pkglibdir' ]) . '/pg_cron.so';
my $node = accessreq_node('cookbook', preload => 0, conf =>
	"shared_preload_libraries = 'accessreq" . ($have_cron ? ', pg_cron' : '') . "'\ncron.database_name = 'postgres'\ncron.use_background_workers = on\naccessreq.launcher_naptime = 1\n");
my $sandbox = new_sandbox(rows => 3000, open => 40);
my $admin = new_session($node);

sub value { return $admin->value(@_) }
sub drained { return poll_until('the queue to be empty', sub { value('SELECT count(*) FROM accessreq.action WHERE settled_at IS NULL') == 0 }) }

sub paste
{
	my ($name, $block) = @_;
	my $r = $admin->run($block);

	is($r->{sqlstate}, '', "$name: runs as it stands") or diag($r->{err});
	return $r->{out};
}

add_server($node, 'acme', $sandbox->url);
value("CALL accessreq.sync('acme')");

# ------------------------------------------------------------------------ every night

my $stale = "SELECT count(DISTINCT access_request_id) FROM accessreq.open_item WHERE cancelable AND created < now() - interval '30 days' AND access_request_id IS NOT NULL";
my $n = value($stale);
cmp_ok($n, '>', 0, 'some wait for too long');
like(paste('look', $look), qr/open since .*and can be cancelled/, 'each says why');
is(value('SELECT count(*) FROM accessreq.action'), '0', 'nothing is done');
like(paste('read', $read), qr/\|/, 'who only reads sees it too');
SKIP:
{
	skip 'pg_cron is not there', 4 unless $have_cron;
	# its schedule is for the night: this one does not wait for it
	(my $now = $cron) =~ s/'[34]0 2 \* \* \*'/'* * * * *'/g;
	value('CREATE EXTENSION pg_cron');
	paste('pg_cron', $cron);
	is(value("SELECT string_agg(schedule, ' / ' ORDER BY jobid) FROM cron.job"), '30 2 * * * / 40 2 * * *', 'for every night');
	value($now);
	ok(poll_until('pg_cron to run both', sub { value("SELECT count(DISTINCT jobid) FROM cron.job_run_details WHERE status = 'succeeded'") == 2 }), 'pg_cron runs them')
	  or diag(value('SELECT string_agg(d::text, E\'\n\') FROM cron.job_run_details d'));
	value("SELECT cron.unschedule(jobid) FROM cron.job");
	cmp_ok(value("SELECT count(*) FROM accessreq.action WHERE kind = 'cancel'"), '>=', $n < 100 ? $n : 100, 'and the cancels are there');
	ok(drained(), 'and sent');
	value("CALL accessreq.sync('acme')");
}
my ($service, $timer) = document_blocks('doc/cookbook.md', 'ini');
my ($psql, $arguments) = $service =~ /^ExecStart=(\S+) (.*)$/m;
is($psql, '/usr/bin/psql', 'the service runs psql');
# systemd's own splitting is that of double quotes here, and so is Perl's
my @words = map { s/^"(.*)"$/$1/r } $arguments =~ /("[^"]*"|\S+)/g;
my ($out, $err);
{
	local @ENV{qw(PGHOST PGPORT)} = ($node->host, $node->port);
	IPC::Run::run([ 'psql', @words ], '>', \$out, '2>', \$err);
}
is($err, '', 'which succeeds');
like($out, qr/\(\d+ rows?\)/, 'and prints what it did');
SKIP:
{
	skip 'systemd-analyze is not there', 1 unless grep { -x "$_/systemd-analyze" } split /:/, $ENV{PATH};
	my $dir = PostgreSQL::Test::Utils::tempdir();
	append_to_file("$dir/accessreq-nightly.service", $service);
	append_to_file("$dir/accessreq-nightly.timer", $timer);
	my $said = `systemd-analyze calendar "\$(sed -n 's/^OnCalendar=//p' $dir/accessreq-nightly.timer)" 2>&1`;
	like($said, qr/Next elapse:/, 'the timer\'s time is one');
}
ok(drained(), 'what it enqueued is sent');

# ---------------------------------------------------------------------- joiners, leavers

paste('joiners', $follow);
value("CREATE ROLE access_team; GRANT USAGE ON FOREIGN SERVER acme TO access_team; CREATE USER MAPPING FOR access_team SERVER acme OPTIONS (client_id 'team', client_secret 'sandbox-secret')");
paste('joiners: rights', $grants);
# HR's interface may write its table, and nothing else
value('CREATE ROLE hr LOGIN; GRANT SELECT, INSERT, UPDATE, DELETE ON assignment TO hr');
my $hr = new_session($node, user => 'hr');
my ($role, $other) = split /\n/, value("SELECT v ->> 'id' FROM accessreq.get('v2024/roles', max_rows => 40, server => 'acme') v WHERE v ->> 'requestable' = 'true'");
my @who = split /\n/, value("SELECT v ->> 'id' FROM accessreq.get('v2024/identities', max_rows => 30, server => 'acme') v");
sub asked { my ($type, $who) = @_; return scalar(grep { ($_->{body} // '') =~ /$type/ && $_->{body} =~ /$who/ } $sandbox->requests(qr{^POST \S*/access-requests$})) }
sub assign { my ($n) = @_; return $hr->value("INSERT INTO assignment VALUES ('$who[$n]', '$role')") }
sub unassign { my ($n) = @_; return $hr->value("DELETE FROM assignment WHERE identity_id = '$who[$n]'") }
sub last_action { return value("SELECT kind || ' ' || state || ' ' || coalesce(request ->> 'requestType', access_request_ids[1]) FROM accessreq.action ORDER BY id DESC LIMIT 1") }

$hr->value("BEGIN; INSERT INTO assignment VALUES ('$who[5]', '$role'); ROLLBACK");
assign(6);
ok(drained(), 'a row is inserted');
is(asked('GRANT_ACCESS', $who[6]), 1, 'and access asked for');
is(asked('GRANT_ACCESS', $who[5]), 0, 'not for one that was rolled back');
is(last_action(), 'create done GRANT_ACCESS', 'the tenant took it');
is(value('SELECT owner FROM accessreq.action ORDER BY id DESC LIMIT 1'), 'access_team', 'from the team');
$hr->value("BEGIN; DELETE FROM assignment; INSERT INTO assignment VALUES ('$who[6]', '$role'); COMMIT");
ok(drained(), 'HR loads its table anew');
is(asked('REVOKE_ACCESS', $who[6]), 0, 'and nothing is taken away');
is(asked('GRANT_ACCESS', $who[6]), 1, 'nor asked for again what is on its way');
# sent, not listed yet, not decided: cancelled
my $sent = value("SELECT access_request_ids[1] FROM accessreq.action ORDER BY id DESC LIMIT 1");
unassign(6);
ok(drained(), 'he leaves before the next pull');
is(last_action(), "cancel done $sent", 'and what was asked for is cancelled');
is(asked('REVOKE_ACCESS', $who[6]), 0, 'there is nothing to revoke');
# not sent yet
value("SELECT accessreq.hold_actions('acme')");
assign(7);
unassign(7);
is(last_action(), 'create cancelled GRANT_ACCESS', 'what is not sent yet is taken back');
# but not what is for others too
value("SET ROLE access_team; SELECT accessreq.enqueue_create(b, server => 'acme') FROM accessreq.grant_request(ARRAY['$who[8]', '$who[9]'], 'ROLE', '$role', 'x') b; RESET ROLE; ALTER TABLE assignment DISABLE TRIGGER follow; INSERT INTO assignment VALUES ('$who[8]', '$role'); ALTER TABLE assignment ENABLE TRIGGER follow");
unassign(8);
is(value("SELECT state FROM accessreq.action WHERE request -> 'requestedFor' ? '$who[9]'"), 'queued', 'what is for others too is left alone');
is(last_action(), 'create queued REVOKE_ACCESS', 'and his part revoked');
value("SELECT accessreq.release_actions('acme')");
ok(drained(), 'sent');
# listed, and not decided yet
my $open = "SELECT requested_for_id, item_id, access_request_id FROM accessreq.request_status r WHERE item_type = 'ROLE' AND state = 'EXECUTING' AND cancelable AND request_type = 'GRANT_ACCESS' AND (SELECT count(*) FROM accessreq.request_status x WHERE x.access_request_id = r.access_request_id)";
my ($person, $item, $request) = split /\|/, value("$open = 1 ORDER BY created DESC LIMIT 1");
value("ALTER TABLE assignment DISABLE TRIGGER follow; INSERT INTO assignment VALUES ('$person', '$item'); ALTER TABLE assignment ENABLE TRIGGER follow");
$hr->value("DELETE FROM assignment WHERE identity_id = '$person'");
ok(drained(), 'sent');
is(value("SELECT count(*) FROM accessreq.action WHERE kind = 'cancel' AND access_request_ids[1] = '$request'"), '1', 'what is not decided yet is cancelled');
($person, $item, $request) = split /\|/, value("$open > 1 ORDER BY created DESC LIMIT 1");
value("ALTER TABLE assignment DISABLE TRIGGER follow; INSERT INTO assignment VALUES ('$person', '$item'); ALTER TABLE assignment ENABLE TRIGGER follow");
$hr->value("DELETE FROM assignment WHERE identity_id = '$person'");
is(value("SELECT count(*) FROM accessreq.action WHERE kind = 'cancel' AND access_request_ids[1] = '$request'"), '0', 'but not a request that is for other things too');
# granted; an update is a leave and a join
value("ALTER TABLE assignment DISABLE TRIGGER follow; INSERT INTO assignment VALUES ('$who[10]', '$role'); ALTER TABLE assignment ENABLE TRIGGER follow");
$hr->value("UPDATE assignment SET identity_id = '$who[11]' WHERE identity_id = '$who[10]'");
ok(drained(), 'a row is updated');
is(asked('REVOKE_ACCESS', $who[10]), 1, 'the one that left is revoked');
is(asked('GRANT_ACCESS', $who[11]), 1, 'for the one that came it is asked');
# another role cancels it already
value("SELECT accessreq.hold_actions('acme')");
($person, $item, $request) = split /\|/, value("$open = 1 AND access_request_id NOT IN (SELECT access_request_ids[1] FROM accessreq.action WHERE kind = 'cancel') ORDER BY created DESC LIMIT 1");
value("SELECT accessreq.enqueue_cancel('$request', 'x', server => 'acme'); ALTER TABLE assignment DISABLE TRIGGER follow; INSERT INTO assignment VALUES ('$person', '$item'); ALTER TABLE assignment ENABLE TRIGGER follow");
is($hr->run("DELETE FROM assignment WHERE identity_id = '$person'")->{sqlstate}, '', 'a cancel of another role is no error of HR\'s');
value("SELECT accessreq.release_actions('acme')");
ok(drained(), 'sent');
# he comes back before the next pull: what was asked for first is being cancelled
my @later = split /\n/, value("SELECT v ->> 'id' FROM accessreq.get('v2024/identities', max_rows => 60, server => 'acme') v OFFSET 40");
assign_to($later[0]);
ok(drained(), 'asked for');
my $gone = value('SELECT access_request_ids[1] FROM accessreq.action ORDER BY id DESC LIMIT 1');
sub assign_to { return $hr->value("INSERT INTO assignment VALUES ('$_[0]', '$other')") }
sub listed { my ($request) = @_; return poll_until('the tenant to list it', sub { value("CALL accessreq.sync('acme')"); value("SELECT count(*) FROM accessreq.request_status WHERE access_request_id = '$request'") }) }
ok(listed($gone), 'listed');
$hr->value("DELETE FROM assignment WHERE identity_id = '$later[0]'");
ok(drained(), 'left');
is(last_action(), "cancel done $gone", 'cancelled');
assign_to($later[0]);
is(last_action(), 'create queued GRANT_ACCESS', 'back, and asked for again');
value('UPDATE accessreq.action SET not_before = NULL WHERE settled_at IS NULL');
ok(drained(), 'sent');
$hr->value("DELETE FROM assignment WHERE identity_id = '$later[0]'");
ok(drained(), 'left again');
# a create whose answer was lost: it is found by looking, when it is too late
$left =~ s/;\s*$//;
sub in_list { my ($request) = @_; return value("SELECT count(*) FROM ($left) x WHERE access_request_id = '$request'") }
ok(poll_until('the cancel to be listed', sub { value("CALL accessreq.sync('acme')"); in_list($gone) == 0 }), 'who left, and whose request was cancelled, is not in the list');
assign_to($later[1]);
ok(drained(), 'asked for');
my $lost = value("SELECT access_request_ids[1] FROM accessreq.action ORDER BY id DESC LIMIT 1");
value("UPDATE accessreq.action SET state = 'unknown', access_request_ids = NULL WHERE id = (SELECT max(id) FROM accessreq.action)");
$hr->value("DELETE FROM assignment WHERE identity_id = '$later[1]'");
like(last_action(), qr/^create \w+ REVOKE_ACCESS$/, 'what cannot be cancelled is revoked');
ok(drained(), 'sent');
ok(listed($lost), 'listed');
is(in_list($lost), '1', 'who left and will have it all the same is in the list');
paste('those who left', $left);
# with somebody else's table the function does nothing
value('CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO mallory');
my $mallory = new_session($node, user => 'mallory');
$mallory->value('CREATE TABLE theirs (identity_id text, role_id text); INSERT INTO theirs VALUES (\'victim\', \'role\')');
is($mallory->run('CREATE TRIGGER x AFTER DELETE ON theirs FOR EACH ROW EXECUTE FUNCTION public.follow_assignment()')->{sqlstate}, '42501', 'a stranger makes no trigger of it');
value('CREATE TRIGGER x AFTER DELETE ON theirs FOR EACH ROW EXECUTE FUNCTION public.follow_assignment()');
is($mallory->run('DELETE FROM theirs')->{sqlstate}, '42501', 'and it acts for its table alone');
is(value("SELECT count(*) FROM accessreq.action WHERE enqueued_by = 'mallory'"), '0', 'nothing was enqueued');
$mallory->quit;
value('DROP TABLE theirs');
$hr->quit;

# ------------------------------------------------------------------------- chat and mail

my $script = dirname(abs_path($0)) . '/../../doc/examples/notify.py';
SKIP:
{
	skip 'psycopg2 is not there', 11 if system('python3 -c "import psycopg2" 2>/dev/null') != 0;
	my $chat = new_listener(sub {
		my ($socket, undef, $note) = @_;
		my $request = read_request($socket);
		if ($request =~ /refuse-this/) { $note->('refused'); syswrite($socket, answer_text(400, '{}')); return }
		$note->('told', $request =~ s/.*?\r\n\r\n//sr);
		syswrite($socket, answer_text(200, '{}'));
	});
	my $mail = new_listener(sub {
		my ($socket, undef, $note) = @_;
		my $data = 0;
		syswrite($socket, "220 x\r\n");
		while (defined(my $line = <$socket>))
		{
			$note->('mail', $line);
			if ($data) { next unless $line eq ".\r\n"; $data = 0 }
			elsif ($line =~ /^DATA/i) { $data = 1; syswrite($socket, "354 go on\r\n"); next }
			syswrite($socket, "250 x\r\n");
		}
	});
	my $dsn = $node->connstr('postgres');
	my @told = map { IPC::Run::start([ 'env', 'SMTP_HOST=127.0.0.1', 'SMTP_PORT=' . $mail->port, 'python3', $script, $dsn, @$_ ], '>', '/dev/null', '2>', "$PostgreSQL::Test::Utils::tmp_check/notify.err") }
	  [ $chat->url . '/hooks/abc' ], [ 'iam-team@example.com', 'failed,done' ];
	ok(poll_until('both to listen', sub { value("SELECT count(*) FROM pg_stat_activity WHERE state = 'idle' AND query LIKE '%settled_at >= %'") == 2 }), 'notify.py listens');
	value("SELECT accessreq.enqueue_cancel('nobody-knows-this', 'x', server => 'acme')");
	ok(drained(), 'an action fails');
	ok($chat->await('told'), 'chat hears of it');
	like(($chat->noted('told'))[0][2], qr/^\{"text": "cancel of postgres on acme: failed\\n.*nobody-knows-this/, 'in words');
	ok(poll_until('a mail', sub { grep { $_->[2] =~ /^Subject: cancel of postgres on acme: failed/ } $mail->noted('mail') }), 'and a mail is sent');
	# whoever did not listen looks at the table
	value("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%settled_at >= %' AND pid <> pg_backend_pid()");
	value("SELECT accessreq.enqueue_cancel('nor-this', 'x', server => 'acme')");
	ok(poll_until('chat to hear of the second', sub { grep { $_->[2] =~ /nor-this/ } $chat->noted('told') }), 'also after its connection was lost');
	is(scalar($chat->noted('told')), 2, 'each is told once');
	# one that is refused does not keep back the next
	value("SELECT accessreq.enqueue_cancel('refuse-this', 'x', server => 'acme')");
	ok($chat->await('refused', 3), 'what is refused is tried three times');
	value("SELECT accessreq.enqueue_cancel('and-this', 'x', server => 'acme')");
	ok(poll_until('chat to hear of the next', sub { grep { $_->[2] =~ /and-this/ } $chat->noted('told') }), 'and then the next is told');
	is(scalar($chat->noted('refused')), 3, 'not more often');
	$_->signal('TERM'), $_->finish for @told;
	# what happened while it was away
	my $late = IPC::Run::start([ 'python3', $script, $dsn, $chat->url . '/hooks/abc', 'failed', '1 hour' ], '>', '/dev/null', '2>', '/dev/null');
	ok(poll_until('chat to hear of the first again', sub { (grep { $_->[2] =~ /nobody-knows-this/ } $chat->noted('told')) == 2 }), 'it tells what settled since a time');
	$late->signal('TERM'), $late->finish;
}

# ----------------------------------------------------------------- copies, people, managers

paste('a copy', $copy);
is(value('SELECT count(*) FROM request_item_extract'), value('SELECT count(*) FROM accessreq.request_item'), 'has every item');
paste('people', $people);
is(value('SELECT count(*) FROM identity'), value("SELECT count(*) FROM accessreq.get('v2024/identities', server => 'acme')"), 'everybody');
is(value('SELECT count(*) FROM role'), value("SELECT count(*) FROM accessreq.get('v2024/roles', server => 'acme')"), 'all roles');
value('CALL refresh_people()');
is(value('SELECT count(*) FROM identity WHERE manager_id IS NOT NULL AND name IS NOT NULL AND email IS NOT NULL') > 0, 1, 'a second time, with managers');
value("INSERT INTO identity (id, seen_at) VALUES ('gone', now() - interval '8 days')");
paste('those that are gone', $forget);
is(value("SELECT count(*) FROM identity WHERE id = 'gone'"), '0', 'are deleted');

my $manager = value('SELECT manager_id FROM identity JOIN accessreq.request_status ON requested_for_id = id WHERE manager_id IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC LIMIT 1');
(my $block = $team) =~ s/2c91…/$manager/;
paste('a manager', $block);
my $his = value("SELECT count(*) FROM accessreq.request_status WHERE requested_for_id IN (SELECT id FROM identity WHERE manager_id = '$manager')");
cmp_ok($his, '>', 0, 'he has people');

sub as_jane
{
	my ($db, $sql) = @_;
	my $session = new_session($node, db => $db, user => 'jane');
	my $r = $session->run($sql);

	$session->quit;
	return $r;
}
is(as_jane('postgres', 'SELECT count(*) FROM team.request_item')->{out}, $his, 'sees their items');
is(as_jane('postgres', 'SELECT count(*) FROM team.open_item')->{out}, value("SELECT count(*) FROM accessreq.open_item WHERE requested_for_id IN (SELECT id FROM identity WHERE manager_id = '$manager')"), 'and what is open of them');
is(as_jane('postgres', 'SELECT count(*) FROM accessreq.request_item')->{sqlstate}, '42501', 'and not the table');
# a function that tells what it sees, in the WHERE of somebody curious
value(<<'SQL');
CREATE SCHEMA lookout; GRANT USAGE ON SCHEMA lookout TO jane;
CREATE FUNCTION lookout.peep(text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE NOTICE '%', $1; RETURN true; END $$;
SQL
my $seen = () = as_jane('postgres', 'SELECT count(*) FROM team.request_item WHERE lookout.peep(account_activity_item_id)')->{err} =~ /NOTICE/g;
is($seen, $his, 'nor what a function in her WHERE could see');
# dump and restore: the views go along
$node->command_ok([ 'pg_dump', '-f', "$PostgreSQL::Test::Utils::tmp_check/cookbook.sql", '-d', $node->connstr('postgres'), $have_cron ? ('--extension', 'accessreq', '--extension', 'plpgsql') : () ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
my ($status, undef, $said) = $node->psql('restored', undef, on_error_stop => 0, extra_params => [ '-q', '-f', "$PostgreSQL::Test::Utils::tmp_check/cookbook.sql" ]);
is(join("\n", grep { /ERROR/ && !/extension "pg_cron"|schema "cron"|relation "cron\./ } split /\n/, $said), '', 'restores');
is(as_jane('restored', 'SELECT count(*) FROM team.request_item')->{out}, $his, 'and she sees the same there');
is(as_jane('restored', 'SELECT count(*) FROM accessreq.request_status')->{sqlstate}, '42501', 'and no more');

# ---------------------------------------------------------------------------- doc/bi.md

my @bi = document_blocks('doc/bi.md', 'sql');
is(scalar(@bi), 1, 'doc/bi.md: a block');
paste('bi.md', $bi[0]);
for my $view ('request_item', 'approval_detail', 'phase_detail', 'open_item')
{
	my $plan = value("EXPLAIN SELECT * FROM accessreq.$view WHERE row_key = 'acme/x'");

	unlike($plan, qr/Seq Scan/, "bi.md: $view is found by row_key") or diag($plan);
}
done_testing();
