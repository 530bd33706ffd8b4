# Measures for queue.sh, which says what and how to start it.

use strict;
use warnings;

use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my %wanted = map { $_ => 1 } @ARGV ? @ARGV : qw(enqueue latency rate concurrency budget);
my $node = accessreq_node('bench', conf => "fsync = on\nlog_min_messages = log\n");
my $admin = new_session($node);

sub value { return $admin->value(@_) }

sub print_line
{
	my ($what, $got, $aim) = @_;

	diag(sprintf '%-62s %14s   %s', $what, $got, $aim ? "aim $aim" : '');
	return;
}

sub drained
{
	my ($server, $limit) = @_;

	return poll_until("the queue of $server", sub { sleep 0.02; value("SELECT count(*) FROM accessreq.action WHERE server = '$server' AND settled_at IS NULL") == 0 }, $limit || 300);
}

sub median { my @s = sort { $a <=> $b } @_; return $s[ $#s / 2 ] }

sub memory
{
	my ($pid) = @_;

	return slurp_file("/proc/$pid/status") =~ /^RssAnon:\s*(\d+)/m ? $1 / 1024 : 0;
}

# From the first commit to the last outcome, in seconds, of what is enqueued.
sub deliver
{
	my ($server, $sql) = @_;

	value("SELECT accessreq.hold_actions('$server')");
	value($sql);
	value("SELECT accessreq.release_actions('$server')");
	my $start = time;
	drained($server);
	return value("SELECT extract(epoch FROM max(settled_at) - min(sent_at)) FROM accessreq.action WHERE server = '$server' AND state = 'done'");
}

my $creates = "SELECT count(accessreq.enqueue_create(b, server => '%s')) FROM generate_series(1, %d) i, accessreq.grant_request(ARRAY['p' || i], 'ROLE', 'r', 'c') b";

sub measure_enqueue
{
	my $box = new_sandbox(rows => 10);

	add_server($node, 'enqueue', $box->url);
	value("SELECT accessreq.hold_actions('enqueue')");
	value("CREATE TABLE work AS SELECT i, 'x' || i AS id FROM generate_series(1, 10000) i");
	value("SELECT count(accessreq.enqueue_cancel('warm' || i, 'c', server => 'enqueue')) FROM generate_series(1, 100) i");
	my $before = memory($admin->backend);
	my @times;
	for my $round (1 .. 3)
	{
		my $start = time;
		value("SELECT count(accessreq.enqueue_cancel(id || '-$round', 'c', server => 'enqueue')) FROM work");
		push @times, time - $start;
	}
	print_line('10,000 cancels enqueued in one statement, s, median of 3', sprintf('%.2f', median(@times)), '< 1');
	print_line('  memory of the session after the first and the third, MB', sprintf('%.1f', memory($admin->backend) - $before), '0');
	my $start = time;
	value(sprintf $creates, 'enqueue', 10000);
	print_line('10,000 creates, s', sprintf('%.2f', time - $start), '< 1');
	value("SELECT accessreq.forget('enqueue')");
	return;
}

sub measure_latency
{
	my $box = new_sandbox(rows => 10);
	my @receipt;

	add_server($node, 'latency', $box->url);
	value("SELECT accessreq.enqueue_close(ARRAY['warm'], server => 'latency')");
	drained('latency');
	for my $i (1 .. 200)
	{
		sleep 0.1;
		value("SELECT accessreq.enqueue_close(ARRAY['c$i'], server => 'latency')");
		my $committed = time;
		my @came;
		until (@came = grep { $_->{path} =~ /close/ && $_->{body} =~ /"c$i"/ } @{ $box->admin('GET', 'requests?since=0') }) { }
		# the sandbox's own note of when it came
		push @receipt, $came[0]{time_ms} - $committed * 1000;
	}
	print_line('commit to receipt by the tenant, idle, ms, median of 200', sprintf('%.1f', median(@receipt)), '< 10');
	my @sorted = sort { $a <=> $b } @receipt;
	print_line('  95th percentile', sprintf('%.1f', $sorted[ 0.95 * @sorted ]));
	return;
}

sub measure_rate
{
	my $box = new_sandbox(rows => 10);

	for my $concurrency (4, 16)
	{
		add_server($node, "rate$concurrency", $box->url, options => { max_concurrency => $concurrency });
		my $seconds = deliver("rate$concurrency", sprintf($creates, "rate$concurrency", 3000));
		print_line("creates delivered a second, no latency, no limit, concurrency $concurrency", sprintf('%.0f', 3000 / $seconds), '500');
	}
	return;
}

sub measure_concurrency
{
	my $box = new_sandbox(rows => 10, latency => 100);

	add_server($node, 'sequence', $box->url, options => { max_concurrency => 1 });
	add_server($node, 'parallel', $box->url, options => { max_concurrency => 16 });
	my $one = deliver('sequence', sprintf($creates, 'sequence', 40)) / 40;
	my $many = deliver('parallel', sprintf($creates, 'parallel', 640)) / 640;
	print_line('100 ms latency: one at a time, actions a second', sprintf('%.1f', 1 / $one));
	print_line('  16 at a time, times as many', sprintf('%.1f', $one / $many), '8');
	return;
}

sub measure_budget
{
	my $box = new_sandbox(rows => 4500, open => 100, latency => 200, rate => 100);
	my %seen;
	my @ids = grep { !$seen{$_}++ } grep { defined } map { $_->{accessRequestId} } @{ $box->dump };

	add_server($node, 'budget', $box->url, options => { rate_limit => 90 });
	my $list = join ', ', map { "('$_')" } @ids[ 0 .. 1999 ];
	my $seconds = deliver('budget', "SELECT count(accessreq.enqueue_cancel(v, 'bulk', server => 'budget')) FROM (VALUES $list) t (v)");
	my @posts = grep { $_->{path} =~ /cancel/ } $box->requests;
	print_line('2,000 cancels with bulk-cancel: requests', scalar(@posts), '40');
	print_line('  seconds', sprintf('%.1f', $seconds));
	$box->forget;
	sleep 10;
	my $since = value('SELECT now()');
	deliver('budget', sprintf($creates, 'budget', 300));
	$seconds = value("SELECT extract(epoch FROM max(settled_at) - min(sent_at)) FROM accessreq.action WHERE kind = 'create' AND state = 'done' AND enqueued_at > '$since'");
	my @times = map { $_->{time_ms} } grep { $_->{method} eq 'POST' && $_->{path} !~ /oauth/ } $box->requests;
	my %in;
	$in{ int(($_ - $times[0]) / 1000) }++ for @times;
	print_line('300 creates, 90 in 10 s, 200 ms: seconds', sprintf('%.1f', $seconds), '30 (81 in any 10 s: at 0, 10, 20, 30)');
	print_line('  of them in the first 30 s', scalar(grep { $_ - $times[0] < 30000 } @times), '243');
	print_line('  refused with 429', scalar(grep { $_->{status} == 429 } $box->requests), '0');
	return;
}

measure_enqueue() if $wanted{enqueue};
measure_latency() if $wanted{latency};
measure_rate() if $wanted{rate};
measure_concurrency() if $wanted{concurrency};
measure_budget() if $wanted{budget};
ok(1, 'measured');
done_testing();
