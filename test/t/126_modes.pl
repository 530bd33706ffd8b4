# Modes of the server and of its copies: what is done there, what is refused, and
# that nothing leaves to the tenant, and nothing is written, where it must not be.

use strict;
use warnings;
use AccessReq;
use File::Basename;
use File::Path;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $dir = $PostgreSQL::Test::Utils::tmp_check;
my $sandbox = new_sandbox(rows => 300, open => 60);
my $conf = "wal_level = logical\nmax_worker_processes = 16\naccessreq.launcher_naptime = 1\nfsync = off\n";
my $node = accessreq_node('modes', streaming => 1, conf => $conf);
my $admin = new_session($node);

sub value { return $admin->value(@_) }
sub changes { return scalar grep { $_->{method} ne 'GET' && $_->{path} !~ /oauth/ } $sandbox->requests }
sub cycles_of { my ($s) = @_; return $s->value("SELECT count(*) FROM accessreq.sync_run WHERE kind = 'cycle' AND finished IS NOT NULL AND error IS NULL") }

# Two more cycles that end well.
sub goes_on
{
	my ($s, $what) = @_;
	my $before = cycles_of($s);

	return ok(poll_until("cycles: $what", sub { cycles_of($s) >= $before + 2 }), $what)
	  || diag($s->value('SELECT health, reason, worker FROM accessreq.sync_status'));
}

