# pg_upgrade: the clusters that it has started are as quiet as their
# administrator believes, with pulls on and an action queued; and the new one has
# all that the old one had.  ACCESSREQ_OLD_BINDIR names another version's
# programs to upgrade from, for which the extension must be installed too.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $dir = $PostgreSQL::Test::Utils::tmp_check;
chomp(my $bindir = `pg_config --bindir`);
my $old_bindir = $ENV{ACCESSREQ_OLD_BINDIR} || $bindir;
my $sandbox = new_sandbox(rows => 300);

# Two clusters of pg_upgrade's liking: the same locale, and checksums or not.
sub cluster
{
	my ($name, $programs, @initdb) = @_;
	my $data = "$dir/upgrade_$name";
	my $port = PostgreSQL::Test::Cluster::get_free_port();

	system_or_bail("$programs/initdb", '-D', $data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--locale=C', '--no-sync', @initdb);
	append_to_file("$data/postgresql.conf", <<CONF);
port = $port
listen_addresses = ''
unix_socket_directories = '$dir'
fsync = off
shared_preload_libraries = 'accessreq'
accessreq.allowed_hosts = '127.0.0.1'
accessreq.launcher_naptime = 1
CONF
	return { data => $data, port => $port, programs => $programs, log => "$dir/upgrade_$name.log" };
}

sub start
{
	my ($c, @options) = @_;

	system_or_bail("$c->{programs}/pg_ctl", '-D', $c->{data}, '-l', $c->{log}, '-w', @options ? ('-o', "@options") : (), 'start');
	return;
}

sub stop { my ($c) = @_; system_or_bail("$c->{programs}/pg_ctl", '-D', $c->{data}, '-m', 'fast', '-w', 'stop'); return }

# The output of psql, and its errors' SQLSTATEs.
sub sql
{
	my ($c, $statement) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ "$bindir/psql", '-XAtq', '-v', 'VERBOSITY=verbose', '-h', $dir, '-p', $c->{port}, '-U', 'postgres', '-d', 'postgres', '-c', $statement ], '>', \$out, '2>', \$err);
	chomp $out;
	return $out . join(' ', $err =~ /^ERROR:  (\w{5}):/mg);
}

# What the extension's tables hold, and who may do what: a digest each.
sub contents
{
	my ($c) = @_;

	return sql($c, <<'SQL');
SELECT relname, md5(query_to_xml(format('SELECT t::text FROM accessreq.%I t ORDER BY 1', relname), true, false, '')::text)
FROM pg_class WHERE relnamespace = 'accessreq'::regnamespace AND relkind = 'r'
UNION ALL
SELECT 'functions', md5(string_agg(concat(oid::regprocedure::text COLLATE "C", proowner::regrole, proacl), ' ' ORDER BY oid::regprocedure::text COLLATE "C"))
FROM pg_proc WHERE pronamespace = 'accessreq'::regnamespace
ORDER BY 1
SQL
}

my $old = cluster('old', $old_bindir);
start($old);
sql($old, $_) for 'CREATE EXTENSION accessreq',
  "CREATE SERVER acme FOREIGN DATA WRAPPER accessreq OPTIONS (base_url '" . $sandbox->url . "', api 'v2024', rate_limit '0')",
  "CREATE USER MAPPING FOR postgres SERVER acme OPTIONS (client_id 'c', client_secret 'sandbox-secret')",
  'CREATE ROLE robot',
  'GRANT USAGE ON SCHEMA accessreq TO robot; GRANT EXECUTE ON FUNCTION accessreq.enqueue_close TO robot',
  'GRANT USAGE ON FOREIGN SERVER acme TO robot',
  "CREATE USER MAPPING FOR robot SERVER acme OPTIONS (client_id 'c', client_secret 'sandbox-secret')",
  "SELECT accessreq.start_sync('acme', every => '1 second')";
ok(poll_until('rows', sub { sql($old, 'SELECT count(*) FROM accessreq.request_status') eq '300' }), 'the old cluster pulls');
is(sql($old, "SELECT accessreq.hold_actions('acme')"), '1', 'and its queue');
my $id = sql($old, "SELECT accessreq.enqueue_close(ARRAY['x'], server => 'acme')");
my $robots = sql($old, "SET ROLE robot; SELECT accessreq.enqueue_close(ARRAY['y'], server => 'acme')");
my $states = "SELECT string_agg(owner || ' ' || state, ', ' ORDER BY id) FROM accessreq.action WHERE id IN ($id, $robots)";
is(sql($old, $states), 'postgres queued, robot queued', 'has two roles\' actions');
# that would be sent at once
sql($old, "UPDATE accessreq.sync_job SET held_at = NULL, held_by = NULL, next_attempt_at = now(); SELECT accessreq.stop_worker()");
is(sql($old, $states), 'postgres queued, robot queued', 'that nobody has sent yet');
stop($old);

