# Measures for worker.sh, which says what and how to start it.

use strict;
use warnings;

use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $n_rows = shift || 1_000_000;
my %wanted = map { $_ => 1 } @ARGV ? @ARGV : qw(large latency fresh);
my @synced = qw(request_status approval phase manual_work_item state_change approval_change quarantined_item missing_candidate);
my $node = accessreq_node('bench', conf => <<CONF);
shared_buffers = 512MB
max_wal_size = 8GB
checkpoint_timeout = 30min
autovacuum = off
accessreq.missing_limit = 0.9
CONF
my $admin = new_session($node);

sub value { return $admin->value(@_) }

sub print_line
{
	my ($what, $got, $aim) = @_;

	diag(sprintf '%-62s %14s   %s', $what, $got, $aim ? "aim $aim" : '');
	return;
}

sub worker_memory
{
	my ($field) = @_;
	my $pid = value('SELECT pid FROM accessreq.worker()');

	return slurp_file("/proc/$pid/status") =~ /^$field:\s*(\d+)/m ? $1 / 1024 : 0;
}

# Ended runs of a kind.
sub runs
{
	my ($server, $kind) = @_;

	return value("SELECT count(*) FROM accessreq.sync_run WHERE server = '$server' AND kind = '$kind' AND finished IS NOT NULL");
}

# One cycle, now: its row as a hash.
sub cycle
{
	my ($server) = @_;
	my $n = runs($server, 'cycle');

	value("SELECT accessreq.start_sync('$server')");
	poll_until('a cycle', sub { runs($server, 'cycle') > $n }, 600);
	my @row = split /\|/, value("SELECT requests, rows_new, rows_changed, extract(epoch FROM finished - started), coalesce(error, '') FROM accessreq.sync_run WHERE server = '$server' AND kind = 'cycle' ORDER BY run_id DESC LIMIT 1");
	my %run;
	@run{qw(requests new changed seconds error)} = @row;
	diag("the cycle failed: $run{error}") if $run{error};
	return \%run;
}

# What a piece of work writes, and reads in full.
sub table_stats
{
	my %stats;

	value('SELECT pg_stat_force_next_flush()');
	sleep 0.5;
	for my $line (split /\n/, value("SELECT relname, n_tup_ins + n_tup_upd + n_tup_del, seq_scan FROM pg_stat_user_tables WHERE schemaname = 'accessreq'"))
	{
		my ($table, $written, $scans) = split /\|/, $line;
		$stats{$table} = [ $written, $scans ];
	}
	return \%stats;
}

sub measure_large
{
	my $box = new_sandbox(rows => $n_rows, open => 100 * 100 / $n_rows);
	my $max = 0;

	add_server($node, 'large', $box->url, options => { request_timeout => '2min' });
	my $start = time;
	value("SELECT accessreq.start_sync('large', every => '1 day')");
	my $before;
	poll_until('the first scan', sub {
		sleep 1;
		my $rss = worker_memory('RssAnon');
		$before //= $rss;
		$max = $rss if $rss > $max;
		return runs('large', 'full');
	}, 3600);
	print_line("a first pull of $n_rows rows, seconds", sprintf('%.0f', time - $start));
	print_line('  the worker\'s own memory (RssAnon), MB, at most', sprintf('%.1f', $max), '64');
	poll_until('a cycle', sub { runs('large', 'cycle') }, 600);
	value('VACUUM ANALYZE');
	cycle('large') for 1 .. 3;

	my $open = value("SELECT count(*) FROM accessreq.request_status WHERE state IN ('EXECUTING', 'PROVISIONING_VERIFICATION_PENDING')");
	my $was = table_stats();
	my $run = cycle('large');
	my $is = table_stats();
	print_line("nothing changed, $open open: requests of a cycle", $run->{requests}, '5');
	print_line('  seconds', sprintf('%.3f', $run->{seconds}));
	my ($written, $scans) = (0, 0);
	for (@synced)
	{
		$written += $is->{$_}[0] - $was->{$_}[0];
		$scans += $is->{$_}[1] - $was->{$_}[1];
	}
	print_line('  rows written to the synced tables', $written, '0');
	print_line('  synced tables read in full', $scans, '0');
	# start_sync() itself writes one row of sync_job
	print_line('  rows written to sync_run and sync_job', join(', ', $is->{sync_run}[0] - $was->{sync_run}[0], $is->{sync_job}[0] - $was->{sync_job}[0] - 1), '1, 1');

	my $rss = worker_memory('RssAnon');
	for my $n (1 .. 1000)
	{
		cycle('large');
		$rss = worker_memory('RssAnon') if $n == 100;
	}
	print_line('1,000 cycles: memory at their end, MB', sprintf('%.1f', worker_memory('RssAnon')), '64');
	print_line('  growth from the 100th to the 1,000th, MB', sprintf('%.2f', worker_memory('RssAnon') - $rss), '2');

	$box->admin('POST', 'change', { n => 1900, set => { state => 'EXECUTING' } });
	cycle('large');
	$open = value("SELECT count(*) FROM accessreq.request_status WHERE state IN ('EXECUTING', 'PROVISIONING_VERIFICATION_PENDING')");
	$box->admin('POST', 'change', { n => 300, set => { description => 'changed' } });
	$box->admin('POST', 'add', { n => 200 });
	my $silent = $box->admin('POST', 'change', { n => 150, executing => JSON::PP::true, touch => JSON::PP::false, set => { description => 'silent' } })->{changed};
	$run = cycle('large');
	print_line("300 changed, 200 new, 150 silently among $open open: requests", $run->{requests}, '60');
	print_line('  seconds', sprintf('%.2f', $run->{seconds}));
	print_line('  new rows', $run->{new}, '200');
	print_line('  changed rows (one may be drawn twice)', $run->{changed}, '450');
	my $list = join ',', map { "'$_'" } @$silent;
	print_line('  of the silent ones', value("SELECT count(*) FROM accessreq.request_status WHERE description = 'silent' AND account_activity_item_id IN ($list)"), scalar(@$silent));
	value("SELECT accessreq.stop_sync('large')");
	$box->stop;
	return;
}

