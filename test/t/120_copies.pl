# Standbys, promotion, dumps and clones: who pulls, who must not, and that what
# was known is not seen for the first time again.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $sandbox = new_sandbox(rows => 300);
my $primary = accessreq_node('primary', streaming => 1);
my $every = "every => '1 second'";

sub workers
{
	my ($node) = @_;

	return $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'accessreq%'");
}

sub rows { my ($node, $db) = @_; return $node->safe_psql($db || 'postgres', 'SELECT count(*) FROM accessreq.request_status') }

sub rows_become
{
	my ($node, $n, $name, $db) = @_;

	return ok(poll_until("$n rows", sub { rows($node, $db) == $n }), $name);
}

add_server($primary, 'acme', $sandbox->url);
$primary->safe_psql('postgres', "SELECT accessreq.start_sync('acme', $every)");
rows_become($primary, 300, 'the primary pulls');
poll_until('a success', sub { $primary->safe_psql('postgres', 'SELECT health FROM accessreq.sync_status') eq 'ok' });

# ------------------------------------------------------------------ a standby

$primary->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
is(workers($standby), '0', 'on a standby there is neither launcher nor worker');
is($standby->safe_psql('postgres', 'SELECT state FROM accessreq.worker()'), 'not running: this server is a standby', 'worker() says why');
$sandbox->admin('POST', 'add', { n => 2 });
rows_become($primary, 302, 'the primary goes on');
rows_become($standby, 302, 'and the standby follows');
is($standby->safe_psql('postgres', 'SELECT health, lag_seconds BETWEEN 0 AND 60, worker_pid IS NULL FROM accessreq.sync_status'), 'ok|t|t',
	'sync_status of the standby goes by the rows');
my $session = new_session($standby);
is($session->run("SELECT accessreq.count_status(server => 'acme')")->{out}, '302', 'sessions may read from the tenant');
for my $sql ("SELECT accessreq.cancel('x', 'y', server => 'acme')", "CALL accessreq.sync('acme')",
	"SELECT * FROM accessreq.refresh(ARRAY['x'], server => 'acme')", "SELECT accessreq.start_sync('acme')",
	"SELECT accessreq.stop_sync('acme')", 'SELECT accessreq.start_worker()', 'SELECT accessreq.stop_worker()',
	"SELECT accessreq.adopt('acme')")
{
	is($session->run($sql)->{sqlstate}, '25006', "and nothing else: $sql");
}
$session->quit;

# In the middle of a scan the primary is lost.
$primary->safe_psql('postgres', 'UPDATE accessreq.sync_job SET next_scan_at = now()');
$sandbox->forget;
$sandbox->fault('hang', path => 'limit=1&', count => -1);
$primary->safe_psql('postgres', "SELECT accessreq.start_sync('acme')");
poll_until('a scan', sub { $primary->safe_psql('postgres', 'SELECT count(*) FROM accessreq.sync_progress') == 1 });
$primary->wait_for_catchup($standby);
my $history = $primary->safe_psql('postgres', 'SELECT count(*) FROM accessreq.state_change');
$primary->stop('immediate');
$sandbox->no_faults;
$standby->promote;
$sandbox->admin('POST', 'add', { n => 1 });
rows_become($standby, 303, 'after promotion the worker comes and goes on');
ok(poll_until('the scan', sub {
	$standby->safe_psql('postgres', "SELECT string_agg(coalesce(error, 'fine'), ', ' ORDER BY run_id) FROM accessreq.sync_run WHERE kind = 'full'") eq 'fine, interrupted, fine'
}), 'with the scan as well')
  or diag($standby->safe_psql('postgres', "SELECT run_id, kind, error, finished FROM accessreq.sync_run WHERE kind = 'full'"));
is($standby->safe_psql('postgres', 'SELECT count(*) FROM accessreq.state_change'), $history + 1, 'and no row is seen for the first time again');
is($standby->safe_psql('postgres', 'SELECT health FROM accessreq.sync_status'), 'ok', 'it is well');

# ------------------------------------------------------- a dump, restored elsewhere

