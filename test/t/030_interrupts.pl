# statement_timeout, pg_cancel_backend and pg_terminate_backend end a wait in
# every phase of a request, with the SQLSTATE they have anywhere else, while
# the peer stays silent for a minute; and no EXCEPTION block swallows them.  A
# cancel takes at most 50 ms longer than one of pg_sleep() beside it.  How fast
# exactly is measured by test/bench/cancel.sh.

use strict;
use warnings;

use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

use constant SILENCE => 60;

# What is not ended waits for the peer.
use constant LIMIT_MS => SILENCE * 1000 / 2;

# What is promised.
use constant PROMPT_MS => 50;

my $node = accessreq_node('interrupts', conf => 'accessreq.request_timeout = 5min
accessreq.connect_timeout = 5min
');
my $admin = new_session($node);

# ------------------------------------------------------------- silent peers

my ($backlog_port, $hold) = full_backlog();

# accepts, and says nothing: a TLS handshake without an answer
my $mute = new_listener(sub { sleep SILENCE });

# takes a request and does not answer
my $headers = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		read_request($socket) or return;
		$note->('request');
		sleep SILENCE;
	});

# stops in the middle of the header lines
my $half_headers = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		read_request($socket) or return;
		syswrite($socket, "HTTP/1.1 200 OK\r\nContent-Type: application/js");
		$note->('request');
		sleep SILENCE;
	});

# stops in the middle of the body, or drips it
my $body = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		read_request($socket) or return;
		syswrite($socket, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{");
		$note->('request');
		sleep SILENCE;
	});
my $drip = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		read_request($socket) or return;
		syswrite($socket, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n[");
		$note->('request');
		for (1 .. SILENCE * 100)
		{
			syswrite($socket, ' ') or last;
			sleep 0.01;
		}
	});

my %static = (mapping => { access_token => 'a.b.c' });
my @phases = (
	[ 'tls', "https://127.0.0.1:" . $mute->port, $mute, 'accepted' ],
	[ 'token', $headers->url, $headers, 'request' ],
	[ 'headers', $headers->url, $headers, 'request', %static ],
	[ 'half_headers', $half_headers->url, $half_headers, 'request', %static ],
	[ 'body', $body->url, $body, 'request', %static ],
	[ 'drip', $drip->url, $drip, 'request', %static ]);
unshift @phases,
  [ 'connect', "http://127.0.0.1:$backlog_port", undef, undef, %static ]
  if $backlog_port;
my $sandbox = new_sandbox();

add_server($node, 'good', $sandbox->url);

# ----------------------------------------------------------------- the tests

# Start a statement and wait until it waits in the phase that is meant.
sub start_waiting
{
	my ($session, $sql, $peer, $word, $before) = @_;

	$session->send($sql);
	$peer->await($word, $before + 1) if $peer;
	return backend_waits($admin, $session->backend);
}

sub noted_so_far
{
	my ($peer, $word) = @_;
	my @all = $peer ? $peer->noted($word) : ();

	return scalar @all;
}

sub ended_by
{
	my ($r, $sqlstate, $what) = @_;

	is($r->{sqlstate}, $sqlstate, "$what: SQLSTATE")
	  or diag($r->{err});
	cmp_ok($r->{ms}, '<', LIMIT_MS, "$what: in time");
	return;
}

sub still_works
{
	my ($session, $what) = @_;

	is($session->run("SELECT accessreq.count_status(server => 'good')")->{out},
		'600', "$what: the session works");
	return;
}

# ms from a signal to the end of a statement, which waits as $ready says.
sub signalled
{
	my ($session, $function, $sql, $ready) = @_;

	$session->send($sql);
	$ready->();
	$session->{sent} = time;
	$admin->value("SELECT $function(" . $session->backend . ')');
	return $session->finish->{ms};
}

sub sleeps
{
	my ($session) = @_;

	return poll_until('pg_sleep', sub { $admin->value("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = " . $session->backend) eq 't' });
}

