# What answers look like in the wild, and what is made of them: redirects, too
# much, too little, not JSON at all; what is sent again and what never is;
# connections, proxies and TLS.

use strict;
use warnings;

use AccessReq;
use IO::Compress::Gzip qw(gzip);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# A proxy that the environment names must not be used.
my $proxy = new_listener(sub { });
$ENV{$_} = $proxy->url
  for qw(http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY);

my $node = accessreq_node('http');
delete @ENV{qw(http_proxy https_proxy HTTPS_PROXY all_proxy ALL_PROXY)};
my $sandbox = new_sandbox();
my $session = new_session($node);
my %static = (mapping => { access_token => 'head.body.tail' });
my $servers = 0;

add_server($node, 'good', $sandbox->url);

# A server for a URL, with a static token unless told otherwise: its name.
sub server_at
{
	my ($url, %o) = @_;
	my $name = 's' . ++$servers;

	add_server($node, $name, $url, %static, %o);
	return $name;
}

# A listener that gives each request the same bytes and ends the connection.
sub answering
{
	my ($bytes) = @_;

	return new_listener(
		sub {
			my ($socket, $n, $note) = @_;
			my $request = read_request($socket) // return;
			$note->('request', $request);
			syswrite($socket, $bytes);
			hang_up($socket);
		});
}

sub fails
{
	my ($sql, $sqlstate, $like, $what) = @_;
	my $r = $session->run($sql);

	is($r->{sqlstate}, $sqlstate, "$what: SQLSTATE") or diag($r->{err});
	like($r->{err}, $like, "$what: message") if $like;
	return $r;
}

# how many requests a listener got, or the sandbox
sub got
{
	my ($listener, $like) = @_;
	my @all = grep { $_->[2] =~ $like } $listener->noted('request');

	return scalar @all;
}

sub asked
{
	my ($like) = @_;
	my @all = $sandbox->requests($like);

	return scalar @all;
}

sub get { my ($server) = @_; return "SELECT accessreq.get_config(server => '$server')" }

sub post
{
	my ($server) = @_;
	return "SELECT accessreq.cancel('2c91808568c529c60168cca6f90c1313', 'why', server => '$server')";
}

$session->run('SET accessreq.max_retries = 0');

# --------------------------------------------------------------- what is sent

$session->value(get('good'));
is( $session->value("SELECT accessreq.count_status(server => 'good')"),
	'600', 'a call');
my ($version) =
  $session->value('SHOW server_version') =~ /^(\d+\.\d+|\d+[a-z]+\d*)/;
my @requests = $sandbox->requests;
is($_->{user_agent}, "accessreq/1.0 (PostgreSQL $version)",
	"User-Agent of $_->{method} $_->{path}")
  for @requests;
is(scalar(@requests), 3, 'a token and two calls');
is($sandbox->stats->{connections}, 1, 'over one connection');
$session->value("SELECT accessreq.count_status(server => 'good') FROM generate_series(1, 20)");
is($sandbox->stats->{connections}, 1, 'and 20 more over it');
is(scalar($proxy->noted), 0, 'the proxy of the environment is not used');