my $dump = PostgreSQL::Test::Utils::tempdir() . '/dump';
$standby->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $standby->connstr('postgres') ], 'pg_dump');
my $tables = "SELECT (SELECT count(*) FROM accessreq.request_status), (SELECT count(*) FROM accessreq.state_change),"
  . " (SELECT count(*) FROM accessreq.approval), (SELECT count(*) FROM accessreq.approval_change), (SELECT count(*) FROM accessreq.phase),"
  . " (SELECT created_watermark FROM accessreq.sync_job), (SELECT max(cursor::text) FROM accessreq.sync_run)";
$standby->safe_psql('postgres', "SELECT accessreq.stop_sync('acme')");
poll_until('no run', sub { $standby->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE classid = 'pg_foreign_server'::regclass AND locktype = 'object'") == 0 });
$standby->command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $standby->connstr('postgres') ], 'pg_dump');
my $was = $standby->safe_psql('postgres', $tables);
my $next = $standby->safe_psql('postgres', 'SELECT max(run_id) FROM accessreq.sync_run');
$standby->stop;

my $restored = accessreq_node('restored', extension => 0, conf => "accessreq.launcher_naptime = '1s'\n");
$restored->safe_psql('postgres', 'CREATE DATABASE here');
$sandbox->forget;
$restored->command_ok([ 'pg_restore', '-d', $restored->connstr('here'), $dump ], 'pg_restore into a new cluster');
is($restored->safe_psql('here', $tables), $was, 'rows, history and cursors are there');
$restored->safe_psql('here', "UPDATE accessreq.sync_job SET enabled = true, next_attempt_at = NULL");
ok(poll_until('the worker', sub { $restored->safe_psql('here', 'SELECT pid IS NOT NULL FROM accessreq.worker()') eq 't' }), 'a worker comes');
sleep 1.5;
is(scalar($sandbox->requests), 0, 'and asks for nothing');
is($restored->safe_psql('here', 'SELECT health FROM accessreq.sync_status'), 'held', 'sync_status: held');
like($restored->safe_psql('here', 'SELECT reason FROM accessreq.sync_status'), qr/adopt/, 'and what to do');
is(new_session($restored, db => 'here')->run("CALL accessreq.sync('acme')")->{sqlstate}, '55000', 'nor does a session pull');
is(new_session($restored, db => 'here')->run("SELECT accessreq.start_sync('acme')")->{sqlstate}, '55000', 'nor have it pulled');
is(new_session($restored, db => 'here')->run("SELECT accessreq.cancel('x', 'y', server => 'acme')")->{sqlstate}, '55000', 'nor cancel');
$sandbox->admin('POST', 'add', { n => 1 });
$sandbox->forget;
$restored->safe_psql('here', "SELECT accessreq.adopt('acme')");
rows_become($restored, 304, 'after adopt() it goes on', 'here');
is($restored->safe_psql('here', 'SELECT count(*) FROM accessreq.state_change'), $history + 2, 'without a false first sight');
cmp_ok(scalar($sandbox->requests(qr/access-request-status/)), '<=', 8, 'from where it stood');
cmp_ok($restored->safe_psql('here', 'SELECT max(run_id) FROM accessreq.sync_run'), '>', $next, 'runs are numbered on');
poll_until('a success', sub { $restored->safe_psql('here', 'SELECT health FROM accessreq.sync_status') eq 'ok' });

# -------------------------------------------------------------- a physical clone

$restored->append_conf('postgresql.conf', "max_wal_senders = 4\nwal_level = replica\n");
$restored->append_conf('pg_hba.conf', "local replication all trust\n");
$restored->restart;
$restored->backup('clone');
$restored->stop;
my $clone = PostgreSQL::Test::Cluster->new('clone');
$clone->init_from_backup($restored, 'clone');
$sandbox->forget;
# what "-c accessreq.enabled=off" on the command line is
local $ENV{PGOPTIONS} = '';
system('pg_ctl', '-w', '-D', $clone->data_dir, '-l', $clone->logfile, '-o', '--cluster-name=clone -c accessreq.enabled=off', 'start') == 0
  or BAIL_OUT('the clone does not start');
$clone->_update_pid(1);
sleep 1.5;
is(scalar($sandbox->requests), 0, 'a clone that is started with enabled = off is silent');
is($clone->safe_psql('here', 'SELECT state FROM accessreq.worker()'), 'not running: accessreq.enabled is off', 'and says why');
is(new_session($clone, db => 'here')->run("SELECT accessreq.count_status(server => 'acme')")->{sqlstate}, '55000', 'sessions too');
$clone->stop;
done_testing();