# A cancel and a termination are as prompt as those of pg_sleep().
sub test_prompt
{
	my ($session, $name, $sql, $ready) = @_;

	prompt_beside("$name, cancel: within " . PROMPT_MS . ' ms', PROMPT_MS,
		sub { signalled($session, 'pg_cancel_backend', $sql, sub { $ready->($session) }) },
		sub { signalled($session, 'pg_cancel_backend', 'SELECT pg_sleep(60)', sub { sleeps($session) }) });
	my $terminated = sub {
		my ($statement, $is_ready) = @_;
		my $victim = new_session($node);
		my $ms = signalled($victim, 'pg_terminate_backend', $statement, sub { $is_ready->($victim) });

		$victim->quit;
		return $ms;
	};
	prompt_beside("$name, terminate: within " . PROMPT_MS . ' ms', PROMPT_MS,
		sub { $terminated->($sql, $ready) }, sub { $terminated->('SELECT pg_sleep(60)', \&sleeps) });
	return;
}

# All three ways, plain and in an EXCEPTION block, against one server.
sub test_phase
{
	my ($session, $name, $peer, $word) = @_;
	my $call = "accessreq.count_status(server => '$name')";
	my $guarded =
	  "DO \$\$BEGIN PERFORM $call; EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'swallowed'; END\$\$";
	my ($before, $r, $start);

	$r = $session->run("SET statement_timeout = '300ms'; SELECT $call");
	ended_by($r, '57014', "$name, statement_timeout");
	$r = $session->run($guarded);
	ended_by($r, '57014', "$name, statement_timeout in a block");
	unlike($r->{err}, qr/swallowed/, "$name, statement_timeout: not swallowed");
	$session->run('RESET statement_timeout');
	still_works($session, "$name, statement_timeout");

	for my $sql ("SELECT $call", $guarded)
	{
		my $how = $sql eq $guarded ? "$name, cancel in a block" : "$name, cancel";

		$before = noted_so_far($peer, $word);
		start_waiting($session, $sql, $peer, $word, $before);
		$start = $session->{sent} = time;
		$admin->value('SELECT pg_cancel_backend(' . $session->backend . ')');
		$r = $session->finish;
		ended_by($r, '57014', $how);
		unlike($r->{err}, qr/swallowed/, "$how: not swallowed");
	}
	still_works($session, "$name, cancel");

	my $victim = new_session($node);
	$before = noted_so_far($peer, $word);
	start_waiting($victim, $guarded, $peer, $word, $before);
	$victim->{sent} = time;
	$admin->value('SELECT pg_terminate_backend(' . $victim->backend . ')');
	$r = $victim->finish;
	ended_by($r, '57P01', "$name, terminate");
	unlike($r->{err}, qr/swallowed/, "$name, terminate: not swallowed");
	ok( poll_until(
			'the backend to be gone',
			sub {
				$admin->value('SELECT count(*) FROM pg_stat_activity WHERE pid = '
					  . $victim->backend) == 0;
			}),
		"$name, terminate: the backend is gone");
	cmp_ok((time - $victim->{sent}) * 1000, '<', LIMIT_MS, "$name, terminate: gone in time");
	$victim->quit;
	test_prompt($session, $name, "SELECT $call", sub { backend_waits($admin, $_[0]->backend) });
	return;
}

note('no full backlog can be made here: the phase connect is not tested')
  unless $backlog_port;
my $session = new_session($node);
for my $phase (@phases)
{
	my ($name, $url, $peer, $word, %o) = @$phase;

	add_server($node, $name, $url, %o);
	test_phase($session, $name, $peer, $word);
}

# -------------------------------------------- the budget, a retry, Retry-After

sub cancelled_while_waiting
{
	my ($what, $sql, $sqlstate) = @_;
	my $r;

	$session->send($sql);
	backend_waits($admin, $session->backend);
	$session->{sent} = time;
	$admin->value('SELECT pg_cancel_backend(' . $session->backend . ')');
	$r = $session->finish;
	ended_by($r, '57014', $what);
	still_works($session, $what);
	return;
}

