# The request budget, over sessions and within one, and what the tenant says
# when it is overdrawn: Retry-After in seconds and as a date, waited for where
# it fits and named where it does not.

use strict;
use warnings;

use AccessReq;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = accessreq_node('limits');
my $alone = accessreq_node('not_preloaded', preload => 0);
my $sandbox = new_sandbox();
my $limited = new_sandbox(rate => 20);
my $admin = new_session($node);
my $session = new_session($node);
my $r;

sub client { my ($id) = @_; return (mapping => { client_id => $id, client_secret => 'sandbox-secret' }) }
sub count { my ($server) = @_; return "SELECT accessreq.count_status(server => '$server')" }
sub asked { my ($like) = @_; my @all = $sandbox->requests($like); return scalar @all }

# ---------------------------------------------------- two sessions, one budget

# 2 sessions with 13 calls and a token each: 28 requests, of which 20 may leave
# at once.  A third, on a server without preload, has a budget of its own.
is($session->value('SHOW shared_preload_libraries'), 'accessreq', 'preloaded');
add_server($node, 'shared', $limited->url, client('shared'),
	options => { rate_limit => 20, request_timeout => '60s' });
add_server($node, 'same_client', $limited->url, client('shared'),
	options => { rate_limit => 50, request_timeout => '60s' });
add_server($alone, 'alone', $limited->url, client('alone'),
	options => { rate_limit => 20, request_timeout => '60s' });
my @sessions = (new_session($node), new_session($node), new_session($alone));
my @servers = ('shared', 'same_client', 'alone');
my $begin = time;
$session->value(count('shared'));
$sessions[$_]->send("SELECT count(accessreq.count_status(server => '$servers[$_]')) FROM generate_series(1, "
	  . ($_ == 2 ? 26 : 13) . ')')
  for 0 .. 2;

# meanwhile, in another budget: nothing of this waits
add_server($node, 'other', $sandbox->url, client('other'), options => { rate_limit => 2, request_timeout => '5s' });
$r = $session->run(count('other'));
# had it to wait, it would for longer than it has
is($r->{out}, '600', 'another client is not held up') or diag($r->{err});
$sandbox->forget;
$admin->value("ALTER SERVER other OPTIONS (SET request_timeout '1s')");
$r = $session->run(count('other'));
is($r->{sqlstate}, '53400', 'a budget that is used up, and no time to wait') or diag($r->{err});
like($r->{err}, qr/the request budget is used up for \d+ s/, 'names the seconds');
like($r->{err}, qr/rate_limit of the server allows 2 requests/, 'and the option');
like($r->{err}, qr/HINT:  Try again in \d+ s/, 'with a hint');
my ($named) = $r->{err} =~ /used up for (\d+) s/;
cmp_ok($r->{ms}, '<', $named * 1000, 'before that time is over');
is(asked(), 0, 'and nothing was sent');
is($session->run("SELECT outcome FROM accessreq.cancel_many(ARRAY['a', 'b'], 'c', server => 'other')")->{out},
	"not_sent\nnot_sent", 'cancel_many: not_sent');

for (0 .. 2)
{
	$r = $sessions[$_]->finish;
	is($r->{out}, $_ == 2 ? '26' : '13', "session $_: all its calls") or diag($r->{err});
	$sessions[$_]->quit;
}
cmp_ok(time - $begin, '>', 9.9, 'which took longer than the window');
my $stats = $limited->stats;
ok(!$stats->{by_status}{429}, 'the tenant refused none');
my $most = $stats->{max_in_10s};
is($most->{'shared/v2024'}, 20, 'two sessions share one budget, the smaller one');
is($most->{'alone/v2024'}, 20, 'without preload a session keeps to its own');

# --------------------------------------------------------------- Retry-After

# A server with a client of its own: what the tenant says stands for a client.
sub fresh
{
	my ($name, %o) = @_;

	add_server($node, $name, $sandbox->url, client($name), options => { request_timeout => '10s', %o });
	$session->value("SELECT ok FROM accessreq.check(server => '$name') WHERE step = 'token'");
	$sandbox->no_faults;
	$sandbox->forget;
	return $name;
}

# A date so many seconds from now; when it is, in whole seconds, is in $date.
my $date;

sub http_date
{
	my ($in) = @_;
	my @t = gmtime($date = int(time + $in));
	my @days = qw(Sun Mon Tue Wed Thu Fri Sat);
	my @months = qw(Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec);

	return sprintf('%s, %02d %s %d %02d:%02d:%02d GMT', $days[$t[6]], $t[3], $months[$t[4]], $t[5] + 1900, @t[ 2, 1, 0 ]);
}

sub too_many
{
	my ($after, $count) = @_;

	$sandbox->fault('status', path => 'access-request', status => 429, count => $count || 1,
		headers => { defined $after ? ('Retry-After' => $after) : () });
	return;
}

fresh('seconds');
too_many('1');
$r = $session->run(count('seconds'));
is($r->{out}, '600', 'Retry-After: 1 is waited for') or diag($r->{err});
cmp_ok($r->{ms}, '>=', 1000, 'in full');
is(asked(qr/access-request-status/), 2, 'and asked once more');

fresh('date');
too_many(http_date(3));
$r = $session->run(count('date'));
is($r->{out}, '600', 'a date is waited for') or diag($r->{err});
cmp_ok(time, '>=', $date, 'in full');
is(asked(qr/access-request-status/), 2, 'and asked once more');