my $plain = answering(answer_text(200, '{"a": 1}'));
my $plain_server = server_at($plain->url);
is($session->value(get($plain_server)), '{"a": 1}', 'an answer of a listener');
my ($request) = map { $_->[2] } $plain->noted('request');
like($request, qr/^GET \/v2024\/access-request-config HTTP\/1\.1\r\n/, 'the request line');
like($request, qr/^Authorization: Bearer head\.body\.tail\r$/m, 'the token');
like($request, qr/^Accept: application\/json\r$/m, 'Accept');
like($request, qr/^Accept-Encoding: gzip\r$/m, 'Accept-Encoding');
unlike($request, qr/^Expect:/mi, 'no Expect');
$session->run(post($plain_server));
($request) = grep { /^POST/ } map { $_->[2] } $plain->noted('request');
like($request, qr/^Content-Type: application\/json\r$/m, 'Content-Type of a POST');
unlike($request, qr/^Expect:/mi, 'no Expect of a POST');
like($request, qr/\r\n\r\n\{.*"comment":\s*"why"/, 'the body of a POST');

# what would break out of a header or a request line
for (
	[ 'user_agent', "ALTER SERVER $plain_server OPTIONS (ADD user_agent E'a\\r\\nX-Evil: 1')", qr/^HV/ ],
	[ 'access_token', "ALTER USER MAPPING FOR PUBLIC SERVER $plain_server OPTIONS (SET access_token E'a\\r\\nX-Evil: 1')", qr/^HV/ ],
	[ 'base_url', "ALTER SERVER $plain_server OPTIONS (SET base_url E'http://127.0.0.1:1/a\\r\\nX-Evil: 1')", qr/^HV/ ],
	[ 'path of get()', "SELECT accessreq.get(E'/v2024/a HTTP/1.1\\r\\nX-Evil: 1\\r\\n', server => '$plain_server')", qr/^22/ ],
  )
{
	my ($what, $sql, $state) = @$_;
	my $before = $plain->noted('request');
	my $r = $session->run($sql);

	like($r->{sqlstate}, $state, "$what with a line break is refused");
}
$session->run("SELECT accessreq.get('/v2024/x', '{\"a\": \"b\\r\\nX-Evil: 1\"}', server => '$plain_server')");
$session->run("SELECT accessreq.get('/v2024/a b', server => '$plain_server')");
is(got($plain, qr/^GET \/v2024\/a%20b/), 1, 'a blank in a path is encoded');
is(got($plain, qr/^X-Evil/m), 0, 'no header was smuggled in');
is(got($plain, qr/a=b%0D%0AX-Evil%3A%201/), 1, 'a line break in a value is encoded');

# ------------------------------------------------------------------ redirects

my $elsewhere = new_listener(sub { my ($s, $n, $note) = @_; $note->('request', read_request($s) // '') });
for my $status (301, 302, 303, 307, 308)
{
	my $redirect = answering(answer_text($status, '', Location => $elsewhere->url . '/v2024/access-request-config'));
	my $name = server_at($redirect->url);

	fails(get($name), '08P01', qr/a redirect is not followed \(HTTP $status\)/, "$status");
	fails(post($name), '08P01', qr/HTTP $status/, "$status of a POST");
	is(got($redirect, qr/^POST/), 1, "$status: the POST was sent once");
	$redirect->stop;
}
my $token_redirect = answering(answer_text(307, '', Location => $elsewhere->url . '/oauth/token'));
fails(get(server_at($token_redirect->url, mapping => { client_id => 'c', client_secret => 's' })),
	'08P01', qr/HTTP 307/, 'a redirect of the token');
is(scalar($elsewhere->noted), 0, 'nothing went elsewhere');

# ------------------------------------------------------------------- too large

$session->run("SET accessreq.max_response_size = '1MB'");
my $megabyte = 1024 * 1024;

sub json_of { my ($size) = @_; return '{"a":"' . ('x' x ($size - 8)) . '"}' }

my $fits = answering(answer_text(200, json_of($megabyte)));
is($session->value("SELECT length((accessreq.get_config(server => '" . server_at($fits->url) . "') ->> 'a'))"),
	$megabyte - 8, 'an answer of exactly max_response_size');
my $big = answering(answer_text(200, json_of($megabyte + 1)));
fails(get(server_at($big->url)), '54000', qr/max_response_size/, 'one byte more');

# a length that is announced is not waited for, an endless body is cut
my $announced = new_listener(
	sub {
		my ($socket) = @_;
		read_request($socket);
		syswrite($socket, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n[");
		syswrite($socket, ' ' x 65536) or return for 1 .. 1000;
		sleep 60;
	});
my $r = fails(get(server_at($announced->url)), '54000', qr/max_response_size/, 'a huge Content-Length');
my $endless = new_listener(
	sub {
		my ($socket) = @_;
		read_request($socket);
		syswrite($socket, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
		1 while syswrite($socket, "10000\r\n" . (' ' x 65536) . "\r\n");
	});
fails(get(server_at($endless->url)), '54000', qr/max_response_size/, 'an endless body');
my $headers = new_listener(
	sub {
		my ($socket) = @_;
		read_request($socket);
		syswrite($socket, "HTTP/1.1 200 OK\r\n");
		1 while syswrite($socket, 'X-Much: ' . ('y' x 4096) . "\r\n");
	});
$r = $session->run(get(server_at($headers->url)));
like($r->{sqlstate}, qr/^(54000|08006|08P01)$/, 'endless header lines') or diag($r->{err});

# compressed: 64 MB of blanks in 64 kB
my $blanks = ' ' x (64 * $megabyte);
gzip(\$blanks => \my $bomb) or die 'gzip';
undef $blanks;
cmp_ok(length $bomb, '<', $megabyte / 4, 'a bomb is small');
my $bomber = answering(answer_text(200, $bomb, 'Content-Encoding' => 'gzip'));
my $memory = "SELECT sum(total_bytes) FROM pg_backend_memory_contexts";
fails(get(server_at($bomber->url)), '54000', qr/max_response_size/, 'a bomb');
gzip(\'{"b": 2}' => \my $small) or die 'gzip';
my $zipped = answering(answer_text(200, $small, 'Content-Encoding' => 'gzip'));
is($session->value(get(server_at($zipped->url))), '{"b": 2}', 'gzip is read');
my $broken_zip = answering(answer_text(200, substr($small, 0, 12), 'Content-Encoding' => 'gzip'));
$r = $session->run(get(server_at($broken_zip->url)));
like($r->{sqlstate}, qr/^08/, 'gzip cut short') or diag($r->{err} . $r->{out});
my $no_zip = answering(answer_text(200, 'not compressed at all', 'Content-Encoding' => 'gzip'));
fails(get(server_at($no_zip->url)), '08006', undef, 'no gzip at all');
$session->run('RESET accessreq.max_response_size');

# -------------------------------------------------- too little, and not at all

my $short = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\": 1}";
my $short_chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"a\": 1}\r\n";
for (
	[ 'a body cut short', $short, '08006' ],
	[ 'chunks cut short', $short_chunks, '08006' ],
	[ 'no answer at all', '', '08006' ],
	[ 'half a header', "HTTP/1.1 200 OK\r\nContent-Ty", '08006|08P01' ],
	[ 'not HTTP', "220 mail.example.com ESMTP\r\n", '08006' ],
	[ 'TLS where there should be none', "\x15\x03\x01\x00\x02\x02\x16", '08006' ],
	[ 'a status of nonsense', "HTTP/1.1 999 Hm\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", '08P01' ],
	[ 'HTML', answer_text(200, '<html>Sign in</html>', 'Content-Type' => 'text/html'), '08P01' ],
	[ 'JSON cut short', answer_text(200, '{"a": [1, 2'), '08P01' ],
	[ 'not UTF-8', answer_text(200, "{\"a\": \"\xff\xfe\"}"), '08P01' ],
	[ 'a NUL', answer_text(200, "{\"a\": \"\0\"}"), '08P01' ],
  )
{
	my ($what, $bytes, $state) = @$_;
	my $listener = answering($bytes);
	my $name = server_at($listener->url);

	$r = $session->run(get($name));
	like($r->{sqlstate}, qr/^($state)$/, "$what: SQLSTATE of a GET") or diag($r->{err});
	unlike($r->{err} . $r->{out}, qr/Sign in|mail\.example/, "$what: the body is not shown");
	# none of them accepts a POST
	$r = $session->run(post($name));
	is($r->{sqlstate}, '08007', "$what: SQLSTATE of a POST") or diag($r->{err});
	unlike($r->{err} . $r->{out}, qr/Sign in|mail\.example/, "$what: the body is not shown");
	is(got($listener, qr/^POST/), 1, "$what: the POST was sent once");
	$listener->stop;
}
$sandbox->fault('html', path => 'access-request-config', status => 502);
fails(get('good'), '08006', qr/HTTP 502.*probably a gateway's/s, "a gateway's 502");
$sandbox->fault('garbage', path => 'access-request-status');
fails("SELECT * FROM accessreq.status(server => 'good')", '08P01', qr/cannot be understood/, 'garbage');
$sandbox->fault('truncate', path => 'access-request-status');
fails("SELECT * FROM accessreq.status(server => 'good')", '08006', qr/connection broke/, 'truncated');
is($session->value("SELECT count(*) FROM accessreq.status(server => 'good')"), '600', 'and the next is whole');

# one byte at a time is slow, not wrong; and so is a 100 before the answer
my $bytewise = new_listener(
	sub {
		my ($socket) = @_;
		read_request($socket) // return;
		for (split //, "HTTP/1.1 100 Continue\r\nX-Total-Count: 7\r\n\r\n" . answer_text(200, '{"c": 3}'))
		{
			syswrite($socket, $_);
			sleep 0.0005;
		}
		hang_up($socket);
	});
is($session->value(get(server_at($bytewise->url))), '{"c": 3}', 'byte by byte');

# ------------------------------------- collections that end, and that do not

# A collection of so many elements; it has its own mind about offsets.
sub collection
{
	my ($page) = @_;

	return new_listener(
		sub {
			my ($socket, $n, $note) = @_;
			my $buffer = '';
			my $pages = 0;
			while (my $asked = read_request($socket, \$buffer))
			{
				my ($offset) = $asked =~ /offset=(\d+)/;
				$note->('request', $asked);
				my ($body, %headers) = $page->($offset, $pages++);
				syswrite($socket, answer_text(200, $body, Connection => 'keep-alive', %headers)) or return;
			}
		});
}
sub elements { my ($from, $n) = @_; return '[' . join(',', map { "{\"id\":\"e$_\"}" } $from .. $from + $n - 1) . ']' }
sub got_rows
{
	my ($listener, $args) = @_;

	return $session->run("SELECT count(*), count(DISTINCT i) FROM accessreq.get('v2024/things', server => '" . server_at($listener->url) . "'" . ($args // '') . ') i');
}

my $paged = collection(sub { elements($_[0], $_[0] >= 600 ? 0 : 250) });
is(got_rows($paged)->{out}, '750|750', 'a collection of three pages');
is(got($paged, qr/^GET/), 4, 'and an empty one');
my $counted = collection(sub { (elements($_[0], $_[0] >= 500 ? 100 : 250), 'X-Total-Count' => 600) });
is(got_rows($counted)->{out}, '600|600', 'one that has told its count');
is(got($counted, qr/^GET/), 3, 'ends with it');
is(got_rows($counted, ", query => '{\"offset\": 500}'")->{out}, '100|100', 'also from the middle on');
my $deaf = collection(sub { elements(0, 250) });
is(got_rows($deaf)->{out}, '250|250', 'one that knows no offset');
is(got($deaf, qr/^GET/), 2, 'is asked twice');
my $restless = collection(sub { my $text = elements(0, 250); $text =~ s/\}\]/,"at":$_[1]}]/; $text });
is(got_rows($restless)->{out}, '250|250', 'one that knows none, and changes a byte a page');
is(got($restless, qr/^GET/), 2, 'is asked twice');
my $first_moves = collection(sub { my $text = elements(0, 250); $text =~ s/\}/,"at":$_[1]}/; $text });
is(got_rows($first_moves)->{out}, '250|250', 'and where it is in the first element');
is(got($first_moves, qr/^GET/), 2, 'is asked twice');
my $swings = collection(sub { elements(($_[1] % 2) * 250, 250) });
is(got_rows($swings)->{out}, '500|500', 'one that goes to and fro');
is(got($swings, qr/^GET/), 3, 'is asked until it comes back');
my $promising = collection(sub { (elements(0, 250), 'X-Total-Count' => 600) });
$r = got_rows($promising);
is($r->{out}, '250|250', 'one that knows no offset, and announces more');
like($r->{err}, qr/WARNING:  54000: stopped after 1 pages .*: it announces 600 rows, and a page began as one before did/, 'is not ended without a word');
my $same_id = collection(sub { $_[1] < 3 ? '[{"id":"","at":' . $_[1] . '}]' : '[]' });
is(got_rows($same_id)->{out}, '3|3', 'an empty id is none');
# nothing tells that this one stands still
my $nameless = collection(sub { "[$_[1], 2]" });
$r = got_rows($nameless);
is($r->{out}, '20000|10000', 'one that has no ids and is new each time is read to a bound');
like($r->{err}, qr/WARNING:  54000: stopped after 10000 pages of "v2024\/things", which may have more: no more than 10000 pages.*HINT:  Go on with query => '\{"offset": 20000\}'/s, 'with a warning that says how to go on');
is($session->run("SELECT count(*) FROM accessreq.get('v2024/things', max_rows => 5, server => '" . server_at($nameless->url) . "')")->{out}, '5', 'max_rows is a bound too');
$_->stop for $paged, $counted, $deaf, $restless, $first_moves, $swings, $nameless;

# ------------------------------------------------------------------- retries

$session->run('SET accessreq.max_retries = 2');
$sandbox->forget;
$sandbox->fault('status', path => 'access-request-config', status => 503, count => 2);
ok($session->value(get('good')), 'a GET after two 503');
is(asked(qr/GET .*access-request-config/), 3, 'was sent three times');
$sandbox->forget;
$sandbox->fault('status', path => 'access-request-config', status => 503, count => 100);
fails(get('good'), '08006', qr/HTTP 503/, '503 for good');
is(asked(qr/GET .*access-request-config/), 3, 'is asked max_retries times more');
$sandbox->no_faults;
$sandbox->forget;
$sandbox->fault('close', path => 'access-request-config');
ok($session->value(get('good')), 'a GET after a lost answer');
$sandbox->forget;
$sandbox->fault('status', path => 'access-request-config', method => 'PUT', status => 500);
ok($session->value("SELECT accessreq.merge_config('{}', server => 'good')"), 'a PUT after a 500');
is(asked(qr/PUT .*access-request-config/), 2, 'was sent twice');
for my $status (400, 403, 404, 409)
{
	$sandbox->forget;
	$sandbox->fault('status', path => 'access-request-config', status => $status);
	isnt($session->run(get('good'))->{sqlstate}, '', "a GET with $status fails");
	is(asked(qr/GET/), 1, "and is not sent again");
	$sandbox->no_faults;
}

# a POST never
for my $fault ([ 'status', status => 500 ], [ 'status', status => 503, headers => { 'Retry-After' => '1' } ],
	[ 'html', status => 502 ], ['close'], ['drop_answer'])
{
	my ($kind, %o) = @$fault;
	my $what = join ' ', $kind, $o{status} // ();

	$sandbox->forget;
	$sandbox->fault($kind, path => 'access-requests/cancel', %o);
	fails(post('good'), '08007', qr/may have been carried out/, "POST, $what");
	is(asked(qr/POST .*cancel/), 1, "POST, $what: was sent once");
	$sandbox->no_faults;
}

# ------------------------------------- a POST on a connection that was kept

# answers once, and hangs up on the second request
my $dying = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		my $buffer = '';
		my $first = read_request($socket, \$buffer);
		# a connection that is opened and then not used for a POST
		$note->('nothing', $buffer), return unless defined $first;
		$note->('request', $first);
		syswrite($socket, answer_text(200, '{"d": 4}', Connection => 'keep-alive'));
		$note->('request', read_request($socket, \$buffer) // return);
		hang_up($socket);
	});
my $dying_server = server_at($dying->url);
$session->value(get($dying_server));
fails(post($dying_server), '08007', qr/may have been carried out/, 'a POST on a connection that dies');
is(got($dying, qr/^POST/), 1, 'exactly one POST was received');
is(join('', map { $_->[2] } $dying->noted('nothing')), '', 'and no byte on another connection');
# with a reset instead of an end
my $resetting = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		my $buffer = '';
		$note->('request', read_request($socket, \$buffer) // return);
		syswrite($socket, answer_text(200, '{"d": 4}', Connection => 'keep-alive'));
		$note->('request', read_request($socket, \$buffer) // return);
		# l_onoff, l_linger
		setsockopt($socket, Socket::SOL_SOCKET(), Socket::SO_LINGER(), pack('ii', 1, 0));
		close $socket;
	});
my $resetting_server = server_at($resetting->url);
$session->value(get($resetting_server));
fails(post($resetting_server), '08007', qr/may have been carried out/, 'a POST on a connection that is reset');
is(got($resetting, qr/^POST/), 1, 'exactly one POST was received there');
# a GET may go over another one
$dying_server = server_at($dying->url);
$session->value(get($dying_server));
ok($session->value(get($dying_server)), 'a GET on a connection that dies');
# the same with a body that takes many writes
my $long = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		my $buffer = '';
		$note->('request', read_request($socket, \$buffer) // return);
		syswrite($socket, answer_text(200, '{"d": 4}', Connection => 'keep-alive'));
		sysread($socket, $buffer, 1000, length $buffer) or return;
		$note->('request', $buffer);
		hang_up($socket);
	});
my $long_server = server_at($long->url);
my $ids = "(SELECT array_agg(md5(i::text)) FROM generate_series(1, 500) i)";
my $many = "SELECT DISTINCT outcome FROM accessreq.close($ids, message => repeat('m', 1000), server => '$long_server')";
$session->value(get($long_server));
$r = $session->run($many);
is($r->{out}, 'unknown', 'a long POST that is cut off') or diag($r->{err});
is(got($long, qr/^POST/), 1, 'was sent once');
# one that was closed while it was idle is no failure
my $idle = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		my $request = read_request($socket) // return;
		$note->('request', $request);
		syswrite($socket, answer_text($request =~ /^POST/ ? 202 : 200, '{"e": 5}', Connection => 'keep-alive'));
		hang_up($socket);
		$note->('closed');
	});
my $idle_server = server_at($idle->url);
$session->value(get($idle_server));
$idle->await('closed');
is($session->run(post($idle_server))->{sqlstate}, '', 'a POST after an idle connection was closed');
is(got($idle, qr/^POST/), 1, 'is sent once');

# --------------------------------------------- where nothing was received

my $port = PostgreSQL::Test::Cluster::get_free_port();
my $closed_server = server_at("http://127.0.0.1:$port");
$session->run('SET accessreq.max_retries = 1');
fails(get($closed_server), '08001', qr/no connection can be made/, 'a GET, refused');
fails(post($closed_server), '08001', qr/no connection can be made/, 'a POST, refused');
# refused is a proof that it was not received: a POST may be sent again
$session->run('SET accessreq.max_retries = 20');
$session->send(post($closed_server));
backend_waits(my $admin = new_session($node), $session->backend);
my $late = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		$note->('request', read_request($socket) // return);
		syswrite($socket, answer_text(202, ''));
		hang_up($socket);
	},
	port => $port);