add_server($node, 'narrow', $sandbox->url,
	options => { rate_limit => 2 },
	mapping => { client_id => 'narrow', client_secret => 'sandbox-secret' });
$session->value("SELECT accessreq.count_status(server => 'narrow')");
cancelled_while_waiting('waiting for the budget',
	"SELECT accessreq.count_status(server => 'narrow')");

add_server($node, 'later', $sandbox->url,
	mapping => { client_id => 'later', client_secret => 'sandbox-secret' });
$sandbox->fault('status', path => 'access-request-status', status => 429,
	headers => { 'Retry-After' => '60' });
cancelled_while_waiting('waiting as Retry-After says',
	"SELECT accessreq.count_status(server => 'later')");
$sandbox->no_faults;

# a call that is free again: no descriptor of it is left (080 counts them)
is($admin->value("SELECT count(*) FROM pg_locks WHERE pid = " . $session->backend),
	'0', 'no lock is left');

# --------------------------------------------------------------- CALL sync

add_server($node, 'pulled', $sandbox->url);
add_server($node, 'pulled_hung', $headers->url, %static);
cancelled_while_waiting('CALL sync', "CALL accessreq.sync('pulled_hung')");
is($admin->value("SELECT count(*) FROM accessreq.sync_run WHERE server = 'pulled_hung' AND finished IS NULL"),
	'1', 'CALL sync, cancelled: its run is there');
is($admin->value("SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND classid = 'pg_foreign_server'::regclass AND objsubid IN (1, 2)"),
	'0', 'CALL sync, cancelled: its locks are not');

my $r = $session->run("SET statement_timeout = '300ms'; CALL accessreq.sync('pulled_hung')");
ended_by($r, '57014', 'CALL sync, statement_timeout');
$session->run('RESET statement_timeout');

# on its second page
$sandbox->fault('hang', path => 'access-request-status', skip => 2);
$session->send("CALL accessreq.sync('pulled')");
ok( poll_until(
		'the first page to be stored',
		sub {
			$admin->value("SELECT count(*) FROM accessreq.request_status WHERE server = 'pulled'") == 250;
		}),
	'the first page is stored while the second hangs');
backend_waits($admin, $session->backend);

# a second pull waits for the first
my $second = new_session($node);
$second->send("CALL accessreq.sync('pulled')");
ok( poll_until(
		'the second pull to wait',
		sub {
			$admin->value('SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = '
				  . $second->backend) == 1;
		}),
	'the second pull waits for the lock');
$second->{sent} = time;
$admin->value('SELECT pg_cancel_backend(' . $second->backend . ')');
$r = $second->finish;
ended_by($r, '57014', 'waiting for another pull, cancelled');
like($r->{err}, qr/waiting for the pull of server "pulled" by process ${\ $session->backend} to end/,
	'and it said for whom it waited');
is($second->run("SELECT accessreq.count_status(server => 'good')")->{out},
	'600', 'waiting for another pull, cancelled: the session works');

$session->{sent} = time;
$admin->value('SELECT pg_terminate_backend(' . $session->backend . ')');
ended_by($session->finish, '57P01', 'CALL sync, terminate');
$session->quit;
$sandbox->no_faults;

# ---------------------------------------------- what others want of a backend

# A barrier that every backend must pass is passed by one that waits, and by
# one that pulls: neither CREATE nor DROP DATABASE hangs on it.
my $waiting = new_session($node);
my $pulling = new_session($node);
$waiting->send("SELECT accessreq.count_status(server => 'headers')");
$pulling->send("CALL accessreq.sync('pulled_hung')");
backend_waits($admin, $_->backend) for $waiting, $pulling;
$r = $admin->run('CREATE DATABASE elsewhere STRATEGY file_copy');
ended_by($r, '', 'CREATE DATABASE beside a wait');
$r = $admin->run('DROP DATABASE elsewhere');
ended_by($r, '', 'DROP DATABASE beside a wait');
# a pull that waits holds nothing that DDL waits for
$r = $admin->run("SET lock_timeout = '30s'; ALTER TABLE accessreq.request_status SET (fillfactor = 99); ALTER SERVER pulled_hung OPTIONS (ADD user_agent 'x')");
ended_by($r, '', 'ALTER TABLE beside a pull');

