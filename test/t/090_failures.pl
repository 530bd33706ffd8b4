# What goes wrong here and not at the tenant, halfway: the file of the secret is
# gone between two POSTs, a character is lacking, a statement is cancelled when
# its request has left, a lock is not to be had, descriptors run out; and tenants
# that stand still or send what only looks like JSON.

use strict;
use warnings;

use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

# One that the environment names must not be used, by whatever name it goes.
my $env_proxy = new_listener(sub { my ($s, $n, $note) = @_; $note->('used') });
my @proxy_names = qw(http_proxy https_proxy HTTP_PROXY HTTPS_PROXY all_proxy ALL_PROXY);
$ENV{$_} = $env_proxy->url for @proxy_names;
delete @ENV{qw(no_proxy NO_PROXY)};

my $node = accessreq_node('failures',
	conf => "accessreq.allowed_hosts = '127.0.0.1, localhost, nowhere.invalid'\nshared_buffers = 16MB\n");
delete @ENV{@proxy_names};
my $sandbox = new_sandbox(rows => 1600);
my $session = new_session($node);
my $admin = new_session($node);
my %static = (mapping => { access_token => 'head.body.tail' });
my $role = $admin->value('SELECT current_user');
my $servers = 0;
my $r;

# A server for a URL, with a static token unless told otherwise: its name.
sub server_at
{
	my ($url, %o) = @_;
	my $name = 's' . ++$servers;

	add_server($node, $name, $url, %static, %o);
	return $name;
}

# A listener that keeps its connections and notes what it is asked; the handler
# makes the answer of the request.
sub serving
{
	my ($answer) = @_;

	return new_listener(
		sub {
			my ($socket, $n, $note) = @_;
			my $buffer = '';

			while (defined(my $request = read_request($socket, \$buffer)))
			{
				$note->('request', $request);
				syswrite($socket, $answer->($request));
			}
		});
}
sub keep { my ($status, $body, %h) = @_; return answer_text($status, $body, Connection => 'keep-alive', %h) }

sub got
{
	my ($listener, $like) = @_;
	my @all = grep { $_->[2] =~ $like } $listener->noted('request');

	return scalar @all;
}

sub fails
{
	my ($sql, $sqlstate, $like, $what) = @_;
	my $result = $session->run($sql);

	is($result->{sqlstate}, $sqlstate, "$what: SQLSTATE") or diag($result->{err} . $result->{out});
	like($result->{err}, $like, "$what: message");
	return $result;
}

# The log's lines of writes that name something, when there is such a line.
sub log_lines
{
	my ($like) = @_;

	return grep { /LOG:  accessreq\./ && /$like/ } split /\n/, slurp_from($node->logfile);
}