$r = $session->finish;
is($r->{sqlstate}, '', 'a POST, refused at first') or diag($r->{err});
is($r->{out}, '{}', 'an empty 202');
is(got($late, qr/^POST/), 1, 'arrived once');
$session->run('SET accessreq.max_retries = 0');
my $odd = server_at('https://nowhere.invalid');
$node->append_conf('postgresql.conf', "accessreq.allowed_hosts = '127.0.0.1, localhost, nowhere.invalid'\n");
$node->reload;
poll_until('the reload', sub { $session->value('SHOW accessreq.allowed_hosts') =~ /invalid/ });
fails(get($odd), '08001', qr/cannot be resolved/, 'a host that does not exist');

# --------------------------------------------------------------- time is up

my $mute = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		$note->('request', read_request($socket) // return);
		sleep 60;
	});
my $mute_server = server_at($mute->url, options => { request_timeout => '300ms' });
$r = fails(get($mute_server), '08006', qr/did not answer in time/, 'a GET without an answer');
cmp_ok($r->{ms}, '<', 30000, 'ends by request_timeout, before its peer does');
fails(post($mute_server), '08007', qr/may have been carried out/, 'a POST without an answer');
is(got($mute, qr/^POST/), 1, 'was sent once');
my ($backlog_port, $hold) = full_backlog();
SKIP:
{
	skip('no full backlog can be made here', 4) unless $backlog_port;
	my $name = server_at("http://127.0.0.1:$backlog_port", options => { connect_timeout => '300ms', request_timeout => '60s' });

	for my $sql (get($name), post($name))
	{
		$r = fails($sql, '08001', undef, 'no connection in connect_timeout');
		cmp_ok($r->{ms}, '<', 30000, 'ends by connect_timeout, which is far below request_timeout');
	}
}

