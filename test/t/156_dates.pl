# How a tenant takes dates in filters: quoted, bare, or not at all, when what it
# does not take matches nothing or is refused, and when it changes its mind.  Pulls
# store all in each case, nothing is marked missing because a filter matched
# nothing, and who takes quoted ones pays nothing.

use strict;
use warnings;
use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = accessreq_node('dates', conf => "max_worker_processes = 16\naccessreq.max_retries = 0\nautovacuum = off\n");
my $admin = new_session($node);
my $n = 0;
my $sandbox;

sub value { return $admin->value(@_) }
sub form { my ($server) = @_; return value("SELECT coalesce(date_form, 'null') FROM accessreq.sync_job WHERE server = '$server'") }
sub last_run { my ($server, $what) = @_; return value("SELECT $what FROM accessreq.sync_run WHERE server = '$server' ORDER BY run_id DESC LIMIT 1") }
sub pull { my ($server, $more) = @_; return value("CALL accessreq.sync('$server'" . ($more // '') . ')') }
sub missing { my ($server) = @_; return value("SELECT count(*) FROM accessreq.request_status WHERE server = '$server' AND missing_since IS NOT NULL") }
sub takes { my ($forms, $refuse) = @_; $sandbox->admin('POST', 'dates', { forms => $forms, refuse => $refuse ? JSON::PP::true : JSON::PP::false }); return }

# The queries of lists that were asked for, decoded.
sub queries
{
	return map { my $q = $_->{query}; $q =~ s/%([0-9A-F]{2})/chr hex $1/ge; $q } $sandbox->requests(qr/^GET .*access-request-status/);
}

sub is_probe { return $_[0] =~ /limit=1(&|$)/ && $_[0] =~ /sorters=accountActivityItemId(&|$)/ }

sub same_as_sandbox
{
	my ($server, $what) = @_;
	my %tenant = map { $_->{accountActivityItemId} => $_->{state} } @{ $sandbox->dump };
	my %here = map { split / / } split /\n/, value("SELECT account_activity_item_id || ' ' || state FROM accessreq.request_status WHERE server = '$server'");
	my @differ = grep { ($tenant{$_} // '') ne ($here{$_} // '') } keys %tenant, keys %here;

	is(scalar(@differ), 0, "$what: the table equals the tenant") or diag("@differ[0 .. 3]");
	is(missing($server), '0', 'and nothing is marked missing');
	return;
}

# A row that no step but 2 finds: closed, without modified.
sub add_closed
{
	my ($model) = grep { $_->{state} eq 'REQUEST_COMPLETED' && defined $_->{created} } @{ $sandbox->dump };
	my @now = gmtime;

	$n++;
	$sandbox->admin('POST', 'items', { %$model, accountActivityItemId => "closed$n", accessRequestId => "request$n", modified => undef,
		created => sprintf('%04d-%02d-%02dT%02d:%02d:%02d.123Z', $now[5] + 1900, $now[4] + 1, @now[ 3, 2, 1, 0 ]) });
	return "closed$n";
}

sub is_stored
{
	my ($server, $id, $what) = @_;
	return is(value("SELECT count(*) FROM accessreq.request_status WHERE server = '$server' AND account_activity_item_id = '$id'"), '1', $what);
}

# ------------------------------------------------------- each form, several windows

# what it takes, what others get, how it is remembered, how many requests that costs:
# a scan's first is by a quoted date anyway
for my $case (
	[ 'both', 0, 'quoted', 0 ],
	[ 'quoted', 0, 'quoted', 0 ],
	[ 'quoted', 1, 'quoted', 0 ],
	[ 'bare', 0, 'bare', 1 ],
	[ 'bare', 1, 'bare', 1 ],
	[ 'neither', 0, 'neither', 2 ],
	[ 'neither', 1, 'neither', 2 ])
{
	my ($forms, $refuse, $known, $probes) = @$case;
	my $server = "$forms$refuse";
	my $name = "$forms" . ($refuse ? ', others refused' : '');
	my $id;

	$sandbox = new_sandbox(rows => 10500, dates => $forms, $refuse ? (refuse_dates => undef) : ());
	add_server($node, $server, $sandbox->url);
	pull($server);
	is(form($server), $known, "$name: how it takes dates is known");
	same_as_sandbox($server, $name);
	is(scalar(grep { is_probe($_) } queries()), $probes, "after $probes requests");
	is(last_run($server, "jsonb_array_length(cursor -> 'bounds') > 0"), $known eq 'neither' ? 'f' : 't', $known eq 'neither' ? 'it goes in one window' : 'it goes in several windows');

	# from now on it costs nothing
	$sandbox->forget;
	pull($server);
	my @first = queries();
	is(scalar(grep { /limit=1(&|$)/ } @first), 0, "$name: a cycle asks for no dates");
	is(scalar(grep { /created (?:ge|lt) \d/ } @first), $known eq 'bare' ? 1 : 0, 'bare ones where it takes them alone');
	is(scalar(grep { /created (?:ge|lt) "/ } @first), $known eq 'quoted' ? 1 : 0, 'quoted ones where it takes them');
	$id = add_closed();
	pull($server);
	is_stored($server, $id, "$name: a cycle finds a new row");
	$sandbox->admin('POST', 'add', { n => 700 });
	pull($server);
	same_as_sandbox($server, "$name, a cycle of several pages");
	$sandbox->forget;
	pull($server, ', full_scan => true');
	same_as_sandbox($server, "$name, another scan");
	is(scalar(grep { is_probe($_) } queries()), $known eq 'neither' ? 2 : 0, $known eq 'neither' ? 'which asks anew where it took none' : 'which asks no more');
	# what is gone is marked, and nothing else
	$sandbox->admin('DELETE', "items?id=$id");
	pull($server, ', full_scan => true');
	is(value("SELECT string_agg(account_activity_item_id, ' ') FROM accessreq.request_status WHERE server = '$server' AND missing_since IS NOT NULL"), $id, "$name: what is gone is marked missing, and nothing else");

	my $check = value("SELECT coalesce(ok::text, 'null') || ' ' || detail FROM accessreq.check('$server') WHERE step = 'dates'");
	is($check, { quoted => 'true filters take dates in double quotes', bare => 'true filters take dates bare, without quotes', neither => 'null no filter by a date matches anything, quoted or bare' }->{$known}, 'check() says so');
	$sandbox->stop;
}

# ----------------------------------------------------------- it changes its mind

$sandbox = new_sandbox(rows => 10500);
add_server($node, 'fickle', $sandbox->url);
pull('fickle');
is(form('fickle'), 'quoted', 'a tenant that takes both');
takes('bare');
my $id = add_closed();
pull('fickle');
is(form('fickle'), 'null', 'that takes bare ones alone now: a filter that should match and does not is noticed');
pull('fickle');
is(form('fickle'), 'bare', 'and the next pull asks');
is_stored('fickle', $id, 'and finds what the one before did not');
takes('quoted', 1);
$id = add_closed();
is($admin->run("CALL accessreq.sync('fickle')")->{sqlstate}, '22023', 'one that refuses them now: the pull fails');
pull('fickle');
is(form('fickle'), 'quoted', 'and the next asks');
is_stored('fickle', $id, 'and goes on where that stood');
takes('neither');
pull('fickle', ', full_scan => true');
same_as_sandbox('fickle', 'a scan whose first date matches nothing');
pull('fickle', ', full_scan => true');
is(form('fickle'), 'neither', 'the next knows');
takes('bare');
pull('fickle', ', full_scan => true');
is(form('fickle'), 'bare', 'where it took none each scan asks anew');

# In the middle of a scan: its windows match nothing from some moment on.
for my $limit (0.1, 1)
{
	takes('both');
	pull('fickle', ', full_scan => true');
	value("UPDATE accessreq.sync_job SET date_form = 'quoted' WHERE server = 'fickle'");
	$sandbox->forget;
	$sandbox->fault('delay', path => 'accountActivityItemId%20gt', skip => 3, count => 1, delay_ms => 1500);
	my $session = new_session($node);
	$session->run("SET accessreq.missing_limit = $limit");
	$session->send("CALL accessreq.sync('fickle', full_scan => true)");
	poll_until('a window', sub { scalar grep { /accountActivityItemId gt/ } queries() });
	takes('bare');
	my $r = $session->finish;
	like($r->{err}, qr/dated rows when the scan began and 0 at its end/, "missing_limit $limit: a scan in the middle of which dates match nothing is an error");
	is(missing('fickle'), '0', 'and marks nothing missing');
	is(form('fickle'), 'null', 'what was known is forgotten');
	pull('fickle', ', full_scan => true');
	same_as_sandbox('fickle', 'the next');
	$sandbox->no_faults;
}

# The worker.
takes('neither', 1);
value("SELECT accessreq.start_sync('fickle', every => '1 second')");
$id = add_closed();
poll_until('the worker', sub { value("SELECT count(*) FROM accessreq.request_status WHERE server = 'fickle' AND account_activity_item_id = '$id'") eq '1' });
is(form('fickle'), 'neither', 'the worker asks as well, and goes on');
value("SELECT accessreq.stop_sync('fickle')");
same_as_sandbox('fickle', 'by the worker');
$sandbox->stop;

# ------------------------------------------------------------ a tenant without rows

$sandbox = new_sandbox(rows => 0, dates => 'bare');
add_server($node, 'empty', $sandbox->url);
pull('empty');
is(form('empty'), 'null', 'a tenant without rows tells nothing');
like(value("SELECT coalesce(ok::text, 'null') || ' ' || detail FROM accessreq.check('empty') WHERE step = 'dates'"), qr/^null there is no request/, 'and check() says so');
$sandbox->forget;
pull('empty');
is(scalar(grep { /limit=1(&|$)/ } queries()), 0, 'its cycles do not ask each time');
$sandbox->admin('POST', 'add', { n => 3 });
pull('empty');
same_as_sandbox('empty', 'its first rows');
pull('empty');
is(form('empty'), 'bare', 'are what tells');
$sandbox->stop;

# --------------------------------------------------------------------- lost creates

# Among more than a page of one's own requests, with and without a pull before.
for my $case ([ 'bare', 0, 0 ], [ 'bare', 1, 1 ], [ 'neither', 0, 0 ], [ 'neither', 1, 1 ], [ 'quoted', 1, 1 ])
{
	my ($forms, $refuse, $pulled) = @$case;
	my $server = "lost_$forms$refuse";

	$sandbox = new_sandbox(rows => 600, dates => $forms, $refuse ? (refuse_dates => undef) : ());
	add_server($node, $server, $sandbox->url);
	pull($server) if $pulled;
	$sandbox->forget;
	$sandbox->fault('drop_answer', method => 'POST', path => '/access-requests');
	my $action = value("SELECT accessreq.enqueue_create(b, server => '$server') FROM accessreq.grant_request(ARRAY['lost'], 'ROLE', 'role', 'c') b");
	poll_until('its answer to be lost', sub { value("SELECT state FROM accessreq.action WHERE id = $action") eq 'unknown' });
	$sandbox->admin('POST', 'advance', { ms => 5000 });
	is(value("CALL accessreq.wait_for_action($action, '" . PATIENCE . " s')"), 'done', "$server: a lost create is found in the tenant's list");
	is(value("SELECT count(*) FROM accessreq.request_status WHERE server = '$server' AND client_metadata ? 'accessreq_client_token'"), '0', 'and not in the rows');
	is(scalar(grep { $_->{method} eq 'POST' && $_->{path} =~ m{/access-requests$} } $sandbox->requests), 1, 'and was sent once');
	$sandbox->stop;
}

$node->stop;
done_testing();
