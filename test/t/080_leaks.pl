# What is left after thousands of calls, and after hundreds that failed or
# were cancelled in EXCEPTION blocks: no descriptor, no thread, no memory.

use strict;
use warnings;

use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

plan skip_all => 'there is no /proc here' unless -r "/proc/$$/smaps_rollup";

my $node = accessreq_node('leaks', conf => "accessreq.max_retries = 0\n");
my $sandbox = new_sandbox(rows => 300);
my $session = new_session($node);
my $pid = $session->backend;
my %static = (mapping => { access_token => 'a.b.c' });

# Descriptors of the backend: TCP connections, of which some are kept for reuse,
# and else sockets, pipes and the like.  Files are the server's own affair.
sub kinds
{
	my %tcp = map { (split ' ')[9] => 1 } split /\n/, slurp_from("/proc/$pid/net/tcp");
	my ($connections, $others) = (0, 0);

	for (map { readlink || '' } glob "/proc/$pid/fd/*")
	{
		next unless /^[a-z_]+:\[?(\d*)/;
		$tcp{ $1 || '' } ? $connections++ : $others++;
	}
	return ($connections, $others);
}
sub descriptors { return (kinds())[1] }

# As many connections are kept as MAX_IDLE_CONNECTIONS in src/http.c says.
sub no_descriptor_more
{
	my ($before, $what) = @_;
	my ($connections, $others) = kinds();

	is($others, $before, "$what: no descriptor more");
	cmp_ok($connections, '<=', 8, "$what: few connections are kept");
	return;
}

sub threads { my @all = glob "/proc/$pid/task/*"; return scalar @all }

# Memory of its own, kB: what is shared grows by being looked at.
sub memory
{
	my ($kb) = slurp_from("/proc/$pid/smaps_rollup") =~ /^Anonymous:\s+(\d+) kB/m;
	return $kb;
}

sub contexts
{
	return $session->value("SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'accessreq%'");
}

add_server($node, 'good', $sandbox->url);

# ------------------------------------------------------------------- 2,000 calls

my %calls = (
	'count_status' => "SELECT accessreq.count_status(server => 'good')",
	'status' => "SELECT count(*) FROM accessreq.status(server => 'good', max_rows => 20, page_size => 20)",
	'get_config' => "SELECT accessreq.get_config(server => 'good')",
	'merge_config' => "SELECT accessreq.merge_config('{}', server => 'good')",
	'cancel' => "DO \$\$BEGIN PERFORM accessreq.cancel('2c91808568c529c60168cca6f90c1313', 'why', server => 'good'); EXCEPTION WHEN OTHERS THEN NULL; END\$\$",
	'cancel_many' => "SELECT count(*) FROM accessreq.cancel_many(ARRAY['a', 'b'], 'why', server => 'good')",
	'status_of' => "SELECT count(*) FROM accessreq.status_of(ARRAY['a', 'b', 'c'], server => 'good')",
	'get' => "SELECT count(*) FROM accessreq.get('/v2024/access-request-status', max_rows => 5, server => 'good')");
my @mix = map { $calls{$_} } sort keys %calls;

# a statement each, over and over
sub run_mix
{
	my ($n) = @_;
	my $sql = join(";\n", map { $mix[ $_ % @mix ] } 1 .. $n);
	my $r = $session->run($sql);

	$r->{sqlstate} eq '' or die $r->{err};
	return;
}
run_mix(400);
my $before = memory();
my $fds = descriptors();
run_mix(400) for 1 .. 5;
my $growth = memory() - $before;
note("2,000 statements: $growth kB more, of $before kB");
cmp_ok($growth, '<', 2048, '2,000 calls: under 2 MB of growth');
no_descriptor_more($fds, '2,000 calls');
is(threads(), 1, 'one thread');

# all in one statement, one transaction
my $loop = "DO \$\$BEGIN FOR i IN 1..%d LOOP PERFORM accessreq.count_status(server => 'good'); PERFORM count(*) FROM accessreq.status(server => 'good', max_rows => 20, page_size => 20); END LOOP; END\$\$";
$session->value(sprintf $loop, 100);
$before = memory();
$session->value(sprintf $loop, 1000);
$growth = memory() - $before;
note("2,000 calls in one statement: $growth kB more");
cmp_ok($growth, '<', 2048, '2,000 calls in one statement: under 2 MB of growth');
no_descriptor_more($fds, '2,000 calls in one statement');

# pulls: nothing is kept of one
my $pull = "CALL accessreq.sync('good', full_scan => true)";
$session->run($pull) for 1 .. 5;
$before = memory();
is($session->run($pull)->{sqlstate}, '', 'a pull') for 1 .. 10;
$growth = memory() - $before;
note("10 pulls: $growth kB more");
cmp_ok($growth, '<', 1024, '10 pulls: under 1 MB of growth');
no_descriptor_more($fds, '10 pulls');

# ------------------------------------------------------- failed, and cancelled

my $closed = PostgreSQL::Test::Cluster::get_free_port();
my $hangs = new_listener(sub { my ($s) = @_; read_request($s); sleep 60 });
my $half = new_listener(
	sub {
		my ($s) = @_;
		read_request($s);
		syswrite($s, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[" . (' ' x 50000));
		sleep 60;
	});
my $breaks = new_listener(
	sub {
		my ($s) = @_;
		read_request($s);
		syswrite($s, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[");
		hang_up($s);
	});
my $garbage = new_listener(
	sub {
		my ($s) = @_;
		read_request($s);
		syswrite($s, answer_text(200, '[{"accountActivityItemId":"a"},{]]'));
		hang_up($s);
	});
my $mute = new_listener(sub { sleep 60 });
my %short = (options => { request_timeout => '20ms' });

add_server($node, 'f_closed', "http://127.0.0.1:$closed", %static);
add_server($node, 'f_hangs', $hangs->url, %static, %short);
add_server($node, 'f_half', $half->url, %static, %short);
add_server($node, 'f_mute', 'https://127.0.0.1:' . $mute->port, %static, %short);
add_server($node, 'f_breaks', $breaks->url, %static);
add_server($node, 'f_garbage', $garbage->url, %static);
add_server($node, 'f_secret', $sandbox->url, mapping => { client_id => 'wrong', client_secret => 'wrong' });
add_server($node, 'c_hangs', $hangs->url, %static);
add_server($node, 'c_half', $half->url, %static);
add_server($node, 'c_mute', 'https://127.0.0.1:' . $mute->port, %static);
$session->value(<<'SQL');
CREATE FUNCTION fail(rounds int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE s name; failed int := 0;
BEGIN
	FOR i IN 1..rounds LOOP
		FOREACH s IN ARRAY ARRAY['f_closed', 'f_hangs', 'f_half', 'f_mute', 'f_breaks', 'f_garbage', 'f_secret'] LOOP
			BEGIN
				-- to a POST a 200 is enough, whatever its body
				IF i % 2 = 0 AND s NOT IN ('f_half', 'f_breaks', 'f_garbage') THEN
					PERFORM accessreq.cancel('x', 'y', server => s);
				ELSE
					PERFORM count(*) FROM accessreq.status(server => s);
				END IF;
			EXCEPTION WHEN OTHERS THEN
				failed := failed + 1;
			END;
		END LOOP;
	END LOOP;
	RETURN failed;
END $$;
CREATE FUNCTION hang(s name) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	PERFORM accessreq.count_status(server => s);
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE 'swallowed';
END $$;
SQL

sub cancelled
{
	my ($n) = @_;
	my $sql = join '', map { "SELECT hang('c_$_');\n" } map { (qw(hangs half mute))[ $_ % 3 ] } 1 .. $n;
	my $r = $session->run("SET statement_timeout = '15ms';\n$sql");
	my @states = $r->{err} =~ /ERROR:  57014:/g;

	$session->run('RESET statement_timeout');
	return scalar @states;
}

# a savepoint that is rolled back, an error at the top, an abandoned cursor
sub abandoned
{
	my ($n) = @_;

	for (1 .. $n)
	{
		$session->run("BEGIN; SAVEPOINT a; SELECT accessreq.count_status(server => 'f_hangs'); ROLLBACK TO a; SELECT accessreq.count_status(server => 'good'); ROLLBACK");
		$session->run("BEGIN; DECLARE c CURSOR FOR SELECT * FROM accessreq.status(server => 'good'); FETCH 1 FROM c; ROLLBACK");
		$session->run("SELECT accessreq.count_status(server => 'good'), 1 / (random() * 0)::int");
		$session->run("CALL accessreq.sync('f_garbage')");
	}
	return;
}

# once to fill caches and idle connections; the first call with a good server
# after it takes those away that died
fail_and_settle() for 1 .. 2;

sub fail_and_settle
{
	$session->value('SELECT fail(3)');
	cancelled(6);
	abandoned(2);
	$session->value($calls{count_status});
	return;
}
$fds = descriptors();
$before = memory();
my $contexts = contexts();
is($session->value('SELECT fail(30)'), '210', '210 calls failed in EXCEPTION blocks');
is(cancelled(90), 90, '90 were cancelled in EXCEPTION blocks');
abandoned(10);
$session->value($calls{count_status});
no_descriptor_more($fds, 'after failures');
is(threads(), 1, 'one thread');
is(contexts(), $contexts, 'no memory context more');
$growth = memory() - $before;
note("300 failed calls: $growth kB more");
cmp_ok($growth, '<', 2048, 'under 2 MB of growth');
is($session->run($calls{count_status})->{out}, '300', 'and the session works');

$session->quit;
$node->stop;
done_testing();
