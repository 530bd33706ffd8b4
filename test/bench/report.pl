# See report.sh.

use strict;
use warnings;
use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $rows = shift // 1_000_000;
my $node = accessreq_node('report', conf => "shared_buffers = 512MB\nmax_wal_size = 8GB\nwork_mem = 32MB\n");
my $sandbox = new_sandbox(rows => $rows, open => 2, reference => 'now');
my $admin = new_session($node);

sub value { return $admin->value(@_) }

add_server($node, 'acme', $sandbox->url, options => { max_concurrency => 16 });
my $began = time;
$admin->send("CALL accessreq.sync('acme')");
my $r = $admin->finish(3600);
die $r->{err} if $r->{sqlstate};
diag(sprintf "pulled %s rows in %.0f s", value('SELECT count(*) FROM accessreq.request_status'), time - $began);
$sandbox->stop;
$admin->send('VACUUM ANALYZE');
$admin->finish(3600);

my $item = value("SELECT account_activity_item_id FROM accessreq.request_status WHERE state = 'EXECUTING' LIMIT 1");
my $person = value("SELECT requested_for_id FROM accessreq.request_status LIMIT 1");
my $approver = value('SELECT approver_id FROM accessreq.approval_backlog ORDER BY waiting DESC LIMIT 1');
diag(sprintf "open: %s; of the person: %s; of the approver: %s", value('SELECT count(*) FROM accessreq.open_item'),
  value("SELECT count(*) FROM accessreq.request_item WHERE requested_for_id = '$person'"),
  value("SELECT count(*) FROM accessreq.approval_detail WHERE status = 'PENDING' AND approver_id = '$approver'"));

# The median of three, after one that is not counted.
sub timed
{
	my ($what, $sql) = @_;
	my @took;

	for my $n (0 .. 3)
	{
		$admin->send("BEGIN; SELECT count(q::text) FROM ($sql) q \\g /dev/null\nROLLBACK");
		my $result = $admin->finish(1200);

		die "$sql: $result->{err}" if $result->{sqlstate};
		push @took, $result->{ms} if $n;
	}
	diag(sprintf "%-52s %10.1f ms", $what, (sort { $a <=> $b } @took)[1]);
	return;
}

# All columns are computed: timed() takes the row's text.
sub whole { my ($view, $where) = @_; return "SELECT * FROM accessreq.$view v" . ($where ? " WHERE $where" : '') . ' OFFSET 0' }

diag('one:');
timed('request_item of an item', whole('request_item', "server = 'acme' AND account_activity_item_id = '$item'"));
timed('request_item of a row_key', whole('request_item', "row_key = 'acme/$item'"));
timed('request_item of a person', whole('request_item', "requested_for_id = '$person'"));
timed('request_item of a requester', whole('request_item', "requester_id = '$person'"));
timed('open_item of a person', whole('open_item', "requested_for_id = '$person'"));
timed('approval_backlog of an approver', whole('approval_backlog', "server = 'acme' AND approver_id = '$approver'"));
timed('approval_detail of an approver, pending', whole('approval_detail', "status = 'PENDING' AND approver_id = '$approver'"));
timed('time_in_state of an item', whole('time_in_state', "server = 'acme' AND account_activity_item_id = '$item'"));
diag('what is open:');
timed($_, whole($_)) for qw(open_item approval_backlog stuck_item expiring_access sod_violation provisioning_failure);
timed('cancel_stale, dry run', "SELECT * FROM accessreq.cancel_stale('30 days', 'x')");
timed('close_stuck, dry run', "SELECT * FROM accessreq.close_stuck('30 days', 'x')");
timed('request_once, in a transaction that goes back', "SELECT * FROM accessreq.request_once('nobody', 'ROLE', 'none', 'x')");
diag('everything:');
timed($_, whole($_)) for qw(item_outcome approval_latency provisioning_time state_on_day);
timed('dashboard_data()', 'SELECT accessreq.dashboard_data()');
timed($_, whole($_)) for qw(request_item approval_detail phase_detail time_in_state);
