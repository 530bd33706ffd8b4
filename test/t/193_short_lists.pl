# What status() makes of lists that end too early or overlap: an empty page in
# the middle, a 400 that is no end, ids sorted in another way than filtered, a
# gateway that drops the offset.  The reference is the sandbox's dump.

use strict;
use warnings;

use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = accessreq_node('short');
my $session = new_session($node, setup => "SET accessreq.server = 'acme'");
my $sandbox = new_sandbox(rows => 1300);
my $natural = new_sandbox(rows => 1300, collation => 'natural');
my $path = 'access-request-status';

add_server($node, 'acme', $sandbox->url);
add_server($node, 'mixed', $natural->url);

# status() with these arguments: rows, ids, and what it warned of; and how many
# requests it took.
sub listed
{
	my ($arguments, $server) = @_;
	my $r;

	$server //= $sandbox;
	$server->forget;
	$r = $session->run("SET client_min_messages = warning; SELECT count(*) || ' ' || count(DISTINCT account_activity_item_id) FROM accessreq.status($arguments)");
	is($r->{sqlstate}, '', "status($arguments)") or diag($r->{err});
	return { rows => $r->{out}, warned => $r->{err}, requests => scalar(grep { $_->{path} =~ /$path/ } $server->requests) };
}

sub whole
{
	my ($what, $arguments, $rows, $server) = @_;
	my $r = listed($arguments, $server);

	is($r->{rows}, "$rows $rows", "$what: each once");
	unlike($r->{warned}, qr/WARNING/, "$what: no warning");
	return $r->{requests};
}

sub short
{
	my ($what, $arguments, $rows, $counted) = @_;
	my $r = listed($arguments);

	is($r->{rows}, "$rows $rows", "$what: what there is");
	like($r->{warned}, qr/WARNING:  01000: server "acme" counts $counted statuses and showed $rows\b/, "$what: a warning");
	return $r->{requests};
}

is(whole('a whole list', '', 1300), 6, 'a whole list is read once');
my $fault = sub { my $kind = shift; $sandbox->no_faults; $sandbox->fault($kind, path => $path, @_) };

# ------------------------------------------------------- an empty page, once

my $since = "filters => 'created gt \"2024-07-02T00:00:00Z\"'";
my $later = grep { defined $_->{created} && $_->{created} gt '2024-07-02' } @{ $sandbox->dump };
for my $page (0 .. 5)
{
	$fault->('empty_page', skip => $page);
	whole("page $page empty", '', 1300);
	$fault->('empty_page', skip => $page);
	whole("page $page empty, filtered", $since, $later);
}
# its own filters stay, in the second reading too
my @executing = grep { $_->{state} eq 'EXECUTING' } @{ $sandbox->dump };
$fault->('empty_page', skip => 1);
whole('one of a filtered list', "request_state => 'EXECUTING', page_size => 20", scalar @executing);
$fault->('empty_page', skip => 2);
whole('the first rows, and one of their pages empty', 'max_rows => 700', 700);
$fault->('empty_page', skip => 2);
whole('row_offset, and a page empty', 'row_offset => 100', 1200);
$sandbox->no_faults;
is(whole('max_rows', 'max_rows => 500', 500), 2, 'max_rows reached: no count again');

# -------------------------------------------------------- empty pages, always

# the third page by offset too: what stands on it is not to be had
$sandbox->no_faults;
$sandbox->fault('empty_page', path => 'offset=500', count => -1);
$sandbox->fault('empty_page', path => $path, skip => 2);
cmp_ok(short('a page that never comes', '', 1050, 1300), '<=', 12, 'a page that never comes: the end is soon');
# the count goes on, the rows do not
$sandbox->no_faults;
$sandbox->fault('empty_page', path => $path, skip => 2, count => -1);
cmp_ok(short('nothing comes any more', '', 500, 1300), '<=', 8, 'nothing comes any more: the end is soon');
# a count that is exaggerated: the lesser counts
$sandbox->no_faults;
$sandbox->fault('delay', path => 'count=true', headers => { 'X-Total-Count' => '9000000000000000000' });
cmp_ok(whole('an exaggerated count, once', '', 1300), '<=', 8, 'an exaggerated count, once: nothing is read again');
$sandbox->no_faults;
$sandbox->fault('delay', path => 'count=true', count => -1, headers => { 'X-Total-Count' => '9000000000000000000' });
cmp_ok(short('an exaggerated count', '', 1300, '9000000000000000000'), '<=', 20, 'an exaggerated count: the end is soon');