# --------------------------------------------------------- a server with -b alone

$sandbox->forget;
start($old, '-b');
# workers would look around every second
my $seen = 0;
for (1 .. 12) { $seen += sql($old, "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'accessreq%'"); sleep 0.25 }
is($seen, 0, 'with -b nothing of ours runs');
is(sql($old, 'SELECT state FROM accessreq.worker()'), 'not running: the server runs in binary upgrade mode, for pg_upgrade', 'worker() says why');
my $contents = contents($old);
like($contents, qr/^action\|.*^sync_run\|/ms, 'the tables can be read');
for my $statement ("SELECT accessreq.count_status(server => 'acme')", "SELECT accessreq.cancel('x', 'y', server => 'acme')", "CALL accessreq.sync('acme')",
	"SELECT accessreq.refresh(ARRAY['x'], server => 'acme')", "SELECT accessreq.get_config(server => 'acme')", "SELECT accessreq.get('v2024/roles', server => 'acme')",
	"SELECT accessreq.enqueue_close(ARRAY['y'], server => 'acme')", "SELECT accessreq.start_sync('acme')", "SELECT accessreq.stop_sync('acme')", 'SELECT accessreq.start_worker()',
	"SELECT accessreq.hold_actions('acme')", "SELECT accessreq.cancel_action($id)", "SELECT accessreq.adopt('acme')", "SELECT accessreq.forget('acme')")
{
	is(sql($old, $statement), '55000', "raises 55000: $statement");
}
is(sql($old, "SELECT string_agg(step || ' ' || ok, ', ') FROM accessreq.check('acme') WHERE step IN ('options', 'dns', 'token')"), 'options false', 'check() says so, and asks nobody');
is(sql($old, 'SELECT count(*) FROM accessreq.request_item'), '300', 'what only reads works');
is(contents($old), $contents, 'nothing was written');
is(scalar($sandbox->requests), 0, 'nothing left');
stop($old);

# ------------------------------------------------------------------ pg_upgrade

# 18's initdb makes checksums, which must be as the old one has them
my $checksums = `'$bindir/initdb' --help` =~ /--no-data-checksums/ && `'$old_bindir/pg_controldata' '$old->{data}'` =~ /checksum version:\s+0/;
my $new = cluster('new', $bindir, $checksums ? '--no-data-checksums' : ());
mkdir "$dir/upgrade" or die $!;
chdir "$dir/upgrade" or die $!;
my ($out, $err) = ('', '');
my $good = IPC::Run::run([ "$bindir/pg_upgrade", '-b', $old_bindir, '-B', $bindir, '-d', $old->{data}, '-D', $new->{data}, '-p', $old->{port}, '-P', $new->{port}, '-U', 'postgres', '-s', $dir ], '>', \$out, '2>', \$err);
ok($good, 'pg_upgrade from ' . join(' to ', map { `'$_/pg_config' --version` =~ /^(.*?)\s*(?:\(|$)/ } $old_bindir, $bindir)) or diag($out, $err, map { slurp_file($_) } glob("$new->{data}/pg_upgrade_output.d/*/log/*"));
is(scalar($sandbox->requests), 0, 'and meanwhile nothing left');
chdir $dir;

start($new);
is(contents($new), $contents, 'all rows and rights are there');
is(sql($new, $states), 'postgres queued, robot queued', 'the actions are queued');
is(sql($new, "SELECT health FROM accessreq.sync_status"), 'held', 'the job waits to be adopted');
sleep 2.5;
is(scalar($sandbox->requests), 0, 'and asks for nothing');
is(contents($new), $contents, 'nor writes');
is(sql($new, "SELECT last_value >= (SELECT max(run_id) FROM accessreq.sync_run) FROM accessreq.sync_run_run_id_seq"), 't', 'runs are numbered on');
is(sql($new, "SELECT last_value >= (SELECT max(id) FROM accessreq.action) FROM accessreq.action_id_seq"), 't', 'actions too');
my $last = sql($new, 'SELECT max(run_id) FROM accessreq.sync_run');
sql($new, "SELECT accessreq.adopt('acme')");
ok(poll_until('the actions to be sent', sub { sql($new, $states) eq 'postgres done, robot done' }), 'adopted, they are sent');
is(scalar($sandbox->requests(qr/^POST .*close/)), 2, 'once each');
ok(poll_until('a pull', sub { sql($new, "SELECT count(*) > 0 FROM accessreq.sync_run WHERE run_id > $last AND finished IS NOT NULL") eq 't' }), 'and a pull ends');
is(sql($new, "SELECT count(*) FROM accessreq.sync_run WHERE error IS NOT NULL"), '0', 'well, as each does');
stop($new);
done_testing();
