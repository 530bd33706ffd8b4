# Whose a request budget is: a client's only for who has been granted a token as
# that client.  Everybody else uses up, throttles and blocks nobody but himself.

use strict;
use warnings;

use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = accessreq_node('budgets', conf => "accessreq.max_retries = 0\n");
my $sandbox = new_sandbox();
my $admin = new_session($node);
my $url = quote_sql($sandbox->url);
my $servers = 0;
my $r;

sub value { return $admin->value(@_) }
sub count { my ($server) = @_; return "SELECT accessreq.count_status(server => '$server')" }

# mallory may use the server, and make some of his own
value(<<"SQL");
CREATE ROLE team LOGIN; CREATE ROLE mallory LOGIN; CREATE ROLE monitor LOGIN IN ROLE pg_monitor;
CREATE SERVER acme FOREIGN DATA WRAPPER accessreq OPTIONS (base_url $url, api 'v2024', rate_limit '20', request_timeout '2s');
GRANT USAGE ON FOREIGN SERVER acme TO team, mallory;
GRANT USAGE ON FOREIGN DATA WRAPPER accessreq TO mallory;
GRANT EXECUTE ON FUNCTION accessreq.count_status TO team, mallory;
CREATE USER MAPPING FOR team SERVER acme OPTIONS (client_id 'the-client', client_secret 'sandbox-secret');
CREATE USER MAPPING FOR mallory SERVER acme OPTIONS (client_id 'the-client', client_secret 'bogus');
SQL
my $team = new_session($node, user => 'team');
my $mallory = new_session($node, user => 'mallory');

# The client's budget: so many used of how many.  And mallory's own.
my $shared = "FROM accessreq.request_budget WHERE shared AND purpose = 'calls' AND token_endpoint = $url || '/oauth/token'";
sub budget { return value("SELECT used || ' of ' || rate_limit $shared") }

# What was counted goes, for the next to begin anew.
sub anew { value('SELECT count(accessreq.clear_budget(budget)) FROM accessreq.request_budget'); return }

# The team's own calls: all at once, and counted where they belong.
sub team_is_free
{
	my ($what) = @_;
	my $before = value("SELECT coalesce(max(used), 0) $shared");
	my $result = $team->run(count('acme') . ' FROM generate_series(1, 5)');

	is($result->{out}, join("\n", (600) x 5), "$what: the team is not held up") or diag($result->{err});
	cmp_ok(value("SELECT used $shared"), '>=', $before + 5, "$what: its requests count");
	is(value("SELECT rate_limit $shared"), '20', "$what: and its limit is its server's");
	return;
}

$team->value(count('acme'));
is(budget(), '2 of 20', 'the token and the call are counted for the client that they prove');
is(value("SELECT server || ' ' || database || ' ' || role || ' ' || api || ' ' || blocked_seconds $shared"), 'acme postgres team v2024 0', 'and the view says whose it is');

# ---------------------------------------------------------------- a bogus secret

$r = $mallory->run(count('acme')) for 1 .. 25;
is($r->{sqlstate}, '53400', 'mallory uses up a budget') or diag($r->{err});
is(budget(), '2 of 20', 'which is not the client\'s');
is(value("SELECT used || ' ' || role || ' ' || shared FROM accessreq.request_budget WHERE role = 'mallory'"), '20 mallory false', 'but his own');
team_is_free('a bogus secret');

# --------------------------------------------------------- a server of his own