sub one_line
{
	my ($id, $expected, $what) = @_;

	poll_until("a log line with $id", sub { log_lines(qr/\Q$id\E\b/) });
	my @lines = log_lines(qr/\Q$id\E\b/);
	is(scalar(@lines), 1, "$what: one line in the log") or diag(@lines);
	like($lines[0] // '', $expected, "$what: what it says");
	return;
}

# ------------------------------------------- the secret's file goes, in between

my $file = "$PostgreSQL::Test::Utils::tmp_check/secret-file";

sub put_secret
{
	open(my $f, '>', $file) or die "$file: $!";
	print $f 'a-secret-in-a-file';
	close $f;
	chmod 0600, $file;
	return;
}

# A token lives for a second; while x-2 is cancelled the file goes, and the
# token with it, by its age or by a 401 to the next.
sub forgetful
{
	my ($revokes, $prefix) = @_;

	return serving(
		sub {
			my ($request) = @_;

			return keep(200, '{"access_token":"tok","expires_in":' . ($revokes ? 600 : 1) . '}')
			  if $request =~ /^POST \/oauth/;
			return keep(401, '{}') if $revokes && $request =~ /"$prefix-3"/;
			if ($request =~ /"$prefix-2"/)
			{
				rename $file, "$file.away" or die "rename: $!";
				sleep 1.2 unless $revokes;
			}
			return keep(202, '{}');
		});
}
for ([ 'expires', 0, 4 ], [ 'is revoked', 1, 5 ])
{
	my ($how, $revokes, $received) = @$_;
	my $prefix = "f$revokes";
	my $listener = forgetful($revokes, $prefix);
	my $server = server_at($listener->url, api => 'v3',
		mapping => { client_id => 'f', client_secret_file => $file });

	put_secret();
	$r = $session->run("SELECT access_request_id, outcome, error ~ 'secret-file.*No such file' FROM accessreq.cancel_many(ARRAY(SELECT '$prefix-' || i FROM generate_series(0, 5) i), 'why', server => '$server')");
	is($r->{sqlstate}, '', "the file goes, the token $how: rows come back") or diag($r->{err});
	is($r->{out}, join("\n", map { "$prefix-$_|" . ($_ < 3 ? 'accepted|' : 'not_sent|t') } 0 .. 5),
		"the file goes, the token $how: what became of each");
	is(got($listener, qr/"$prefix-\d"/), $revokes ? 4 : 3, "the file goes, the token $how: what was sent");
	one_line("$prefix-2", qr/: accepted; ids: $prefix-2;/, "the token $how, before it");
	one_line("$prefix-3", qr/: not accepted; ids: $prefix-3;/, "the token $how, after it");
	is(scalar(log_lines(qr/\b$prefix-4/)), 0, "the token $how: no line for what was not tried");
	# alone it is an error, and remains the file's
	fails("SELECT accessreq.cancel('x', 'y', server => '$server')", '58P01', qr/secret-file/, "the token $how, a single call");
	fails("SELECT * FROM accessreq.cancel_many(ARRAY['x', 'y'], 'y', server => '$server')", '58P01', qr/secret-file/, "the token $how, before the first");
	$listener->stop;
}

# likewise where the token's host goes: that is its failure, not the file's
my $tokens = new_listener(
	sub {
		my ($socket) = @_;
		read_request($socket) // return;
		# who listens
		kill 'KILL', getppid;
		sleep 0.05;
		syswrite($socket, answer_text(200, '{"access_token":"tok","expires_in":600}'));
		hang_up($socket);
	});
my $revoking = serving(sub { $_[0] =~ /"g-[2-9]"/ ? keep(401, '{}') : keep(202, '{}') });
my $gone = server_at($revoking->url, api => 'v3', options => { token_url => $tokens->url . '/oauth/token' },
	mapping => { client_id => 'f', client_secret_file => $file });
put_secret();
$session->run('SET accessreq.max_retries = 0');
$r = $session->run("SELECT access_request_id, outcome, error ~ 'no connection can be made' FROM accessreq.cancel_many(ARRAY(SELECT 'g-' || i FROM generate_series(0, 3) i), 'why', server => '$gone')");
is($r->{sqlstate}, '', "the token's host goes: rows come back") or diag($r->{err});
is($r->{out}, "g-0|accepted|\ng-1|accepted|\ng-2|not_sent|t\ng-3|not_sent|t", "the token's host goes: what became of each");
fails("SELECT * FROM accessreq.cancel_many(ARRAY['x', 'y'], 'y', server => '$gone')", '08001', qr/no connection can be made/, "the token's host is gone, before the first");
fails("SELECT accessreq.cancel('x', 'y', server => '$gone')", '08001', qr/no connection can be made/, "the token's host is gone");
$session->run('RESET accessreq.max_retries');

# --------------------------------------------- a character that LATIN1 does not have

my $han = "\xe6\x97\xa5";
my $words = serving(
	sub {
		my ($request) = @_;

		return keep(202, "{\"newRequests\":[{\"requestedFor\":\"p$han\",\"accessRequestIds\":[\"r$han\",\"r\\u65e5\",\"r\\u00e9\"],\"attributesHash\":7,\"requestedItemsDetails\":[{\"type\":\"ROLE\",\"id\":\"i$han\"}]}]}")
		  if $request =~ /requestedFor/;
		return keep(202, '{"a":"\u65e5","b":"\u00e9"}') if $request =~ /"escaped"/;
		return keep(202, '{"a":"x\u0000y"}') if $request =~ /"nul"/;
		return keep(200, "[{\"a\":\"$han\"}]") if $request =~ /^GET \S*raw/;
		return keep(200, '[{"ssn":"123-45-6789","a":"\u65e5"}]') if $request =~ /^GET \S*escaped/;
		return keep(202, "{\"a\":\"$han\",\"b\":\"\xc3\xa9\"}");
	});
$admin->value("CREATE DATABASE latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
$node->safe_psql('latin1', 'CREATE EXTENSION accessreq');
add_server($node, 'words', $words->url, %static, db => 'latin1');
my $latin = new_session($node, db => 'latin1');
is($latin->value('SHOW server_encoding'), 'LATIN1', 'a LATIN1 database');
for my $id ('plain', 'escaped')
{
	$r = $latin->run("SELECT x ->> 'a', ascii(x ->> 'b') FROM accessreq.cancel('$id', 'why', server => 'words') x");
	is($r->{sqlstate}, '', "an answer to cancel, $id") or diag($r->{err});
	is($r->{out}, '?|233', "an answer to cancel, $id: what is lacking is a question mark, the rest is there");
}
$r = $latin->run("SELECT accessreq.cancel('nul', 'why', server => 'words') ? 'a'");
is($r->{sqlstate} . $r->{out}, 't', 'an answer to cancel with a NUL') or diag($r->{err});
my $body = '{"requestType":"GRANT_ACCESS","requestedFor":["p1"],"requestedItems":[{"type":"ROLE","id":"i1"}]}';
$r = $latin->run("SELECT requested_for, item_id, access_request_ids[1], access_request_ids[2], ascii(substr(access_request_ids[3], 2)), attributes_hash FROM accessreq.create('$body', server => 'words')");
is($r->{sqlstate}, '', 'an answer to create') or diag($r->{err});
is($r->{out}, 'p?|i?|r?|r?|233|7', "create's ids");
is(got($words, qr/^POST/), 4, 'each was sent once');
# what was only read may fail, but shows no part of the body
for my $path ('raw', 'escaped')
{
	$r = $latin->run("SELECT * FROM accessreq.get('/v2024/$path', server => 'words')");
	unlike($r->{err}, qr/123-45/, "get, $path, in LATIN1 shows nothing: $r->{sqlstate}");
}
$latin->quit;

# ------------------------------------------------- the log's line of a write

my $mute = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		my $request = read_request($socket) // return;
		$note->('request', $request);
		sleep 60;
	});
my $mute_server = server_at($mute->url);
my $interrupted = sub { return qr/LOG:  accessreq\.$_[0] by role "$role" on server "$_[1]": interrupted, may have been carried out; ids: $_[2]; tracking id: none$/ };

sub cancel { my ($id, $server) = @_; return "SELECT accessreq.cancel('$id', 'why', server => '" . ($server || $mute_server) . "')" }
fails("SET statement_timeout = '3s'; " . cancel('id-timeout'), '57014', qr/statement timeout/, 'statement_timeout');
one_line('id-timeout', $interrupted->('cancel', $mute_server, 'id-timeout'), 'statement_timeout');
fails("SET statement_timeout = '3s'; DO \$\$BEGIN PERFORM accessreq.cancel('id-block', 'why', server => '$mute_server'); EXCEPTION WHEN OTHERS THEN NULL; END\$\$",
	'57014', qr/statement timeout/, 'in an EXCEPTION block');
one_line('id-block', $interrupted->('cancel', $mute_server, 'id-block'), 'in an EXCEPTION block');
$session->run('RESET statement_timeout');

