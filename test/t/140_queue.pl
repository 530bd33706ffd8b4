# The queue of actions: what belongs to a transaction is sent once it has
# committed, as its owner, in its order, and what became of it stands on its row.
# The sandbox's record of what it received is the witness.

use strict;
use warnings;
use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $node = accessreq_node('queue', conf => "max_worker_processes = 16\nlog_min_messages = log\nmax_prepared_transactions = 4\n");
my $sandbox = new_sandbox(rows => 2000, open => 60);
my $admin = new_session($node);
my $r;

sub value { return $admin->value(@_) }
my $me = value('SELECT session_user');
sub action { my ($id, $what) = @_; return value("SELECT $what FROM accessreq.action WHERE id = $id") }
sub posts { return grep { $_->{method} ne 'GET' && $_->{path} !~ /oauth/ } $sandbox->requests }
sub body { return decode_json($_[0]->{body}) }

# Wait for the outcome; its state.
sub outcome
{
	my ($id, $limit) = @_;

	return value("CALL accessreq.wait_for_action($id, '" . ($limit || PATIENCE) . " s')");
}

# The queue has nothing to do any more.
sub drained
{
	my ($name) = @_;

	return ok(poll_until('the queue to be empty', sub { value('SELECT count(*) FROM accessreq.action WHERE settled_at IS NULL') == 0 }), $name)
	  || diag(value('SELECT id, kind, state, error FROM accessreq.action WHERE settled_at IS NULL LIMIT 5'));
}