sub measure_latency
{
	my $rows = 50_000;
	my $box = new_sandbox(rows => $rows, rate => 100, latency => 200);

	add_server($node, 'far', $box->url, options => { rate_limit => 90 });
	my $start = time;
	value("SELECT accessreq.start_sync('far', every => '1 day')");
	poll_until('the first scan', sub { sleep 0.05; runs('far', 'full') }, 600);
	my $took = time - $start;
	my $stats = $box->stats;
	my $requests = value("SELECT requests FROM accessreq.sync_run WHERE server = 'far' AND kind = 'full'") + 1;
	# of n requests the last may leave when the one 90 before it is 10 s old
	my $burst = 10 * int(($requests - 1) / 90);
	my $steady = $requests / 9;
	print_line("200 ms away, 90 requests in 10 s, $rows rows: requests", $requests);
	print_line('  seconds, when the budget lets the last one go', $burst, 'x 1.1 = ' . sprintf('%.1f', 1.1 * $burst));
	print_line('  seconds, at 9 requests a second', sprintf('%.1f', $steady), 'x 1.1 = ' . sprintf('%.1f', 1.1 * $steady));
	print_line('  seconds', sprintf('%.1f', $took));
	print_line('  429s', $stats->{by_status}{429} // 0, '0');
	value("SELECT accessreq.stop_sync('far')");
	$box->stop;
	return;
}

sub measure_fresh
{
	my $box = new_sandbox(rows => 20_000);
	my @ms;

	add_server($node, 'fresh', $box->url);
	value("SELECT accessreq.start_sync('fresh', every => '5 seconds')");
	poll_until('the first scan', sub { runs('fresh', 'cycle') }, 600);
	for my $n (1 .. 200)
	{
		my $word = "fresh $n";
		my ($id) = @{ $box->admin('POST', 'change', { n => 1, set => { description => $word } })->{changed} };
		my $since = time;

		poll_until('the change', sub { sleep 0.01; value("SELECT count(*) FROM accessreq.request_status WHERE server = 'fresh' AND account_activity_item_id = '$id' AND description = '$word'") }, 60);
		push @ms, time - $since;
		sleep rand 5;
	}
	@ms = sort { $a <=> $b } @ms;
	print_line("from a change to the row, every 5 seconds: median s", sprintf('%.2f', $ms[100]));
	print_line('  99th percentile of 200', sprintf('%.2f', $ms[197]), '6');
	print_line('  longest', sprintf('%.2f', $ms[-1]));
	value("SELECT accessreq.stop_sync('fresh')");
	$box->stop;
	return;
}

measure_latency() if $wanted{latency};
measure_fresh() if $wanted{fresh};
measure_large() if $wanted{large};
$node->stop;
done_testing();