my $asked = 2;
for ([ 'id-cancelled', 'pg_cancel_backend', '57014' ], [ 'id-terminated', 'pg_terminate_backend', '57P01' ])
{
	my ($id, $function, $state) = @$_;
	my $victim = new_session($node);

	$victim->send(cancel($id));
	$mute->await('request', ++$asked);
	$admin->value("SELECT $function(" . $victim->backend . ')');
	is($victim->finish->{sqlstate}, $state, "$function: SQLSTATE");
	one_line($id, $interrupted->('cancel', $mute_server, $id), $function);
	$victim->quit;
}
my $victim = new_session($node);
$victim->send("SELECT * FROM accessreq.cancel_many(ARRAY(SELECT 'many-' || i FROM generate_series(1, 12) i), 'why', server => '$mute_server')");
$mute->await('request', ++$asked);
$admin->value('SELECT pg_cancel_backend(' . $victim->backend . ')');
is($victim->finish->{sqlstate}, '57014', 'cancel_many: cancelled');
one_line('many-1', $interrupted->('cancel_many', $mute_server, join(', ', map { "many-$_" } 1 .. 12)), 'cancel_many');
# a PUT is sent again, and the last answer is lost
my $hanging_up = new_listener(
	sub {
		my ($socket, $n, $note) = @_;
		my $request = read_request($socket) // return;
		$note->('request', $request);
		hang_up($socket);
	});
