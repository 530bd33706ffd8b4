# A random walk over a real server and a worker: what happens in a tenant, on
# the network and to the server's processes, in any order.  Whenever it has been
# quiet for a scan, the tables equal the tenant, row for row, and the history
# holds every state that stood at the end of a cycle.
#
# Seeded: ACCESSREQ_WALK_SEED and ACCESSREQ_WALK_ROUNDS make it another, or longer.

use strict;
use warnings;
use AccessReq;
use File::Basename;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = $ENV{ACCESSREQ_WALK_SEED} // 7;
my $rounds = $ENV{ACCESSREQ_WALK_ROUNDS} // 8;
srand($seed);
note("seed $seed");

my $node = accessreq_node('walk', conf => "restart_after_crash = on\naccessreq.missing_limit = 1\naccessreq.request_timeout = '2s'\n");
my $sandbox = new_sandbox(rows => 400, open => 30, seed => $seed);
my $compare = dirname(__FILE__) . '/../compare.pl';
my $admin = new_session($node);
my %stood;    # item => its states at quiet moments, in order

sub one_of { return $_[ int rand @_ ] }

add_server($node, 'acme', $sandbox->url);
$admin->value("SELECT accessreq.start_sync('acme', every => '1 second')");

# A session that a restart has ended is opened again.
sub value
{
	my ($sql) = @_;
	my $result;

	poll_until("an answer to $sql", sub {
		my $r = $admin->run($sql);
		return ($result = $r->{out}, 1)[1] if !$r->{ended} && !$r->{sqlstate};
		$admin = eval { new_session($node) } || $admin;
		return 0;
	});
	return $result;
}

my @states = qw(REQUEST_COMPLETED CANCELLED REJECTED PROVISIONING_FAILED EXECUTING ERROR TERMINATED);
my %events = (
	add => sub { $sandbox->admin('POST', 'add', { n => 1 + int rand 20 }) },
	change => sub { $sandbox->admin('POST', 'change', { n => 1 + int rand 10, set => { state => one_of(@states) } }) },
	'change of what is open' => sub { $sandbox->admin('POST', 'change', { n => 1 + int rand 5, executing => JSON::PP::true, set => { state => one_of(@states) } }) },
	'silent change' => sub { $sandbox->admin('POST', 'change', { n => 1 + int rand 5, touch => JSON::PP::false, set => { state => one_of(@states), name => 'silent ' . int rand 1000 } }) },
	removal => sub {
		my ($id) = split /\n/, value("SELECT account_activity_item_id FROM accessreq.request_status WHERE missing_since IS NULL ORDER BY md5(account_activity_item_id || '" . rand() . "') LIMIT 1");
		$sandbox->admin('DELETE', "items?id=$id") if $id && !$sandbox->{removed}{$id}++;
	},
	fault => sub {
		my $kind = one_of(qw(status close truncate garbage html drop_answer delay duplicate hang));
		$sandbox->fault($kind, skip => int rand 4, count => 1 + int rand 3, delay_ms => 100, path => one_of('access-request-status', 'oauth'));
	},
	'a 429' => sub { $sandbox->fault('status', status => 429, headers => { 'Retry-After' => '1' }, skip => int rand 4) },
	'revoked tokens' => sub { $sandbox->admin('POST', 'tokens/revoke') },
	terminate => sub { value('SELECT pg_terminate_backend(pid) FROM accessreq.worker() WHERE pid IS NOT NULL') },
	scan => sub { value("UPDATE accessreq.sync_job SET next_scan_at = now(); SELECT accessreq.start_sync('acme')") },
	stop_sync => sub { value("SELECT accessreq.stop_sync('acme'); SELECT accessreq.start_sync('acme')") },
	'a session that pulls' => sub { $admin->run("SET statement_timeout = '3s'"); $admin->run("CALL accessreq.sync('acme')"); $admin->run('RESET statement_timeout') },
	refresh => sub { $admin->run("SELECT accessreq.refresh(ARRAY(SELECT access_request_id FROM accessreq.request_status WHERE access_request_id IS NOT NULL LIMIT 3), server => 'acme')") },
	crash => sub { my $pid = value('SELECT pid FROM accessreq.worker()'); kill 'KILL', $pid if $pid },
	'immediate stop' => sub { $node->stop('immediate'); $node->start },
	restart => sub { $node->restart });