# ---------------------------------------------------------------------- TLS

SKIP:
{
	skip('the program openssl is not here', 15) if system('openssl version > /dev/null 2>&1') != 0;

	my $dir = $PostgreSQL::Test::Utils::tmp_check;
	my $ca = make_ca($dir);
	my @cert = make_cert($dir, 'here', 'IP:127.0.0.1,DNS:localhost');
	my @other = make_cert($dir, 'other', 'DNS:other.example');
	my $tls = new_sandbox(tls_cert => $cert[0], tls_key => $cert[1]);
	my $wrong = new_sandbox(tls_cert => $other[0], tls_key => $other[1]);
	my %secret = (mapping => { client_id => 'tls', client_secret => 'sandbox-secret' });

	like($tls->url, qr/^https:/, 'the sandbox speaks TLS');
	(my $by_name = $tls->url) =~ s/127\.0\.0\.1/localhost/;
	my $count = sub { "SELECT accessreq.count_status(server => '$_[0]')" };
	is($session->run($count->(server_at($tls->url, %secret, options => { ca_file => $ca })))->{out},
		'600', 'a private CA, named by ca_file');
	is($session->run($count->(server_at($by_name, %secret, options => { ca_file => $ca })))->{out},
		'600', 'by its name');
	fails($count->(server_at($tls->url, %secret)), '08001', qr/certificate/, 'a private CA, not named');
	fails($count->(server_at($wrong->url, %secret, options => { ca_file => $ca })),
		'08001', qr/certificate/, 'a certificate for another host');
	$r = $session->run($count->(server_at($tls->url, %secret, options => { ca_file => "$dir/missing.pem" })));
	like($r->{sqlstate}, qr/^58/, 'a ca_file that is not there') or diag($r->{err});
	like($r->{err}, qr/ca_file/, 'and the hint names the option');
	my $clear = new_listener(
		sub {
			my ($socket) = @_;
			sysread($socket, my $hello, 4096);
			syswrite($socket, answer_text(400, 'this is not what I speak'));
			hang_up($socket);
		});
	my $no_tls = server_at('https://127.0.0.1:' . $clear->port, options => { ca_file => $ca });
	fails(get($no_tls), '08001', qr/handshake failed/, 'https where http is spoken');
	fails(post($no_tls), '08001', qr/handshake failed/, 'a POST there was not sent');
}

# -------------------------------------------------------------------- proxy

my $through = server_at('http://127.0.0.1:1/',
	options => { proxy => $plain->url });
is($session->value(get($through)), '{"a": 1}', 'the proxy of the option is used');
is(got($plain, qr/^GET http:\/\/127\.0\.0\.1:1\/v2024\/access-request-config/), 1, 'as a proxy');
is(scalar($proxy->noted), 0, 'the proxy of the environment is never used');

$session->quit;
$admin->quit;
$node->stop;
done_testing();