anew();
$mallory->value("CREATE SERVER slow FOREIGN DATA WRAPPER accessreq OPTIONS (base_url $url, api 'v2024', rate_limit '1', request_timeout '2s');
	CREATE USER MAPPING FOR mallory SERVER slow OPTIONS (client_id 'the-client', client_secret 'bogus')");
is($mallory->run(count('slow'))->{sqlstate}, '28P01', 'a server of his own with rate_limit 1');
team_is_free('rate_limit 1');
# with a token that is none
$mallory->value("ALTER USER MAPPING FOR mallory SERVER slow OPTIONS (DROP client_id, DROP client_secret, ADD access_token 'none')");
is($mallory->run(count('slow'))->{sqlstate}, '53400', 'his next call waits for his own limit');
is($mallory->run(count('slow'))->{sqlstate}, '53400', 'and the next');
team_is_free('a token that is none');

# ----------------------------------------------------- a token endpoint of his own

sub token_endpoint
{
	my ($answer) = @_;

	return new_listener(sub { my ($s, $n, $note) = @_; $note->('request', read_request($s) // return); syswrite($s, $answer); hang_up($s) });
}
my $blocking = token_endpoint(answer_text(429, '', 'Retry-After' => 86400));
my $granting = token_endpoint(answer_text(200, '{"access_token":"granted.to.everybody","expires_in":700}'));

sub his_server
{
	my ($name, $token_url, %o) = @_;
	my $options = join '', map { ", $_ '$o{$_}'" } sort keys %o;

	$mallory->value("CREATE SERVER $name FOREIGN DATA WRAPPER accessreq OPTIONS (base_url $url, api 'v2024', token_url '$token_url/token', request_timeout '2s'$options);
		CREATE USER MAPPING FOR mallory SERVER $name OPTIONS (client_id 'the-client', client_secret 'sandbox-secret')");
	return;
}
anew();
his_server('blocking', $blocking->url);
$r = $mallory->run(count('blocking'));
is($r->{sqlstate}, '53400', 'a token endpoint that answers 429');
like($r->{err}, qr/asks to wait 86400 s/, 'is believed for his call');
$r = value("SELECT purpose || ' ' || shared || ' ' || endpoint || ' ' || (blocked_seconds BETWEEN 1000 AND 1200) FROM accessreq.request_budget WHERE blocked_seconds > 0");
is($r, 'token false ' . $blocking->url . '/token true', 'and booked there, for no longer than the vendor\'s longest');
is($mallory->run(count('blocking'))->{sqlstate}, '53400', 'his next call');
is(scalar($blocking->noted('request')), 1, 'does not ask again');
team_is_free('429 of another token endpoint');

his_server('granting', $granting->url, rate_limit => 1);
$r = $mallory->run(count('granting'));
is(scalar($granting->noted('request')), 1, 'a token endpoint that grants tokens to everybody');
like($r->{sqlstate}, qr/^(28000|53400)$/, 'is no way in');
team_is_free('a token of another token endpoint');
my @not_his = split /\n/, value("SELECT DISTINCT role $shared");
is("@not_his", 'team', 'nobody else was in the client\'s budget');

# the tenant's own token endpoint may answer him so, too
$sandbox->fault('status', path => 'oauth', status => 429, headers => { 'Retry-After' => '600' });
is($mallory->run(count('acme'))->{sqlstate}, '53400', "429 of the tenant's token endpoint, for a bogus secret");
my $fresh = new_session($node, user => 'team');
is($fresh->run(count('acme'))->{out}, '600', 'does not keep others from fetching theirs');
$fresh->quit;

# ------------------------------------------------- many sessions, and a rotation

anew();
$fresh = new_session($node, user => 'team');
$fresh->value(count('acme'));
is(budget(), '2 of 20', 'a new session of a credential that is known is in the budget at once, with its token');
$fresh->quit;
my $two = new_listener(
	sub {
		my ($s) = @_;
		my $buffer = '';
		while (my $request = read_request($s, \$buffer))
		{
			my $ok = $request !~ /^POST/ || $request =~ /client_secret=(old|new)$/;
			syswrite($s, !$ok ? answer_text(401, '{"error":"invalid_client"}', Connection => 'keep-alive') :
				$request =~ /^POST/ ? answer_text(200, '{"access_token":"t","expires_in":700}', Connection => 'keep-alive') :
				answer_text(200, '[]', 'X-Total-Count' => 7, Connection => 'keep-alive'));
		}
	});
add_server($node, 'rotating', $two->url, options => { rate_limit => 20 }, mapping => { client_id => 'rotating', client_secret => 'old' });
value("CREATE USER MAPPING FOR team SERVER rotating OPTIONS (client_id 'rotating', client_secret 'new'); GRANT USAGE ON FOREIGN SERVER rotating TO team, mallory");
my $rotating = "SELECT string_agg(used || ' ' || shared, ', ' ORDER BY used DESC) FROM accessreq.request_budget WHERE client_id = 'rotating' AND used > 0";
value(count('rotating'));
# the request for the first token of a secret was in a budget of one's own
is(value($rotating), '2 true, 1 false', 'a client with its old secret');
value("ALTER USER MAPPING FOR PUBLIC SERVER rotating OPTIONS (SET client_secret 'new')");
value(count('rotating'));
is(value($rotating), '4 true, 2 false', 'with its new one it is the same budget');
$team->value(count('rotating'));
is(value($rotating), '6 true, 2 false', 'for others with the new secret too');

# Who knows a secret that the tenant takes no more, and sees to it that nobody
# says so: he holds up nobody for long, and moves no limit.
my $secret_now = "$PostgreSQL::Test::Utils::tmp_check/secret_now";
sub secret_is { my ($text) = @_; open(my $f, '>', $secret_now) or die $!; print $f $text; close $f; return }
my $vendor = new_listener(
	sub {
		my ($s, $n, $note) = @_;
		my $buffer = '';
		while (my $request = read_request($s, \$buffer))
		{
			my ($secret) = $request =~ /client_secret=(\w+)$/;
			$note->('token', $secret) if $secret;
			sleep 60 if $secret && $secret ne slurp_from($secret_now);
			sleep 1 if $secret && $secret eq 'slow';
			syswrite($s, $secret ? answer_text(200, '{"access_token":"t","expires_in":700}', Connection => 'keep-alive') :
				answer_text(200, '[]', 'X-Total-Count' => 7, Connection => 'keep-alive'));
		}
	});
my $vendor_url = quote_sql($vendor->url);
my $vendors = "FROM accessreq.request_budget WHERE shared AND token_endpoint = $vendor_url || '/oauth/token'";
secret_is('first');
add_server($node, 'vendor', $vendor->url, options => { rate_limit => 20 }, mapping => { client_id => 'v', client_secret => 'first' });
value('GRANT USAGE ON FOREIGN SERVER vendor TO team');
value(count('vendor'));
secret_is('second');
value("ALTER USER MAPPING FOR PUBLIC SERVER vendor OPTIONS (SET client_secret 'second')");
value(count('vendor'));
$mallory->value("CREATE SERVER stale FOREIGN DATA WRAPPER accessreq OPTIONS (base_url $vendor_url, api 'v2024', rate_limit '1', request_timeout '100ms');
	CREATE USER MAPPING FOR mallory SERVER stale OPTIONS (client_id 'v', client_secret 'first')");
anew();
$mallory->run(count('stale')) for 1 .. 30;
cmp_ok(value("SELECT used $vendors"), '<=', 8, 'a secret of before, without an answer: it is tried in the client\'s budget a few times');
is(value("SELECT rate_limit IS NULL OR rate_limit = 20 $vendors"), 't', 'and sets no limit there');
is($admin->run("SET accessreq.request_timeout = '3s'; SELECT accessreq.count_status(server => 'vendor') FROM generate_series(1, 5); RESET accessreq.request_timeout")->{out}, join("\n", (7) x 5), 'who has the secret of now is not held up');

# several who are granted their first at once: each request counts
secret_is('slow');
value("ALTER USER MAPPING FOR PUBLIC SERVER vendor OPTIONS (SET client_secret 'slow')");
anew();
my @several = map { value("CREATE ROLE several$_ LOGIN; GRANT USAGE ON FOREIGN SERVER vendor TO several$_; GRANT EXECUTE ON FUNCTION accessreq.count_status TO several$_"); new_session($node, user => "several$_") } 1 .. 3;
my $asked = $vendor->noted('token');
$_->send(count('vendor')) for @several;
is($_->finish->{out}, '7', 'one of several') for @several;
is(value("SELECT used $vendors"), '6', 'who were granted their first token at once: all is counted');
$_->quit for @several;
$vendor->stop;

# a credential that is refused has nothing to do with the client any more
anew();
$sandbox->fault('status', path => 'oauth', status => 401, count => 3);
$fresh = new_session($node, user => 'team');
is($fresh->run(count('acme'))->{sqlstate}, '28P01', "a secret that was revoked") for 1 .. 3;
is(value("SELECT used $shared"), '1', 'is tried in the client\'s budget once, and then in one of its own');
$fresh->value(count('acme'));
is(value("SELECT used $shared"), '3', 'until it is granted a token again');
$fresh->quit;

# ------------------------------------------------------ a block, and its end

anew();
$sandbox->fault('status', path => 'access-request', status => 429, headers => { 'Retry-After' => '7200' });
$r = $team->run(count('acme'));
like($r->{err}, qr/53400.*asks to wait 7200 s/s, "the tenant's 429");
is(value("SELECT (blocked_seconds BETWEEN 1000 AND 1200)::text || ' ' || purpose $shared"), 'true calls', 'blocks for no longer than the vendor\'s longest');
like($team->run(count('acme'))->{err}, qr/asks to wait 1[12]\d\d s/, 'as the next is told');
my $monitor = new_session($node, user => 'monitor');
is($monitor->value("SELECT count(*) $shared"), '1', 'pg_monitor sees it');
is($monitor->run('SELECT accessreq.clear_budget(budget) FROM accessreq.request_budget')->{sqlstate}, '42501', 'and may not clear it');
$monitor->quit;
is($mallory->run('SELECT * FROM accessreq.request_budget')->{sqlstate}, '42501', 'nobody else sees it');
is(value("SELECT accessreq.clear_budget(budget) $shared"), 't', 'a superuser clears it');
is($team->run(count('acme'))->{out}, '600', 'and calls leave again');
is(value("SELECT accessreq.clear_budget('" . ('0' x 16) . "')"), 'f', 'a budget that is not there');
is($admin->run("SELECT accessreq.clear_budget('acme')")->{sqlstate}, '22023', 'what is no budget\'s name');
# of a job it is kept in full
value("CREATE USER MAPPING FOR postgres SERVER acme OPTIONS (client_id 'the-client', client_secret 'sandbox-secret')");
$sandbox->fault('status', path => 'access-request-status', status => 429, headers => { 'Retry-After' => '7200' });
value("SELECT accessreq.start_sync('acme', every => '1 second')");
ok(poll_until('the job to be told', sub { value("SELECT retry_after IS NOT NULL FROM accessreq.sync_job WHERE server = 'acme'") eq 't' }), "a job's pull is told to stay away");
is(value("SELECT retry_after > now() + interval '1 hour' FROM accessreq.sync_job WHERE server = 'acme'"), 't', 'and does for as long as the tenant said');
value("SELECT accessreq.stop_sync('acme')");
$_->quit for $team, $mallory, $admin;
$node->stop;

# ---------------------------------------------------------- more than there is room for

my $small = accessreq_node('small', conf => "accessreq.max_budgets = 8\naccessreq.max_retries = 0\n");
$admin = new_session($small);
$sandbox->no_faults;
my $log = -s $small->logfile;
my $forgotten = sub { return scalar(() = slurp_from($small->logfile, $log) =~ /a request budget was forgotten/g) };
add_server($small, "client$_", $sandbox->url, options => { rate_limit => 20 }, mapping => { client_id => "client$_", client_secret => 'sandbox-secret' }) for 1 .. 10;
value("SELECT accessreq.count_status(server => 'client$_')") for 1 .. 6;
# who proves nothing takes the place of nobody who has
for (1 .. 12)
{
	add_server($small, "bogus$_", $sandbox->url, mapping => { client_id => "client1", client_secret => 'bogus' });
	is($admin->run("SELECT accessreq.count_status(server => 'bogus$_')")->{sqlstate}, '28P01', 'another of many');
}
is(value("SELECT string_agg(client_id, ' ' ORDER BY client_id) FROM accessreq.request_budget WHERE shared"), join(' ', map { "client$_" } 1 .. 6), 'all clients keep their budgets');
value("SELECT accessreq.count_status(server => 'client$_')") for 7 .. 10;
is(value('SELECT count(*) FROM accessreq.request_budget'), '8', 'no more than max_budgets are counted');
is($forgotten->(), 1, 'the log says so, once in a while');
# one credential is good for as many endpoints as one can name: what it makes
# takes its own place
value(<<"SQL");
CREATE ROLE mallory LOGIN; GRANT USAGE ON FOREIGN DATA WRAPPER accessreq TO mallory; GRANT EXECUTE ON FUNCTION accessreq.count_status TO mallory;
SQL
sleep 10.5;
value("SELECT accessreq.count_status(server => 'client$_')") for 1 .. 3;
$mallory = new_session($small, user => 'mallory');
(my $by_name = $sandbox->url) =~ s/127\.0\.0\.1/localhost/;
for my $base ($sandbox->url, $by_name)
{
	for my $api (qw(beta v3 v2024 v2025 v2026 v1))
	{
		my $name = 'm' . ++$servers;
		$mallory->value("CREATE SERVER $name FOREIGN DATA WRAPPER accessreq OPTIONS (base_url '$base', api '$api', token_url '${\ $sandbox->url}/oauth/token');
			CREATE USER MAPPING FOR mallory SERVER $name OPTIONS (client_id 'mallory', client_secret 'sandbox-secret')");
		is($mallory->run(count($name))->{out}, '600', "mallory's own, at $base, $api");
	}
}
is(value("SELECT string_agg(client_id, ' ' ORDER BY client_id) FROM accessreq.request_budget WHERE shared AND client_id ~ '[123]' AND client_id !~ '10'"), 'client1 client2 client3', 'the others keep theirs');
# a name that is no ASCII, and is cut
add_server($small, 'odd', $sandbox->url, mapping => { client_id => ('x' x 62) . "\xc3\xa9t\xc3\xa9", client_secret => 'sandbox-secret' });
value("SELECT accessreq.count_status(server => 'odd')");
is(value("SELECT client_id FROM accessreq.request_budget WHERE client_id ~ 'xxx'"), ('x' x 62) . '?', 'a client_id is shown in ASCII');
$mallory->quit;
$admin->quit;
$small->stop;
done_testing();
