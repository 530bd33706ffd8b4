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
is(scalar(@blocks), 7, 'blocks of SQL');
my ($look, $cron, $follow, $copy, $people, $forget, $team) = @blocks;

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
SKIP:
{
	skip 'pg_cron is not there', 4 unless $have_cron;
	# its schedule is for the night: this one does not wait for it
	(my $now = $cron) =~ s/'[34]0 2 \* \* \*'/'* * * * *'/g;
	value('CREATE EXTENSION pg_cron');
	paste('pg_cron', $cron);
	is(value("SELECT string_agg(schedule, ' / ' ORDER BY jobid) FROM cron.job"), '30 2 * * * / 40 2 * * *', 'for every night');
	value($now);
	ok(poll_until('pg_cron to run both', sub { value("SELECT count(DISTINCT jobid) FROM cron.job_run_details WHERE status = 'succeeded'") == 2 }, 150), 'pg_cron runs them')
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
my @roles = split /\n/, value("SELECT v ->> 'id' FROM accessreq.get('v2024/roles', max_rows => 40, server => 'acme') v WHERE v ->> 'requestable' = 'true'");
my @who = split /\n/, value("SELECT v ->> 'id' FROM accessreq.get('v2024/identities', max_rows => 12, server => 'acme') v");
my ($role) = @roles;
sub asked { my ($type, $who) = @_; return scalar(grep { ($_->{body} // '') =~ /$type/ && $_->{body} =~ /$who/ } $sandbox->requests(qr{^POST \S*/access-requests$})) }
value("BEGIN; INSERT INTO assignment VALUES ('$who[5]', '$role'); ROLLBACK");
value("INSERT INTO assignment VALUES ('$who[6]', '$role')");
ok(drained(), 'a row is inserted');
is(asked('GRANT_ACCESS', $who[6]), 1, 'and access asked for');
is(asked('GRANT_ACCESS', $who[5]), 0, 'not for one that was rolled back');
is(value('SELECT state FROM accessreq.action ORDER BY id DESC LIMIT 1'), 'done', 'the tenant took it') or diag(value('SELECT error FROM accessreq.action ORDER BY id DESC LIMIT 1'));
value("DELETE FROM assignment; INSERT INTO assignment VALUES ('$who[6]', '$role')");
ok(drained(), 'changed his mind');
is(asked('GRANT_ACCESS', $who[6]), 1, 'one that was just asked for is not asked for again');
# not sent yet
value("SELECT accessreq.hold_actions('acme'); INSERT INTO assignment VALUES ('$who[7]', '$role'); DELETE FROM assignment WHERE identity_id = '$who[7]'");
is(value('SELECT state FROM accessreq.action ORDER BY id DESC LIMIT 1'), 'cancelled', 'what is not sent yet is taken back');
value("SELECT accessreq.release_actions('acme')");
# not decided yet
my ($person, $item, $request) = split /\|/, value("SELECT requested_for_id, item_id, access_request_id FROM accessreq.request_status r WHERE item_type = 'ROLE' AND state = 'EXECUTING' AND cancelable AND request_type = 'GRANT_ACCESS' AND access_request_id IS NOT NULL ORDER BY created DESC LIMIT 1");
value("ALTER TABLE assignment DISABLE TRIGGER follow; INSERT INTO assignment VALUES ('$person', '$item'); ALTER TABLE assignment ENABLE TRIGGER follow; DELETE FROM assignment WHERE identity_id = '$person'");
is(value('SELECT kind || access_request_ids[1] FROM accessreq.action ORDER BY id DESC LIMIT 1'), "cancel$request", 'what is not decided yet is cancelled');
# granted
value("ALTER TABLE assignment DISABLE TRIGGER follow; INSERT INTO assignment VALUES ('$who[8]', '$role'); ALTER TABLE assignment ENABLE TRIGGER follow; DELETE FROM assignment WHERE identity_id = '$who[8]'");
ok(drained(), 'a row is deleted');
is(asked('REVOKE_ACCESS', $who[8]), 1, 'and its access revoked');

# ------------------------------------------------------------------------- chat and mail

my $script = dirname(abs_path($0)) . '/../../doc/examples/notify.py';
SKIP:
{
	skip 'psycopg2 is not there', 7 if system('python3 -c "import psycopg2" 2>/dev/null') != 0;
	my $chat = new_listener(sub {
		my ($socket, undef, $note) = @_;
		my $request = read_request($socket);
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
	$_->signal('TERM'), $_->finish for @told;
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
unlike($said, qr/ERROR(?!.*cron)/, 'restores');
is(as_jane('restored', 'SELECT count(*) FROM team.request_item')->{out}, $his, 'and she sees the same there');
is(as_jane('restored', 'SELECT count(*) FROM accessreq.request_status')->{sqlstate}, '42501', 'and no more');

# ---------------------------------------------------------------------------- doc/bi.md

my @bi = document_blocks('doc/bi.md', 'sql');
is(scalar(@bi), 1, 'doc/bi.md: a block');
paste('bi.md', $bi[0]);
done_testing();
