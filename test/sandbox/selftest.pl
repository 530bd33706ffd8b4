#!/usr/bin/perl
#
# selftest.pl
#
# Asserts what README.md promises of the sandbox: starts it, asks it, and
# compares what status queries return with the dump filtered here.  Core
# modules only.  usage: [SELFTEST_SEED=n] selftest.pl [program]

use strict;
use warnings;
use utf8;
use FindBin;
use HTTP::Tiny;
use IO::Socket::INET;
use JSON::PP;
use List::Util qw(first);
use Time::HiRes qw(time sleep);

my $program = shift // "$FindBin::Bin/accessreq-sandbox";
my ($passed, $failed) = (0, 0);
my $json = JSON::PP->new->utf8->canonical;
my %running;

sub ok
{
	my ($good, $what) = @_;
	$good ? $passed++ : $failed++;
	print "not ok: $what\n" unless $good;
	return $good;
}

sub is
{
	my ($got, $want, $what) = @_;
	ok(defined $got && $got eq $want, "$what: got " . ($got // 'undef') . ", want $want");
}

# ---- one sandbox ----

sub start
{
	my @args = @_;
	my $pid = open(my $out, '-|', $program, '--die-with-parent', @args) or die "cannot start: $!";
	my $base = <$out>;
	die "no base_url" unless defined $base;
	chomp $base;
	my $s = {
		pid => $pid, out => $out, base => $base,
		http => HTTP::Tiny->new(agent => 'selftest/1', max_redirect => 0, timeout => 300)
	};
	$running{$pid} = $s;
	return $s;
}

sub finish
{
	my ($s) = @_;
	kill 'TERM', $s->{pid};
	my $rest = join '', readline $s->{out};
	close $s->{out};
	delete $running{ $s->{pid} };
	is($rest, '', 'one line on stdout');
	is($?, 0, 'exits cleanly');
}

END
{
	my $code = $?;
	kill 'TERM', keys %running if %running;
	$? = $code;
}

sub encode
{
	my ($s) = @_;
	utf8::encode($s) if utf8::is_utf8($s);
	$s =~ s/([^A-Za-z0-9._~-])/sprintf '%%%02X', ord $1/ge;
	return $s;
}

sub form { my (%f) = @_; return join '&', map { encode($_) . '=' . encode($f{$_}) } sort keys %f }

sub admin
{
	my ($s, $method, $path, $body) = @_;
	my $r = $s->{http}->request($method, "$s->{base}/_sandbox/$path",
		defined $body ? { content => ref $body ? $json->encode($body) : $body } : {});
	return $r->{status} < 300 ? $json->decode($r->{content}) : $r->{status};
}

sub token
{
	my ($s, $client, $secret) = @_;
	my $r = $s->{http}->request('POST', "$s->{base}/oauth/token", {
		headers => { 'Content-Type' => 'application/x-www-form-urlencoded' },
		content => form(grant_type => 'client_credentials', client_id => $client,
			client_secret => $secret // 'sandbox-secret') });
	return ($r->{status} == 200 ? $json->decode($r->{content})->{access_token} : undef, $r);
}

sub call
{
	my ($s, $method, $path, %o) = @_;
	my %h = %{ $o{headers} // {} };
	my $token = exists $o{token} ? $o{token} : ($s->{token} //= (token($s, 'tester'))[0]);
	$h{Authorization} = "Bearer $token" if defined $token;
	$h{'Content-Type'} //= 'application/json' if exists $o{body};
	my $body = ref $o{body} ? $json->encode($o{body}) : $o{body};
	my $r = $s->{http}->request($method, "$s->{base}$path",
		{ headers => \%h, defined $body ? (content => $body) : () });
	$r->{json} = eval { $json->decode($r->{content}) };
	return $r;
}

sub status { my ($s, %p) = @_; return call($s, 'GET', '/v2024/access-request-status?' . form(%p)) }
sub ids { my ($r) = @_; return join ' ', map { $_->{accountActivityItemId} } @{ $r->{json} // [] } }

# ---- dates, as the sandbox reads them ----

use Time::Local qw(timegm);

sub micros
{
	my ($d) = @_;
	return undef unless defined $d && $d =~ /^(\d+)-(\d+)-(\d+)T(\d+):(\d+)(?::(\d+)(?:\.(\d+))?)?Z?$/;
	return timegm($6 // 0, $5, $4, $3, $2 - 1, $1) * 1_000_000 + substr(($7 // '') . '000000', 0, 6);
}

# ---- tests ----

sub test_gate
{
	my $s = start('--rows', 500, '--rate', 0, '--access-token', 'static-token');
	my ($t, $r) = token($s, 'abc');
	my $a = $json->decode($r->{content});
	ok($a->{expires_in} == 749 && $a->{token_type} eq 'bearer' && $a->{tenant_id} && $a->{org} && $a->{identity_id}, 'token answer');
	is(scalar(my @parts = split /\./, $t), 3, 'three parts of a JWT');
	($t, $r) = token($s, 'abc', 'wrong');
	is($r->{status}, 401, 'wrong secret');
	is($json->decode($r->{content})->{error}, 'invalid_client', 'invalid_client');
	$r = $s->{http}->request('POST', "$s->{base}/oauth/token?" . form(grant_type => 'client_credentials', client_id => 'a', client_secret => 'sandbox-secret'),
		{ headers => { 'Content-Type' => 'application/x-www-form-urlencoded' } });
	is($r->{status}, 400, 'no credentials in the query');
	is(call($s, 'GET', '/oauth/token')->{status}, 405, 'GET of a token');
	is(status($s, limit => 1)->{status}, 200, 'a page');
	$r = call($s, 'GET', '/v2024/access-request-status', token => undef);
	is($r->{status}, 401, 'no token');
	is($r->{json}{error}, 'JWT validation failed: JWT is expired', 'words of the 401');
	is(call($s, 'GET', '/v2024/access-request-status', token => 'x.y.z')->{status}, 401, 'unknown token');
	is(call($s, 'GET', '/v2024/access-request-status', token => 'static-token')->{status}, 200, 'static token');
	my $bare = HTTP::Tiny->new(agent => '', timeout => 300);
	$r = $bare->get("$s->{base}/v2024/access-request-status", { headers => { Authorization => "Bearer $s->{token}", 'User-Agent' => '' } });
	ok($r->{status} == 403 && $r->{headers}{'content-type'} eq 'text/html', 'no User-Agent: HTML 403');
	$r = call($s, 'GET', '/v2024/nothing');
	ok($r->{status} == 404 && @{ $r->{json}{messages} } == 2 && $r->{json}{trackingId} eq $r->{headers}{'slpt-request-id'}, 'unknown path');
	is(call($s, 'DELETE', '/v2024/access-requests')->{status}, 405, 'method');
	is(call($s, 'GET', '/v2024/access-request-status?x=' . 'y' x 9000)->{status}, 414, 'long URL');
	is(call($s, 'POST', '/v2024/access-requests', body => '{}', headers => { 'Content-Type' => 'text/plain' })->{status}, 415, 'content type');
	my ($nouser) = token($s, 'a-nouser-b');
	$r = call($s, 'GET', '/v2024/access-request-status', token => $nouser);
	ok($r->{status} == 403 && $r->{json}{detailCode} eq '403 Forbidden', 'a token without a user');
	ok(call($s, 'GET', '/beta/access-request-status?limit=1')->{headers}{deprecation}, 'beta is deprecated');
	ok(!status($s, limit => 1)->{headers}{deprecation}, 'v2024 is not');
	admin($s, 'POST', 'tokens/revoke');
	is(status($s, limit => 1)->{status}, 401, 'revoked');
	delete $s->{token};
	is(status($s, limit => 1)->{status}, 200, 'and fetched again');
	my $other = (token($s, 'my-othertenant'))[1];
	ok($json->decode($other->{content})->{org} ne $a->{org}, 'another tenant');
	test_versions($s);
	test_self($s);
	test_lists($s);
	finish($s);
}

sub test_versions
{
	my ($s) = @_;
	for my $v (qw(beta v3 v2024 v2025 v2026))
	{
		is(call($s, 'GET', "/$v/access-request-status?limit=2")->{status}, 200, "$v status");
		is(call($s, 'POST', "/$v/access-requests/close", body => {})->{status}, $v eq 'v3' ? 404 : 400, "$v close");
		is(call($s, 'POST', "/$v/access-requests/bulk-cancel", body => {})->{status}, $v =~ /^(beta|v3)$/ ? 404 : 400, "$v bulk-cancel");
		is(call($s, 'GET', "/$v/access-request-config")->{status}, $v eq 'v2026' ? 400 : 200, "$v config");
		my $f = encode('accessRequestId in ("a","b")');
		is(call($s, 'GET', "/$v/access-request-status?filters=$f")->{status}, $v =~ /^(beta|v3)$/ ? 200 : 400, "$v in");
	}
	is(call($s, 'GET', '/v2026/access-request-config', headers => { 'X-SailPoint-Experimental' => 'true' })->{status}, 200, 'experimental');
	is(call($s, 'GET', '/access-request-status/v1?limit=1')->{status}, 200, 'v1 status');
	is(call($s, 'GET', '/access-request-config/v2')->{status}, 200, 'v1 config');
	is(call($s, 'GET', '/access-request-config/v1')->{status}, 404, 'v1 config has another version');
	is(call($s, 'POST', "/access-requests/v1$_", body => {})->{status}, 400, "v1 $_") for '', '/cancel', '/close', '/bulk-cancel';
	my $config = call($s, 'GET', '/v2024/access-request-config')->{json};
	$config->{autoApprovalEnabled} = JSON::PP::true;
	$config->{mine} = 'kept';
	is(call($s, 'PUT', '/v2024/access-request-config', body => $config)->{status}, 200, 'put config');
	is($json->encode(call($s, 'GET', '/v2024/access-request-config')->{json}), $json->encode($config), 'config as put');
	is(call($s, 'PUT', '/v2024/access-request-config', body => '[1]')->{status}, 400, 'config no object');
	is(call($s, 'PUT', '/v2024/access-request-config', body => { autoApprovalEnabled => 'x' })->{status}, 400, 'config wrong type');
	call($s, 'PUT', '/v2024/access-request-config', body => {});
	ok(!call($s, 'GET', '/v2024/access-request-config')->{json}{autoApprovalEnabled}, 'PUT replaces');
}

sub test_self
{
	my ($s) = @_;
	my ($t) = token($s, 'self');
	my $path = '/v2024/access-request-status?count=true&limit=250';
	my $r = call($s, 'GET', $path, token => $t);
	my $mine = call($s, 'GET', "$path&requested-for=me", token => $t);
	ok($r->{headers}{'x-total-count'} > 0, 'self sees something');
	is($mine->{headers}{'x-total-count'}, $r->{headers}{'x-total-count'}, 'self sees only its own');
	ok(call($s, 'GET', "$path&requested-for=me")->{headers}{'x-total-count'} > 0, 'the admin has some too');
	is(call($s, 'POST', '/v2024/access-requests/close', token => $t, body => { accessRequestIds => ['x'] })->{status}, 403, 'self may not close');
	is(call($s, 'PUT', '/v2024/access-request-config', token => $t, body => {})->{status}, 403, 'nor configure');
	my $all = admin($s, 'GET', 'dump');
	my $theirs = first { $_->{cancelable} && $_->{requester}{name} ne 'Sam Self' } @$all;
	is(call($s, 'POST', '/v2024/access-requests/cancel', token => $t,
			body => { accountActivityId => $theirs->{accessRequestId}, comment => 'x' })->{status}, 403, "nor cancel others'");
}

sub test_lists
{
	my ($s) = @_;
	my $r = call($s, 'GET', '/v2024/identities?limit=3&offset=2&count=true');
	ok(@{ $r->{json} } == 3 && $r->{headers}{'x-total-count'} == 2000, 'identities');
	is(scalar @{ call($s, 'GET', '/v2024/roles')->{json} }, 120, 'roles');
	is(ref call($s, 'GET', '/v2024/public-identities-config')->{json}, 'HASH', 'an object');
	is(scalar @{ call($s, 'GET', '/roles/v1?limit=5')->{json} }, 5, 'roles in the v1 style');
}

# ---- queries against a filter written here ----

my %key = (
	created => sub { micros($_[0]{created}) }, modified => sub { micros($_[0]{modified}) },
	name => sub { my $n = $_[0]{name}; utf8::encode($n); $n }, accountActivityItemId => sub { $_[0]{accountActivityItemId} });

sub compare
{
	my ($sorters, $x, $y) = @_;
	for my $k (split /,/, $sorters)
	{
		my $desc = $k =~ s/^-//;
		my ($p, $q) = ($key{$k}->($x), $key{$k}->($y));
		my $c = !defined $p && !defined $q ? 0 : !defined $p ? 1 : !defined $q ? -1 : $k =~ /ed$/ ? $p <=> $q : $p cmp $q;
		return $desc ? -$c : $c if $c;
	}
	return 0;
}

sub matches
{
	my ($row, $preds) = @_;
	for my $p (@$preds)
	{
		my ($f, $op, $v) = @$p;
		my $x = $f eq 'created' ? micros($row->{created}) : $row->{$f};
		return 0 unless defined $x;
		my $w = $f eq 'created' ? micros($v) : $v;
		if ($op eq 'in') { return 0 unless grep { $x eq $_ } @$v; next }
		if ($op eq 'sw') { return 0 unless index($x, $v) == 0; next }
		my $c = $f eq 'created' ? $x <=> $w : $x cmp $w;
		return 0 unless { eq => $c == 0, ne => $c != 0, gt => $c > 0, ge => $c >= 0, lt => $c < 0, le => $c <= 0 }->{$op};
	}
	return 1;
}

sub random_preds
{
	my ($rows) = @_;
	my %ops = (accountActivityItemId => [qw(eq in ge gt le ne sw)], created => [qw(eq ge gt le lt ne)],
		accessRequestId => [qw(eq ge gt le lt ne sw)]);
	return map {
		my $f = (keys %ops)[rand 3];
		my $op = $ops{$f}[rand @{ $ops{$f} }];
		my $v = $rows->[rand @$rows]{$f} // ($f eq 'created' ? '2025-05-05T05:05:05Z' : 'abc');
		$v .= 'Z' if $f eq 'created' && $v !~ /Z$/;
		$v = substr($v, 0, rand 3) if $op eq 'sw';
		$v = [ $v, map { $rows->[rand @$rows]{$f} } 1 .. rand 6 ] if $op eq 'in';
		[ $f, $op, $v ];
	} 1 .. rand 4;
}

sub filter_text
{
	return join ' and ', map {
		my ($f, $op, $v) = @$_;
		"$f $op " . (ref $v ? '(' . join(',', map { "\"$_\"" } @$v) . ')' : $f eq 'created' && rand() < 0.5 ? $v : "\"$v\"");
	} @_;
}

sub test_one_query
{
	my ($s, $rows) = @_;
	my @preds = random_preds($rows);
	my $sorters = join ',', map { (rand() < 0.4 ? '-' : '') . (keys %key)[rand 4] } 1 .. 1 + rand 2;
	my %p = (sorters => $sorters, limit => 1 + int rand 250, offset => int rand 3 ? 0 : int rand 30, count => 'true');
	my @want = grep { matches($_, \@preds) } @$rows;
	$p{filters} = filter_text(@preds) if @preds;
	if (rand() < 0.2) { $p{'request-state'} = 'EXECUTING'; @want = grep { $_->{state} eq 'EXECUTING' } @want }
	if (rand() < 0.2)
	{
		my $who = $p{'requested-for'} = $rows->[rand @$rows]{requester}{id};
		@want = grep { (ref $_->{requestedFor} eq 'ARRAY' ? $_->{requestedFor}[0]{id} : $_->{requestedFor}{id}) eq $who } @want;
	}
	delete $p{count} if rand() < 0.5;
	my $r = status($s, %p);
	my $what = $json->encode(\%p);
	if (@want && $p{offset} >= @want && @want % $p{limit} == 0)
	{
		ok($r->{status} == 400 && $r->{json}{detailMessage} eq 'Specified offset is invalid.', "past a full end: $what");
		return;
	}
	return unless is($r->{status}, 200, $what);
	is($r->{headers}{'x-total-count'}, scalar @want, "count of $what") if $p{count};
	@want = sort { compare($sorters, $a, $b) } @want;
	@want = $p{offset} < @want ? splice @want, $p{offset}, $p{limit} : ();
	my @got = @{ $r->{json} };
	my ($sorted, $same) = (1, @got == @want);
	for my $i (0 .. $#got)
	{
		$sorted = 0 if $i && compare($sorters, $got[ $i - 1 ], $got[$i]) > 0;
		$same = 0 if $i <= $#want && compare($sorters, $got[$i], $want[$i]) != 0;
		$same = 0 unless matches($got[$i], \@preds);
	}
	my %ids = map { $_->{accountActivityItemId} => 1 } @got;
	ok($sorted && $same && keys %ids == @got, "rows of $what");
}

sub test_queries
{
	my $s = start('--rows', 1500, '--rate', 0, '--seed', 7);
	my $rows = admin($s, 'GET', 'dump');
	is(scalar @$rows, 1500, 'rows in the dump');
	is(admin($s, 'GET', 'verify')->{wrong}, 0, 'indexes agree');
	test_one_query($s, $rows) for 1 .. 200;
	test_refusals($s);
	test_keyset($s, $rows);
	isnt_stable($s);
	finish($s);
}

sub isnt_stable
{
	my ($s) = @_;
	my %seen = map { ids(status($s, limit => 5)) => 1 } 1 .. 10;
	ok(keys %seen > 1, 'no order without sorters');
}

sub test_keyset
{
	my ($s, $rows) = @_;
	my ($last, @got) = ('');
	for (;;)
	{
		my $r = status($s, sorters => 'accountActivityItemId', limit => 250, filters => "accountActivityItemId gt \"$last\"");
		last unless @{ $r->{json} };
		push @got, @{ $r->{json} };
		$last = $got[-1]{accountActivityItemId};
	}
	is($json->encode(\@got), $json->encode($rows), 'all pages by key are the dump');
	my @window = grep { defined $_->{created} && $_->{created} ge '2025-01' && $_->{created} lt '2025-06' } @$rows;
	($last, @got) = ('');
	for (;;)
	{
		my $r = status($s, sorters => 'accountActivityItemId', limit => 50,
			filters => "created ge 2025-01-01T00:00:00Z and created lt \"2025-06-01T00:00:00Z\" and accountActivityItemId gt \"$last\"");
		last unless @{ $r->{json} };
		push @got, @{ $r->{json} };
		$last = $got[-1]{accountActivityItemId};
	}
	is($json->encode(\@got), $json->encode(\@window), 'a window by date, by key');
}

# Sorted by one rule and filtered by another, pages by id pass rows by.
sub test_collation
{
	my $s = start('--rows', 600, '--rate', 0, '--collation', 'natural');
	my $natural = sub { my $id = lc $_[0]{accountActivityItemId}; $id =~ tr/-//d; $id };
	my $all = status($s, sorters => 'accountActivityItemId', limit => 250)->{json};
	is(join(' ', map { $natural->($_) } @$all), join(' ', sort map { $natural->($_) } @$all), 'ids in their natural order');
	my $id = $all->[100]{accountActivityItemId};
	my @want = sort grep { $_ gt $id } map { $_->{accountActivityItemId} } @{ admin($s, 'GET', 'dump') };
	my @found = grep { ids(status($s, filters => "accountActivityItemId eq \"$_\"")) eq $_ } map { $_->{accountActivityItemId} } @$all;
	is(scalar @found, 250, 'each is found by its id');
	my $r = status($s, filters => "accountActivityItemId gt \"$id\"", limit => 1, count => 'true');
	is($r->{headers}{'x-total-count'}, scalar @want, 'and filters by bytes');
	my ($last, $pages, %got) = ('', 0);
	while ($pages++ < 20)
	{
		my $rows = status($s, sorters => 'accountActivityItemId', limit => 50, filters => "accountActivityItemId gt \"$last\"")->{json};
		last unless @$rows;
		$got{ $_->{accountActivityItemId} } = 1 for @$rows;
		$last = $rows->[-1]{accountActivityItemId};
	}
	ok($pages < 20 && keys %got < 600, 'so that pages by id miss some: ' . keys %got);
	finish($s);
}

sub test_refusals
{
	my ($s) = @_;
	my @filters = (
		'accountActivityItemId lt "a"', 'accountActivityItemId EQ "a"', 'accountActivityItemId eq a', 'modified gt "2025-01-01T00:00:00Z"',
		'created sw "2025"', 'created gt "yesterday"', 'created gt 2025-01-01', 'accessRequestId in ("a")',
		'accountActivityItemId eq "a" or accountActivityItemId eq "b"', 'accountActivityItemId eq "a" and', '(accountActivityItemId eq "a")',
		'accountActivityItemId in ()', 'accountActivityItemId in ("a"', 'accountActivityItemId eq "a', 'accountActivityItemId eq "\\n"',
		'accountActivityItemId co "a"', 'state eq "EXECUTING"', 'not accountActivityItemId eq "a"', 'x', '"', 'accountActivityItemId  eq', "accountActivityItemId eq 'a'");
	is(status($s, filters => $_)->{status}, 400, "filter $_") for @filters;
	my $r = status($s, filters => 'accountActivityItemId eq "q\\"uo\\\\te"');
	ok($r->{status} == 200 && !@{ $r->{json} }, 'escaped quotes');
	for my $bad ([ limit => 251 ], [ limit => -1 ], [ limit => 'x' ], [ offset => -1 ], [ sorters => 'state' ], [ sorters => 'Created' ],
		[ 'request-state' => 'DONE' ], [ count => 'maybe' ])
	{
		is(status($s, @$bad)->{status}, 400, "@$bad");
	}
	is(status($s, 'regarding-identity' => 'me', 'requested-for' => 'me')->{status}, 400, 'regarding-identity excludes');
	is(status($s, 'regarding-identity' => 'me', 'requested-by' => 'me')->{status}, 400, 'both of them');
	is(status($s, limit => 0)->{content}, '[]', 'limit 0');
	is(status($s, whatever => 'x', limit => 1)->{status}, 200, 'unknown parameters');
	is(call($s, 'GET', '/v2024/access-request-status?filters=%zz')->{status}, 400, 'a broken escape');
	my @many = map { sprintf '%032x', $_ } 1 .. 250;
	is(status($s, filters => 'accountActivityItemId in (' . join(',', map { "\"$_\"" } @many) . ')')->{status}, 414, '250 ids');
	is(status($s, filters => 'accountActivityItemId in (' . join(',', map { "\"$_\"" } @many[ 0 .. 49 ]) . ')')->{status}, 200, '50 ids');
}

# ---- calls that change ----

sub by_request { my ($s, $id) = @_; return status($s, filters => "accessRequestId eq \"$id\"")->{json} }

sub test_create
{
	my $s = start('--rows', 200, '--rate', 0, '--pace', 0);
	my $post = sub { call($s, 'POST', '/v2024/access-requests', body => $_[0]) };
	my $item = { type => 'ROLE', id => 'r1', comment => 'pleaſe', clientMetadata => { k => 'v "q"' } };
	my $r = $post->({ requestedFor => [ 'p1', 'p2' ], requestedItems => [ $item, { type => 'ENTITLEMENT', id => 'e1' } ] });
	is($r->{status}, 202, 'create');
	my @new = @{ $r->{json}{newRequests} };
	ok(@new == 2 && @{ $new[0]{requestedItemsDetails} } == 2 && !@{ $r->{json}{existingRequests} }, 'two people');
	my $id = $new[0]{accessRequestIds}[0];
	my $rows = by_request($s, $id);
	ok(@$rows == 2 && $rows->[0]{state} eq 'EXECUTING' && $rows->[0]{approvalDetails}[0]{status} eq 'PENDING', 'listed');
	my ($row) = grep { $_->{id} eq 'r1' } @$rows;
	ok($row->{clientMetadata}{k} eq 'v "q"' && $row->{requesterComment}{comment} eq 'pleaſe', 'metadata and comment come back');
	$r = $post->({ requestedFor => ['p1'], requestedItems => [$item] });
	is($r->{json}{existingRequests}[0]{accessRequestIds}[0], $id, 'an equal request exists');
	my @states;
	for (1 .. 4)
	{
		($row) = grep { $_->{id} eq 'r1' } @{ by_request($s, $id) };
		push @states, join '/', $row->{state}, map { $_->{status} } @{ $row->{approvalDetails} };
		admin($s, 'POST', 'advance', { ms => 3000 });
	}
	is("@states", 'EXECUTING/PENDING EXECUTING/APPROVED/PENDING EXECUTING/APPROVED/APPROVED REQUEST_COMPLETED/APPROVED/APPROVED', 'its life');
	is(call($s, 'POST', '/v2024/access-requests/cancel', body => { accountActivityId => $id, comment => 'x' })->{status}, 400, 'too late to cancel');
	$r = $post->({ requestedFor => ['p1'], requestedItems => [ { type => 'ROLE', id => 'held-1' } ] });
	ok($r->{status} == 202 && !@{ by_request($s, $r->{json}{newRequests}[0]{accessRequestIds}[0]) }, 'held already: never listed');
	for my $c ([ 'reject-1', 'REJECTED' ], [ 'fail-1', 'PROVISIONING_FAILED' ], [ 'wait-1', 'EXECUTING' ])
	{
		$r = $post->({ requestedFor => ['p3'], requestedItems => [ { type => 'ROLE', id => $c->[0] } ] });
		admin($s, 'POST', 'advance', { ms => 20000 });
		is(by_request($s, $r->{json}{newRequests}[0]{accessRequestIds}[0])->[0]{state}, $c->[1], $c->[0]);
	}
	test_create_rules($s, $post);
	test_changes($s);
	is(admin($s, 'GET', 'verify')->{wrong}, 0, 'indexes agree after changes');
	my ($old) = token($s, 'oldtenant');
	is(call($s, 'POST', '/beta/access-requests', token => $old, body => { requestedFor => ['z'], requestedItems => [$item] })->{content}, '{}', 'old tenants say {}');
	finish($s);
}

sub test_create_rules
{
	my ($s, $post) = @_;
	my $future = '2099-01-01T00:00:00Z';
	my @role = ({ type => 'ROLE', id => 'x', comment => 'c' });
	my @ents = map { { type => 'ENTITLEMENT', id => "e$_", comment => 'c' } } 1 .. 26;
	my @people = map { "q$_" } 1 .. 11;
	my @bad = (
		[], {}, { requestedFor => ['p'] }, { requestedFor => [], requestedItems => \@role }, { requestedFor => 'p', requestedItems => \@role },
		{ requestedFor => [1], requestedItems => \@role }, { requestedFor => ['p'], requestedItems => [] },
		{ requestedFor => ['p'], requestedItems => [ { type => 'GROUP', id => 'x' } ] },
		{ requestedFor => ['p'], requestedItems => [ { type => 'ROLE' } ] },
		{ requestedFor => ['p'], requestedItems => [ { type => 'ROLE', id => 'x', startDate => '' } ] },
		{ requestedFor => ['p'], requestedItems => [ { type => 'ROLE', id => 'x', removeDate => '2020-01-01T00:00:00Z' } ] },
		{ requestedFor => ['p'], requestedItems => [ { type => 'ROLE', id => 'x', clientMetadata => { a => 1 } } ] },
		{ requestedFor => ['p'], requestedItems => \@role, requestType => 'GIVE' },
		{ requestedFor => ['p'], requestedItems => \@ents },
		{ requestedFor => \@people, requestedItems => [ $ents[0] ] },
		{ requestedFor => [], requestedForWithRequestedItems => [ { identityId => 'p', requestedItems => \@role } ] },
		{ requestedFor => [ 'p', 'q' ], requestedItems => \@role, requestType => 'REVOKE_ACCESS' },
		{ requestedFor => ['p'], requestedItems => [ @ents[ 0, 1 ] ], requestType => 'REVOKE_ACCESS' },
		{ requestedFor => ['p'], requestedItems => [ { type => 'ROLE', id => 'x' } ], requestType => 'REVOKE_ACCESS' },
		{ requestedFor => ['p'], requestedItems => [ { %{ $role[0] }, startDate => $future } ], requestType => 'REVOKE_ACCESS' });
	for my $b (@bad)
	{
		my $r = $post->($b);
		ok($r->{status} == 400 && $r->{json}{detailCode} =~ /^400/, 'refused: ' . $json->encode($b));
	}
	is($post->('{"requestedFor":')->{status}, 400, 'not JSON');
	my @good = (
		{ requestedFor => [@people], requestedItems => \@role }, { requestedFor => [ @people[ 0 .. 9 ] ], requestedItems => [ @ents[ 0 .. 24 ] ] },
		{ requestedForWithRequestedItems => [ { identityId => 'w', requestedItems => \@role } ] },
		{ requestedFor => ['v'], requestedItems => [ { %{ $role[0] }, removeDate => $future } ], requestType => 'REVOKE_ACCESS' },
		{ requestedFor => ['u'], requestedItems => [ { %{ $role[0] }, startDate => $future, removeDate => $future } ], clientMetadata => { a => 'b' } });
	is($post->($_)->{status}, 202, 'taken') for @good;
}

sub test_changes
{
	my ($s) = @_;
	my $all = admin($s, 'GET', 'dump');
	my @open = grep { $_->{cancelable} && defined $_->{accessRequestId} } @$all;
	my $cancel = sub { call($s, 'POST', '/v2024/access-requests/cancel', body => $_[0]) };
	my $id = $open[0]{accessRequestId};
	is($cancel->({ accountActivityId => $id })->{status}, 400, 'cancel without a comment');
	is($cancel->({ comment => 'x' })->{status}, 400, 'cancel without an id');
	is($cancel->({ accountActivityId => 'nothing', comment => 'x' })->{status}, 404, 'cancel of nothing');
	is($cancel->({ accountActivityId => $id, comment => 'by mistake 🙂' })->{status}, 202, 'cancel');
	my ($row) = grep { $_->{accountActivityItemId} eq $open[0]{accountActivityItemId} } @{ by_request($s, $id) };
	ok($row->{state} eq 'CANCELLED' && $row->{cancelledRequestDetails}{comment} eq 'by mistake 🙂' && !$row->{cancelable}
		&& $row->{modified} gt '2026-07', 'cancelled');
	is($cancel->({ accountActivityId => $id, comment => 'x' })->{status}, 400, 'cancel again');
	my $bulk = sub { call($s, 'POST', '/v2024/access-requests/bulk-cancel', body => $_[0]) };
	is($bulk->({ accessRequestIds => [ ('x') x 51 ], comment => 'c' })->{status}, 400, '51 ids');
	is($bulk->({ accessRequestIds => [ $id, 'nothing' ], comment => 'c' })->{status}, 404, 'bulk with an unknown id');
	is($bulk->({ accessRequestIds => [ $id, $open[-1]{accessRequestId} ], comment => 'c' })->{status}, 202, 'bulk');
	ok((grep { $_->{state} eq 'CANCELLED' } @{ by_request($s, $open[-1]{accessRequestId}) }) > 0, 'bulk cancelled the other');
	my ($stuck) = grep { $_->{state} eq 'PROVISIONING_VERIFICATION_PENDING' && defined $_->{accessRequestId} } @$all;
	my $close = sub { call($s, 'POST', '/v2024/access-requests/close', body => $_[0]) };
	is($close->({ accessRequestIds => [] })->{status}, 400, 'close of none');
	is($close->({ accessRequestIds => [ ('x') x 501 ] })->{status}, 400, '501 ids');
	is($close->({ accessRequestIds => ['x'], executionStatus => 'terminated' })->{status}, 400, 'an unknown status');
	my $r = $close->({ accessRequestIds => [ $stuck->{accessRequestId} ], completionStatus => 'Success' });
	ok($r->{status} == 202 && $r->{json}{id} && !@{ $r->{json}{errors} }, 'close');
	ok((grep { $_->{state} eq 'TERMINATED' } @{ by_request($s, $stuck->{accessRequestId}) }) > 0, 'closed');
}

# ---- admin ----

sub test_admin
{
	my $s = start('--rows', 300, '--rate', 0);
	my $raw = '{ "accountActivityItemId" : "zz-1","state":"\u0045XECUTING", "created":"2026-01-01T00:00:00.000Z", "big":12345678901234567890 }';
	is(admin($s, 'POST', 'items', $raw)->{put}, 1, 'put');
	is(status($s, filters => 'accountActivityItemId eq "zz-1"')->{content}, "[$raw]", 'bytes as they came');
	is(admin($s, 'POST', 'items', "[$raw, {\"accountActivityItemId\":\"zz-2\"}]")->{put}, 2, 'put two');
	is(admin($s, 'POST', 'items', '{"a":'), 400, 'put no JSON');
	is(admin($s, 'POST', 'items?raw=1&id=zz-3&created=2026-02-02T00:00:00Z', "{\"name\":\"\\ud800\", broken \xff")->{put}, 1, 'put raw');
	is(status($s, filters => 'accountActivityItemId eq "zz-3"')->{content}, "[{\"name\":\"\\ud800\", broken \xff]", 'raw bytes');
	is(admin($s, 'GET', 'stats')->{rows}, 303, 'rows');
	is(admin($s, 'DELETE', 'items?id=zz-3')->{deleted}, 1, 'delete');
	is(scalar @{ admin($s, 'GET', 'dump') }, 302, 'dump');
	admin($s, 'POST', 'change', { id => 'zz-2', set => { state => 'ERROR', name => 'new' }, touch => JSON::PP::true });
	my ($row) = @{ status($s, sorters => '-modified', limit => 250)->{json} };
	ok((grep { $_->{accountActivityItemId} eq 'zz-2' && $_->{state} eq 'ERROR' && $_->{modified} } @{ status($s, filters => 'accountActivityItemId sw "zz"')->{json} }) == 1, 'changed');
	is(scalar @{ admin($s, 'POST', 'change', { n => 20, set => { x => 1 }, touch => JSON::PP::false })->{changed} }, 20, 'twenty at random');
	is(scalar(grep { $_->{x} } @{ admin($s, 'GET', 'dump') }), 20, 'all of them');
	is(admin($s, 'POST', 'add', { n => 50 })->{rows}, 352, 'added');
	is(admin($s, 'GET', 'verify')->{wrong}, 0, 'indexes agree');
	admin($s, 'DELETE', 'requests');
	call($s, 'POST', '/v2024/access-requests/cancel', body => { comment => 'c' });
	token($s, 'abc', 'hush & "hush"');
	my $log = admin($s, 'GET', 'requests');
	ok(@$log == 2 && $log->[0]{path} eq '/v2024/access-requests/cancel' && $log->[0]{status} == 400 && $log->[0]{body} eq '{"comment":"c"}'
		&& $log->[0]{client_id} eq 'tester' && $log->[0]{user_agent} eq 'selftest/1', 'journal');
	ok($log->[1]{body} !~ /hush/ && $log->[1]{body} =~ /client_secret/, 'secrets are masked');
	test_rate($s);
	test_faults($s);
	is(admin($s, 'GET', 'nothing'), 404, 'no such admin call');
	finish($s);
}

sub test_rate
{
	my ($s) = @_;
	admin($s, 'DELETE', 'requests');
	admin($s, 'POST', 'rate', { rate => 5 });
	my @codes = map { status($s, limit => 0)->{status} } 1 .. 6;
	is("@codes", '200 200 200 200 200 429', 'the sixth is too many');
	is(call($s, 'GET', '/beta/access-request-status?limit=0')->{status}, 200, 'another version has its own');
	is((token($s, 'tester'))[1]{status}, 429, 'token calls count');
	my $r = status($s, limit => 0);
	ok($r->{headers}{'retry-after'} =~ /^\d+$/ && $r->{json}{message} eq ' Rate Limit Exceeded ', 'Retry-After in seconds');
	admin($s, 'POST', 'rate', { retry_after => 'date', retry_after_s => 7 });
	ok(status($s, limit => 0)->{headers}{'retry-after'} =~ /GMT$/, 'and as a date');
	ok(admin($s, 'GET', 'stats')->{max_in_10s}{'tester/v2024'} >= 8, 'what arrived is counted');
	admin($s, 'DELETE', 'requests');
	admin($s, 'POST', 'rate', { rate => 1, retry_after => 'seconds', retry_after_s => 0, grows => JSON::PP::true });
	my @told = map { status($s, limit => 0)->{headers}{'retry-after'} // 'none' } 1 .. 6;
	is("@told", 'none 60 300 600 1200 1200', 'who goes on is told to wait longer and longer');
	admin($s, 'DELETE', 'requests');
	is(status($s, limit => 0)->{status}, 200, 'until that is forgotten');
	admin($s, 'POST', 'rate', { rate => 0, grows => JSON::PP::false });
	is(status($s, limit => 0)->{status}, 200, 'no limit');
}

sub test_faults
{
	my ($s) = @_;
	my $fault = sub { admin($s, 'DELETE', 'fault'); admin($s, 'POST', 'fault', {@_}) };
	my $page = sub { my $r = status($s, limit => 4, sorters => 'created'); $r->{json} //= []; $r };
	$fault->(kind => 'status', status => 503, path => 'status', skip => 1, headers => { 'Retry-After' => '2' });
	my @codes = map { $page->()->{status} } 1 .. 3;
	is("@codes", '200 503 200', 'one 503 after one');
	$fault->(kind => 'html', status => 502);
	ok($page->()->{headers}{'content-type'} eq 'text/html', 'html');
	$fault->(kind => 'redirect');
	ok($page->()->{headers}{location}, 'redirect');
	$fault->(kind => 'garbage');
	is(scalar @{ $page->()->{json} }, 0, 'garbage');
	# more than once: this client tries again where a kept connection closes
	$fault->(kind => $_, count => -1), is($page->()->{status}, 599, $_) for qw(close drop_answer truncate);
	$fault->(kind => 'bad_item', body => '{"oops"');
	like_page($page->()->{content}, qr/,\{"oops",\{/, 'bad_item');
	$fault->(kind => 'duplicate');
	is(scalar @{ $page->()->{json} }, 5, 'duplicate');
	$fault->(kind => 'skip_item');
	is(scalar @{ $page->()->{json} }, 3, 'skip_item');
	$fault->(kind => 'no_id', index => 1);
	is(join(',', map { defined $_->{accountActivityItemId} ? 1 : 0 } @{ $page->()->{json} }), '1,0,1,1', 'no_id');
	$fault->(kind => 'no_names');
	is(scalar(grep { $_->{requester}{name} !~ /^(Could not look up the identity .+)?$/ } @{ $page->()->{json} }), 0, 'no_names');
	is(scalar(grep { $_->{requester}{name} =~ / / } @{ $page->()->{json} }), 4, 'and then they have');
	$fault->(kind => 'empty_page');
	my @pages = map { status($s, limit => 3, count => 'true') } 1 .. 2;
	is($pages[0]{content}, '[]', 'empty_page');
	is($pages[0]{headers}{'x-total-count'}, $pages[1]{headers}{'x-total-count'}, 'but the total is what it is');
	is(scalar @{ $pages[1]{json} }, 3, 'and the next page is full');
	$fault->(kind => 'oversize', bytes => 3_000_000);
	is(length $page->()->{content}, 3_000_000, 'oversize');
	$fault->(kind => 'endless', bytes => 100_000);
	is(length $page->()->{content}, 100_000, 'endless');
	my $t = time;
	$fault->(kind => 'delay', delay_ms => 300);
	$page->();
	ok(time - $t > 0.29, 'delay');
	$fault->(kind => 'late', delay_ms => 200);
	is(scalar @{ $page->()->{json} }, 4, 'late');
	$t = time;
	$fault->(kind => 'slow_body', bytes => 3000, delay_ms => 30);
	is(scalar @{ $page->()->{json} }, 4, 'slow_body');
	ok(time - $t > 0.05, 'slowly');
	$fault->(kind => 'hang');
	{
		# a connection that is kept has its client's limit
		local $s->{http} = HTTP::Tiny->new(agent => 'selftest/1', timeout => 1);
		is($page->()->{status}, 599, 'hang');
	}
	$fault->(kind => 'slow_headers', delay_ms => 50);
	my $sock = IO::Socket::INET->new(PeerAddr => $s->{base} =~ m{//(.*)});
	syswrite $sock, "GET /v2024/roles HTTP/1.1\r\nHost: x\r\nUser-Agent: x\r\n\r\n";
	my $head = '';
	while (length $head < 3) { sysread $sock, $head, 1000, length $head or last }
	ok(length $head > 2 && length $head < 20 && index("HTTP/1.1 200 OK\r\n\r\n", $head) == 0, 'slow_headers');
	close $sock;
	test_write_faults($s, $fault);
	test_error_shapes($s, $fault);
	is(admin($s, 'POST', 'fault', { kind => 'unheard-of' }), 400, 'no such fault');
	is(admin($s, 'POST', 'fault', { kind => 'error', shape => 'unheard-of' }), 400, 'no such shape');
	admin($s, 'DELETE', 'fault');
	is($page->()->{status}, 200, 'all is well again');
}

# Pages and statuses that no write has, with the work done and without.
sub test_write_faults
{
	my ($s, $fault) = @_;
	my $path = '/v2024/access-request-config';
	my $days = sub { call($s, 'GET', $path)->{json}{approvalReminderAndEscalationConfig}{daysUntilEscalation} };
	my $put = sub { call($s, 'PUT', $path, body => { approvalReminderAndEscalationConfig => { daysUntilEscalation => $_[0] } }) };
	my $n = 10;
	for (
		[ 0, 200, 'text/html', kind => 'html', status => 200 ], [ 0, 202, 'text/html', kind => 'html', status => 202 ],
		[ 1, 200, 'text/html', kind => 'page' ], [ 1, 202, 'text/html', kind => 'page', status => 202 ],
		[ 1, 200, 'application/json', kind => 'answer' ], (map { [ 1, $_, 'application/json', kind => 'answer', status => $_, body => '{}' ] } 203, 206, 207),
		[ 1, 204, undef, kind => 'answer', status => 204, body => '{}' ], [ 0, 204, undef, kind => 'status', status => 204 ])
	{
		my ($done, $status, $type, %fault) = @$_;
		my $what = join ' ', map { "$_ $fault{$_}" } sort keys %fault;
		$fault->(%fault, method => 'PUT', path => 'config');
		my $r = $put->(++$n);
		is($r->{status}, $status, "$what: status");
		is($r->{headers}{'content-type'}, $type, "$what: type") if $type;
		is(length($r->{content} // ''), 0, "$what: no body") if $status == 204;
		is($days->() == $n ? 1 : 0, $done, "$what: done or not");
	}
	my $rows = sub { admin($s, 'POST', 'advance', { ms => 5000 }); admin($s, 'GET', 'stats')->{rows} };
	my $create = { requestedFor => ['p'], requestedItems => [ { type => 'ROLE', id => 'r' . $n } ] };
	my $before = $rows->();
	$fault->(kind => 'html', status => 202, method => 'POST', path => 'access-requests');
	ok(call($s, 'POST', '/v2024/access-requests', body => $create)->{content} =~ /maintenance/, 'a page for a create');
	is($rows->(), $before, 'and nothing is made');
	$fault->(kind => 'page', method => 'POST', path => 'access-requests');
	is(call($s, 'POST', '/v2024/access-requests', body => $create)->{status}, 202, 'a page with the status of a create');
	is($rows->(), $before + 1, 'which is made');
}

sub test_error_shapes
{
	my ($s, $fault) = @_;
	for my $shape (qw(name formatted problem title string list messages oauth nested))
	{
		$fault->(kind => 'error', shape => $shape);
		my $r = status($s, limit => 1);
		is($r->{status}, 400, "an error of shape $shape");
		ok($r->{content} =~ /Words (under|alone|in)/, "words of shape $shape");
	}
	$fault->(kind => 'error', shape => 'problem', status => 409);
	my $r = status($s, limit => 1);
	is("$r->{status} $r->{headers}{'content-type'}", '409 application/problem+json', 'a problem has its type');
}

sub like_page { my ($got, $re, $what) = @_; ok($got =~ $re, $what) }

# ---- what needs its own start ----

sub test_same_seed
{
	my @dumps = map {
		my $s = start('--rows', 400, '--seed', $_);
		my $d = $s->{http}->get("$s->{base}/_sandbox/dump")->{content};
		finish($s);
		$d;
	} 5, 5, 6;
	ok($dumps[0] eq $dumps[1], 'the same seed gives the same bytes');
	ok($dumps[0] ne $dumps[2], 'another does not');
}

sub test_time
{
	my $s = start('--rows', 100, '--rate', 0, '--latency', 300, '--token-ttl', 600, '--pace', 300_000, '--gzip');
	# its clock goes on, and what it gave out has expired
	my $advance = sub { admin($s, 'POST', 'advance', { ms => $_[0] }); delete $s->{token} };
	my $page = status($s, limit => 1);
	is($page->{status}, 200, 'a token');
	my $t = time;
	my @pids;
	for (1 .. 20)
	{
		my $pid = fork // die;
		if (!$pid) { $s->{http} = HTTP::Tiny->new; status($s, limit => 1); require POSIX; POSIX::_exit(0) }
		push @pids, $pid;
	}
	waitpid $_, 0 for @pids;
	my $took = time - $t;
	ok($took > 0.29 && $took < 20 * 0.3, "twenty at once wait side by side ($took s)");
	my $token = $s->{token};
	$advance->(601_000);
	is(status($s, limit => 1)->{status}, 200, 'another token');
	$s->{token} = $token;
	is(status($s, limit => 1)->{status}, 401, 'the first has expired');
	delete $s->{token};
	admin($s, 'POST', 'latency', { ms => 0 });
	my $r = status($s, limit => 20);
	my $z = call($s, 'GET', '/v2024/access-request-status?limit=20&sorters=created', headers => { 'Accept-Encoding' => 'gzip' });
	is($z->{headers}{'content-encoding'}, 'gzip', 'gzip if accepted');
	ok(!$r->{headers}{'content-encoding'}, 'and only then');
	my $new = call($s, 'POST', '/v2024/access-requests', body => { requestedFor => ['p'], requestedItems => [ { type => 'ROLE', id => 'r' } ] });
	my $id = $new->{json}{newRequests}[0]{accessRequestIds}[0];
	is(scalar @{ by_request($s, $id) }, 0, 'not listed at once');
	$advance->(100_000);
	is(scalar @{ by_request($s, $id) }, 1, 'but soon');
	$advance->(1_000_000);
	is(by_request($s, $id)->[0]{state}, 'REQUEST_COMPLETED', 'done by itself');
	finish($s);
}

sub mutant
{
	my ($s) = @_;
	for (1 .. 1 + rand 4)
	{
		my $at = int rand length $s;
		substr $s, $at, int(rand 3), ('', '"', '\\', '[', '}', '(', ' ', "\xff", '%', 'and', 'null', '1e999', '\\u0000', "\0", substr $s, rand length $s, 9)[ rand 15 ];
		$s = 'x' if $s eq '';
	}
	return $s;
}

# Calls that are nearly right.
sub test_mutants
{
	my ($s) = @_;
	my @filters = ('accountActivityItemId in ("a","b") and created ge 2025-01-01T00:00:00Z', 'accessRequestId sw "2c" and created lt "2026-01-01T00:00:00+01:00"');
	my %bodies = (
		'' => '{"requestedFor":["p"],"requestType":"GRANT_ACCESS","requestedItems":[{"type":"ROLE","id":"x","removeDate":"2099-01-01T00:00:00Z","clientMetadata":{"a":"b"}}]}',
		'/cancel' => '{"accountActivityId":"x","comment":"y"}', '/close' => '{"accessRequestIds":["x"],"executionStatus":"Completed"}',
		'/bulk-cancel' => '{"accessRequestIds":["x","y"],"comment":"z"}');
	my %admin = (fault => '{"kind":"bad_item","path":"nowhere","headers":{"a":"b"},"index":2}', change => '{"n":2,"set":{"state":"EXECUTING","approvalDetails":[{"status":"PENDING"}]}}',
		items => '[{"accountActivityItemId":"q","created":"2025-01-01T00:00:00Z","cancelable":true,"state":"EXECUTING","accessRequestId":"x"}]', advance => '{"ms":1000}');
	my $bad = 0;
	for (1 .. 100)
	{
		my $call = (sort keys %bodies)[rand 4];
		my $path = (sort keys %admin)[rand 4];
		$bad++ if status($s, sorters => (rand() < 0.5 ? 'name' : mutant('-created,name')), filters => mutant($filters[rand 2]))->{status} > 499;
		$bad++ if call($s, 'POST', "/v2024/access-requests$call", body => mutant($bodies{$call}))->{status} > 499;
		$bad++ if call($s, 'PUT', '/v2024/access-request-config', body => mutant('{"requestOnBehalfOfConfig":{"a":[1,{}]}}'))->{status} > 499;
		$s->{http}->request('POST', "$s->{base}/_sandbox/$path", { content => mutant($admin{$path}) });
		delete $s->{token} if status($s, limit => 1)->{status} == 401;
	}
	is($bad, 0, 'mutants are answered or refused');
}

# With --reference now nothing is dated after now.
sub test_up_to_now
{
	my $s = start('--rows', 3000, '--reference', 'now');
	my @now = gmtime(time + 2);
	my $now = sprintf '%04d-%02d-%02dT%02d:%02d:%02d', $now[5] + 1900, $now[4] + 1, @now[ 3, 2, 1, 0 ];
	my @late;

	for my $item (@{ admin($s, 'GET', 'dump') })
	{
		my %plain = (%$item, removeDate => undef, startDate => undef);
		push @late, grep { $_ gt $now } $json->encode(\%plain) =~ /"(?:created|modified|started|finished|date)":"([0-9T:-]{16,19})/g;
	}
	is("@late[0 .. ($#late > 4 ? 4 : $#late)]", '', 'no date to come');
	finish($s);
}

# Dates in a form that is not taken match nothing, or are refused.
sub test_date_forms
{
	my $s = start('--rows', 500, '--rate', 0, '--dates', 'bare');
	my %filter = (bare => 'created ge 1970-01-01T00:00:00Z', quoted => 'created ge "1970-01-01T00:00:00Z"');
	my $dated = grep { defined $_->{created} } @{ admin($s, 'GET', 'dump') };
	my %taken = (bare => ['bare'], quoted => ['quoted'], both => [ 'bare', 'quoted' ], neither => []);
	my $count = sub {
		my ($filter, %more) = @_;
		my $r = status($s, filters => $filter, count => 'true', limit => 1, %more);
		return $r->{status} == 200 ? $r->{headers}{'x-total-count'} : $r->{status};
	};

	is($count->($filter{bare}), $dated, '--dates bare: bare ones are taken');
	is($count->($filter{quoted}), 0, 'quoted ones match nothing');
	for my $forms (sort keys %taken)
	{
		for my $refuse (0, 1)
		{
			admin($s, 'POST', 'dates', { forms => $forms, refuse => $refuse ? JSON::PP::true : JSON::PP::false });
			for my $form (sort keys %filter)
			{
				my $want = (grep { $_ eq $form } @{ $taken{$forms} }) ? $dated : $refuse ? 400 : 0;
				is($count->($filter{$form}), $want, "dates $forms, refused $refuse: $form");
				is($count->("accountActivityItemId gt \"\" and $filter{$form}", sorters => '-created'), $want, 'with another condition');
			}
		}
	}
	is($count->('created ge "nonsense"'), 400, 'what is no date is refused in any form');
	finish($s);
}

sub test_rubbish
{
	my $s = start('--rows', 10, '--rate', 0);
	my ($port) = $s->{base} =~ /:(\d+)$/;
	for my $i (1 .. 300)
	{
		my $sock = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or next;
		my $head = ("GET", "POST", "PUT", "X")[rand 4] . ' ' . ('/oauth/token', '/v2024/access-requests', '/_sandbox/items', '/_sandbox/fault', '/', '/v2024/access-request-status?filters=')[rand 6];
		my $noise = join '', map { chr rand 256 } 1 .. rand 200;
		my $bytes = $i % 3 ? "$head HTTP/1.1\r\nHost: x\r\nUser-Agent: x\r\nContent-Type: application/json\r\nContent-Length: " . length($noise) . "\r\nConnection: close\r\n\r\n$noise" : $noise;
		$bytes = substr $bytes, 0, rand length $bytes if $i % 5 == 0;
		print $sock $bytes;
		$sock->blocking(0), sleep 0.002, sysread $sock, my $buf, 1000;
		close $sock;
	}
	is(status($s, limit => 1)->{status}, 200, 'alive after rubbish');
	test_mutants($s);
	finish($s);
}

$SIG{PIPE} = 'IGNORE';
srand($ENV{SELFTEST_SEED} // 1);
test_gate();
test_queries();
test_collation();
test_create();
test_admin();
test_same_seed();
test_up_to_now();
test_time();
test_date_forms();
test_rubbish();
print "$passed passed, $failed failed\n";
exit($failed ? 1 : 0);
