# Lists that are cut, pages that bring nothing, counts that cannot be: a pull ends,
# stores what it was shown, says of how many rows it is short, and marks nothing
# missing on a lie.

use strict;
use warnings;
use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = accessreq_node('short', conf => "accessreq.max_retries = 0\n");
my $admin = new_session($node);
my $sandbox = new_sandbox(rows => 2038, open => 100);

sub value { return $admin->value(@_) }
sub run { return $admin->run(@_) }
sub rows { return value("SELECT count(*) FROM accessreq.request_status WHERE missing_since IS NULL") }
sub status { my ($what) = @_; return value("SELECT $what FROM accessreq.sync_status") }
sub last_run { my ($what) = @_; return value("SELECT $what FROM accessreq.sync_run WHERE kind = 'full' ORDER BY run_id DESC LIMIT 1") }
sub pages { return scalar $sandbox->requests(qr/access-request-status/) }

# From the first pull on.
sub anew
{
	$sandbox->no_faults;
	value("SELECT count(*) FROM accessreq.forget('acme')");
	$sandbox->forget;
	return;
}
my $list = 'access-request-status';
my @nothing = ('garbage', body => '[]', path => $list);
my @refused = ('status', status => 400, path => $list, body => '{"detailCode":"400.1 Bad request content","messages":[{"locale":"en-US","localeOrigin":"DEFAULT","text":"Specified offset is invalid."}]}');

add_server($node, 'acme', $sandbox->url, options => { max_concurrency => 1 });
value("CALL accessreq.sync('acme')");
is(rows(), '2038', 'beside: all rows');
my $all = pages();

for my $lie ([ 'an empty page', @nothing ], [ 'a refused offset that was not sent', @refused ])
{
	my ($what, @fault) = @$lie;

	for my $skip (2, 4)
	{
		anew();
		$sandbox->fault(@fault, skip => $skip);
		my $r = run("CALL accessreq.sync('acme')");
		is($r->{sqlstate}, '', "$what in the middle ($skip): the pull is well") or diag($r->{err});
		is(rows(), '2038', 'and has all rows');
		is(last_run('rows_short') . ' ' . status('health'), '0 stopped', 'and is short of none');
		cmp_ok(pages(), '<', 3 * $all, 'by no more than reading twice');
	}
}

# --------------------------------------------------- whatever way it is read

anew();
$sandbox->fault(@nothing, count => -1, path => 'accountActivityItemId%20gt');
$sandbox->fault(@nothing, count => -1, path => 'offset=');
value("SELECT accessreq.start_sync('acme', every => '1 second')");
ok(poll_until('a scan', sub { value('SELECT count(*) FROM accessreq.sync_run WHERE finished IS NOT NULL') ne '0' }), 'a tenant that never shows more than the first page: the scan ends');
my $shown = rows();
my $short = 2038 - $shown;
cmp_ok($shown, '>=', 250, 'with what was shown');
is(last_run("rows_short || ' ' || coalesce(error, 'no error')"), "$short no error", 'it is short of the rest');
ok(poll_until('the health', sub { status('health') eq 'partial' }), 'which is no full health');
is(status('reason'), "the tenant counts $short rows more than it returned to the last full scan", 'and why');
is(value("SELECT next_scan_at > now() + interval '23 hours' FROM accessreq.sync_job"), 't', 'the next scan is at its time');
my $scans = value("SELECT count(*) FROM accessreq.sync_run WHERE kind = 'full'");
my $cycles = value("SELECT count(*) FROM accessreq.sync_run WHERE kind = 'cycle'");
ok(poll_until('cycles', sub { value("SELECT count(*) FROM accessreq.sync_run WHERE kind = 'cycle'") > $cycles + 2 }), 'cycles go on');
is(value("SELECT count(*) FROM accessreq.sync_run WHERE kind = 'full'"), $scans, 'and no scan');
value("SELECT accessreq.stop_sync('acme')");
$sandbox->no_faults;
my $r = run("CALL accessreq.sync('acme', full_scan => true)");
is(rows(), '2038', 'a scan that is shown all has all');
is(last_run('rows_short') . value('SELECT rows_short FROM accessreq.sync_job'), '00', 'and is short of none');

# ------------------------------------------------- nothing is missing on a lie

$sandbox->fault(@nothing, count => -1, path => 'accountActivityItemId%20gt');
$sandbox->fault(@nothing, count => -1, path => 'offset=');
$sandbox->fault(@nothing, count => -1, path => 'in%20');
$r = run("SET accessreq.missing_limit = 1; CALL accessreq.sync('acme', full_scan => true)");
is($r->{sqlstate}, '', 'a scan of a tenant that shows less than there is stored') or diag($r->{err});
like($r->{err}, qr/WARNING:  01000: the tenant of server "acme" counts [\d,]+ rows more than it returned/, 'warns');
is(rows(), '2038', 'and marks nothing missing');
$sandbox->no_faults;

# ---------------------------------------------------------- walks without end

my $page = JSON::PP->new->utf8->encode([ map { { %{$_}, modified => undef } } @{ $sandbox->dump }[ 0 .. 249 ] ]);
$sandbox->fault('garbage', body => $page, count => -1, path => 'sorters=-modified');
$sandbox->forget;
value("UPDATE accessreq.sync_job SET next_scan_at = now() + interval '1 day'");
$r = run("SET statement_timeout = '300s'; CALL accessreq.sync('acme')");
is($r->{sqlstate}, '', 'each page by -modified the same, without a date: the cycle ends') or diag($r->{err});
cmp_ok(pages(), '<', 60, 'after some pages');
$sandbox->no_faults;
for my $count ('9223372036854775807', '9000000000000000000', '999999999')
{
	anew();
	$sandbox->fault('delay', headers => { 'X-Total-Count' => $count }, count => -1, path => $list);
	$r = run("CALL accessreq.sync('acme')");
	is($r->{sqlstate}, '', "X-Total-Count: $count: the pull ends") or diag($r->{err});
	is(rows(), '2038', 'with all rows');
	cmp_ok(pages(), '<', 5 * $all, 'after some pages');
	is(scalar(grep { ($_->{query} // '') =~ /offset=-/ } $sandbox->requests), 0, 'none by a negative offset');
}
$admin->quit;
$node->stop;
done_testing();