my $put_server = server_at($hanging_up->url);
$session->run('SET accessreq.max_retries = 1');
fails("SELECT accessreq.set_config('{\"put\": 1}', server => '$put_server')", '08006', qr/connection broke/, 'a PUT whose answer is lost');
is(scalar($hanging_up->noted('request')), 2, 'a PUT whose answer is lost: sent twice');
poll_until('its log line', sub { log_lines(qr/on server "$put_server"/) });
like((log_lines(qr/on server "$put_server"/))[0] // '', qr/set_config by .*: answer lost;/, 'a PUT whose answer is lost: what the log says');
$session->run('RESET accessreq.max_retries');
# an endpoint whose pages are smaller than what is asked for
my $small = serving(sub { my ($offset) = $_[0] =~ /offset=(\d+)/; keep(200, '[' . join(',', map { "{\"n\":$_}" } $offset + 1 .. ($offset >= 300 ? $offset : $offset + 100)) . ']') });
is($session->value("SELECT count(*), max((v ->> 'n')::int) FROM accessreq.get('v2024/x', server => '" . server_at($small->url) . "') v"), '300|300', 'get: pages smaller than asked for are followed');
# what had not left is not said to have
my $no_token = server_at($mute->url, mapping => { client_id => 'c', client_secret => 's' });
$victim->send(cancel('id-unsent', $no_token));
$mute->await('request', ++$asked);
$admin->value('SELECT pg_cancel_backend(' . $victim->backend . ')');
is($victim->finish->{sqlstate}, '57014', 'cancelled while it waits for the token');
$victim->quit;

my $tracked = serving(
	sub {
		my ($request) = @_;
		return $request =~ /"bad-id"/ ?
		  keep(400, '{"detailCode":"400.1","trackingId":"trk-of-body","messages":[{"text":"no"}]}') :
		  keep(202, '{}', 'SLPT-Request-ID' => 'trk-of-header');
	});
my $tracked_server = server_at($tracked->url);
$session->value(cancel('good-id', $tracked_server));
one_line('good-id', qr/accessreq\.cancel by role "$role" on server "$tracked_server": accepted; ids: good-id; tracking id: trk-of-header$/, 'accepted');
fails(cancel('bad-id', $tracked_server), '22023', qr/refused/, 'a refusal');
one_line('bad-id', qr/: not accepted; ids: bad-id; tracking id: trk-of-body$/, 'not accepted');
$session->value("SELECT count(*) FROM accessreq.create('{\"requestType\":\"GRANT_ACCESS\",\"requestedFor\":[\"person-1\",\"person-2\"],\"requestedItems\":[{\"type\":\"ROLE\",\"id\":\"i1\"}]}', server => '$tracked_server')");
one_line('person-1', qr/accessreq\.create .*: accepted; ids: person-1, person-2; tracking id: trk-of-header$/, 'create');
$session->value("SELECT count(*) FROM accessreq.create('{\"requestType\":\"GRANT_ACCESS\",\"requestedForWithRequestedItems\":[{\"identityId\":\"person-3\",\"requestedItems\":[{\"type\":\"ROLE\",\"id\":\"i1\"}]},{\"identityId\":\"person-4\",\"requestedItems\":[{\"type\":\"ROLE\",\"id\":\"i2\"}]}]}', server => '$tracked_server')");
one_line('person-3', qr/accessreq\.create .*: accepted; ids: person-3, person-4;/, 'create, the other form');
$session->run('SET accessreq.log_writes = off');
$session->value(cancel('quiet-id', $tracked_server));
fails("SET statement_timeout = '3s'; " . cancel('quiet-timeout'), '57014', qr/timeout/, 'log_writes = off');
$session->run('RESET statement_timeout; RESET accessreq.log_writes');
# comes behind whatever those would have written
$session->value(cancel('last-id', $tracked_server));
one_line('last-id', qr/accepted/, 'log_writes is on again');
is(scalar(log_lines(qr/quiet-/)), 0, 'log_writes = off: no line');
is(scalar(log_lines(qr/id-unsent/)), 0, 'waiting for the token: no line');

# ---------------------------------------------- a pull that waits for a lock

add_server($node, 'locked', $sandbox->url, options => { request_timeout => '2s' });
for my $retries (3, 0)
{
	my $puller = new_session($node, setup => "SET accessreq.max_retries = $retries");

	$admin->value('BEGIN; LOCK TABLE accessreq.request_status IN EXCLUSIVE MODE');
	$puller->send("CALL accessreq.sync('locked', full_scan => true)");
	poll_until('the pull to wait for the lock',
		sub { $admin->value('SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = ' . $puller->backend) == 1 });
	sleep 2.6;
	$admin->value('COMMIT');
	$r = $puller->finish;
	is($r->{sqlstate}, '', "a pull that waited for a lock, with $retries retries") or diag($r->{err});
	like($r->{err}, qr/pulled 1,600 rows/, "a pull that waited for a lock, with $retries retries: all came");
	$puller->quit;
}

# ------------------------------------------------------ pages that stand still

my $full = '[' . join(',', map { sprintf '{"accountActivityItemId":"%032d","name":"n","state":"EXECUTING"}', $_ } 1 .. 250) . ']';
for my $total (undef, 100000)
{
	my $same = serving(sub { keep(200, $full, defined $total ? ('X-Total-Count' => $total) : ()) });
	my $server = server_at($same->url);
	my $what = defined $total ? 'with a total' : 'without a total';

	$session->run("SET statement_timeout = '10s'");
	fails("SELECT count(*) FROM accessreq.status(server => '$server')", '08P01', qr/the page ends where the one before it ended/, "status() $what");
	is(got($same, qr/^GET/), 2, "status() $what: two pages were asked for");
	is($session->run("SELECT count(*) FROM accessreq.status(server => '$server', max_rows => 250)")->{out}, '250', "status() $what: max_rows ends it before");
	fails("SELECT count(*) FROM accessreq.status_of(ARRAY['a', 'b'], server => '$server')", '08P01', qr/the page ends where the one before it ended/, "status_of() $what");
	fails("SELECT count(*) FROM accessreq.refresh(ARRAY['a'], server => '$server')", '08P01', qr/the page ends where the one before it ended/, "refresh() $what");
	$session->run('RESET statement_timeout');
	$same->stop;
}

# ----------------------------------------------- what only looks like JSON

my %bodies = (
	'a number that is none' => '[{"ssn":"123-45-6789","a":01}]',
	'the second element' => '[{"a":1},{"ssn":"123-45-6789","a":tru}]',
	'an object' => '{"ssn":"123-45-6789","a":01}',
	'no value' => '[{"ssn":"123-45-6789","a":}]',
	'an escape that is none' => '[{"ssn":"123-45-6789","a":"\x"}]',
	'a control character' => "[{\"ssn\":\"123-45-6789\",\"a\":\"\x01\"}]",
	'not UTF-8' => "[{\"ssn\":\"123-45-6789\",\"a\":\"\xff\"}]",
	'a number too large' => '[{"ssn":"123-45-6789","a":1e999999}]',
	'a scalar too large' => '1' . ('2345-6789' x 3));
my %cleaned = (
	'a NUL' => '[{"ssn":"123-45-6789","a":"\u0000"}]',
	'half a surrogate' => '[{"ssn":"123-45-6789","a":"\ud800"}]',
	'half a surrogate in an object' => '{"ssn":"123-45-6789","a":"\udc00x"}');
my @names = (sort(keys %bodies), sort keys %cleaned);
my %all = (%bodies, %cleaned, 'scalars' => '[1, "two", null, true, [3], -4.5e1]');
my $json = serving(
	sub {
		my ($n) = $_[0] =~ /^GET \/v2024\/(\d+)/;
		return keep(200, $all{ $n == 99 ? 'scalars' : $names[$n] });
	});
my $json_server = server_at($json->url);
my $log_begin = -s $node->logfile;
for my $n (0 .. $#names)
{
	$r = $session->run("SELECT * FROM accessreq.get('/v2024/$n', server => '$json_server')");
	is($r->{sqlstate}, exists $bodies{ $names[$n] } ? '08P01' : '', "get(), $names[$n]: SQLSTATE") or diag($r->{err});
	unlike($r->{err}, qr/123-4|2345-|ssn/, "get(), $names[$n]: nothing of the body");
}
$r = $session->run("SELECT * FROM accessreq.get('/v2024/99', server => '$json_server')");
is($r->{out}, "1\n\"two\"\nnull\ntrue\n[3]\n-45", 'get(): an array of scalars') or diag($r->{err});
unlike(slurp_from($node->logfile, $log_begin), qr/123-4|2345-|ssn/, 'nor is it in the log');

# ----------------------------------------------------- Retry-After of a 503

add_server($node, 'hurried', $sandbox->url, options => { request_timeout => '1s' });
$session->value("SELECT accessreq.count_status(server => 'hurried')");
$sandbox->fault('status', path => 'access-request-status', status => 503, headers => { 'Retry-After' => '2' });
$r = $session->run("CALL accessreq.sync('hurried')");
is($r->{sqlstate}, '', 'a pull, told to wait for longer than request_timeout') or diag($r->{err});
like($r->{err}, qr/pulled 1,600 rows/, 'comes to its end');
cmp_ok($r->{ms}, '>=', 2000, 'and has waited');
for my $status (503, 429)
{
	$sandbox->no_faults;
	$sandbox->forget;
	$sandbox->fault('status', path => 'access-request-status', status => $status, headers => { 'Retry-After' => '60' }, count => -1);
	$r = $session->run("SELECT accessreq.count_status(server => 'hurried')");
	is($r->{sqlstate}, $status == 503 ? '08006' : '53400', "a session's call, $status: fails") or diag($r->{err});
	cmp_ok($r->{ms}, '<', 60000, "a session's call, $status: before that time is over");
	my @all = $sandbox->requests(qr/access-request-status/);
	is(scalar(@all), 1, "a session's call, $status: was not sent again");
	$admin->value('SELECT count(accessreq.clear_budget(budget)) FROM accessreq.request_budget');
}
$sandbox->no_faults;

# ------------------------------------------------------------------- check()

add_server($node, 'moved', $sandbox->url, options => { token_url => $sandbox->url . '/oauth/token' },
	mapping => { client_id => 'moved', client_secret => 'sandbox-secret' });
my $check = "SELECT step, ok FROM accessreq.check('moved') WHERE step IN ('dns', 'tls', 'connection', 'token')";
my $token = "SELECT ok, detail FROM accessreq.check('moved') WHERE step = 'token'";
$sandbox->forget;
like($session->value($token), qr/^t\|fetched\b/, 'check(): a token that was fetched');
like($session->value($token), qr/^t\|kept from an earlier call\b/, 'check(): a token that was there');
is(scalar($sandbox->requests(qr/oauth/)), 1, 'check(): one fetch');
$admin->value("ALTER SERVER moved OPTIONS (SET base_url 'https://nowhere.invalid')");
$session->run('SET accessreq.max_retries = 0');
is($session->value($check), "dns|f\ntoken|t", 'check(): a token of another host says nothing of the name');
like($session->value($token), qr/^t\|kept from an earlier call\b/, 'check(): and the token is still there');
like($session->value("SELECT detail FROM accessreq.check('moved') WHERE step = 'dns'"), qr/cannot be resolved/, 'check(): what is wrong');
my $closed = PostgreSQL::Test::Cluster::get_free_port();
$admin->value("ALTER SERVER moved OPTIONS (SET base_url 'http://127.0.0.1:$closed')");
is($session->value($check), "dns|t\nconnection|f\ntoken|t", 'check(): nor of the connection');
is(scalar($sandbox->requests(qr/oauth/)), 1, 'check(): still one fetch');
$session->run('RESET accessreq.max_retries');

# ---------------------------------------------------------------- quarantine

my $box = new_sandbox(rows => 600);
add_server($node, 'quarantine', $box->url);
my $aside = "SELECT count(*) FROM accessreq.quarantined_item WHERE server = 'quarantine'";
$box->fault('bad_item', path => 'access-request-status', skip => 1, body => '{"name":"no id"}');
$r = $session->run("CALL accessreq.sync('quarantine')");
like($r->{err}, qr/pulled 600 rows: 599 new, 0 changed, 1 quarantined/, 'an item without an id');
is($admin->value("$aside AND account_activity_item_id = ''"), '1', 'is put aside');
# a cycle does not look everywhere, ended well or not
$box->fault('status', path => 'access-request-status', skip => 1, status => 400);
is($session->run("CALL accessreq.sync('quarantine')")->{sqlstate}, '22023', 'a cycle that fails');
is($admin->value($aside), '1', 'leaves it there');
$box->no_faults;
$r = $session->run("CALL accessreq.sync('quarantine')");
is($r->{sqlstate}, '', 'one that does not') or diag($r->{err});
is($admin->value($aside), '1', 'and has not met it, nor looked everywhere');
$r = $session->run("CALL accessreq.sync('quarantine', full_scan => true)");
is($r->{sqlstate}, '', 'a full scan') or diag($r->{err});
is($admin->value($aside), '0', 'and it is gone');
$box->stop;

# -------------------------------------------------------------------- memory

SKIP:
{
	skip('there is no /proc here', 4) unless -r "/proc/$$/smaps_rollup";

	my $eater = new_session($node);
	my $memory = sub {
		my ($kb) = slurp_from('/proc/' . $eater->backend . '/smaps_rollup') =~ /^Anonymous:\s+(\d+) kB/m;
		return $kb;
	};
	my $ids = "CREATE TEMP TABLE ids AS SELECT DISTINCT access_request_id AS id FROM accessreq.request_status WHERE server = 'locked' AND access_request_id IS NOT NULL LIMIT %d";

	add_server($node, 'eaten', $sandbox->url);
	$eater->value(sprintf($ids, 1000));
	is($eater->value('SELECT count(*) FROM ids'), '1000', '1,000 ids');
	$eater->value("SELECT count(*) FROM accessreq.refresh(ARRAY(SELECT id FROM ids LIMIT 20), server => 'eaten')");
	for ([ 'two times 1,000 ids', "FOR i IN 1..2 LOOP PERFORM count(*) FROM accessreq.refresh(ARRAY(SELECT id FROM ids), server => 'eaten'); END LOOP;", 2000, 32 ],
		[ '1,000 times one id', "FOR x IN SELECT id FROM ids LOOP PERFORM count(*) FROM accessreq.refresh(ARRAY[x], server => 'eaten'); END LOOP;", 1000, 20 ])
	{
		my ($what, $loop, $n, $limit) = @$_;
		my $before = $memory->();
		my $most = $before;

		$sandbox->forget;
		$eater->send("DO \$\$DECLARE x text; BEGIN $loop END\$\$; SELECT 'done'");
		# the most that it had at any time, not what is left
		poll_until($what, sub { my $now = $memory->(); $most = $now if $now > $most; $eater->_read(0); $eater->{out_text} =~ /^done/m || $eater->{err_text} =~ /ERROR/ });
		$r = $eater->finish;
		is($r->{sqlstate}, '', "refresh, $what") or diag($r->{err});
		note("refresh, $what: at most " . ($most - $before) . ' kB more, ' . int($r->{ms}) . ' ms');
		cmp_ok($most - $before, '<', $limit * 1024, "refresh, $what: less than $limit MB");
		my @all = $sandbox->requests(qr/^GET .*access-request-status/);
		is(scalar(@all), $n, "refresh, $what: a call for each id");
	}
	$eater->quit;
}

# -------------------------------------------------------- several at once

for my $most (1, 3)
{
	my $server = server_at($sandbox->url, mapping => { client_id => "c$most", client_secret => 'sandbox-secret' }, options => { max_concurrency => $most });

	$sandbox->forget;
	$sandbox->fault('delay', path => 'access-request-status', delay_ms => 300, count => -1);
	is($session->run("SELECT count(*) FROM accessreq.status_of(ARRAY(SELECT 'x' || i FROM generate_series(1, 7) i), server => '$server')")->{out}, '0', "max_concurrency $most: seven ids");
	$sandbox->no_faults;
	# each takes 300 ms from its arrival on, and the next comes later
	my @arrived = map { $_->{time_ms} } $sandbox->requests(qr/access-request-status/);
	my $at_once = 0;
	for my $at (@arrived)
	{
		my $n = grep { $_ <= $at && $_ > $at - 298 } @arrived;
		$at_once = $n if $n > $at_once;
	}
	ok($at_once <= $most && ($most == 1 || $at_once > 1), "max_concurrency $most: so many at once, and no more") or diag("@arrived");
}

# ------------------------------------------------- what a 2xx to a write is worth

# What each call makes of an answer to its POST: nothing but an accepted one is.
my $page = "<html><body>We are down for maintenance</body></html>";
my %type = ('Content-Type' => 'text/html');
my $cut = sub { my ($type) = @_; return "HTTP/1.1 202 Accepted\r\nContent-Type: $type\r\nContent-Length: 500\r\nConnection: close\r\n\r\n" . ($type =~ /html/ ? $page : '{"newRequests":[') };
my @posts = (
	[ 'empty', 1, answer_text(202, '') ],
	[ 'blank', 1, answer_text(202, " \r\n\t") ],
	[ 'empty, of a type that is none of ours', 1, answer_text(202, '', %type) ],
	[ 'null', 1, answer_text(202, 'null') ],
	[ 'an array', 1, answer_text(202, '[]') ],
	[ 'JSON that calls itself HTML', 1, answer_text(202, '{"id":"j"}', %type) ],
	[ 'JSON cut short by the connection', 1, $cut->('application/json;charset=utf-8') ],
	[ 'a page', 0, answer_text(202, $page, %type) ],
	[ 'a page that calls itself JSON', 0, answer_text(202, $page) ],
	[ 'a page cut short by the connection', 0, $cut->('text/html; charset=utf-8') ],
	[ 'plain text', 0, answer_text(202, 'OK', 'Content-Type' => 'text/plain') ],
	[ 'half of JSON', 0, answer_text(202, '{"newRequests":[') ],
	[ 'no UTF-8', 0, answer_text(202, "{\"a\":\"\xff\"}") ],
	[ 'a page, 200', 0, answer_text(200, $page, %type) ],
	(map { [ "JSON, $_", 0, answer_text($_, '{"newRequests":[]}') ] } 200, 201, 203, 206, 207),
	[ 'nothing, 200', 0, answer_text(200, '') ],
	[ 'nothing, 204', 0, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n" ]);
my $grant = '{"requestType":"GRANT_ACCESS","requestedFor":["p1"],"requestedItems":[{"type":"ROLE","id":"i1"}]}';
for (@posts)
{
	my ($what, $accepted, $bytes) = @$_;
	my $listener = new_listener(sub { my ($socket, $n, $note) = @_; $note->('request', read_request($socket) // return); syswrite($socket, $bytes); hang_up($socket) });
	my $server = server_at($listener->url);
	my $state = $accepted ? '' : '08007';

	$r = $session->run("SELECT count(*) FROM accessreq.create('$grant', server => '$server')");
	is("$r->{sqlstate} $r->{out}", $accepted ? ' 1' : '08007 ', "$what: create") or diag($r->{err});
	unlike($r->{err}, qr/maintenance/, "$what: the body is not shown");
	is($session->run(cancel("w-$server", $server))->{sqlstate}, $state, "$what: cancel");
	for my $sql ("cancel_many(ARRAY['x', 'y'], 'why'", "close(ARRAY['x', 'y']")
	{
		is($session->run("SELECT DISTINCT outcome FROM accessreq.$sql, server => '$server')")->{out}, $accepted ? 'accepted' : 'unknown', "$what: $sql");
	}
	is(got($listener, qr/^POST/), 4, "$what: each was sent once");
	one_line("w-$server", $accepted ? qr/: accepted;/ : qr/: answer lost;/, $what);
	$listener->stop;
}

# ---------------------------------------------------- what was PUT is read back

# Each: what is put; the answer to the PUT, and to the GET behind it; what comes of
# it, and whether it was read back.
my $old = '{"a":{"b":1,"c":[1,2]},"d":"x"}';
my $html = keep(200, $page, %type);
my @puts = (
	[ 'the configuration', '{"d":"y"}', keep(200, '{"a":1,"d":"y"}'), undef, '{"a": 1, "d": "y"}' ],
	[ 'a null that is left out', '{"d":"y","n":null}', keep(200, '{"d":"y"}'), undef, '{"d": "y"}' ],
	[ 'a page, and it is there', '{"d":"y"}', $html, keep(200, '{"a":1,"d":"y"}'), '{"a": 1, "d": "y"}' ],
	[ 'nothing, and it is there', '{"d":"y"}', keep(200, ''), keep(200, '{"a":1,"d":"y"}'), '{"a": 1, "d": "y"}' ],
	[ '204, and it is there', '{"d":"y"}', "HTTP/1.1 204 No Content\r\n\r\n", keep(200, '{"d":"y"}'), '{"d": "y"}' ],
	[ '202, and it is there', '{"d":"y"}', keep(202, '{"d":"y"}'), keep(200, '{"d":"y"}'), '{"d": "y"}' ],
	[ 'other JSON, and it is there', '{"a":{"b":1.0}}', keep(200, '{"message":"done"}'), keep(200, $old), '{"a": {"b": 1, "c": [1, 2]}, "d": "x"}' ],
	[ 'an array, and it is there', '{"a":{"c":[1,2]}}', keep(200, '[]'), keep(200, $old), '{"a": {"b": 1, "c": [1, 2]}, "d": "x"}' ],
	[ 'a page, and it is not there', '{"d":"y"}', $html, keep(200, $old) ],
	[ 'a page, and a part is not there', '{"d":"x","e":1}', $html, keep(200, $old) ],
	[ 'a page, and a value within is not', '{"a":{"b":2}}', $html, keep(200, $old) ],
	[ 'a page, and an array is another', '{"a":{"c":[1,2,3]}}', $html, keep(200, $old) ],
	[ 'a page, and another page', '{"d":"x"}', $html, $html ],
	[ 'a page, and nothing', '{"d":"x"}', $html, keep(200, '') ],
	[ 'nothing was asked for, and a page', '{}', $html, $html ],
	[ 'other JSON, and it is not there', '{"d":"y"}', keep(200, '{"message":"maintenance"}'), keep(200, $old) ],
	(map { [ "a page, and $_", '{"d":"x"}', $html, keep($_, '{}') ] } 400, 401, 403, 404, 429, 503),
	[ 'a page, and a redirect', '{"d":"x"}', $html, keep(302, '', Location => 'http://127.0.0.1:1/') ]);
$session->run('SET accessreq.max_retries = 0');
for (@puts)
{
	my ($what, $put, $answer, $behind, $result) = @$_;
	my $listener = serving(sub { $_[0] =~ /^PUT/ ? $answer : $behind });
	my $server = server_at($listener->url, options => { request_timeout => '5s' });

	$r = $session->run("SELECT accessreq.set_config('$put', server => '$server')");
	is($r->{sqlstate}, defined $result ? '' : '08007', "$what: SQLSTATE") or diag($r->{err});
	is($r->{out}, $result // '', "$what: what comes back");
	like($r->{err}, qr/HINT:  It may have been carried out: look at accessreq\.get_config\(\)/, "$what: the hint") unless defined $result;
	is(got($listener, qr/^PUT/), 1, "$what: put once");
	cmp_ok(got($listener, qr/^GET/), defined $behind ? '>' : '==', 0, "$what: read back or not");
	$listener->stop;
}

# -------------------------------------- a page, or nothing, where something is read

for ([ 'a page', $html ], [ 'nothing', keep(200, '') ], [ 'no JSON', keep(200, 'OK') ])
{
	my ($what, $answer) = @$_;
	my $listener = serving(sub { $answer });
	my $server = server_at($listener->url);

	fails("SELECT count(*) FROM accessreq.$_, server => '$server')", '08P01', qr/cannot be understood/, "$what, $_")
	  for "status(requested_for => 'p'", "status_of(ARRAY['x']", "refresh(ARRAY['x']", "get('v2024/x'";
	fails("SELECT accessreq.$_", '08P01', qr/cannot be understood/, "$what, $_")
	  for "get_config(server => '$server')", "count_status(server => '$server')", "merge_config('{}', server => '$server')";
	fails("CALL accessreq.sync('$server')", '08P01', qr/cannot be understood/, "$what, sync");
	is(got($listener, qr/^(POST|PUT)/), 0, "$what: nothing is written");
	$listener->stop;
}

# ------------------------------------------------- words that repeat the token

for my $shape ('{"errorMessage":"%s"}', '{"errorName":"%s"}', '{"formatted_msg":"%s"}', '{"detail":"%s"}', '{"title":"%s"}', '"%s"',
	'[{"text":"%s"}]', '["%s"]', '{"messages":["%s"]}', '{"error":{"message":"%s"}}', '{"error":{"detail":"%s"}}', '{"detail":"not this","trackingId":"%s"}')
{
	my $told = sprintf $shape, 'you sent head.body.tail';
	my $listener = serving(sub { $_[0] =~ /^POST/ ? keep(200, $told) : keep(400, $told) });
	my $server = server_at($listener->url);

	$r = $session->run("SELECT accessreq.count_status(server => '$server')");
	like($r->{err}, qr/22023/, "$shape: an error");
	unlike($r->{err}, qr/head\.bod|body\.tail/, "$shape: without the token");
	$r = $session->run(cancel('leaks', $server));
	like($r->{err}, qr/08007/, "$shape: no answer to a write");
	unlike($r->{err}, qr/head\.bod|body\.tail/, "$shape: without the token");
	$listener->stop;
}
$session->run('RESET accessreq.max_retries');
for my $shape (qw(name formatted problem title string list messages oauth nested))
{
	$sandbox->fault('error', shape => $shape, path => 'access-request-config');
	$r = $session->run("SELECT accessreq.get_config(server => 'hurried')");
	like($r->{err}, qr/DETAIL:  The tenant says: "Words (under \S+|alone|in a list)\."\./, "an error of shape $shape is shown");
}
$sandbox->no_faults;

# -------------------------------------------------------- a close with errors

my $closing = serving(sub { keep(202, '{"id":"job-1","errors":[{"code":"CANNOT","id":"b"}]}') });
my $closer = server_at($closing->url);
is($session->run("SELECT access_request_id, outcome, error, job_id FROM accessreq.close(ARRAY['a', 'b'], server => '$closer')")->{out},
	join("\n", map { "$_|accepted|The tenant took the call and lists errors: [{\"code\":\"CANNOT\",\"id\":\"b\"}]|job-1" } qw(a b)),
	'a close that is answered with errors shows them');

# ------------------------------------------------------- what check() notices

sub check_step
{
	my ($server, $step) = @_;

	return $session->value("SELECT ok, detail, hint FROM accessreq.check('$server') WHERE step = '$step'");
}
my $html = serving(sub { keep(200, '<html>login</html>', 'Content-Type' => 'text/html') });
like(check_step(server_at($html->url), 'api'), qr/^f\|.*not with a list.*\|Check that base_url/, "check: a web page's host");
my $other_api = serving(sub { keep(404, '{"detailMessage":"no such path"}') });
like(check_step(server_at($other_api->url), 'api'), qr/^f\|.*HTTP 404.*\|.*check base_url and api/, 'check: a host that has no such API');
my $clocked = serving(sub { keep(200, '[]', 'X-Total-Count' => 0, Date => 'Mon, 02 Jan 2023 03:04:05 GMT') });
like(check_step(server_at($clocked->url), 'clock'), qr/^f\|this machine is \d+ s ahead of the tenant\|Set this machine's clock/, 'check: clocks that differ');
my $home = server_at($sandbox->url, mapping => { client_id => 'home', client_secret => 'sandbox-secret' });
$session->value("CALL accessreq.sync('$home')");
like(check_step($home, 'origin'), qr/^t\|the pull belongs to this database/, 'check: at home');
$admin->value("UPDATE accessreq.sync_job SET origin = '1/1' WHERE server = '$home'");
like(check_step($home, 'origin'), qr/^f\|the pull belongs to another database/, 'check: a copy');
SKIP:
{
	skip('the program openssl is not here', 2) if system('openssl version > /dev/null 2>&1') != 0;
	my $dir = $PostgreSQL::Test::Utils::tmp_check;
	my $ca = make_ca($dir);
	my @cert = make_cert($dir, 'here', 'IP:127.0.0.1');
	my $tls = new_sandbox(tls_cert => $cert[0], tls_key => $cert[1]);
	my %secret = (mapping => { client_id => 'tls', client_secret => 'sandbox-secret' });

	like(check_step(server_at($tls->url, %secret, options => { ca_file => $ca }), 'tls'), qr/^t\|certificate accepted by/, 'check: a private CA that is named');
	like(check_step(server_at($tls->url, %secret), 'tls'), qr/^f\|.*certificate.*\|.*ca_file/, 'check: a private CA that is not');
}

# --------------------------------------------------- the server's environment

is($session->run("SELECT accessreq.get_config(server => '" . server_at("https://127.0.0.1:$closed") . "')")->{sqlstate},
	'08001', 'https, to nobody');
is(scalar($env_proxy->noted), 0, "the environment's proxy was not used once");

$_->quit for $session, $admin;
$ENV{$_} = $env_proxy->url for @proxy_names;
$ENV{$_} = '*' for qw(no_proxy NO_PROXY);
$node->append_conf('postgresql.conf', "max_files_per_process = 64\n");
$node->restart;
delete @ENV{qw(no_proxy NO_PROXY), @proxy_names};
$_ = new_session($node) for $session, $admin;
# a backend's own is overwritten with its title
my ($postmaster) = slurp_from($node->data_dir . '/postmaster.pid') =~ /^(\d+)/;
my $environment = slurp_from("/proc/$postmaster/environ");
SKIP:
{
	skip('the environment cannot be read', 1) if $environment eq '';
	like($environment, qr/\0NO_PROXY=\*\0/, 'the server has NO_PROXY');
}
my $proxy = serving(sub { keep(200, '{"through": "the proxy"}') });
my $through = server_at("http://127.0.0.1:$closed", options => { proxy => $proxy->url });
$r = $session->run("SELECT accessreq.get_config(server => '$through')");
is($r->{out}, '{"through": "the proxy"}', 'NO_PROXY does not keep the option proxy from being used') or diag($r->{err});
is(got($proxy, qr/^GET http:\/\/127\.0\.0\.1:$closed\//), 1, 'as a proxy');

# ------------------------------------------------------- few files, many calls

# nobody is answered before others have asked, so that there are many at once
my @few = (options => { max_concurrency => 32, connect_timeout => '5s', request_timeout => '20s' });
for ([ 'a token of its own', {} ], [ 'a static token', \%static ])
{
	my ($what, $mapping) = @$_;
	my $listener = serving(sub { return keep(200, '{"access_token":"tok","expires_in":600}') if $_[0] =~ /^POST/; sleep 0.3; keep(200, '[]') });
	my $name = 's' . ++$servers;

	add_server($node, $name, $listener->url, %$mapping, @few);
	# the first call of a session is one of its own: nothing is open yet
	my $fresh = new_session($node);
	for my $time ('first', 'second')
	{
		$r = $fresh->run("SELECT count(*) FROM accessreq.status_of(ARRAY(SELECT 'r' || i FROM generate_series(1, 64) i), server => '$name')");
		like($r->{sqlstate}, qr/^(58000)?$/, "few files, $what, the $time time") or diag($r->{err});
		unlike($r->{err}, qr/connect_timeout|base_url/, "few files, $what, the $time time: no wrong hint");
		note("few files, $what: " . ($r->{sqlstate} || 'works') . ' ' . $r->{err});
	}
	is($fresh->run("SELECT count(*) FROM accessreq.status_of(ARRAY['a'], server => '$name')")->{out}, '0', "few files, $what: the session goes on");
	is($fresh->value('SELECT count(*) FROM pg_class') > 0, 1, "few files, $what: so does the server");
	$fresh->quit;
}

# what was given up while it was being connected does not count for ever
my ($backlog_port, $hold) = full_backlog();
add_server($node, 'refused', "http://127.0.0.1:$closed", %static);
add_server($node, 'silent', 'http://127.0.0.1:' . ($backlog_port || $closed), %static, options => { connect_timeout => '10ms' });
$session->run('SET accessreq.max_retries = 0');
is($session->run("DO \$\$BEGIN FOR i IN 1..60 LOOP BEGIN PERFORM accessreq.count_status(server => CASE WHEN i % 3 = 0 THEN 'silent' ELSE 'refused' END); EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN NULL; END; END LOOP; END\$\$")->{sqlstate},
	'', 'few files, 60 connections that were not made') or diag($r->{err});
$r = $session->run("SELECT accessreq.get_config(server => '$through')");
is($r->{out}, '{"through": "the proxy"}', 'one that is') or diag($r->{err});

$_->quit for $session, $admin;
$node->stop;
done_testing();
