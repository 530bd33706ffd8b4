# Access tokens: how often one is fetched, when it is renewed, what becomes of
# it when its mapping changes, where a secret may come from, and that neither
# is ever written anywhere.

use strict;
use warnings;

use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $secret = 'S3cret-that-nobody-may-read';
my $static = 'static.token.that-nobody-may-read';
my $node = accessreq_node('token', conf => "accessreq.max_retries = 0\n");
my $sandbox = new_sandbox(client_secret => $secret, access_token => $static);
my $admin = new_session($node);
my $mappings = 0;
my $r;

# From here on the log has everything, but for the statements with secrets in
# them: those are what log_statement and log_min_error_statement are for.
my $log_begin = -s $node->logfile;
my $loud = "SET log_min_messages = debug5; SET client_min_messages = debug5; SET log_error_verbosity = verbose";
my $session = new_session($node, setup => $loud);
my $heard = '';

sub run
{
	my ($sql, $s) = @_;
	my $result = ($s || $session)->run($sql);

	$heard .= $result->{err} . $result->{out};
	return $result;
}

sub server
{
	my ($mapping, %o) = @_;
	my $name = 't' . ++$mappings;

	add_server($node, $name, $o{url} || $sandbox->url, mapping => $mapping);
	return $name;
}

sub client { my ($id, %o) = @_; return { client_id => $id, client_secret => $secret, %o } }
sub count { my ($server) = @_; return "SELECT accessreq.count_status(server => '$server')" }

sub works
{
	my ($server, $what, $s) = @_;
	my $result = run(count($server), $s);

	# debug messages may be in between
	is($result->{sqlstate} . $result->{out}, '600', $what) or diag(substr($result->{err}, 0, 2000));
	return;
}

sub fails
{
	my ($server, $state, $like, $what, $s) = @_;
	my $result = run(count($server), $s);

	is($result->{sqlstate}, $state, "$what: SQLSTATE");
	like($result->{err}, $like, "$what: message");
	return;
}
sub asked { my ($like) = @_; my @all = $sandbox->requests($like); return scalar @all }
sub tokens { return asked(qr/^POST \/oauth\/token/) }
sub calls { return asked(qr/access-request/) }

# ------------------------------------------------------------ one for many

my $server = server(client('many'));
works($server, 'a call') for 1 .. 5;
run('SELECT accessreq.count_status(server => ' . quote_sql($server) . ') FROM generate_series(1, 20)');
run('BEGIN; ' . count($server) . '; ROLLBACK; ' . count($server));
is(tokens(), 1, 'one token for many calls');
my $other = new_session($node);
works($server, 'another session', $other);
is(tokens(), 2, 'fetches its own');
$other->quit;

# -------------------------------------------------------- renewed, revoked

# a machine that stands still for a second just then lets one expire
my ($short, $short_server, $expired);
for (1 .. 3)
{
	$short->stop if $short;
	$short = new_sandbox(client_secret => $secret, token_ttl => 10);
	$short_server = server(client('short'), url => $short->url);
	run(count($short_server));
	poll_until('a renewal', sub { sleep 0.1; run(count($short_server)); $short->stats->{token_fetches} == 2 });
	$expired = grep { $_ != 200 } keys %{ $short->stats->{by_status} };
	last if !$expired;
}
is($short->stats->{token_fetches}, 2, 'a short-lived token is renewed');
is($expired, 0, 'before it expires');
# what the tenant's clock says does not matter, but a 401 does
$short->forget;
$short->admin('POST', 'advance', { ms => 60000 });
works($short_server, 'an expired token');
is($short->stats->{token_fetches}, 1, 'is renewed once');
$short->stop;
for my $expires (0, 1, -7, '"soon"', 1e300, 'null')
{
	my $n = 0;
	my $odd = new_listener(
		sub {
			my ($socket, undef, $note) = @_;
			my $buffer = '';
			while (my $request = read_request($socket, \$buffer))
			{
				my $token = $request =~ /^POST \/oauth/;
				$note->($token ? 'token' : 'call');
				sleep 1 if $token && $expires eq '1';
				syswrite($socket, $token ?
					  answer_text(200, "{\"access_token\":\"odd\",\"expires_in\":$expires}") :
					  answer_text(200, '[]', 'X-Total-Count' => 600));
			}
		});
	works(server(client('odd'), url => $odd->url), "a token that expires in $expires");
	my @fetched = $odd->noted('token');
	is(scalar(@fetched), 1, "expires in $expires: one fetch for a call");
	$odd->stop;
}
$sandbox->forget;
$sandbox->admin('POST', 'tokens/revoke');
works($server, 'after the token was revoked');
is(tokens() . ' ' . calls(), '1 2', 'one renewal, the call sent twice');
$sandbox->forget;
$sandbox->fault('status', path => 'access-request', status => 401, count => 100);
fails($server, '28000', qr/does not accept the token/, '401 again and again');
is(tokens() . ' ' . calls(), '1 2', '401 again and again: one renewal');
$sandbox->forget;
is(run("SELECT accessreq.cancel('x', 'y', server => '$server')")->{sqlstate}, '28000', '401 on a POST');
is(tokens() . ' ' . calls(), '1 2', '401 on a POST: one renewal');
$sandbox->no_faults;
works($server, 'and then it works again');