# Open access requests that can be cancelled, each once.
my @open = grep { defined } map { $_->{accessRequestId} } grep { $_->{state} eq 'EXECUTING' && $_->{cancelable} } @{ $sandbox->dump };
my %seen;
@open = grep { !$seen{$_}++ } @open;
sub next_open { return shift @open // die 'no open request is left' }

sub create_sql { my ($who, $item, $more) = @_; return "SELECT accessreq.enqueue_create(b" . ($more ? ", $more" : '') . ", server => 'acme') FROM accessreq.grant_request(ARRAY['$who'], 'ROLE', '$item', 'c') b" }

add_server($node, 'acme', $sandbox->url);

# ---------------------------------------------------------- belongs to a transaction

my $x = next_open();
value("BEGIN; SELECT accessreq.enqueue_cancel('$x', 'no'); ROLLBACK");
value("BEGIN; SAVEPOINT s; SELECT accessreq.enqueue_cancel('$x', 'no'); ROLLBACK TO s; SELECT accessreq.enqueue_create('{\"requestedFor\":[\"p0\"],\"requestedItems\":[{\"type\":\"ROLE\",\"id\":\"r0\"}]}'); COMMIT");
$admin->run("DO \$\$ BEGIN PERFORM accessreq.enqueue_cancel('$x', 'no'); RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END \$\$");
drained('what a rolled back transaction, a savepoint or an EXCEPTION block enqueued is not there');
my @posts = posts();
is(scalar @posts, 1, 'one request was sent');
like($posts[0]{path}, qr{/access-requests$}, 'the one that was committed');
$sandbox->forget;

my $mate = new_session($node);
$mate->value("BEGIN; SELECT accessreq.enqueue_cancel('$x', 'no')");
my $second = value(create_sql('p1', 'r1'));
is(outcome($second), 'done', 'another is sent meanwhile');
is(scalar(grep { $_->{path} =~ /cancel/ } posts()), 0, 'what is not committed is not');
$mate->value('COMMIT');
$sandbox->await(qr/POST .*cancel/);
drained('it is once it is');

# ------------------------------------------------------------------------ each kind

my $listener = new_session($node);
$listener->value('LISTEN accessreq_action');
$sandbox->forget;
my $id = value("SELECT accessreq.enqueue_create('{\"requestedFor\":[\"p2\",\"p3\"],\"requestedItems\":[{\"type\":\"ROLE\",\"id\":\"r2\",\"clientMetadata\":{\"ticket\":\"INC1\"}},{\"type\":\"ROLE\",\"id\":\"r3\"}]}')");
is(outcome($id), 'done', 'a create');
my ($sent) = posts();
my $metadata = body($sent)->{requestedItems};
is($metadata->[0]{clientMetadata}{ticket}, 'INC1', 'the caller\'s own keys go along');
is($metadata->[$_]{clientMetadata}{accessreq_client_token}, action($id, 'client_token'), "item $_ has the action's token") for 0, 1;
is(action($id, 'http_status'), '202', 'its status');
is(action($id, 'cardinality(access_request_ids)'), '2', 'the requests that it made');
is(action($id, "answer #>> '{newRequests,0,accessRequestIds,0}' = access_request_ids[1]"), 't', 'and the answer');
like(action($id, 'tracking_id'), qr/^[0-9a-f]{32}$/, 'its tracking id');
is(action($id, "attempts || ' ' || (sent_at BETWEEN enqueued_at AND settled_at) || ' ' || owner || ' ' || enqueued_by || ' ' || (origin = accessreq.origin())"), "1 true $me $me true", 'whose, from where, when');
ok(poll_until('a notice', sub { $listener->run('SELECT 1')->{out} =~ /"accessreq_action" with payload "\{"id":$id,"state":"done","server":"acme"\}"/ }), 'who listens is told');

$id = value("SELECT accessreq.enqueue_create('{\"requestedForWithRequestedItems\":[{\"identityId\":\"p4\",\"requestedItems\":[{\"type\":\"ROLE\",\"id\":\"r4\",\"clientMetadata\":null}]}]}')");
is(outcome($id), 'done', 'a create with items for each person');
is(body((posts())[-1])->{requestedForWithRequestedItems}[0]{requestedItems}[0]{clientMetadata}{accessreq_client_token}, action($id, 'client_token'), 'has it too');
$id = value("SELECT accessreq.enqueue_cancel('" . ($x = next_open()) . "', 'not needed')");
is(outcome($id), 'done', 'a cancel');
is_deeply(body((posts())[-1]), { accountActivityId => $x, comment => 'not needed' }, 'in the API\'s own words');
$id = value("SELECT accessreq.enqueue_close(ARRAY['" . ($x = next_open()) . "', '" . next_open() . "'], 'stuck', 'Completed', 'Success')");
is(outcome($id), 'done', 'a close');
is(body((posts())[-1])->{completionStatus}, 'Success', 'with what was said');
is(action($id, "answer ? 'id'"), 't', 'and the job\'s id');
$id = value("SELECT accessreq.enqueue_merge_config('{\"approvalReminderAndEscalationConfig\": {\"maxReminders\": 7}}')");
is(outcome($id), 'done', 'a change of the configuration');
is(value("SELECT accessreq.get_config() #>> '{approvalReminderAndEscalationConfig,maxReminders}'"), '7', 'is there');
is(action($id, "answer ? 'autoApprovalEnabled'"), 't', 'merged with the rest');
$id = value("SELECT accessreq.enqueue_merge_config('{\"noSuchKey\": 1}')");
is(outcome($id), 'failed', 'one with a key that there is not');
is(action($id, "error_code || ' ' || error"), '22023 the configuration of server "acme" has no key "noSuchKey"', 'fails with the reason');

# -------------------------------------------------- what is checked before, and refused

for my $case (
	[ "enqueue_create('{}')", '22023' ],
	[ "enqueue_create('{\"requestedFor\":[\"p\"],\"requestedItems\":[{\"type\":\"ROLE\",\"id\":\"r\",\"clientMetadata\":{\"accessreq_client_token\":\"x\"}}]}')", '22023' ],
	[ "enqueue_cancel('', 'c')", '22023' ],
	[ "enqueue_cancel('x', NULL)", '22023' ],
	[ "enqueue_close('{}')", '22023' ],
	[ "enqueue_close((SELECT array_agg(i::text) FROM generate_series(1, 501) i))", '22023' ],
	[ "enqueue_close('{x}', execution_status => 'acme')", '22023' ],
	[ "enqueue_merge_config('[]')", '22023' ],
	[ "enqueue_cancel('x', 'c', server => 'nobody')", '42704' ],
	[ 'retry_action(0)', '42704' ],
	[ 'cancel_action(0)', '42704' ],
	[ "retry_action($second)", '55000' ])
{
	is($admin->run("SELECT accessreq.$case->[0]")->{sqlstate}, $case->[1], "$case->[0]: $case->[1]");
}
is(value("SELECT accessreq.cancel_action($second)"), 'f', 'what was sent cannot be taken back');
is($admin->run('CALL accessreq.wait_for_action(0)')->{sqlstate}, '42704', 'nothing to wait for');
is($admin->run("BEGIN; CALL accessreq.wait_for_action($second)")->{sqlstate}, '25001', 'no waiting in a transaction block');
$admin->run('ROLLBACK');
is($admin->run("DO \$\$ DECLARE s text; BEGIN CALL accessreq.wait_for_action($second, '1 s', s); RAISE NOTICE 'it is %', s; END \$\$")->{err} =~ /it is done/ ? 1 : 0, 1, 'but in a DO block of its own');
is($admin->run("BEGIN READ ONLY; SELECT accessreq.enqueue_cancel('x', 'c')")->{sqlstate}, '25006', 'not in a read-only transaction');
$admin->run('ROLLBACK');
add_server($node, 'readonly', $sandbox->url, options => { read_only => 'true' });
add_server($node, 'old', $sandbox->url, api => 'v3');
is($admin->run("SELECT accessreq.enqueue_cancel('x', 'c', server => 'readonly')")->{sqlstate}, '25006', 'nor for a server that is read-only');
is($admin->run("SELECT accessreq.enqueue_close('{x}', server => 'old')")->{sqlstate}, '0A000', 'nor what the api does not have');
value('DROP SERVER readonly CASCADE; DROP SERVER old CASCADE');

# ------------------------------------------------------- sent once: keys and cancels

$sandbox->forget;
my $grants = "SELECT accessreq.enqueue_create(b, dedupe_key => 'grant ' || i, server => 'acme') FROM generate_series(1, 500) i, accessreq.grant_request(ARRAY['d' || i], 'ROLE', 'rd', 'c') b";
my $first = value("SELECT min(e) || '-' || max(e) FROM ($grants) s (e)");
is(value("SELECT min(e) || '-' || max(e) FROM ($grants) s (e)"), $first, 'a script that is run again gets the same actions');
drained('500 grants');
value("SELECT count(*) FROM ($grants) s (e)");
drained('and a third time');
is(scalar(posts()), 500, 'are 500 requests');
is(value("SELECT count(*) FROM accessreq.action WHERE dedupe_key LIKE 'grant %' AND state = 'done'"), '500', 'all done');

for my $level ('READ COMMITTED', 'REPEATABLE READ')
{
	my $key = lc $level;
	my $mine = "SELECT accessreq.enqueue_create(b, dedupe_key => '$key', server => 'acme') FROM accessreq.grant_request(ARRAY['$key'], 'ROLE', 'rk', 'c') b";

	$sandbox->forget;
	value("BEGIN ISOLATION LEVEL $level; SELECT 1; $mine");
	$mate->value("BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM accessreq.action");
	$mate->send($mine);
	ok(poll_until('the second to wait', sub { value("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = $mate->{backend}") > 0 }), "$level: a key that another transaction is about to use is waited for");
	value('COMMIT');
	$r = $mate->finish;
	if ($level eq 'READ COMMITTED')
	{
		is($r->{out}, value("SELECT id FROM accessreq.action WHERE dedupe_key = '$key'"), 'the first one\'s id comes back');
	}
	else
	{
		is($r->{sqlstate}, '40001', 'a row that is out of sight is a serialization failure');
	}
	$mate->run('COMMIT');
	drained('both');
	is(scalar(posts()), 1, 'one was sent');
}

value("SELECT accessreq.hold_actions('acme')");
$x = next_open();
$id = value("SELECT accessreq.enqueue_cancel('$x', 'first')");
is(value("SELECT accessreq.enqueue_cancel('$x', 'second')"), $id, 'one cancel of a request at a time');
value("CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE chief SUPERUSER LOGIN; CREATE ROLE bi LOGIN;
GRANT USAGE ON FOREIGN SERVER acme TO alice, bob;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accessreq TO alice, bob;
GRANT EXECUTE ON PROCEDURE accessreq.wait_for_action TO alice, bob;
CREATE USER MAPPING FOR alice SERVER acme OPTIONS (client_id 'alice', client_secret 'sandbox-secret');
CREATE USER MAPPING FOR bob SERVER acme OPTIONS (client_id 'bob', client_secret 'sandbox-secret');
GRANT SELECT ON accessreq.action, accessreq.action_queue TO alice, bob, bi");
$r = $admin->run("SET ROLE alice; SELECT accessreq.enqueue_cancel('$x', 'mine')");
is($r->{sqlstate}, '23505', 'another role\'s is refused');
unlike($r->{err}, qr/\Q$me\E/, 'naming nobody');
$r = $admin->run("SELECT accessreq.cancel_action($id)");
is($r->{sqlstate}, '42704', 'and cannot be taken out of the queue');
like($r->{err}, qr/does not exist/, 'it is as if it were not there');
$admin->run('RESET ROLE');
is(value("SELECT accessreq.cancel_action($id)"), 't', 'its owner can');
is(action($id, 'state'), 'cancelled', 'and it is');
is(value("SELECT accessreq.cancel_action($id)"), 'f', 'once');
my $other = value("SELECT accessreq.enqueue_cancel('$x', 'third', dedupe_key => 'k')");
isnt($other, $id, 'then there may be another');
value("SELECT accessreq.cancel_action($other)");
my $newer = value("SELECT accessreq.enqueue_cancel('" . next_open() . "', 'fourth', dedupe_key => 'k')");
isnt($newer, $other, 'the key of a cancelled one is free');
value("UPDATE accessreq.action SET state = 'failed' WHERE id = $other");
is($admin->run("SELECT accessreq.retry_action($other)")->{sqlstate}, '23505', 'which a newer one holds: it cannot be sent again');

# ------------------------------------------------------------------ held, and stopped

$sandbox->forget;
is(value("SELECT accessreq.hold_actions('acme')"), '0', 'held already');
$id = value(create_sql('h1', 'r1'));
is(outcome($id, 1), 'queued', 'what is held is not sent, and the wait ends');
is(value("SELECT depth || ' ' || failed || ' ' || (oldest_seconds > 0.5) || ' ' || (held_at IS NOT NULL) || ' ' || scheduled FROM accessreq.action_queue WHERE server = 'acme'"), '2 2 true true 0', 'the queue says so');
is(scalar(posts()), 0, 'nothing was sent');
is(value("SELECT accessreq.release_actions()"), '1', 'released');
is(outcome($id), 'done', 'it is sent');
value('ALTER DATABASE postgres SET accessreq.deliver_actions = off');
$id = value(create_sql('h2', 'r1'));
is(outcome($id, 1), 'queued', 'switched off for the database');
value('ALTER DATABASE postgres RESET accessreq.deliver_actions');
is(outcome($id), 'done', 'and on again');
$node->append_conf('postgresql.conf', "accessreq.deliver_actions = off\n");
$node->reload;
poll_until('the reload', sub { new_session($node)->value('SHOW accessreq.deliver_actions') eq 'off' });
value('SELECT accessreq.stop_worker()');
value('SELECT accessreq.start_worker()');
$id = value(create_sql('h3', 'r1'));
is(outcome($id, 1), 'queued', 'switched off in the configuration');
value('ALTER DATABASE postgres SET accessreq.deliver_actions = on');
is(outcome($id), 'done', 'on for the database all the same');
$id = value(create_sql('h4', 'r1'));
is(outcome($id), 'done', 'and it stays so');
value('ALTER DATABASE postgres RESET accessreq.deliver_actions');
$id = value(create_sql('h5', 'r1'));
is(outcome($id, 2), 'queued', 'what the configuration says counts again');
$node->append_conf('postgresql.conf', "accessreq.deliver_actions = on\n");
$node->reload;
is(outcome($id), 'done', 'on');
$admin->run('SET ROLE alice');
is($admin->run("SELECT accessreq.hold_actions('acme')")->{sqlstate}, '', 'a job that is nobody\'s may be held by who may use the server');
is($admin->run("SELECT accessreq.release_actions('acme')")->{out}, '1', 'and released');
$admin->run('RESET ROLE');
value("UPDATE accessreq.sync_job SET owner = 'bob', owner_oid = 'bob'::regrole, first_enabled_at = now() WHERE server = 'acme'");
$admin->run('SET ROLE alice');
is($admin->run("SELECT accessreq.hold_actions('acme')")->{sqlstate}, '42501', 'another\'s may not');
is($admin->run('SELECT accessreq.hold_actions()')->{out}, '0', 'nor is it among all that she may');
$admin->run('RESET ROLE');
value("UPDATE accessreq.sync_job SET owner = NULL, owner_oid = NULL, first_enabled_at = NULL WHERE server = 'acme'");

# --------------------------------------------------- together, in order, as its owner

$sandbox->forget;
value("SELECT accessreq.hold_actions('acme')");
my @many = map { next_open() } 1 .. 130;
my $list = join ', ', map { "('$_')" } @many[ 0 .. 119 ];
value("SELECT count(accessreq.enqueue_cancel(v, 'together')) FROM (VALUES $list) t (v)");
my ($apart, $hers) = (join(', ', map { "('$_')" } @many[ 120 .. 124 ]), join(', ', map { "('$_')" } @many[ 125 .. 129 ]));
value("SELECT count(accessreq.enqueue_cancel(v, 'apart')) FROM (VALUES $apart) t (v)");
value("SET ROLE alice; SELECT count(accessreq.enqueue_cancel(v, 'together', server => 'acme')) FROM (VALUES $hers) t (v); RESET ROLE");
value("SELECT accessreq.release_actions('acme')");
drained('130 cancels');
my @bulk = grep { $_->{path} =~ /bulk-cancel/ } posts();
is_deeply([ sort { $a <=> $b } map { scalar @{ body($_)->{accessRequestIds} } } @bulk ], [ 5, 5, 20, 50, 50 ], 'in as few calls as there can be');
is(scalar(posts()), 5, 'and no other');
my %who = map { my $b = $_; map { $_ => "$b->{client_id} " . body($b)->{comment} } @{ body($b)->{accessRequestIds} } } @bulk;
is(scalar(grep { $who{$_} ne 'tester together' } @many[ 0 .. 119 ]), 0, 'each under its owner\'s token and with its own comment');
is(scalar(grep { $who{$_} ne 'tester apart' } @many[ 120 .. 124 ]), 0, 'what says something else goes apart');
is(scalar(grep { $who{$_} ne 'alice together' } @many[ 125 .. 129 ]), 0, 'and another\'s goes as hers');

# One that the tenant does not know fails alone.
$sandbox->forget;
value("SELECT accessreq.hold_actions('acme')");
@many = map { next_open() } 1 .. 4;
$list = join ', ', map { "('$_')" } @many, 'no-such-request';
value("SELECT count(accessreq.enqueue_cancel(v, 'five')) FROM (VALUES $list) t (v); SELECT accessreq.release_actions('acme')");
drained('five cancels, one of which is unknown');
is(value("SELECT string_agg(state, ' ' ORDER BY id) FROM accessreq.action WHERE request ->> 'comment' = 'five'"), 'done done done done failed', 'the others are not its concern');
is(value("SELECT error_code || ' ' || http_status || ' ' || (error ~ 'No access request has the id no-such-request') FROM accessreq.action WHERE access_request_ids = '{no-such-request}'"), '42704 404 true', 'it fails with the tenant\'s words');

# One of which no call can be made fails alone.
value("SELECT accessreq.hold_actions('acme')");
my $impossible = value("SELECT accessreq.enqueue_close(ARRAY['" . next_open() . "'])");
my $nameless = value("SELECT accessreq.enqueue_cancel('" . next_open() . "', 'nameless')");
my $good = value(create_sql('i1', 'r1'));
value("UPDATE accessreq.action SET access_request_ids = NULL WHERE id = $nameless; ALTER SERVER acme OPTIONS (SET api 'v3'); SELECT accessreq.release_actions('acme')");
drained('a close where the api has none any more, and a row that somebody has spoilt');
is(action($impossible, "state || ' ' || error_code || ' ' || attempts"), 'failed 0A000 0', 'the one fails, with the reason');
is(action($nameless, "state || ' ' || error_code"), 'failed 22000', 'the other too');
is(action($good, 'state'), 'done', 'what comes after them is sent');
value("ALTER SERVER acme OPTIONS (SET api 'v2024')");

# What is about one request keeps its order, and does not keep others waiting.
$sandbox->forget;
$sandbox->fault('late', method => 'POST', path => '/cancel', delay_ms => 1500);
my ($a, $b) = (next_open(), next_open());
my $cancel = value("SELECT accessreq.enqueue_cancel('$a', 'first')");
my $close = value("SELECT accessreq.enqueue_close(ARRAY['$b', '$a'], 'second')");
my $beside = value("SELECT accessreq.enqueue_close(ARRAY['" . next_open() . "'], 'beside')");
is(outcome($beside), 'done', 'an action on another request is sent at once');
is(action($cancel, 'state'), 'sending', 'while the first is on its way');
is(action($close, "state || ' ' || attempts"), 'queued 0', 'and what comes after it waits');
is(outcome($close), 'done', 'until it is through');
is_deeply([ map { $_->{path} =~ m{/(cancel|close)$} } posts() ], [qw(cancel close close)], 'in that order');
is(body((posts())[2])->{accessRequestIds}[1], $a, 'the waiting one last');
is(action($close, "sent_at > (SELECT settled_at FROM accessreq.action WHERE id = $cancel)"), 't', 'after the first was settled');

# A cancel of tomorrow holds nothing up.
$id = value("SELECT accessreq.enqueue_cancel('$b', 'later', not_before => now() + interval '1 day')");
is(outcome(value("SELECT accessreq.enqueue_close(ARRAY['$b'], 'now')")), 'done', 'one that is not due does not hold others');
is(value("SELECT scheduled FROM accessreq.action_queue WHERE server = 'acme'"), '1', 'it is counted');
value("SELECT accessreq.cancel_action($id)");
$id = value(create_sql('n1', 'r1', "not_before => clock_timestamp() + interval '1.5 s'"));
is(outcome($id), 'done', 'not_before');
cmp_ok(action($id, 'extract(epoch FROM sent_at - not_before)'), '>=', 0, 'is not sent before');
# else the worker would have looked around after launcher_naptime, a minute
cmp_ok(action($id, 'extract(epoch FROM sent_at - not_before)'), '<', 30, 'and soon after');

# --------------------------------------------------------------- as its owner, or not

$sandbox->forget;
$admin->run('SET ROLE alice');
$id = $admin->value(create_sql('w1', 'r1'));
is($admin->value("CALL accessreq.wait_for_action($id, '30 s')"), 'done', 'her own');
is($admin->value('SELECT string_agg(DISTINCT owner, \',\') FROM accessreq.action'), 'alice', 'she sees hers alone');
is($admin->run("CALL accessreq.wait_for_action($second, '1 s')")->{sqlstate}, '42704', 'and waits for no other');
cmp_ok($admin->value("SELECT failed FROM accessreq.action_queue WHERE server = 'acme'"), '>', 1, 'but the queue counts all');
$admin->run('RESET ROLE');
is((posts())[-1]{client_id}, 'alice', 'sent with her mapping');
is(action($id, "owner || ' ' || (enqueued_by = session_user)"), 'alice true', 'in her name');
$r = $admin->run("SET ROLE bi; SELECT count(*) FROM accessreq.action");
is($r->{out}, '0', 'a reader who is a member of no owner sees none');
$admin->run('RESET ROLE');
my ($rc, $out, $err) = (0, '', '');
$rc = IPC::Run::run([ 'pg_dump', '-d', $node->connstr('postgres') . ' user=bi', '-t', 'accessreq.action', '--data-only' ], '>', \$out, '2>', \$err);
ok(!$rc && $err =~ /row-level security|permission denied/, 'and cannot back it up') or diag($err);

# What is queued for a right that is gone fails.
sub queued_for
{
	my ($role, $server) = @_;

	value("SELECT accessreq.hold_actions('$server')");
	my $q = value("SET ROLE $role; SELECT accessreq.enqueue_create(b, server => '$server') FROM accessreq.grant_request(ARRAY['q'], 'ROLE', 'rq', 'c') b; RESET ROLE");
	return $q;
}
for my $case (
	[ 'REVOKE EXECUTE ON FUNCTION accessreq.enqueue_create FROM alice', '42501', qr/alice.*enqueue_create/, 'GRANT EXECUTE ON FUNCTION accessreq.enqueue_create TO alice' ],
	[ 'REVOKE USAGE ON FOREIGN SERVER acme FROM alice', '42501', qr/permission denied for foreign server/, 'GRANT USAGE ON FOREIGN SERVER acme TO alice' ])
{
	$sandbox->forget;
	$id = queued_for('alice', 'acme');
	value("$case->[0]; SELECT accessreq.release_actions('acme')");
	is(outcome($id), 'failed', "$case->[0]: it fails");
	is(action($id, 'error_code'), $case->[1], "with $case->[1]");
	like(action($id, 'error'), $case->[2], 'and the reason');
	is(scalar(posts()), 0, 'nothing was sent');
	value($case->[3]);
	value("SET ROLE alice; SELECT accessreq.retry_action($id)");
	is(outcome($id), 'done', 'it can be sent again once the right is there');
	value('RESET ROLE');
}

$id = queued_for('bob', 'acme');
my $later = value("SET ROLE bob; SELECT accessreq.enqueue_create(b, not_before => now() + interval '1 year', server => 'acme') FROM accessreq.grant_request(ARRAY['q'], 'ROLE', 'rq', 'c') b; RESET ROLE");
value("SELECT accessreq.release_actions('acme')");
is(outcome($id), 'done', 'bob\'s');
value('DROP OWNED BY bob; DROP ROLE bob');
ok(poll_until('the end', sub { action($later, 'state') eq 'failed' }), 'what is queued for a role that was dropped fails, scheduled or not');
is(action($later, "error_code || ' ' || error"), '42704 role "bob" does not exist any more', 'with the reason');
is(value('SELECT count(*) > 0 FROM accessreq.action WHERE owner = \'bob\''), 't', 'its rows make no query fail');
is($admin->run("SET ROLE alice; SELECT count(*) > 0 FROM accessreq.action")->{out}, 't', 'of anybody\'s');
$admin->run('RESET ROLE');
add_server($node, 'gone', $sandbox->url);
value("SELECT accessreq.hold_actions('gone')");
$id = value("SELECT accessreq.enqueue_cancel('x', 'c', server => 'gone')");
value('DROP SERVER gone CASCADE');
ok(poll_until('the end', sub { action($id, 'state') eq 'failed' }), 'what is queued for a server that was dropped fails');
is(action($id, "error_code || ' ' || error"), '42704 server "gone" does not exist any more', 'with the reason');

# --------------------------------------------------- prepared, elsewhere, too old

$sandbox->forget;
value("BEGIN; SELECT accessreq.enqueue_cancel('" . next_open() . "', 'prepared'); PREPARE TRANSACTION 'p'");
sleep 0.2;
is(scalar(posts()), 0, 'what is prepared is not sent');
my $start = time;
value("COMMIT PREPARED 'p'");
$sandbox->await(qr/POST .*cancel/);
cmp_ok(time - $start, '<', 30, 'what is committed in two phases is, and not after launcher_naptime');
drained('it');
value("BEGIN; SELECT accessreq.enqueue_cancel('" . next_open() . "', 'prepared'); PREPARE TRANSACTION 'p'");
$node->restart;
$admin = new_session($node);
value("COMMIT PREPARED 'p'");
$start = time;
drained('a restart in between');
cmp_ok(time - $start, '<', 30, 'does not lose it');

$node->safe_psql('postgres', 'CREATE DATABASE second');
$node->safe_psql('second', 'CREATE EXTENSION accessreq');
add_server($node, 'acme', $sandbox->url, db => 'second', mapping => { client_id => 'second', client_secret => 'sandbox-secret' });
my $elsewhere = new_session($node, db => 'second');
$sandbox->forget;
my $there = $elsewhere->value("SELECT accessreq.enqueue_cancel('" . next_open() . "', 'there')");
my $here = value("SELECT accessreq.enqueue_cancel('" . next_open() . "', 'here')");
is($elsewhere->value("CALL accessreq.wait_for_action($there)"), 'done', 'two databases');
is(outcome($here), 'done', 'each sends its own');
is_deeply([ sort map { "$_->{client_id} " . body($_)->{comment} } posts() ], [ 'second there', 'tester here' ], 'once');

value("UPDATE accessreq.action SET settled_at = now() - interval '400 days' WHERE id = $here");
value("UPDATE accessreq.action SET settled_at = now() - interval '300 days' WHERE id = $close");
value('SELECT accessreq.stop_worker(); SELECT accessreq.start_worker()');
ok(poll_until('an old one to go', sub { action($here, 'count(*)') == 0 }), 'settled ones go after action_retention');
is(action($close, 'count(*)'), '1', 'and not before');

# ---------------------------------------------------------------------- the budget

add_server($node, 'slow', $sandbox->url, options => { rate_limit => 20 }, mapping => { client_id => 'slow', client_secret => 'sandbox-secret' });
$sandbox->forget;
value("SELECT count(accessreq.enqueue_close(ARRAY['c' || i], 'budget', server => 'slow')) FROM generate_series(1, 40) i");
ok(poll_until('the budget to be used', sub { scalar(grep { ($_->{client_id} // '') eq 'slow' } $sandbox->requests) >= 18 }), 'the queue uses the budget');
sleep 1;
is($sandbox->stats->{max_in_10s}{'slow/v2024'}, 18, 'but for a tenth of it');
# had it to wait for what is left, the next is free once the first is ten seconds old
is($admin->run("SET accessreq.request_timeout = '3s'; SELECT accessreq.count_status(server => 'slow'); RESET accessreq.request_timeout")->{sqlstate}, '', 'which a session gets at once, with its token');
value("SELECT count(accessreq.cancel_action(id)) FROM accessreq.action WHERE server = 'slow' AND state = 'queued'");
is(value("SELECT count(*) FROM accessreq.action WHERE server = 'slow' AND state NOT IN ('done', 'cancelled')"), '0', 'the rest was still in the queue, and not marked as sent');

done_testing();