fresh('past');
too_many(http_date(-100));
is($session->run(count('past'))->{out}, '600', 'a date that has passed');

fresh('post');
too_many('1');
$r = $session->run("SELECT accessreq.cancel('2c91808568c529c60168cca6f90c1313', 'why', server => 'post')");
cmp_ok($r->{ms}, '>=', 1000, 'a POST waits too');
is(join(' ', map { $_->{status} } $sandbox->requests(qr/cancel/)) =~ /^429 (?!429)\d+$/, 1, 'and is sent again: 429 is a proof');

fresh('twice');
too_many('1', 2);
$r = $session->run(count('twice'));
is($r->{sqlstate}, '53400', 'a session waits once') or diag($r->{err});
like($r->{err}, qr/rate limit is exceeded, it asks to wait 1 s/, 'and names the seconds');
is(asked(qr/access-request-status/), 2, 'after two requests');

for ([ 'long', '60', 60 ], [ 'long_date', sub { http_date(62) } ], [ 'endless', '99999999999999999999', 86400 ], [ 'far', 'Fri, 31 Dec 9999 23:59:59 GMT', 86400 ],
	# what cannot be read is ten seconds
	[ 'words', 'soon', 10 ], [ 'negative', '-5', 10 ], [ 'none', undef, 10 ])
{
	my ($name, $after, $seconds) = @$_;

	fresh($name, request_timeout => '5s');
	too_many(ref $after ? $after->() : $after);
	my $asked_at = int(time);
	$r = $session->run(count($name));
	is($r->{sqlstate}, '53400', "Retry-After $name: SQLSTATE") or diag($r->{err});
	my ($said) = $r->{err} =~ /it asks to wait (\d+) s/;
	if (defined $seconds)
	{
		is($said, $seconds, "Retry-After $name: names the seconds");
	}
	else
	{
		# from the second of the answer, which is one of those in between
		ok($said <= $date - $asked_at && $said >= $date - int(time), "Retry-After $name: names the seconds")
		  or diag("$said, until $date, asked at $asked_at, now " . time);
	}
	cmp_ok($r->{ms}, '<', $said * 1000, "Retry-After $name: before that time is over");
	is(asked(qr/access-request-status/), 1, "Retry-After $name: asked once");
	# the word stands for other sessions too
	next unless $name eq 'long';
	my $other = new_session($node);
	$r = $other->run("SET accessreq.request_timeout = '1s'; " . count($name));
	is($r->{sqlstate}, '53400', 'Retry-After: another session keeps to it');
	is(asked(qr/access-request-status/), 1, 'and sends nothing');
	$other->quit;
}
fresh('at_token');
$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER at_token OPTIONS (SET client_id 'at_token2')");
$sandbox->fault('status', path => 'oauth', status => 429, headers => { 'Retry-After' => '1' });
$r = $session->run(count('at_token'));
is($r->{out}, '600', '429 to the token is waited for') or diag($r->{err});

fresh('unavailable');
$session->run('SET accessreq.max_retries = 1');
$sandbox->fault('status', path => 'access-request', status => 503, headers => { 'Retry-After' => '1' });
$r = $session->run(count('unavailable'));
is($r->{out}, '600', '503 with Retry-After') or diag($r->{err});
cmp_ok($r->{ms}, '>=', 1000, 'is waited for');
$session->run('RESET accessreq.max_retries');

# -------------------------------------------------------------- pulls wait

fresh('pulled', request_timeout => '1s');
$sandbox->fault('status', path => 'access-request', status => 429, skip => 1, count => 2, headers => { 'Retry-After' => '2' });
$r = $session->run("CALL accessreq.sync('pulled')");
is($r->{sqlstate}, '', 'a pull waits for longer than request_timeout') or diag($r->{err});
cmp_ok($r->{ms}, '>=', 4000, 'twice, in full');
is($admin->value("SELECT rate_limited_waits, rows_seen, error IS NULL FROM accessreq.sync_run WHERE server = 'pulled'"),
	'2|600|t', 'and its run counts that');

fresh('dated', request_timeout => '1s');
$sandbox->fault('status', path => 'access-request', status => 429, skip => 1, headers => { 'Retry-After' => http_date(4) });
$r = $session->run("CALL accessreq.sync('dated')");
is($r->{sqlstate}, '', 'a pull waits until a date') or diag($r->{err});
cmp_ok(time, '>=', $date, 'in full');

# a mapping whose token nobody has fetched yet
fresh('first_token', request_timeout => '1s');
$admin->value("ALTER USER MAPPING FOR PUBLIC SERVER first_token OPTIONS (SET client_id 'first_token2')");
$sandbox->fault('status', path => 'oauth', status => 429, headers => { 'Retry-After' => '2' });
$r = $session->run("CALL accessreq.sync('first_token')");
is($r->{sqlstate}, '', "a pull's token is waited for likewise") or diag($r->{err});
cmp_ok($r->{ms}, '>=', 2000, 'in full');

fresh('patient', request_timeout => '1s', rate_limit => 4);
$session->run('SELECT pg_sleep(0)');
$r = $session->run("CALL accessreq.sync('patient')");
is($r->{sqlstate}, '', 'a pull waits for the budget') or diag($r->{err});
cmp_ok($sandbox->stats->{max_in_10s}{'patient/v2024'}, '<=', 4, 'and keeps to it');

$_->quit for $session, $admin;
$_->stop for $node, $alone;
done_testing();