# ------------------------------------------------------------- wrong, no user

$sandbox->forget;
my $wrong = server(client('wrong', client_secret => 'WrongSecretNobodyMayRead'));
fails($wrong, '28P01', qr/does not accept the client or its secret.*HINT:  Check client_id and secret/s, 'a wrong secret');
is(tokens() . ' ' . calls(), '1 0', 'a wrong secret is sent once');
run("SET accessreq.max_retries = 3");
$sandbox->forget;
fails($wrong, '28P01', qr/secret/, 'a wrong secret with retries');
is(tokens(), 1, 'is not sent again');
$sandbox->forget;
$sandbox->fault('status', path => 'oauth', status => 503, count => 2);
works(server(client('flaky')), 'a token after two 503');
is(tokens(), 3, 'was asked for three times');
run("SET accessreq.max_retries = 0");
for (['html', status => 502], ['garbage'], ['status', status => 200, body => '{}'],
	['status', status => 200, body => '{"access_token": "a\r\nX-Evil: 1"}'],
	['status', status => 200, body => '{"access_token": ""}'], ['truncate'], ['close'])
{
	my ($kind, %o) = @$_;

	$sandbox->fault($kind, path => 'oauth', %o);
	$r = run(count(server(client('broken' . $mappings))));
	like($r->{sqlstate}, qr/^08(006|P01)$/, "a token's answer: $kind " . ($o{body} // ''));
	$sandbox->no_faults;
}
fails(server(client('a-nouser')), '42501', qr/HINT:  .*personal access token/s, 'no user behind the token');

# ------------------------------------------- a gateway that repeats what it got

# How a text may be spelled, and the places of an answer where it may stand.
my %spelling = (
	'as it is' => sub { $_[0] },
	'percent-encoded' => sub { $_[0] =~ s/([^A-Za-z0-9.~_-])/sprintf '%%%02X', ord $1/ger },
	'percent-encoded in lower case' => sub { $_[0] =~ s/([^A-Za-z0-9.~_-])/sprintf '%%%02x', ord $1/ger },
	'all of it percent-encoded' => sub { $_[0] =~ s/(.)/sprintf '%%%02x', ord $1/gser },
	'escaped for HTML' => sub { $_[0] =~ s/&/&amp;/gr =~ s/</&lt;/gr =~ s/"/&quot;/gr =~ s/'/&#39;/gr },
	'as character references' => sub { $_[0] =~ s/(.)/sprintf '&#x%x;', ord $1/gser },
	'encoded twice' => sub { $_[0] =~ s/(.)/sprintf '%%25%02X', ord $1/gser },
	'with the escapes of JSON' => sub { $_[0] =~ s/(.)/sprintf '\\\\u%04x', ord $1/gser },
	'its tail' => sub { substr $_[0], -9 },
	'its middle' => sub { substr $_[0], 5, 9 });
my $words = JSON::PP->new->utf8;
my %place = (
	message => sub { $words->encode({ message => "I do not like $_[0]", trackingId => 't1' }) },
	detailMessage => sub { $words->encode({ detailMessage => "I do not like $_[0]", trackingId => 't1' }) },
	messages => sub { $words->encode({ detailCode => '400.1', trackingId => 't1', messages => [ { locale => 'en-US', text => "Not $_[0]!" } ] }) },
	trackingId => sub { $words->encode({ message => 'No.', trackingId => $_[0] }) });
# a token endpoint's own
my %token_place = (
	%place,
	error => sub { $words->encode({ error => $_[0] }) },
	error_description => sub { $words->encode({ error => 'invalid_client', error_description => "bad secret $_[0]" }) },
	'a bare string' => sub { $words->encode($_[0]) },
	HTML => sub { "<html><body>$_[0]</body></html>" });

# What is sent, and what it said of it: decoded, as a gateway would have it.
sub repeating
{
	my ($spelling, $places, $place, $status) = @_;

	return new_listener(
		sub {
			my ($socket) = @_;
			my $request = read_request($socket) // return;
			my ($said) = $request =~ /client_secret=([^&]*)$/ ? $1 =~ s/%([0-9A-F]{2})/chr hex $1/ger : $request =~ /^Authorization: Bearer ([^\r]*)/m;
			my $spelled = $spelling{$spelling}->($said);
			syswrite($socket, answer_text($status, $places->{$place}->($spelled),
					$place eq 'trackingId' ? ('SLPT-Request-ID' => $spelled) : ()));
			hang_up($socket);
		});
}

# No part of it may be in what a call says.
sub hides
{
	my ($kept, $what, $mapping, $url, $sql) = @_;
	my $log_before = -s $node->logfile;
	my $result = run(($sql // sub { count($_[0]) })->(server($mapping, url => $url)));
	my $said = $result->{err} . slurp_from($node->logfile, $log_before);

	like($result->{sqlstate}, qr/^(28P01|22023|08P01|28000)$/, "$what: fails") or diag($result->{err});
	# the statement that makes the mapping is not logged, so all of it is ours
	for my $text ($said, $said =~ s/%25/%/gr =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ger =~ s/&#x([0-9a-f]+);/chr hex $1/ger =~ s/&#39;/'/gr =~ s/&quot;/"/gr =~ s/&lt;/</gr =~ s/&amp;/&/gr =~ s/\\+u00([0-9a-f]{2})/chr hex $1/ger)
	{
		my $part = length $kept > 9 ? 9 : length $kept;
		my ($found) = grep { index($text, substr($kept, $_, $part)) >= 0 } 0 .. length($kept) - $part;
		is($found, undef, "$what: no part of it is said") or diag($text);
	}
	return $result;
}

# a secret of 7 bytes is one too
for my $kept (q{S3cr&t <of> the'house" /+=%41}, '7bytes!')
{
	for my $spelling (sort keys %spelling)
	{
		next if length $kept < 9 && $spelling eq 'its middle';
		my $place = (sort keys %token_place)[ length($spelling) % keys %token_place ];
		my $listener = repeating($spelling, \%token_place, $place, 401);
		hides($kept, "a token endpoint repeats a secret, $spelling, in $place", client('echo', client_secret => $kept), $listener->url);
		$listener->stop;
	}
	for my $place (sort keys %token_place)
	{
		for my $status (400, 200)
		{
			my $listener = repeating('as it is', \%token_place, $place, $status);
			hides($kept, "a token endpoint repeats a secret in $place, $status", client('echo', client_secret => $kept), $listener->url);
			# the line in the log that a write leaves, too
			hides($kept, "a token endpoint repeats a secret in $place, $status, to a write", client('echo', client_secret => $kept), $listener->url,
				sub { "SELECT accessreq.cancel('x', 'y', server => '$_[0]')" });
			$listener->stop;
		}
	}
}
# the token endpoint's own word is said where it is OAuth's
for my $code ('invalid_client', 'unauthorized_client', 'temporarily_unavailable')
{
	my $listener = new_listener(sub { my ($s) = @_; read_request($s) // return; syswrite($s, answer_text(400, "{\"error\":\"$code\",\"error_description\":\"free text\"}")); hang_up($s) });
	$r = run(count(server(client('oauth'), url => $listener->url)));
	like($r->{err}, qr/\(HTTP 400\).*DETAIL:  The token endpoint says: "$code"\./s, "$code is said");
	unlike($r->{err}, qr/free text/, "$code: and no more");
	$listener->stop;
}
# a token is hidden likewise, and the words stay where they do not repeat it
my $odd_token = q{to/ken+with=odd<"'&%41characters.of.its.own};
for my $spelling (sort keys %spelling)
{
	for my $place (sort keys %place)
	{
		my $listener = repeating($spelling, \%place, $place, 400);
		my $result = hides($odd_token, "the API repeats a token, $spelling, in $place", { access_token => $odd_token }, $listener->url);
		like($result->{err}, $place eq 'trackingId' ? qr/No\.|words are left out/ : qr/words are left out.*t1/, "the API repeats a token, $spelling, in $place: it is left out");
		$listener->stop;
	}
}
# of a success too: in its line in the log, and in an error over its body
for my $body ('', '<html>')
{
	my $listener = new_listener(
		sub {
			my ($s) = @_;
			my ($token) = (read_request($s) // return) =~ /^Authorization: Bearer ([^\r]*)/m;
			syswrite($s, answer_text(200, $body, 'SLPT-Request-ID' => "id-of-$token"));
			hang_up($s);
		});
	my $name = server({ access_token => $odd_token }, url => $listener->url);
	my $before = -s $node->logfile;
	my $said = run("SELECT accessreq.cancel('x', 'y', server => '$name')")->{err} . run("SELECT accessreq.get_config(server => '$name')")->{err};
	poll_until('its line', sub { slurp_from($node->logfile, $before) =~ /LOG: .*accessreq\.cancel/ });
	unlike($said . slurp_from($node->logfile, $before), qr/\Q${\ substr($odd_token, 0, 12)}\E/, 'a tracking id that repeats the token is not said, of a 200');
	$listener->stop;
}
# what a token endpoint says of itself
my $boasting = new_listener(
	sub {
		my ($s) = @_;
		my ($said) = (read_request($s) // return) =~ /client_secret=(.*)$/;
		syswrite($s, answer_text(200, defined $said ? "{\"access_token\":\"t\",\"expires_in\":700,\"tenant_id\":\"of $said\",\"identity_id\":\"$said\"}" : '[]', 'X-Total-Count' => 1));
		hang_up($s);
	});
my $boast = server(client('boast'), url => $boasting->url);
$r = run("SELECT string_agg(concat_ws(' ', step, ok, detail, hint), '; ') FROM accessreq.check('$boast')");
like($r->{out}, qr/token t fetched; /, 'a token of an endpoint that repeats the secret as its name');
unlike($r->{out}, qr/\Q$secret\E/, 'which is not shown');
$boasting->stop;
my $plain_words = new_listener(sub { my ($s) = @_; read_request($s) // return; syswrite($s, answer_text(400, '{"message":"I do not like it","trackingId":"t1"}')); hang_up($s) });
$r = run(count(server({ access_token => $odd_token }, url => $plain_words->url)));
like($r->{err}, qr/I do not like it.*t1/, 'words that do not repeat it are shown');
$plain_words->stop;

# -------------------------------------------------------------- static tokens

$sandbox->no_faults;
my $fixed = new_sandbox(client_secret => $secret, access_token => $static);
my $fixed_server = server({ access_token => $static }, url => $fixed->url);
works($fixed_server, 'a static token');
is(scalar($fixed->requests(qr/oauth/)), 0, 'fetches none');
$fixed->forget;
$fixed->admin('POST', 'tokens/revoke');
fails($fixed_server, '28000', qr/static access_token expires/, 'a static token that expired');
is(scalar($fixed->requests), 1, 'is tried once');
$fixed->stop;

# ---------------------------------------------------------- a file's secret

my $dir = $PostgreSQL::Test::Utils::tmp_check;

sub secret_file
{
	my ($name, $mode, $text) = @_;

	open(my $f, '>:raw', "$dir/$name") or die $!;
	print $f $text;
	close $f;
	chmod $mode, "$dir/$name";
	return server({ client_id => "file-$name", client_secret_file => "$dir/$name" });
}
sub value_of { my ($name) = @_; return $admin->value("SELECT coalesce((SELECT split_part(o, '=', 2) FROM pg_user_mappings m, unnest(m.umoptions) o WHERE m.srvname = '$name' AND o LIKE 'client_secret_file=%'), '')") }
my $good_file = secret_file('good', 0600, $secret);
works($good_file, 'a file with mode 0600');
works(secret_file('readonly', 0400, "$secret\n"), 'a file with mode 0400 and a line end');
works(secret_file('crlf', 0600, "$secret\r\n"), 'a file with CR LF');
fails(secret_file(sprintf('mode%o', $_), $_, $secret), 'F0000', qr/has group or world access/, sprintf('mode %04o', $_))
  for 0640, 0604, 0660, 0610;
fails(secret_file('empty', 0600, ''), 'F0000', qr/is empty/, 'an empty file');
fails(secret_file('nul', 0600, "$secret\0x"), 'F0000', qr/no text/, 'a file with a NUL');
fails(secret_file('long', 0600, 'x' x 9000), 'F0000', qr/larger than/, 'a large file');
fails(server({ client_id => 'f', client_secret_file => "$dir/missing" }), '58P01', qr/missing/, 'no file');
fails(server({ client_id => 'f', client_secret_file => $dir }), '42809', qr/not a regular file/, 'a folder');
POSIX::mkfifo("$dir/fifo", 0600);
fails(server({ client_id => 'f', client_secret_file => "$dir/fifo" }), '42809', qr/not a regular file/, 'a FIFO');
# none of them was left open, where the error is caught: by check()
for my $file ('mode640', 'empty', 'nul', 'long')
{
	my ($name) = grep { value_of($_) eq "$dir/$file" } map { "t$_" } 1 .. $mappings;
	$r = run("SELECT count(*) FROM accessreq.check('$name')");
	unlike($r->{err}, qr/not closed at end-of-transaction/, "$file: is closed");
}
$sandbox->forget;
works($good_file, 'a cached token');
is(tokens(), 0, 'does not read the file');
# a rotation: the file is read when the next token is fetched
open(my $f, '>', "$dir/good") or die $!;
print $f 'rotated';
close $f;
$sandbox->admin('POST', 'tokens/revoke');
fails($good_file, '28P01', qr/secret/, 'a file that changed');
open($f, '>', "$dir/good") or die $!;
print $f $secret;
close $f;
works($good_file, 'a file that changed back');

# ------------------------------------------------------- a mapping that changes

my $changing = server(client('before'));
works($changing, 'before a change');
$sandbox->forget;
$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER $server OPTIONS (SET client_id 'many2')");
works($changing, "another mapping's change");
is(tokens(), 0, 'drops no token');
$sandbox->forget;
$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER $changing OPTIONS (SET client_id 'after')");
works($changing, 'after a change');
is(join(',', map { $_->{client_id} } $sandbox->requests), 'after,after', 'a new token, of the new client');
$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER $changing OPTIONS (SET client_secret 'WrongSecretNobodyMayRead')");
fails($changing, '28P01', qr/secret/, 'a secret that was changed is used at once');
$admin->value("DROP USER MAPPING FOR PUBLIC SERVER $changing");
fails($changing, '42704', qr/no user mapping/, 'no mapping any more');
# in the middle of a transaction too, and undone with it
$r = run("BEGIN; ALTER USER MAPPING FOR PUBLIC SERVER $server OPTIONS (SET client_secret 'WrongSecretNobodyMayRead'); SAVEPOINT a; " . count($server));
is($r->{sqlstate}, '28P01', 'a change of this transaction');
run('ROLLBACK');
works($server, 'a change that was rolled back');
# a mapping of one's own takes the place of PUBLIC's
$sandbox->forget;
$admin->value("CREATE USER MAPPING FOR CURRENT_USER SERVER $server OPTIONS (client_id 'own', client_secret " . quote_sql($secret) . ')');
works($server, "a mapping of one's own");
is(join(',', map { $_->{client_id} } $sandbox->requests), 'own,own', 'is used at once');

# -------------------------------------------------------- special characters

for my $odd ("a&b=c+d%41 e?f#g/h\"i'j\\k;l\$m", "p\xc3\xa4ss\xe2\x82\xac", '%26', '+', ' blank ')
{
	my $box = new_sandbox(client_secret => $odd);
	my $name = server({ client_id => "id&$odd", client_secret => $odd }, url => $box->url);

	works($name, "a secret with special characters: " . length($odd));
	ok((grep { ($_->{client_id} // '') ne '' } $box->requests), 'arrives');
	$box->stop;
}

# ----------------------------------------------------- nothing is written down

$session->quit;
my $log = slurp_from($node->logfile, $log_begin);
cmp_ok(length $log, '>', 20000, 'the log is talkative');
like($log, qr/DEBUG/, 'at debug level');
for ([ 'the log', $log ], [ 'messages to the client', $heard ])
{
	my ($where, $text) = @$_;

	unlike($text, qr/\Q$secret\E/, "no secret in $where");
	unlike($text, qr/WrongSecret(?!NobodyMayRead'\))/, "no wrong secret in $where");
	unlike($text, qr/\Q$static\E/, "no static token in $where");
	# what every token of the sandbox begins with
	unlike($text, qr/eyJhbGciOi/, "no token in $where");
	unlike($text, qr/Bearer|client_secret=|Authorization/, "no header and no form in $where");
}

$admin->quit;
$node->stop;
done_testing();
