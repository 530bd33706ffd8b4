# The life of workers: who starts them, where, when they leave and come back,
# and that they are in nobody's way.  What they pull has tests of its own.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# Whatever happens soon here happens because somebody is told, not by a look.
my $node = accessreq_node('worker',
	extension => 0,
	conf => "accessreq.launcher_naptime = '1h'\nmax_worker_processes = 8\nrestart_after_crash = on\n");
my $sandbox = new_sandbox(rows => 600);
my $admin = new_session($node);
my $r;

sub backends
{
	my ($type, $db) = @_;

	return $admin->value("SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE backend_type = 'accessreq $type'"
		  . ($db ? " AND datname = '$db'" : ''));
}

# Wait for the worker of a database, other than $not; its pid.
sub worker_of
{
	my ($db, $not, $limit) = @_;

	poll_until("a worker in $db",
		sub { my $pid = backends('worker', $db); $pid =~ /^\d+$/ && $pid ne ($not // '') }, $limit);
	return backends('worker', $db);
}

sub no_worker
{
	my ($db) = @_;

	return poll_until("no worker in $db", sub { backends('worker', $db) eq '' });
}

sub rows
{
	my ($db) = @_;

	return $node->safe_psql($db || 'postgres', 'SELECT count(*) FROM accessreq.request_status');
}

# How long a statement took, in ms; it must not fail.
sub timed
{
	my ($session, $sql, $what) = @_;
	my $got = $session->run($sql);

	is($got->{sqlstate}, '', $what) or diag($got->{err});
	return $got->{ms};
}

# -------------------------------------------------------------- who is there

ok(poll_until('the launcher', sub { backends('launcher') =~ /^\d+$/ }), 'there is a launcher');
ok(no_worker('postgres'), 'and no worker where there is no extension');
$admin->value('CREATE EXTENSION accessreq');
my $pid = worker_of('postgres');
like($pid, qr/^\d+$/, 'CREATE EXTENSION brings a worker, long before the next look');
ok(poll_until('the worker to be known', sub { $admin->value('SELECT pid FROM accessreq.worker()') eq $pid }),
	'which worker() names');
is($admin->value('SELECT state FROM accessreq.worker()'), 'running', 'as running');
is($admin->value('SELECT accessreq.start_worker()'), $pid, 'start_worker() finds that it runs');

is($admin->value("SELECT query FROM pg_stat_activity WHERE pid = $pid"), 'working', 'its activity is a static text');

# Idle: nothing wakes it.
sub wakeups
{
	my $text = slurp_file("/proc/$pid/status");

	return $text =~ /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : -1;
}
my $activity = "SELECT state, state_change FROM pg_stat_activity WHERE pid = $pid";
# it may be beginning still
ok(poll_until('the worker to be idle', sub {
	my ($before, $wakeups) = ($admin->value($activity), wakeups());

	sleep 2;
	$before =~ /^idle/ && $admin->value($activity) eq $before && wakeups() == $wakeups;
}), 'an idle worker runs nothing, and is not woken, in 2 seconds');

# ------------------------------------------------------- start_sync, stop_sync

add_server($node, 'acme', $sandbox->url);
$admin->value("SELECT accessreq.start_sync('acme', every => '1 hour')");
ok(poll_until('the rows', sub { rows() == 600 }), 'start_sync() takes effect at once');
ok(poll_until('the end', sub { $admin->value("SELECT count(*) FROM accessreq.sync_run WHERE finished IS NOT NULL AND error IS NULL") >= 1 }),
	'and the pull ends well');
is($admin->value("SELECT health, worker_pid, worker FROM accessreq.sync_status"), "ok|$pid|running", 'sync_status says so');

# a scan is followed by a cycle
ok(poll_until('the cycle', sub { $admin->value("SELECT count(*) FROM accessreq.sync_run WHERE kind = 'cycle' AND finished IS NOT NULL") >= 1 }), 'and a cycle after it');
$sandbox->admin('POST', 'add', { n => 3 });
$admin->value("BEGIN; SELECT accessreq.start_sync('acme', every => '1 second'); ROLLBACK");
sleep 0.5;
is(rows(), 600, 'not when it is rolled back');
$admin->value("SELECT accessreq.start_sync('acme', every => '1 second')");
ok(poll_until('new rows', sub { rows() == 603 }), 'a shorter pause is taken up at once');
$sandbox->admin('POST', 'add', { n => 2 });
ok(poll_until('more rows', sub { rows() == 605 }), 'and goes on by itself');
$admin->value("SELECT accessreq.stop_sync('acme')");
$sandbox->forget;
$sandbox->admin('POST', 'add', { n => 1 });
sleep 1.5;
is(scalar($sandbox->requests(qr/access-request-status/)), 0, 'stop_sync(): nothing is asked any more');
is($admin->value('SELECT health, reason FROM accessreq.sync_status'), 'stopped|stopped by accessreq.stop_sync()', 'sync_status says so');

# In a prepared transaction it is seen at the next look.
$node->append_conf('postgresql.conf', "accessreq.launcher_naptime = '1s'\n");
$node->reload;
$admin->value("BEGIN; SELECT accessreq.start_sync('acme'); PREPARE TRANSACTION 'later'");
$admin->value("COMMIT PREPARED 'later'");
ok(poll_until('the prepared transaction', sub { rows() == 606 }), 'start_sync() in a prepared transaction');
$admin->value("SELECT accessreq.stop_sync('acme')");

# ------------------------------------------------------------------- stop, kill

$admin->value('SELECT accessreq.stop_worker()');
is(backends('worker', 'postgres'), '', 'stop_worker() ends it');
sleep 1.5;
is(backends('worker', 'postgres'), '', 'for good');
like($admin->value('SELECT state FROM accessreq.worker()'), qr/^not running: stopped by/, 'worker() says why');
like($admin->value('SELECT accessreq.start_worker()'), qr/^\d+$/, 'start_worker() starts one');
$pid = worker_of('postgres');
$admin->value("SELECT pg_terminate_backend($pid, 5000)");
my $next = worker_of('postgres', $pid);
like($next, qr/^\d+$/, 'one that is terminated is replaced');
isnt($next, $pid, 'by another');
$pid = $next;
$admin->value('ALTER ROLE postgres SET work_mem = 64; ALTER DATABASE postgres SET default_transaction_read_only = on');
$admin->value("SELECT pg_terminate_backend($pid, 5000)");
$pid = worker_of('postgres', $pid);
$sandbox->admin('POST', 'add', { n => 1 });
$admin->value("SELECT accessreq.start_sync('acme', every => '1 second')");
ok(poll_until('rows', sub { rows() == 607 }), "settings of sessions are not the worker's");
is($admin->run('SELECT accessreq.stop_sync()')->{sqlstate}, '', 'the only server need not be named');
is($admin->run('SELECT accessreq.start_sync()')->{sqlstate}, '', 'nor here');
$admin->value('ALTER ROLE postgres RESET ALL; ALTER DATABASE postgres RESET default_transaction_read_only');

# --------------------------------------------------- while a request hangs

sub hang
{
	$sandbox->forget;
	my $id = $sandbox->fault('hang', path => 'access-request-status', count => -1);
	$sandbox->await(qr/access-request-status/, 1);
	return $id;
}
$node->safe_psql('postgres', 'CREATE DATABASE other');
hang();
ok(poll_until('no transaction', sub { $admin->value("SELECT count(*) FROM pg_stat_activity WHERE pid = (SELECT pid FROM accessreq.worker()) AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)") == 0 }),
	'while it waits for the tenant a worker has neither transaction nor snapshot');
my $name = $admin->value("SELECT current_setting('server_version_num')::int >= 170000") eq 't' ? 'AccessreqHttp' : 'Extension';
ok(poll_until('its name', sub { $admin->value("SELECT wait_event FROM pg_stat_activity WHERE pid = (SELECT pid FROM accessreq.worker())") eq $name }), 'what it waits for has a name (17 and later)');
# (in between it looks at its jobs)
my $locks = "SELECT string_agg(locktype || ' ' || classid::regclass || ' ' || objsubid || ' ' || mode, ', ' ORDER BY classid::regclass::text) FROM pg_locks WHERE pid = (SELECT pid FROM accessreq.worker())";
ok(poll_until('no other lock', sub { $admin->value($locks) eq 'object pg_extension 1 ExclusiveLock, object pg_foreign_server 1 ExclusiveLock' }),
	'nor a lock but its own and that of the pull') or diag($admin->value($locks));
# all of it while the same requests hang, of a cycle or of a scan's lanes
my $hanging = 0;
poll_until('all of them to hang', sub { my $before = $hanging; sleep 0.5; $hanging = $sandbox->requests(qr/access-request-status/); $hanging == $before });

sub not_held_up
{
	my ($sql, $what) = @_;
	my $got = $admin->run($sql);

	is($got->{sqlstate}, '', $what) or diag($got->{err});
	is(scalar(my @all = $sandbox->requests(qr/access-request-status/)), $hanging, 'is not held up');
	return;
}
not_held_up('DROP DATABASE other', 'DROP DATABASE of another');
not_held_up('ALTER EXTENSION accessreq UPDATE', 'ALTER EXTENSION');
not_held_up('CREATE INDEX CONCURRENTLY i ON accessreq.request_status (item_name)', 'CREATE INDEX CONCURRENTLY');
$admin->value('DROP INDEX accessreq.i');
not_held_up('DROP EXTENSION accessreq CASCADE', 'DROP EXTENSION');
ok(no_worker('postgres'), 'and the worker leaves');
$sandbox->no_faults;
$admin->value('CREATE EXTENSION accessreq');
add_server($node, 'acme', $sandbox->url);
like(worker_of('postgres'), qr/^\d+$/, 'until there is an extension again');

$pid = worker_of('postgres');
$admin->value("BEGIN; DROP EXTENSION accessreq CASCADE; CREATE EXTENSION accessreq; COMMIT");
add_server($node, 'acme', $sandbox->url);
like(worker_of('postgres', $pid), qr/^\d+$/, 'as well when it is made anew in one transaction');

# ------------------------------------- commands that want a database for themselves

$node->safe_psql('postgres', 'CREATE DATABASE mine');
$node->safe_psql('mine', 'CREATE EXTENSION accessreq');
add_server($node, 'acme', $sandbox->url, db => 'mine');
$node->safe_psql('mine', "SELECT accessreq.start_sync('acme', every => '1 second')");
ok(poll_until('rows', sub { rows('mine') == 607 }), 'a second database');
my $mine = new_session($node, db => 'postgres');
my $space = PostgreSQL::Test::Utils::tempdir();

hang();
timed($mine, 'CREATE DATABASE copy TEMPLATE mine', 'a copy of it, while a request hangs');
like(worker_of('mine'), qr/^\d+$/, 'the worker is back');
hang();
timed($mine, 'ALTER DATABASE mine RENAME TO ours', 'its new name');
like(worker_of('ours'), qr/^\d+$/, 'the worker is back');
hang();
$mine->value("CREATE TABLESPACE space LOCATION '$space'");
timed($mine, 'ALTER DATABASE ours SET TABLESPACE space', 'its move to a tablespace');
$pid = worker_of('ours');
like($pid, qr/^\d+$/, 'the worker is back');
$sandbox->no_faults;
$sandbox->admin('POST', 'add', { n => 1 });
ok(poll_until('rows', sub { rows('ours') == 608 }), 'and pulls on');

# A copy does not pull for its original.
like(worker_of('copy'), qr/^\d+$/, 'the copy has a worker');
is($node->safe_psql('copy', 'SELECT health FROM accessreq.sync_status'), 'held', 'which does not pull: it waits for adopt()');
is(rows('copy'), 607, 'so nothing comes');
$node->safe_psql('copy', "SELECT accessreq.adopt('acme')");
ok(poll_until('rows', sub { rows('copy') == 608 }), 'adopt() has it pulled at once');

# Who may not, does not send the worker away.
$admin->value('CREATE ROLE weak LOGIN');
$pid = worker_of('ours');
my $weak = new_session($node, user => 'weak');
is($weak->run('DROP DATABASE ours')->{sqlstate}, '42501', 'DROP DATABASE by somebody else');
is($weak->run('ALTER DATABASE ours RENAME TO x')->{sqlstate}, '42501', 'and RENAME');
is(backends('worker', 'ours'), $pid, 'do not disturb the worker');
$weak->quit;
hang();
timed($mine, 'DROP DATABASE ours', 'DROP DATABASE, while a request hangs');
timed($mine, 'DROP DATABASE copy', 'and of the copy');
$sandbox->no_faults;

# One that fails lets the worker back in.
$node->safe_psql('postgres', 'CREATE DATABASE busy');
$node->safe_psql('busy', 'CREATE EXTENSION accessreq');
$pid = worker_of('busy');
my $guest = new_session($node, db => 'busy');
is($mine->run('ALTER DATABASE busy RENAME TO idle')->{sqlstate}, '55006', 'a command that fails because of somebody else');
like(worker_of('busy', $pid), qr/^\d+$/, 'the worker is back');
$guest->quit;
poll_until('the guest to be gone', sub { $admin->value("SELECT count(*) FROM pg_stat_activity WHERE datname = 'busy' AND backend_type = 'client backend'") == 0 });
timed($mine, 'DROP DATABASE busy', 'DROP DATABASE');

# Templates and databases that let nobody in have none; a copy of a template does.
$node->safe_psql('postgres', 'CREATE DATABASE model');
$node->safe_psql('model', 'CREATE EXTENSION accessreq');
worker_of('model');
$node->safe_psql('postgres', 'ALTER DATABASE model IS_TEMPLATE true');
ok(no_worker('model'), 'a template has none');
$node->safe_psql('postgres', 'CREATE DATABASE made TEMPLATE model');
like(worker_of('made'), qr/^\d+$/, 'a database made from it is found within launcher_naptime');
$node->safe_psql('postgres', 'ALTER DATABASE made ALLOW_CONNECTIONS false');
ok(no_worker('made'), 'one that lets nobody in has none');
$node->safe_psql('postgres', 'DROP DATABASE made');

# ---------------------------------------------------------- accessreq.enabled

$admin->value("SELECT accessreq.start_sync('acme', every => '1 second')");
ok(poll_until('rows', sub { rows() == 608 }), 'it pulls');
$admin->value('ALTER DATABASE postgres SET accessreq.enabled = off');
ok(no_worker('postgres'), 'enabled = off for the database: the worker leaves at its next unit');
$sandbox->forget;
my $off = new_session($node);
like($off->value('SELECT state FROM accessreq.worker()'), qr/^not running: accessreq.enabled is off/, 'worker() says why');
is($off->run("CALL accessreq.sync('acme')")->{sqlstate}, '55000', 'and no call leaves');
sleep 1.5;
is(scalar($sandbox->requests), 0, 'nor did any');
$off->quit;
$admin->value('ALTER DATABASE postgres RESET accessreq.enabled');
like(worker_of('postgres'), qr/^\d+$/, 'back on: the worker is back');
$node->append_conf('postgresql.conf', "accessreq.enabled = off\n");
$node->reload;
ok(no_worker('postgres'), 'enabled = off in the configuration: the worker leaves at the reload');
$node->append_conf('postgresql.conf', "accessreq.enabled = on\n");
$node->reload;
like(worker_of('postgres'), qr/^\d+$/, 'back on: the worker is back');

# After a restart all databases have theirs, without waiting for looks.
$node->append_conf('postgresql.conf', "accessreq.launcher_naptime = '1h'\n");
$node->safe_psql('postgres', 'CREATE DATABASE another');
$node->safe_psql('another', 'CREATE EXTENSION accessreq');
$node->restart;
$admin = new_session($node);
like(worker_of($_), qr/^\d+$/, "after a restart: $_ has a worker") for qw(postgres another);
$admin->value('DROP DATABASE another');

# ------------------------------------------------------------------ crash, stop

# A pull is broken off in its middle; afterwards it goes on by itself.
sub broken_off
{
	my ($what, $break) = @_;

	$admin->value("SELECT accessreq.stop_sync('acme')");
	poll_until('the pull to end', sub { $admin->value("SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_foreign_server'::regclass") == 0 });
	$admin->value("SELECT count(*) FROM accessreq.forget('acme')");
	$sandbox->forget;
	$sandbox->fault('hang', path => 'access-request-status', skip => 3);
	$admin->value("SELECT accessreq.start_sync('acme', every => '1 second')");
	$sandbox->await(qr/access-request-status/, 4);
	$break->();
	$sandbox->no_faults;
	$admin = new_session($node);
	ok(poll_until('rows', sub { rows() == 608 }), "$what: the pull goes on by itself");
	ok(poll_until('the end', sub { $admin->value("SELECT health FROM accessreq.sync_status") eq 'ok' }), 'and ends well');
	is($admin->value("SELECT count(*) FROM accessreq.sync_run WHERE error = 'interrupted'"), '1', 'one run was interrupted');
	is($admin->value("SELECT count(*) FROM accessreq.sync_run WHERE error IS NOT NULL AND error <> 'interrupted'"), '0', 'and none failed');
	is($admin->value('SELECT failures, last_error IS NULL FROM accessreq.sync_job'), '0|t', 'the job is well');
	return;
}
broken_off('terminated', sub { $admin->value('SELECT pg_terminate_backend(pid, 5000) FROM accessreq.worker()') });
broken_off('killed', sub {
	my $victim = $admin->value('SELECT pid FROM accessreq.worker()');
	my $log = -s $node->logfile;

	kill 'KILL', $victim;
	poll_until('the crash', sub { slurp_from($node->logfile, $log) =~ /ready to accept connections/ });
});
broken_off('immediate stop', sub { $node->stop('immediate'); $node->start });
broken_off('fast stop', sub { $node->stop('fast'); $node->start });

# No slot: said, and started when there is one.
$node->append_conf('postgresql.conf', "max_worker_processes = 2\nmax_parallel_workers = 0\nmax_logical_replication_workers = 0\n");
$node->restart;
$admin = new_session($node);
worker_of('postgres');
$node->safe_psql('postgres', 'CREATE DATABASE full_up');
$node->safe_psql('full_up', 'CREATE EXTENSION accessreq');
ok(poll_until('the reason', sub { $node->safe_psql('full_up', 'SELECT state FROM accessreq.worker()') =~ /max_worker_processes/ }),
	'no slot is left: worker() says so');
$admin->value('SELECT accessreq.stop_worker()');
like(worker_of('full_up'), qr/^\d+$/, 'and one is started when there is a slot');
$node->stop;

# ----------------------------------------------------------------- no preload

my $plain = accessreq_node('plain', preload => 0);
$admin = new_session($plain);
add_server($plain, 'acme', $sandbox->url);
$r = $admin->run("SELECT accessreq.start_sync('acme', every => '1 second')");
like($r->{err}, qr/WARNING:  01000: no worker runs in this database/, 'without preload start_sync() warns');
like($r->{err}, qr/start_worker\(\)/, 'and says what to do');
$r = $admin->run('SELECT accessreq.start_worker()');
like($r->{err}, qr/NOTICE:.*nobody starts it again/, 'start_worker() says what is lost');
$pid = $r->{out};
sub plain_rows { return $plain->safe_psql('postgres', 'SELECT count(*) FROM accessreq.request_status') }
ok(poll_until('rows', sub { plain_rows() == 608 }), 'the worker pulls');
is($admin->value('SELECT accessreq.start_worker()'), $pid, 'there is only one');
$sandbox->admin('POST', 'add', { n => 1 });
ok(poll_until('rows', sub { plain_rows() == 609 }), 'and on');
$admin->value("SELECT accessreq.stop_sync('acme')");
$sandbox->admin('POST', 'add', { n => 1 });
$admin->value("SELECT accessreq.start_sync('acme', every => '1 hour')");
ok(poll_until('rows', sub { plain_rows() == 610 }), 'start_sync() takes effect at once here too');
$admin->value('SELECT accessreq.stop_worker()');
is(backends('worker', 'postgres'), '', 'stop_worker() ends it');
$plain->safe_psql('postgres', 'CREATE DATABASE gone');
$plain->safe_psql('gone', 'CREATE EXTENSION accessreq; SELECT accessreq.start_worker()');
is($admin->run('DROP DATABASE gone WITH (FORCE)')->{sqlstate}, '', 'DROP DATABASE WITH (FORCE) ends it too');
$plain->stop;

done_testing();