# what costs seconds comes less often
my @often = (('add') x 4, ('change') x 6, ('change of what is open') x 4, ('silent change') x 4, ('removal') x 3,
	('fault') x 6, 'a 429', 'revoked tokens', ('terminate') x 2, ('scan') x 3, ('stop_sync') x 2, ('a session that pulls') x 2,
	('refresh') x 2, 'crash', 'immediate stop', 'restart');

# Nothing goes wrong any more, and a whole scan and a cycle after it end well.
sub be_quiet
{
	$sandbox->no_faults;
	my $since = value('SELECT clock_timestamp()');
	value("UPDATE accessreq.sync_job SET next_scan_at = now(), scan_failures = 0, retry_after = NULL; SELECT accessreq.start_sync('acme', every => '1 second')");
	my $ended = sub {
		my ($kind, $after) = @_;
		return value("SELECT coalesce(min(finished)::text, '') FROM accessreq.sync_run WHERE kind = '$kind' AND error IS NULL AND finished IS NOT NULL AND started > '$after' AND rows_before = 0");
	};
	# one that was under way is taken up first, and says nothing about all
	for (1 .. 3)
	{
		my $scan;
		poll_until('a scan', sub { $scan = $ended->('full', $since) }, 30) and return $scan;
		value("UPDATE accessreq.sync_job SET next_scan_at = now(); SELECT accessreq.start_sync('acme')");
	}
	return '';
}

for my $round (1 .. $rounds)
{
	my @done;

	for (1 .. 4 + int rand 8)
	{
		my $event = one_of(@often);

		push @done, $event;
		$events{$event}->();
		sleep rand 0.7;
	}
	ok(be_quiet(), "round $round: a scan ends well after: " . join(', ', @done));
	# what the last scan does not see any more is seen by the cycle after it
	my $out = '';
	ok(poll_until('the tables to equal the tenant', sub {
		$out = `perl '$compare' '@{[ $sandbox->url ]}' '@{[ $node->connstr('postgres') ]}' 'acme' 2>&1`;
		return $? == 0;
	}), 'the tables equal the tenant') or diag($out);
	is(value("SELECT count(*) FROM accessreq.request_status WHERE missing_since IS NOT NULL"), scalar(keys %{ $sandbox->{removed} || {} }), 'as many are missing as were removed');
	is(value('SELECT count(*) FROM accessreq.quarantined_item'), '0', 'nothing is in quarantine');
	is(value("SELECT count(*) FROM accessreq.sync_run WHERE finished IS NULL AND started < now() - interval '30 s'"), '0', 'no run is without an end');

	# Each state that stood now, and before, is in the history, in that order.
	for my $line (split /\n/, value("SELECT account_activity_item_id || ' ' || state FROM accessreq.request_status"))
	{
		my ($id, $state) = split / /, $line;
		push @{ $stood{$id} }, $state unless @{ $stood{$id} || [] } && $stood{$id}[-1] eq $state;
	}
	my %history;
	push @{ $history{ (split / /)[0] } }, (split / /)[1]
	  for split /\n/, value("SELECT account_activity_item_id || ' ' || new_state FROM accessreq.state_change ORDER BY account_activity_item_id, observed_at");
	my @bad = grep {
		my @seen = @{ $history{$_} || [] };
		my $ok = 1;
		for my $state (@{ $stood{$_} })
		{
			shift @seen while @seen && $seen[0] ne $state;
			$ok = 0, last unless @seen;
			shift @seen;
		}
		!$ok || $history{$_}[-1] ne $stood{$_}[-1];
	} keys %stood;
	is(scalar(@bad), 0, 'the history holds every state that stood') or diag(map { "$_: @{ $stood{$_} } in @{ $history{$_} || [] }\n" } @bad);
	is(value("SELECT count(*) FROM (SELECT old_state, lag(new_state) OVER (PARTITION BY account_activity_item_id ORDER BY observed_at) AS before FROM accessreq.state_change) c WHERE old_state IS DISTINCT FROM before"), '0', 'each change begins where the one before ended, and there is one first sight');
}
$node->stop;
done_testing();