# ------------------------------------- a 400 "past the end" without an offset

my @refused = ('status', status => 400, body => '{"detailMessage":"Specified offset is invalid."}', path => $path);
for my $page (0 .. 5)
{
	$sandbox->no_faults;
	$sandbox->fault(@refused, skip => $page);
	whole("page $page refused", '', 1300);
}
$sandbox->no_faults;
$sandbox->fault(@refused, count => -1);
like(listed('')->{warned}, qr/WARNING:  01000: .*may have more statuses than the 0 that it showed/, 'refused from the beginning: a warning');

# ------------------------------------------------------- the caller's sorters

$fault->('empty_page', skip => 2);
cmp_ok(short('sorters, a page empty', "sorters => '-created'", 1050, 1300), '==', 7, 'sorters: the count alone is asked again');
$sandbox->no_faults;
$sandbox->fault(@refused, skip => 2);
short('sorters, cut by a 400', "sorters => '-created'", 500, 1300);
$sandbox->no_faults;
is(whole('sorters', "sorters => '-created'", 1300), 6, 'sorters: a whole list is read once');
whole('sorters, row_offset', "sorters => 'name', row_offset => 1200", 100);
whole('row_offset past the end', "sorters => 'name', row_offset => 5000", 0);
whole('row_offset past the end, by id', 'row_offset => 5000', 0);

# ------------------------------------ ids sorted by another rule than filtered

whole('another collation', "server => 'mixed'", 1300, $natural);
whole("another collation, pages of $_", "server => 'mixed', page_size => $_", 1300, $natural) for 100, 13;
whole('another collation, some rows', "server => 'mixed', max_rows => 900", 900, $natural);

# -------------------------------- a gateway that drops the offset and the count

my $full = '[' . join(',', map { sprintf '{"accountActivityItemId":"%032d","name":"n","state":"EXECUTING"}', $_ } 1 .. 250) . ']';
for my $total (undef, 600)
{
	my $same = new_listener(
		sub {
			my ($socket, $n, $note) = @_;
			my $buffer = '';

			while (defined(my $request = read_request($socket, \$buffer)))
			{
				$note->('request', $request);
				syswrite($socket, answer_text(200, $full, Connection => 'keep-alive', defined $total ? ('X-Total-Count' => $total) : ()));
			}
		});
	my $name = 'same' . ($total // '');

	add_server($node, $name, $same->url, mapping => { access_token => 'head.body.tail' });
	my $r = $session->run("SET statement_timeout = '20s'; SELECT count(*) FROM accessreq.status(server => '$name', sorters => 'name'); RESET statement_timeout");
	is($r->{sqlstate}, '', "$name: the same page again and again") or diag($r->{err});
	like($r->{out}, qr/^250$/m, "$name: its rows once");
	like($r->{err}, defined $total ? qr/counts 600 statuses and showed 250/ : qr/may have more statuses than the 250 that it showed/, "$name: a warning");
	$same->stop;
}

# ------------------------------------------------------ rows that go meanwhile

# the count of the first page is too high by then, the one at the end is not
$sandbox->no_faults;
my @ids = sort map { $_->{accountActivityItemId} } @{ $sandbox->dump };
$sandbox->fault('delay', path => $path, skip => 2, delay_ms => 3000);
$sandbox->forget;
$session->send("SET client_min_messages = warning; SELECT count(*) FROM accessreq.status()");
poll_until('the third page to be asked for', sub { scalar(grep { $_->{path} =~ /$path/ } $sandbox->requests) >= 3 });
$sandbox->admin('DELETE', "items?id=$ids[$_]") for 1200 .. 1209;
my $r = $session->finish;
like($r->{out}, qr/^1290$/m, 'rows that go meanwhile');
unlike($r->{err}, qr/WARNING/, 'rows that go meanwhile: no warning');

done_testing();