my %seen;
my @open = grep { !$seen{$_}++ } map { $_->{accessRequestId} } grep { $_->{state} eq 'EXECUTING' && $_->{cancelable} && defined $_->{accessRequestId} } @{ $sandbox->dump };
sub cancel { my ($more) = @_; return "SELECT accessreq.enqueue_cancel('" . shift(@open) . "', 'c', server => 'acme'" . ($more // '') . ')' }

# Everything that writes a table or changes the tenant, or would.
my $create = "SELECT accessreq.create('{\"requestedFor\": [\"p\"], \"requestedItems\": [{\"type\": \"ROLE\", \"id\": \"r\", \"comment\": \"c\"}]}', server => 'acme')";
my @acts = ($create, "SELECT accessreq.cancel('x', 'c', server => 'acme')", "SELECT accessreq.cancel_many(ARRAY['x'], 'c', server => 'acme')",
	"SELECT accessreq.close(ARRAY['x'], 'c', server => 'acme')", "SELECT accessreq.set_config('{}', server => 'acme')", "SELECT accessreq.merge_config('{\"autoApprovalEnabled\": true}', server => 'acme')",
	"CALL accessreq.sync('acme')", "SELECT accessreq.refresh(ARRAY['$open[0]'], server => 'acme')",
	"SELECT accessreq.enqueue_close(ARRAY['x'], 'c', server => 'acme')", "SELECT accessreq.enqueue_cancel('x', 'c', server => 'acme')",
	"SELECT accessreq.start_sync('acme')", "SELECT accessreq.stop_sync('acme')", "SELECT accessreq.hold_actions('acme')", "SELECT accessreq.cancel_action(1)",
	"SELECT accessreq.retry_action(1)", "SELECT accessreq.adopt('acme')", "SELECT accessreq.forget('acme')", "SELECT accessreq.rename_server('acme', 'b')");

# All that we keep, in one word.
my $tables = 'SELECT md5(' . join(' || ', map { "coalesce((SELECT string_agg(t::text, ',' ORDER BY t::text) FROM accessreq.$_ t), '')" } qw(request_status sync_job sync_run action state_change)) . ')';

sub all_refused
{
	my ($s, $sqlstate, $what, @statements) = @_;
	my $before = $s->value($tables);

	$sandbox->forget;
	is($s->run($_)->{sqlstate}, $sqlstate, "$what: $_") for @statements;
	is(changes(), 0, "$what: nothing that changes the tenant leaves");
	is($s->value($tables), $before, "$what: nothing is written");
	return;
}

add_server($node, 'acme', $sandbox->url, options => { max_concurrency => 1 });
value("CALL accessreq.sync('acme')");

# ------------------------------------------------------------- single-user mode

# Statements one by one; what it said, and whether it ended by itself.
sub single
{
	my ($signal, @statements) = @_;
	my $file = "$dir/single.sql";
	my ($out, $err) = ('', '');

	unlink $file;
	append_to_file($file, join('', map { "$_\n" } @statements));
	my $h = IPC::Run::start([ 'postgres', '--single', '-D', $node->data_dir, '-c', 'log_error_verbosity=verbose', 'postgres' ], '<', $file, '>', \$out, '2>', \$err, IPC::Run::timeout(PATIENCE));
	if ($signal)
	{
		$sandbox->await(qr/access-request-status/);
		$h->signal($signal);
	}
	my $ended = eval { $h->finish; 1 };
	$h->kill_kill unless $ended;
	return ($ended, $out, $err);
}

$admin->quit;
$node->stop;
$sandbox->forget;
my $first = $open[0];
my ($ended, $out, $err) = single(undef, "SELECT accessreq.count_status(server => 'acme')", 'SELECT state FROM accessreq.worker()', 'SELECT accessreq.start_worker()',
	"CALL accessreq.sync('acme')", "SELECT accessreq.start_sync('acme', every => '1 second')", cancel(), 'CALL accessreq.wait_for_action(1)', 'SELECT accessreq.cancel_action(1)', 'CALL accessreq.wait_for_action(1)',
	"SELECT accessreq.cancel('$first', 'c', server => 'acme')", "SELECT new_state AS became FROM accessreq.refresh(ARRAY['$first'], server => 'acme')", $create,
	"SELECT detail FROM accessreq.check('acme') WHERE step = 'token'", 'SELECT count(*) AS here FROM accessreq.request_status');
ok($ended, 'single-user mode: all of it ends');
like($out, qr/count_status = "300"/, 'a read of the tenant works');
like($out, qr/state = "not running: the server runs in single-user mode"/, 'worker() says why there is none');
like($err, qr/ERROR:  55000: no worker is started: the server runs in single-user mode/, 'start_worker() is refused');
like($out, qr/start_sync = ""/, 'start_sync() is for when the server is up');
like($out, qr/enqueue_cancel = "1"/, 'so is what is enqueued');
is(scalar(() = $err =~ /WARNING:  01000: no worker runs/g), 4, 'which it says');
unlike($err, qr/start_worker\(\) starts one/, 'and does not name what cannot be');
like($err, qr/ERROR:  55000: action 1 is queued, and no worker settles it: the server runs in single-user mode/, 'nobody waits in vain');
like($out, qr/state = "cancelled"/, 'for what is settled there is no wait');
like($out, qr/became = "CANCELLED"/, 'a cancel leaves, and refresh() stores');
like($out, qr/create = "\(p,ROLE,r,\{\w+\}/, 'a create too');
unlike($err, qr/PANIC|FATAL|TRAP/, 'and nothing is broken');
is(scalar($sandbox->requests(qr/POST .*cancel/)), 1, 'the action was not sent');

$sandbox->fault('hang', path => 'access-request-status', count => -1);
($ended, $out, $err) = single(undef, "SET statement_timeout = '1s'", "SELECT accessreq.count_status(server => 'acme')", "CALL accessreq.sync('acme')", 'SELECT 77 AS afterwards');
ok($ended, 'with a tenant that hangs');
is(scalar(() = $err =~ /ERROR:  57014: canceling statement due to statement timeout/g), 2, 'statement_timeout ends a call');
like($out, qr/afterwards = "77"/, 'and the session goes on');
for my $signal (qw(INT TERM))
{
	$sandbox->forget;
	($ended, $out, $err) = single($signal, "SELECT accessreq.count_status(server => 'acme')", 'SELECT 77 AS afterwards');
	ok($ended, "SIG$signal ends a call");
	like($err, $signal eq 'INT' ? qr/ERROR:  57014/ : qr/FATAL:  57P01/, 'as elsewhere');
}
$sandbox->no_faults;

# --------------------------------------- a copy of the files, beside the original

$node->start;
$admin = new_session($node);
goes_on($admin, 'what was begun in single-user mode goes on');
value('SELECT accessreq.stop_worker()');
my $action = value(cancel());
value('UPDATE accessreq.sync_job SET next_attempt_at = now()');
$admin->quit;
$node->stop;
$node->backup_fs_cold('cold');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($node, 'cold');
$copy->append_conf('postgresql.conf', "accessreq.enabled = off\n");
$sandbox->forget;
$copy->start;
my $there = new_session($copy);
is($there->value('SELECT state FROM accessreq.worker()'), 'not running: accessreq.enabled is off', 'a copy of the files with accessreq.enabled = off: no worker');
sleep 1.5;
is($there->run("SELECT accessreq.count_status(server => 'acme')")->{sqlstate}, '55000', 'no call');
is(scalar($sandbox->requests), 0, 'from its first start on nothing leaves');

# pulls do no harm but for the budget
$there->quit;
$copy->append_conf('postgresql.conf', "accessreq.enabled = on\naccessreq.deliver_actions = off\n");
$copy->restart;
$there = new_session($copy);
goes_on($there, 'with deliver_actions = off it pulls');
is($there->value("SELECT state FROM accessreq.action WHERE id = $action"), 'queued', 'and has not sent what is queued');
is(changes(), 0, 'nothing that changes the tenant has left');

# what is made of the copy to keep it
$there->quit;
$copy->append_conf('postgresql.conf', "accessreq.enabled = off\naccessreq.deliver_actions = on\n");
$copy->restart;
$copy->safe_psql('template1', 'CREATE DATABASE another TEMPLATE postgres');
$copy->safe_psql('template1', 'DROP DATABASE postgres');
$copy->append_conf('postgresql.conf', "accessreq.enabled = on\n");
$sandbox->forget;
$copy->restart;
$there = new_session($copy, db => 'another');
ok(poll_until('its worker', sub { $there->value('SELECT pid IS NOT NULL FROM accessreq.worker()') eq 't' }), 'another database, made of the one in the copy: a worker comes');
is($there->value('SELECT health FROM accessreq.sync_status'), 'held', 'and holds the job');
sleep 1;
is($there->value("SELECT state FROM accessreq.action WHERE id = $action"), 'queued', 'and the queue');
is(scalar($sandbox->requests), 0, 'it asks for nothing');
$there->quit;
$copy->stop;
$node->start;
$admin = new_session($node);
ok(poll_until('the action', sub { value("SELECT state FROM accessreq.action WHERE id = $action") eq 'done' }), 'the original sends it');
is(scalar($sandbox->requests(qr/POST .*cancel/)), 1, 'once');

# ------------------------------------------------- default_transaction_read_only

value('SELECT accessreq.stop_worker()');
my $queued = value(cancel());
value("ALTER SYSTEM SET default_transaction_read_only = on; ALTER ROLE postgres SET default_transaction_read_only = on; ALTER DATABASE postgres SET default_transaction_read_only = on");
$admin->quit;
$node->restart;
my $reader = new_session($node);
$admin = new_session($node, setup => 'SET default_transaction_read_only = off');
goes_on($reader, 'default_transaction_read_only: the worker pulls all the same');
ok(poll_until('the action', sub { value("SELECT state FROM accessreq.action WHERE id = $queued") eq 'done' }), 'and sends');
$reader->value('SELECT accessreq.stop_worker()');
all_refused($reader, '25006', 'read only', @acts);
is(scalar($sandbox->requests), 0, 'read only: nothing has left at all') or diag(map { "$_->{method} $_->{path}\n" } $sandbox->requests);
is($reader->value("SELECT accessreq.count_status(server => 'acme')"), '301', 'read only: the tenant can be asked');
is($reader->value("SELECT count(*) FROM accessreq.status(server => 'acme')"), '301', 'and read');
is($reader->value("SELECT count(*) FROM accessreq.check('acme') WHERE NOT ok AND step <> 'worker'"), '0', 'and checked');
is($reader->run("SET default_transaction_read_only = off; CALL accessreq.sync('acme')")->{sqlstate}, '', 'a session that says otherwise pulls');
value('ALTER SYSTEM RESET default_transaction_read_only; ALTER ROLE postgres RESET default_transaction_read_only; ALTER DATABASE postgres RESET default_transaction_read_only');
$_->quit for $reader, $admin;

# --------------------------------------------- timeouts, set for the whole cluster

my @timeouts = ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'idle_session_timeout');
# 17 has one that ends a process while it connects: a session of ours too
my $in_transaction = $node->safe_psql('postgres', "SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'") ? 'transaction_timeout' : undef;
$node->append_conf('postgresql.conf', join('', map { "$_ = 50ms\n" } @timeouts));
$ENV{PGOPTIONS} = join ' ', map { "-c $_=0" } @timeouts, $in_transaction // ();
my $log = -s $node->logfile;
$node->restart;
$admin = new_session($node);
my $locker = new_session($node);
value('ALTER DATABASE postgres SET statement_timeout = 1; ALTER ROLE postgres SET lock_timeout = 1');
if ($in_transaction)
{
	value('SELECT accessreq.stop_worker()');
	$node->append_conf('postgresql.conf', "$in_transaction = 1ms\n");
	$node->reload;
	sleep 0.5;
	value('SELECT accessreq.start_worker()');
}
$sandbox->admin('POST', 'latency', { ms => 100 });
goes_on($admin, 'with timeouts of 50 ms for all, and a tenant that is slower, the worker pulls');
my $processes = "SELECT string_agg(pid::text, ' ' ORDER BY pid) FROM pg_stat_activity WHERE backend_type LIKE 'accessreq%'";
my $pids = value($processes);
$sandbox->admin('POST', 'add', { n => 1 });
$queued = value(cancel());
$locker->value('BEGIN; LOCK TABLE accessreq.request_status IN SHARE MODE; LOCK TABLE pg_catalog.pg_database IN ACCESS EXCLUSIVE MODE');
ok(poll_until("the $_ to wait for a lock", sub { $locker->value("SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT granted AND backend_type = 'accessreq $_'") > 0 }), "the $_ waits for a lock") for qw(worker launcher);
sleep 0.3;
$locker->value('COMMIT');
$locker->quit;
ok(poll_until('the action', sub { value("SELECT state FROM accessreq.action WHERE id = $queued") eq 'done' }), 'it sends');
goes_on($admin, 'and goes on');
is(value($processes), $pids, 'launcher and worker are the same processes');
unlike(slurp_from($node->logfile, $log) =~ s/.*ready to accept connections//sr, qr/accessreq.* (exited with exit code|was terminated)/, 'none has died');
$sandbox->admin('POST', 'latency', { ms => 0 });
value('ALTER DATABASE postgres RESET statement_timeout; ALTER ROLE postgres RESET lock_timeout');
$admin->quit;
$node->append_conf('postgresql.conf', join('', map { "$_ = 0\n" } @timeouts, $in_transaction // ()));
$node->restart;
delete $ENV{PGOPTIONS};

# ------------------------------------------- an extension that is not the library's

$admin = new_session($node);
goes_on($admin, 'the library and its script');
value("UPDATE pg_extension SET extversion = '1.1' WHERE extname = 'accessreq'");
ok(poll_until('the worker to leave', sub { value('SELECT state FROM accessreq.worker()') =~ /not running: the extension's version is not the library's: ALTER EXTENSION/ }), 'a script that is newer: the worker leaves, and says why');
all_refused($admin, '55000', 'another version', @acts);
like($admin->run(cancel())->{err}, qr/extension "accessreq" has version 1.1 in this database, its library version 1.0.*HINT:.*ALTER EXTENSION accessreq UPDATE/s, 'which says what to do');
is(value("SELECT count(*) FROM accessreq.status(server => 'acme')"), '302', 'another version: the tenant can be read');
is(value('SELECT health, worker_pid IS NULL FROM accessreq.sync_status'), 'ok|t', 'and the views');
like(value("SELECT string_agg(detail, ' ') FROM accessreq.check('acme') WHERE NOT ok"), qr/extension "accessreq" has version 1.1/, 'check() says so');
$sandbox->forget;
is($admin->run('SELECT accessreq.start_worker()')->{sqlstate}, '55000', 'no worker comes');
is(scalar($sandbox->requests), 0, 'nor asks the tenant');
value("UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'accessreq'");
is($admin->run(cancel())->{sqlstate}, '55000', 'a script that is older');
value("UPDATE pg_extension SET extversion = '1.0' WHERE extname = 'accessreq'");
is($admin->run("BEGIN; UPDATE pg_extension SET extversion = '1.1' WHERE extname = 'accessreq'")->{sqlstate}, '', 'one that is not committed');
is($admin->run(cancel())->{sqlstate}, '55000', 'counts for its own transaction');
value('ROLLBACK');
value('SELECT accessreq.start_worker()');
goes_on($admin, 'when they suit each other the worker goes on');

# ---------------------------------------------- ALTER EXTENSION UPDATE, with pulls

# PostgreSQL finds its folders from where its program is: so a copy of the programs
# has a folder of extensions that is ours to write.  Returns where they are.
sub own_installation
{
	my %of = map { chomp(my $path = `pg_config --$_`); $_ => $path } qw(bindir sharedir pkglibdir);
	my @prefix = split m{/}, $of{bindir};
	my ($inst, %to) = ("$dir/installation");

	pop @prefix while grep { index($_, join('/', @prefix) . '/') != 0 } values %of;
	$to{$_} = $inst . substr($of{$_}, length join('/', @prefix)) for keys %of;
	File::Path::make_path("$to{sharedir}/extension", dirname($to{bindir}), dirname($to{pkglibdir}));
	system_or_bail('cp', '-a', $of{bindir}, $to{bindir});
	symlink $of{pkglibdir}, $to{pkglibdir} or die "symlink: $!";
	for my $path (grep { $_ ne "$of{sharedir}/extension" } glob("$of{sharedir}/*"), glob("$of{sharedir}/extension/*"))
	{
		symlink $path, $to{sharedir} . substr($path, length $of{sharedir}) or die "symlink: $!";
	}
	append_to_file("$to{sharedir}/extension/accessreq--1.0--1.1.sql", "ALTER TABLE accessreq.sync_job ADD COLUMN news text;\n-- a script may use what is there\nSELECT accessreq.release_actions('acme');\n");
	append_to_file("$to{sharedir}/extension/accessreq--1.1--1.0.sql", "ALTER TABLE accessreq.sync_job DROP COLUMN news;\n");
	return dirname($to{bindir});
}

SKIP:
{
	my %box = map { $_ => new_sandbox(rows => 1500) } qw(acme other);
	my $updated = accessreq_node('updated', conf => $conf, install_path => own_installation());
	my $u = new_session($updated);

	skip 'the server does not find its folders from where its program is', 12
	  if $u->value("SELECT count(*) FROM pg_available_extension_versions WHERE name = 'accessreq' AND version = '1.1'") eq '0';
	for (qw(acme other))
	{
		add_server($updated, $_, $box{$_}->url, options => { max_concurrency => 1 });
		# in the middle
		$box{$_}->fault('hang', path => 'access-request-status', skip => 5, count => -1);
	}
	$u->value("SELECT accessreq.start_sync('acme', every => '1 second')");
	my $caller = new_session($updated);
	$caller->send("CALL accessreq.sync('other')");
	ok(poll_until('pages of both', sub { $u->value('SELECT count(DISTINCT server) FROM accessreq.request_status') == 2 }), 'a worker and a session pull');
	my $holder = new_session($updated);
	$holder->value("BEGIN; SELECT accessreq.enqueue_close(ARRAY['x'], 'c', not_before => now() + interval '1 day', server => 'other')");
	$u->send("ALTER EXTENSION accessreq UPDATE TO '1.1'");
	ok(poll_until('ALTER EXTENSION to wait', sub { $holder->value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = " . $u->backend) == 1 }), 'ALTER EXTENSION UPDATE waits for a transaction that has written');
	$holder->value('COMMIT');
	is($u->finish->{sqlstate}, '', 'and for no longer');
	$box{other}->no_faults;
	my $r = $caller->finish;
	is($r->{sqlstate}, '55000', 'the pull of the session ends');
	like($r->{err}, qr/has version 1.1 in this database, its library version 1.0/, 'and says why');
	ok(poll_until('the worker to leave', sub { $u->value('SELECT state FROM accessreq.worker()') =~ /not the library's/ }), 'the worker leaves');
	$_->forget for values %box;
	my $was = $u->value($tables);
	sleep 1.2;
	is(scalar(map { $_->requests } values %box), 0, 'nothing leaves any more');
	is($u->value($tables), $was, 'and nothing is written');
	cmp_ok($u->value('SELECT count(*) FROM accessreq.request_status'), '<', 3000, 'in the middle of both');
	$box{acme}->no_faults;
	is($u->run("ALTER EXTENSION accessreq UPDATE TO '1.0'")->{sqlstate}, '', 'back to what the library knows');
	ok(poll_until('all rows', sub { $u->value("SELECT count(*) FROM accessreq.request_status WHERE server = 'acme'") == 1500 }), 'the worker comes by itself, and goes on');
	is($u->run("CALL accessreq.sync('other')")->{sqlstate}, '', 'as does the session');
	$_->quit for $u, $caller, $holder;
	$updated->stop;
	$_->stop for values %box;
}
# ------------------------------------------------------- dumps and backups under load

sub outcome { my ($s, $id) = @_; return $s->value("CALL accessreq.wait_for_action($id, '" . PATIENCE . " s')") }

# Is what is numbered next new?
sub numbered_on
{
	my ($s, $what) = @_;

	for ([ 'sync_run', 'run_id' ], [ 'action', 'id' ])
	{
		my ($table, $id) = @$_;
		is($s->value("SELECT last_value + is_called::integer > (SELECT coalesce(max($id), 0) FROM accessreq.$table) FROM accessreq.${table}_${id}_seq"), 't', "$what: $table is numbered on");
	}
	return;
}

# Its snapshot is taken before the tables are locked; what is written then is not
# in the dump, and the sequences are read after it.
value('CREATE TABLE locked (n integer)');
$locker = new_session($node);
$locker->value('BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE');
my $dumping = IPC::Run::start([ 'pg_dump', '-Fc', '-f', "$dir/modes.dump", '-d', $node->connstr('postgres') ]);
ok(poll_until('pg_dump', sub { $locker->value("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'locked'::regclass") > 0 }), 'pg_dump has its snapshot');
my $later = "SELECT accessreq.enqueue_close(ARRAY['x'], 'c', not_before => now() + interval '1 day', server => 'acme')";
my $dumped = value('SELECT count(*) FROM accessreq.action');
value("$later FROM generate_series(1, 40)");
goes_on($admin, 'the worker pulls meanwhile');
my $run = value('SELECT max(run_id) FROM accessreq.sync_run');
$locker->value('COMMIT; DROP TABLE locked');
ok($dumping->finish, 'pg_dump ends');
value('CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '-d', $node->connstr('restored'), "$dir/modes.dump" ], 'pg_restore');
my $restored = new_session($node, db => 'restored');
is($restored->value('SELECT count(*) FROM accessreq.action'), $dumped, 'the restored copy has what was there before');
numbered_on($restored, 'restored');
cmp_ok($restored->value('SELECT max(run_id) FROM accessreq.sync_run'), '<', $run, 'of the pulls too');
$restored->quit;
value('DROP DATABASE restored WITH (FORCE)');

my $writer = new_session($node);
$writer->send("DO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM pg_tables WHERE tablename = 'enough') LOOP PERFORM accessreq.enqueue_close(ARRAY['x'], 'c', not_before => now() + interval '1 day', server => 'acme'); COMMIT; PERFORM pg_sleep(0.01); END LOOP; END \$\$");
my $ids = value('SELECT max(id) FROM accessreq.action');
ok(poll_until('more actions', sub { value('SELECT max(id) FROM accessreq.action') > $ids }), 'actions are enqueued');
$node->backup('base');
$ids = value('SELECT max(id) FROM accessreq.action');
ok(poll_until('more actions', sub { value('SELECT max(id) FROM accessreq.action') > $ids }), 'all the while that pg_basebackup runs');
value('CREATE TABLE enough ()');
is($writer->finish->{sqlstate}, '', 'without an error');
$writer->quit;
value('DROP TABLE enough');

# ----------------------------------------------------------- recovery that pauses

value('SELECT accessreq.stop_worker()');
my %sent = (create => value("SELECT accessreq.enqueue_create(b, server => 'acme') FROM accessreq.grant_request(ARRAY['person'], 'ROLE', 'role', 'c') b"), cancel => value(cancel()));
my $scheduled = value(cancel(", not_before => now() + interval '1 day'"));
value("UPDATE accessreq.sync_job SET last_success_at = now() - interval '10 minutes'; SELECT pg_create_restore_point('here'); SELECT pg_switch_wal()");
value('SELECT accessreq.start_worker()');
is(outcome($admin, $sent{$_}), 'done', "the original sends the $_") for sort keys %sent;
value('SELECT accessreq.stop_worker()');
my $paused = PostgreSQL::Test::Cluster->new('paused');
$paused->init_from_backup($node, 'base');
$paused->append_conf('postgresql.conf', "restore_command = 'cp \"" . $node->data_dir . "/pg_wal/%f\" \"%p\"'\nrecovery_target_name = 'here'\nrecovery_target_action = 'pause'\n");
$paused->set_recovery_mode;
$sandbox->forget;
$paused->start;
my $p = new_session($paused);
ok(poll_until('the pause', sub { $p->value('SELECT pg_is_in_recovery() AND pg_is_wal_replay_paused()') eq 't' && $p->value("SELECT count(*) FROM accessreq.action WHERE id = $scheduled") eq '1' }), 'recovery pauses at its target');
my $why = 'not running: this server is in recovery, which is paused: pg_wal_replay_resume() goes on with it';
is($p->value('SELECT state FROM accessreq.worker()'), $why, 'worker() says so');
is($p->value('SELECT health, reason, worker FROM accessreq.sync_status'), "late|$why|$why", 'and sync_status');
all_refused($p, '25006', 'paused', @acts);
is(scalar($sandbox->requests), 0, 'paused: nothing leaves');
numbered_on($p, 'the base backup');
$p->value('SELECT pg_wal_replay_resume()');
ok(poll_until('the end of recovery', sub { $p->value('SELECT pg_is_in_recovery()') eq 'f' }), 'resumed');
is(outcome($p, $sent{$_}), 'done', "what was due is looked for: the $_ is done") for sort keys %sent;
is($p->value("SELECT state FROM accessreq.action WHERE id = $scheduled"), 'queued', 'what was not stays queued');
is(changes(), 0, 'and nothing is sent a second time');
goes_on($p, 'it pulls');
$p->quit;
$paused->stop('immediate');

# -------------------------------------- a standby that is promoted in the middle

my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
my $asked = $open[0];
my $waited = value(cancel());
value("SELECT accessreq.cancel('$asked', 'c', server => 'acme')");
$node->wait_for_catchup($standby);
my %on = map { $_ => new_session($standby) } qw(refused old reads waits);
my $pulls = new_session($node);
is($on{refused}->run("CALL accessreq.sync('acme')")->{sqlstate}, '25006', 'a standby refuses to pull');
my $had = $on{old}->value('BEGIN; SELECT count(*) FROM accessreq.request_status');
$sandbox->fault('hang', path => 'access-request-status', count => -1);
$sandbox->forget;
$on{reads}->send("SELECT count(*) FROM accessreq.status(server => 'acme')");
$sandbox->await(qr/access-request-status/);
$pulls->send("CALL accessreq.sync('acme', full_scan => true)");
$sandbox->await(qr/access-request-status/, 2);
$on{waits}->send("CALL accessreq.wait_for_action($waited)");
ok(poll_until('it to wait', sub { $on{waits}->said =~ /this server is a standby/ }), 'a session waits for an action there, and is told that no worker runs');
$sandbox->forget;
$standby->promote;
is($on{old}->run(cancel())->{sqlstate}, '25006', 'a transaction from before the promotion writes nothing');
$on{old}->run('ROLLBACK');
is($on{old}->value($later) > 0, 1, 'the next one does');
is(changes(), 0, 'nothing has left yet');
$sandbox->no_faults;
my $r = $on{reads}->finish;
is($r->{sqlstate}, '', 'a read that was under way ends') or diag($r->{err});
cmp_ok($r->{out}, '>=', $had, 'with all rows');
is($on{refused}->run("CALL accessreq.sync('acme')")->{sqlstate}, '', 'who was refused may pull now');
is($on{waits}->finish->{out}, 'done', 'who waited for an action hears of it');
is(changes(), 0, 'which is not sent: a look has shown that it was carried out');
goes_on($on{old}, 'the worker of the new primary goes on');
is($pulls->finish->{sqlstate}, '', 'the old one ends its pull, which it does not know to be vain');
is(value('SELECT count(*) FROM accessreq.sync_run WHERE finished IS NULL'), '0', 'and nothing of it is left');
is(value("SELECT state FROM accessreq.action WHERE id = $waited"), 'queued', 'the old one would send its queue as well: it is to be shut down first');
value("SELECT accessreq.cancel_action($waited)");
$_->quit for values %on, $pulls;
$standby->stop('immediate');

# ----------------------------------------------------------- logical replication

my $elsewhere = new_sandbox(rows => 10);
my $subscriber = accessreq_node('subscriber', conf => $conf);
my $s = new_session($subscriber);
add_server($subscriber, 'acme', $elsewhere->url);
$s->value('CREATE TABLE fired (n integer); CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.fired VALUES (1); RETURN NULL; END $$; CREATE TRIGGER t AFTER INSERT OR UPDATE ON accessreq.request_status FOR EACH ROW EXECUTE FUNCTION fire()');
value('SELECT accessreq.start_worker(); CREATE PUBLICATION all_tables FOR ALL TABLES; CREATE TABLE fired (n integer)');
value((grep { /CREATE PUBLICATION/ } document_blocks('doc/operations.md', 'sql'))[0]);
$s->value("CREATE SUBSCRIPTION copy CONNECTION " . quote_sql($node->connstr('postgres')) . " PUBLICATION all_tables");
my $copied = 'SELECT count(*) FROM accessreq.request_status';
ok(poll_until('the tables', sub { $s->value("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'") eq '0' }), 'a subscriber of all tables');
$sandbox->admin('POST', 'add', { n => 2 });
$queued = value(cancel());
ok(poll_until('rows and action', sub { $s->value("SELECT state FROM accessreq.action WHERE id = $queued") eq 'done' && $s->value($copied) eq value($copied) }), 'has what the publisher pulls and sends');
goes_on($admin, 'the publisher goes on');
goes_on($s, 'which the subscriber sees');
is($s->value('SELECT health, worker_pid IS NOT NULL FROM accessreq.sync_status'), 'held|t', 'its own worker holds the job');
is($s->run(cancel())->{sqlstate}, '55000', 'nothing can be enqueued there');
is($s->run("CALL accessreq.sync('acme')")->{sqlstate}, '55000', 'nor pulled');
is($s->run("SELECT accessreq.start_sync('acme')")->{sqlstate}, '55000', 'nor started');
is($s->value('SELECT count(*) FROM fired'), '0', 'its triggers do not fire');
is(scalar($elsewhere->requests), 0, 'nothing has left');
my $held = $s->value($copied);
is($s->run("SELECT * FROM accessreq.refresh(ARRAY['" . $elsewhere->dump->[0]{accessRequestId} . "'], server => 'acme')")->{sqlstate}, '55000', 'nor does refresh() store what the publisher may send');
is($s->value($copied), $held, 'which it does not');
$s->value('ALTER SUBSCRIPTION copy DISABLE; ALTER SUBSCRIPTION copy SET (slot_name = NONE); DROP SUBSCRIPTION copy');
$s->value("SELECT accessreq.hold_actions('acme'); UPDATE accessreq.sync_job SET enabled = false; SELECT accessreq.adopt('acme')");
numbered_on($s, 'adopted');
cmp_ok($s->value($later), '>', $queued, 'adopted, it can be enqueued');
is($s->run("CALL accessreq.sync('acme')")->{sqlstate}, '', 'and pulled');
$_->quit for $s, $admin;
$subscriber->stop('immediate');
$node->stop('immediate');
done_testing();
