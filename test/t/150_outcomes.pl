# What becomes of actions when something is in the way: the tenant, the network,
# a crash.  Nothing reaches the tenant twice, nothing is lost, and what is known
# of each stands on its row.

use strict;
use warnings;
use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $seed = $ENV{ACCESSREQ_SEED} // 4711;
srand($seed);
diag("seed $seed (ACCESSREQ_SEED)");

my $node = accessreq_node('outcomes', conf => "max_worker_processes = 16\nlog_min_messages = log\n");
my $sandbox = new_sandbox(rows => 3000, open => 60);
my $admin = new_session($node);

sub value { return $admin->value(@_) }
sub action { my ($id, $what) = @_; return value("SELECT $what FROM accessreq.action WHERE id = $id") }
sub posts { return grep { $_->{method} ne 'GET' && $_->{path} !~ /oauth/ } $sandbox->requests }
sub body { return decode_json($_[0]->{body}) }
sub outcome { my ($id, $limit) = @_; return value("CALL accessreq.wait_for_action($id, '" . ($limit || PATIENCE) . " s')") }
sub becomes { my ($id, $what, $name) = @_; return ok(poll_until($name, sub { action($id, $what) eq 't' }), $name) || diag(action($id, 'state, error')) }

my @open = do
{
	my %seen;
	grep { !$seen{$_}++ } map { $_->{accessRequestId} } grep { $_->{state} eq 'EXECUTING' && $_->{cancelable} && defined $_->{accessRequestId} } @{ $sandbox->dump };
};
sub next_open { return shift @open // die 'no open request is left' }
my $n = 0;
sub create { my ($item, $server) = @_; $n++; return value("SELECT accessreq.enqueue_create(b, server => '" . ($server || 'acme') . "') FROM accessreq.grant_request(ARRAY['person$n'], 'ROLE', '" . ($item || "role$n") . "', 'c') b") }
sub cancel { my ($id) = @_; return value("SELECT accessreq.enqueue_cancel('" . ($id || next_open()) . "', 'c', server => 'acme')") }

add_server($node, 'acme', $sandbox->url);
is(outcome(create()), 'done', 'all is well');

# --------------------------------------------------------------- provably not taken

$sandbox->forget;
$sandbox->fault('status', status => 429, method => 'POST', path => '/access-requests', count => 2, headers => { 'Retry-After' => '1' });
my $id = create();
becomes($id, "state = 'queued' AND attempts = 1", 'after a 429 it is back in the queue');
like(action($id, 'error'), qr/rate limit/, 'with the reason');
is(action($id, 'sent_at IS NULL'), 't', 'and not taken for sent');
is(outcome($id), 'done', 'it is sent when the tenant said');
is(action($id, 'attempts'), '3', 'as often as it took');
is(action($id, 'error IS NULL'), 't', 'without an error in the end');
my @times = map { $_->{time_ms} } posts();
cmp_ok($times[1] - $times[0], '>=', 1000, 'Retry-After is kept');

$sandbox->fault('status', status => 429, method => 'POST', path => '/access-requests', headers => { 'Retry-After' => '300' });
$id = create();
becomes($id, "attempts = 1 AND state = 'queued'", 'a long one');
cmp_ok(value("SELECT extract(epoch FROM retry_after - now()) FROM accessreq.sync_job WHERE server = 'acme'"), '>', 250, 'is written down');
$sandbox->forget;
$node->restart;
$admin = new_session($node);
sleep 1;
is(scalar(posts()), 0, 'and kept over a restart');
value("UPDATE accessreq.sync_job SET retry_after = NULL WHERE server = 'acme'; SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()");
is(outcome($id), 'done', 'until it is over');

$sandbox->admin('POST', 'tokens/revoke');
is(outcome(create()), 'done', 'a 401 fetches a new token, and it is sent');

value("ALTER USER MAPPING FOR PUBLIC SERVER acme OPTIONS (SET client_secret 'wrong-secret')");
$sandbox->forget;
$id = create();
becomes($id, "state = 'queued' AND error_code = '28P01'", 'a wrong secret is nobody\'s action\'s fault: it waits');
is(action($id, 'attempts'), '0', 'and was not sent');
value("ALTER USER MAPPING FOR PUBLIC SERVER acme OPTIONS (SET client_secret 'sandbox-secret')");
is(outcome($id), 'done', 'until somebody mends it');

my $closed = IO::Socket::INET->new(LocalAddr => '127.0.0.1', Listen => 1)->sockport;
for my $case (
	[ 'refused', "http://127.0.0.1:$closed", qr/no connection can be made/ ],
	[ 'tls', 'https://127.0.0.1:' . $sandbox->port, qr/TLS/ ])
{
	add_server($node, $case->[0], $case->[1], options => { base_url => $case->[1] });
	$id = create(undef, $case->[0]);
	becomes($id, "state = 'queued' AND error IS NOT NULL", "$case->[0]: it waits");
	like(action($id, 'error'), $case->[2], 'with the reason');
	is(action($id, 'error_code'), '08001', 'and its SQLSTATE');
	value("ALTER SERVER $case->[0] OPTIONS (SET base_url '" . $sandbox->url . "')");
	is(outcome($id, 60), 'done', 'and is sent when the way is free');
}
$node->append_conf('postgresql.conf', "accessreq.allowed_hosts = '127.0.0.1, no-such-host.invalid'\n");
$node->reload;
poll_until('the reload', sub { new_session($node)->value('SHOW accessreq.allowed_hosts') =~ /invalid/ });
add_server($node, 'dns', 'https://no-such-host.invalid');
$id = create(undef, 'dns');
becomes($id, "state = 'queued' AND error ~ 'resolved'", 'a host that cannot be resolved: it waits');
is(value("SELECT accessreq.cancel_action($id)"), 't', 'and can be taken out');

# ------------------------------------------------------------------------- refused

$sandbox->forget;
$id = create('unknown-role');
is(outcome($id), 'failed', 'a 400 fails at once');
is(action($id, "http_status || ' ' || error_code || ' ' || attempts"), '400 22023 1', 'with its status');
like(action($id, 'error'), qr/A requested item does not exist/, 'and the tenant\'s words');
like(action($id, 'tracking_id'), qr/^[0-9a-f]{32}$/, 'and the tracking id');
is(scalar(posts()), 1, 'after one request');
add_server($node, 'self', $sandbox->url, mapping => { client_id => 'self', client_secret => 'sandbox-secret' });
$id = create(undef, 'self');
is(outcome($id), 'failed', 'so does a 403');
is(action($id, 'error_code'), '42501', 'of a token that may not');
my (%past, %now);
$_->{state} eq 'REQUEST_COMPLETED' ? $past{ $_->{accessRequestId} // '' }++ : $now{ $_->{accessRequestId} // '' }++ for @{ $sandbox->dump };
my ($past) = grep { $_ && !$now{$_} } sort keys %past;
$id = cancel($past);
is(outcome($id), 'failed', 'a cancel past its approval');
like(action($id, 'error'), qr/past its approval/, 'in the tenant\'s words');

# -------------------------------------------------------------------- answers lost

# The work is done and the answer lost, or neither.
for my $case (
	[ 'create', 'drop_answer', '/access-requests', sub { create() }, 'done' ],
	[ 'create', 'truncate', '/access-requests', sub { create() }, 'done' ],
	[ 'cancel', 'drop_answer', '/cancel', sub { cancel() }, 'done' ],
	[ 'cancel', 'close', '/cancel', sub { cancel() }, 'failed' ],
	[ 'cancel', 'status', '/cancel', sub { cancel() }, 'failed', status => 503 ],
	[ 'merge_config', 'drop_answer', '/access-request-config', sub { value("SELECT accessreq.enqueue_merge_config('{\"approvalReminderAndEscalationConfig\": {\"maxReminders\": 9}}', server => 'acme')") }, 'done', method => 'PUT' ])
{
	my ($kind, $fault, $path, $enqueue, $state, %more) = @$case;

	$sandbox->no_faults;
	$sandbox->forget;
	$sandbox->fault($fault, method => 'POST', path => $path, %more, ($kind eq 'merge_config' ? (count => 4) : ()));
	$id = $enqueue->();
	# there the status came, and that is enough
	if ($fault ne 'truncate')
	{
		becomes($id, "state = 'unknown' OR settled_at IS NOT NULL", "$kind, $fault: its answer is lost");
		# in one look: what it did may be found meanwhile
		is(action($id, "CASE WHEN state = 'unknown' THEN error_code ELSE '08007' END"), '08007', 'so it is unknown, or found already');
		$sandbox->no_faults;
		$sandbox->admin('POST', 'advance', { ms => 5000 });
	}
	is(outcome($id), $state, "$kind, $fault: looking for it finds it $state") or diag(action($id, 'error'));
	is(scalar(grep { $_->{method} eq 'POST' } posts()), $kind eq 'merge_config' ? 0 : 1, 'it was sent once');
	is(action($id, 'attempts'), '1', 'and tried once');
	isnt(action($id, 'answer'), '', 'with the evidence in answer') if $fault ne 'truncate';
	like(action($id, 'error'), qr/not carried out: the items are EXECUTING/, 'and what was found') if $state eq 'failed';
	is(action($id, 'cardinality(access_request_ids)'), '1', 'and the request it made') if $kind eq 'create' && $fault ne 'truncate';
}
$sandbox->no_faults;

# A create that the tenant never lists cannot be told from one that got lost.
$sandbox->fault('drop_answer', method => 'POST', path => '/access-requests');
my $held = create('held-role');
becomes($held, "state = 'unknown'", 'a create of access that is held already');
sleep 2.5;
is(action($held, "state || ' ' || (settled_at IS NULL)"), 'unknown true', 'stays unknown while it is looked for');
is(value("SELECT unknown FROM accessreq.action_queue WHERE server = 'acme'"), '1', 'and is counted');
value("UPDATE accessreq.action SET sent_at = sent_at - interval '1 hour' WHERE id = $held; SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()");
is(outcome($held), 'unknown', 'after a while looking is given up');
like(action($held, 'error'), qr/looked \d+ times among .* requested since .* no item has the token \Q@{[action($held, 'client_token')]}\E/, 'and the row says what was tried');
is(action($held, "answer -> 'found'"), '{}', 'nothing was found');
value("SELECT accessreq.retry_action($held)");
is(outcome($held), 'done', 'sending it again is the caller\'s decision');

# A close is carried out later.
$sandbox->fault('drop_answer', method => 'POST', path => '/close');
$id = value("SELECT accessreq.enqueue_close(ARRAY['" . next_open() . "'], server => 'acme')");
becomes($id, "state = 'unknown'", 'a close whose answer is lost');
$sandbox->admin('POST', 'advance', { ms => 5000 });
is(outcome($id, 70), 'done', 'is looked for until the tenant has carried it out');
like(action($id, "answer::text"), qr/TERMINATED/, 'which is the evidence');

# And may be later than anybody looks for it: then pulls tell.  Its key is held until
# they do; nothing is sent for it again.
sub lost_close
{
	my ($request, $key) = @_;
	my $close = value("SELECT accessreq.enqueue_close(ARRAY['$request'], dedupe_key => '$key', server => 'acme')");

	becomes($close, "state = 'unknown'", 'a close whose answer is lost');
	value("UPDATE accessreq.action SET sent_at = sent_at - interval '1 hour' WHERE id = $close; SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()");
	is(outcome($close), 'unknown', 'that the tenant has not carried out, is left to later pulls');
	like(action($close, 'error'), qr/the answer was lost; looked \d+ times, and the items are EXECUTING.*pulls will tell/, 'and says so');
	return $close;
}
my $late = next_open();
value("CALL accessreq.sync('acme')");
$sandbox->fault('close', method => 'POST', path => '/access-requests/close');
$sandbox->forget;
$id = lost_close($late, 'lost');
value("CALL accessreq.sync('acme', full_scan => true)");
is(action($id, 'state'), 'unknown', 'a pull that sees it open says nothing');
is(value("SELECT accessreq.enqueue_close(ARRAY['$late'], dedupe_key => 'lost', server => 'acme')"), $id, 'its key is held');
is(value("SELECT ARRAY['$late'] && accessreq.acted_requests('acme', 'close')"), 't', 'automation leaves the request alone');
# the tenant's job has come to it
is(value("SELECT outcome FROM accessreq.close(ARRAY['$late'], server => 'acme')"), 'accepted', 'when it is closed');
$sandbox->admin('POST', 'advance', { ms => 60000 });
value("CALL accessreq.sync('acme')");
is(action($id, "state || ' ' || coalesce(error, 'no error')"), 'done no error', 'the next pull settles it');
is(value("SELECT accessreq.enqueue_close(ARRAY['$late'], dedupe_key => 'lost', server => 'acme')"), $id, 'with its key');
is(scalar(grep { $_->{path} =~ /close/ } posts()), 2, 'and nothing was sent twice');
$sandbox->fault('close', method => 'POST', path => '/access-requests/close');
$id = lost_close($late = next_open(), 'never');
value("UPDATE accessreq.action SET sent_at = sent_at - interval '25 hours' WHERE id = $id");
is(value("SELECT count(*) FROM accessreq.refresh(ARRAY['$late'], 'acme')") gt '0', 1, 'a day later');
is(action($id, "state || ' ' || error_code || ' ' || error"), 'failed 08006 the answer was lost, and a day later it was not carried out', 'one that is open still has failed');
isnt(value("SELECT accessreq.enqueue_close(ARRAY['$late'], dedupe_key => 'never', not_before => now() + interval '1 day', server => 'acme')"), $id, 'and its key is free');
value("SELECT count(accessreq.cancel_action(id)) FROM accessreq.action WHERE state = 'queued'");

# Sending goes on after a while, and not as if nothing had happened.
$sandbox->forget;
$sandbox->fault('close', method => 'POST', path => '/access-requests', count => 3);
my @ids = map { create() } 1 .. 12;
poll_until('most to be sent', sub { value("SELECT count(*) FROM accessreq.action WHERE id >= $ids[0] AND state = 'done'") >= 9 });
cmp_ok(value("SELECT count(*) FROM accessreq.action WHERE id >= $ids[0] AND state = 'unknown'"), '<=', 3, 'a tenant in trouble does not make the whole queue unknown');
@times = map { $_->{time_ms} } posts();
cmp_ok($times[-1] - $times[0], '>=', 900, 'the sender pauses after a lost answer');
poll_until('all but those', sub { value("SELECT count(*) FROM accessreq.action WHERE id >= $ids[0] AND state IN ('queued', 'sending')") == 0 });
value("UPDATE accessreq.action SET settled_at = now() WHERE state = 'unknown'");

# ------------------------------------------------------------- pages of a gateway

# A maintenance page with a status of success, nothing done: no action is done.
sub merge_days { return value("SELECT accessreq.enqueue_merge_config('{\"approvalReminderAndEscalationConfig\": {\"daysUntilEscalation\": $_[0]}}', server => 'acme')") }
sub days { return value("SELECT accessreq.get_config(server => 'acme') #>> '{approvalReminderAndEscalationConfig,daysUntilEscalation}'") }
my $rows = scalar @{ $sandbox->dump };
for my $status (200, 202)
{
	value('SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()');
	$sandbox->forget;
	$sandbox->fault('html', status => 0 + $status, method => 'POST', path => '/access-requests', count => 3);
	$sandbox->fault('html', status => 0 + $status, method => 'PUT', path => 'config');
	my ($request, $closed) = (next_open(), next_open());
	my %page = (create => create(), cancel => cancel($request), close => value("SELECT accessreq.enqueue_close(ARRAY['$closed'], server => 'acme')"), merge_config => merge_days(60 + $status));
	for my $kind (sort keys %page)
	{
		becomes($page{$kind}, "state = 'unknown' OR settled_at IS NOT NULL", "$kind, a page with status $status: it is not known");
		is(action($page{$kind}, "CASE WHEN state = 'unknown' THEN error_code ELSE '08007' END"), '08007', "$kind, $status: with its SQLSTATE");
	}
	$sandbox->admin('POST', 'advance', { ms => 5000 });
	is(outcome($page{$_}), 'failed', "$_, $status: looking for it finds that it was not carried out") or diag(action($page{$_}, 'error')) for 'cancel', 'merge_config';
	isnt(days(), 60 + $status, "merge_config, $status: it was not put");
	sleep 2.5;
	is(action($page{$_}, "state || ' ' || (settled_at IS NULL)"), 'unknown true', "$_, $status: is looked for, and not done") for 'create', 'close';
	is(scalar(@{ $sandbox->dump }), $rows, "create, $status: nothing was made");
	is(join(' ', map { $_->{state} } grep { ($_->{accessRequestId} // '') eq $closed && $_->{state} eq 'TERMINATED' } @{ $sandbox->dump }), '', "close, $status: nothing was closed");
	is(join(' ', sort map { "$_->{method} $_->{fault}" } posts()), 'POST html POST html POST html PUT html', "$status: each was sent once");
	is(action($page{$_}, 'attempts'), '1', "$_, $status: and tried once") for sort keys %page;
	value("UPDATE accessreq.action SET settled_at = now() WHERE id IN ($page{create}, $page{close})");
	$sandbox->no_faults;
}

# The same pages, and undocumented statuses, with the work done: it is found.
my $days = 100;
for my $case ([ 'page', 202 ], [ 'answer', 200 ], [ 'answer', 204 ])
{
	my ($fault, $status) = @$case;
	my $what = "$fault $status";

	# it would pause for longer each time
	value('SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()');
	$sandbox->forget;
	$sandbox->fault($fault, status => 0 + $status, method => 'POST', path => '/access-requests', count => 2);
	$sandbox->fault($fault, status => 0 + $status, method => 'PUT', path => 'config');
	my %page = (create => create(), cancel => cancel(), merge_config => merge_days(++$days));
	becomes($page{$_}, "state = 'unknown' OR settled_at IS NOT NULL", "$_, $what: it is not known, or found already") for sort keys %page;
	$sandbox->admin('POST', 'advance', { ms => 5000 });
	is(outcome($page{$_}), 'done', "$_, $what: it is found") or diag(action($page{$_}, 'error')) for sort keys %page;
	is(action($page{create}, 'cardinality(access_request_ids)'), '1', "create, $what: with its request");
	is(days(), $days, "merge_config, $what: it was put");
	is(action($page{merge_config}, "http_status || ' ' || (answer #>> '{approvalReminderAndEscalationConfig,daysUntilEscalation}')"), "200 $days", "merge_config, $what: and read back, which is its answer");
	is(join(' ', sort map { $_->{method} } posts()), 'POST POST PUT', "$what: each was sent once");
	$sandbox->no_faults;
}

# ---------------------------------------------------------- kills at random moments

# 200 actions; the worker is killed, the server stopped at once, answers get lost.
# The record of the sandbox tells how often each was received.
sub received
{
	my %n;

	for my $p (posts())
	{
		my $b = body($p);

		if ($p->{path} =~ m{/access-requests$})
		{
			$n{ $b->{requestedItems}[0]{clientMetadata}{accessreq_client_token} }++;
		}
		else
		{
			$n{$_}++ for $b->{accountActivityId} // (), @{ $b->{accessRequestIds} // [] };
		}
	}
	return \%n;
}

sub disturb
{
	my $what = int rand 6;

	if ($what == 0)
	{
		my $pid = value('SELECT pid FROM accessreq.worker()');
		value("SELECT pg_terminate_backend($pid)") if $pid;
	}
	elsif ($what == 1)
	{
		$node->stop('immediate');
		$node->start;
		$admin = new_session($node);
	}
	elsif ($what == 2)
	{
		$sandbox->fault('drop_answer', method => 'POST', path => 'access-requests', count => 1 + int rand 2, skip => int rand 3);
	}
	elsif ($what == 3)
	{
		$sandbox->fault('close', method => 'POST', path => 'access-requests', skip => int rand 3);
	}
	elsif ($what == 4)
	{
		$sandbox->fault('status', status => 503, path => 'access-request-status', count => 2);
	}
	else
	{
		value('SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()');
	}
	return;
}

$sandbox->no_faults;
$sandbox->forget;
$sandbox->admin('POST', 'latency', { ms => 20 });
my $first = create();
my $end = time + 25;
for my $i (1 .. 199)
{
	if ($i % 4 == 0) { cancel() }
	elsif ($i % 10 == 1) { value("SELECT accessreq.enqueue_close(ARRAY['" . next_open() . "'], server => 'acme')") }
	else { create() }
	disturb() if $i % 12 == 0;
	sleep 0.01;
}
while (time < $end && value("SELECT count(*) FROM accessreq.action WHERE id >= $first AND state IN ('queued', 'sending')") > 0)
{
	sleep 0.7;
	disturb();
}
$sandbox->no_faults;
ok(poll_until('the queue to be empty', sub { value("SELECT count(*) FROM accessreq.action WHERE id >= $first AND state IN ('queued', 'sending')") == 0 }), '200 actions, disturbed: none is left in the queue');
$sandbox->admin('POST', 'advance', { ms => 10000 });
ok(poll_until('no cancel to be unknown', sub { value("SELECT count(*) FROM accessreq.action WHERE id >= $first AND state = 'unknown' AND kind = 'cancel'") == 0 }), 'no cancel stays unknown')
  or diag(value("SELECT id, kind, state, error FROM accessreq.action WHERE id >= $first AND state = 'unknown' AND kind = 'cancel'"));
my %tenant = map { $_ => 1 } grep { defined } map { ref $_->{clientMetadata} eq 'HASH' ? $_->{clientMetadata}{accessreq_client_token} : undef } @{ $sandbox->dump };
ok(poll_until('creates to be found', sub { !grep { $tenant{$_} } split /\n/, value("SELECT client_token FROM accessreq.action WHERE id >= $first AND state = 'unknown'") }), 'a create is unknown only where the tenant does not have it');
my $received = received();
my @twice = grep { $received->{$_} > 1 } keys %$received;
is(scalar(@twice), 0, 'nothing was received twice') or diag("@twice");
my ($done, $failed, $unknown) = map { value("SELECT count(*) FROM accessreq.action WHERE id >= $first AND state = '$_'") } qw(done failed unknown);
is($done + $failed + $unknown, 200, "each has an outcome ($done done, $failed failed, $unknown unknown)");
# what the tenant did is what the rows say
my %row = map { my ($token, $state) = split /\|/; $token => $state } split /\n/, value("SELECT client_token, state FROM accessreq.action WHERE id >= $first AND kind = 'create'");
my %cancelled = map { $_->{accessRequestId} // '' => 1 } grep { $_->{state} eq 'CANCELLED' } @{ $sandbox->dump };
my @wrong = grep { $tenant{$_} xor $row{$_} eq 'done' } keys %row;
is(scalar(@wrong), 0, 'creates: done is what the tenant has') or diag("@wrong[0 .. 3]");
my $cancels = value("SELECT string_agg(access_request_ids[1] || ' ' || state, ',') FROM accessreq.action WHERE id >= $first AND kind = 'cancel'");
@wrong = grep { my ($request, $is) = split / /; $is eq 'done' xor $cancelled{$request} } split /,/, $cancels;
is(scalar(@wrong), 0, 'cancels: done is what is cancelled there') or diag("@wrong");
$sandbox->admin('POST', 'latency', { ms => 0 });

# --------------------------------------------------- committed before it is sent

# With synchronous_commit = off the mark "sending" is flushed all the same: the
# tenant gets it, the server stops at that moment, and it is not sent again.
$node->append_conf('postgresql.conf', "synchronous_commit = off\nwal_writer_delay = 10s\nwal_writer_flush_after = 1GB\n");
$node->restart;
$admin = new_session($node);
$sandbox->forget;
$sandbox->fault('late', method => 'POST', path => '/access-requests', delay_ms => 3000);
# the enqueueing session's own commit is flushed by the worker's
$id = create();
$sandbox->await(qr{POST .*/access-requests$});
$node->stop('immediate');
$node->start;
$admin = new_session($node);
is(action($id, 'count(*)'), '1', 'synchronous_commit = off: it is there after an immediate stop');
isnt(action($id, 'state'), 'queued', 'as one that was sent') ;
$sandbox->admin('POST', 'advance', { ms => 5000 });
is(outcome($id), 'done', 'it is found in the tenant');
is(scalar(posts()), 1, 'and was sent once');

done_testing();