# and when the postmaster dies, so do they
my @pids = map { $_->backend } $waiting, $pulling;
$node->kill9;
my $died = time;
# nobody may have waited for them yet: a zombie is gone as well
my $lives = sub { my $stat = slurp_from("/proc/$_[0]/stat"); return kill(0, $_[0]) && $stat !~ /^\d+ \(.*\) Z/ };
ok( poll_until('the backends to be gone', sub { !grep { $lives->($_) } @pids }),
	'no backend outlives the postmaster');
cmp_ok((time - $died) * 1000, '<', LIMIT_MS, 'they are gone in time');
$_->quit for $waiting, $pulling, $admin;

$_->stop for $mute, $headers, $half_headers, $body, $drip;
undef $hold;

# --------------------------------------------------- a name server that hangs

SKIP:
{
	my $dns_node = accessreq_node('stuck_dns', start => 0,
		conf => "accessreq.request_timeout = 5min\naccessreq.connect_timeout = 5min\n");
	my ($started, $dns_pid, $why) = start_with_stuck_dns($dns_node);

	unless ($started)
	{
		kill 'TERM', $dns_pid if $dns_pid;
		chomp $why;
		skip("no mount and network namespace can be had here: $why", 1);
	}
	$dns_node->_update_pid(1);
	$dns_node->safe_psql('postgres', 'CREATE EXTENSION accessreq');
	add_server($dns_node, 'dns', 'https://hung.example', %static);
	$node = $dns_node;
	$admin = new_session($node);

	my $questions = \&dns_questions;
	my $call = "accessreq.count_status(server => 'dns')";
	my $guarded =
	  "DO \$\$BEGIN PERFORM $call; EXCEPTION WHEN OTHERS THEN RAISE NOTICE 'swallowed'; END\$\$";
	$session = new_session($node);

	for my $sql ("SELECT $call", $guarded)
	{
		my $how = $sql eq $guarded ? 'dns, in a block' : 'dns';
		my $before = $questions->();

		$r = $session->run("SET statement_timeout = '500ms'; $sql");
		ended_by($r, '57014', "$how, statement_timeout");
		unlike($r->{err}, qr/swallowed/, "$how, statement_timeout: not swallowed");
		cmp_ok($questions->(), '>', $before, "$how: the name server was asked");
		$session->run('RESET statement_timeout');

		$before = $questions->();
		$session->send($sql);
		poll_until('the question', sub { $questions->() > $before });
		backend_waits($admin, $session->backend);
		$session->{sent} = time;
		$admin->value('SELECT pg_cancel_backend(' . $session->backend . ')');
		$r = $session->finish;
		ended_by($r, '57014', "$how, cancel");
		unlike($r->{err}, qr/swallowed/, "$how, cancel: not swallowed");
		is($session->value('SELECT 1'), '1', "$how, cancel: the session works");
	}
	test_prompt($session, 'dns', "SELECT $call", sub { backend_waits($admin, $_[0]->backend) });
	$session->send("SELECT $call");
	backend_waits($admin, $session->backend);
	$session->{sent} = time;
	$admin->value('SELECT pg_terminate_backend(' . $session->backend . ')');
	$r = $session->finish;
	ended_by($r, '57P01', 'dns, terminate');
	ok( poll_until('the backend to be gone', sub { !kill 0, $session->backend }),
		'dns, terminate: the backend is gone');
	cmp_ok((time - $session->{sent}) * 1000, '<', LIMIT_MS, 'dns, terminate: gone in time');
	$session->quit;
	$admin->quit;
	# the resolver's threads of the sessions before must not hold up a stop
	my $begin = time;
	$dns_node->stop('fast');
	cmp_ok(time - $begin, '<', 30, 'dns: the server stops');
	kill 'TERM', $dns_pid;
}

done_testing();
