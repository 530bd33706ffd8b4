# cancel_stale(), close_stuck(), request_once(): what they choose is compared with
# what the items themselves say (raw), and what they do with what the tenant got.

use strict;
use warnings;
use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = accessreq_node('automation', conf => "accessreq.launcher_naptime = 1\naccessreq.missing_limit = 1\n");
my $sandbox = new_sandbox(rows => 6000, open => 20, reference => 'now');
my $second = new_sandbox(rows => 600, open => 60, seed => 8, reference => 'now');
my $admin = new_session($node);

sub value { return $admin->value(@_) }
sub state_of { my ($sql, $session) = @_; my $r = ($session || $admin)->run($sql); $admin->run('ROLLBACK') if $r->{sqlstate}; return $r->{sqlstate} }
sub drained { return poll_until('the queue to be empty', sub { value('SELECT count(*) FROM accessreq.action WHERE settled_at IS NULL') == 0 }) }

add_server($node, 'acme', $sandbox->url);
value("CALL accessreq.sync('acme')");
# one that full scans do not return any more is nobody's business
my ($gone) = grep { $_->{state} eq 'EXECUTING' && $_->{cancelable} && $_->{accessRequestId} } @{ $sandbox->dump };
$sandbox->admin('DELETE', "items?id=$gone->{accountActivityItemId}");
value("CALL accessreq.sync('acme', full_scan => true)");
value(<<'SQL');
CREATE TEMP VIEW items AS
SELECT raw ->> 'accessRequestId' AS id, raw ->> 'state' AS state, (raw ->> 'created')::timestamptz AS created, (raw ->> 'cancelable')::bool AS cancelable, raw::jsonb AS j
FROM accessreq.request_status WHERE missing_since IS NULL AND server = 'acme' AND raw ->> 'state' IN ('EXECUTING', 'PROVISIONING_VERIFICATION_PENDING') AND raw ->> 'accessRequestId' IS NOT NULL;
CREATE TEMP VIEW stale AS SELECT id, min(created) AS at FROM items WHERE cancelable AND created < now() - interval '20 days' GROUP BY id;
CREATE TEMP VIEW stuck AS SELECT id, min(since) AS at
FROM (SELECT id, cancelable, (SELECT min((p ->> 'started')::timestamptz)
	FROM jsonb_array_elements(CASE jsonb_typeof(j -> 'accessRequestPhases') WHEN 'array' THEN j -> 'accessRequestPhases' ELSE '[]' END) p
	WHERE p ->> 'state' = 'EXECUTING') AS since FROM items) x
GROUP BY id HAVING bool_and(coalesce(cancelable = false AND since < now() - interval '5 days', false));
SQL

# --------------------------------------------------------- what both have in common

for my $case ([ cancel_stale => 'stale', '20 days', 'cancel' ], [ close_stuck => 'stuck', '5 days', 'close' ])
{
	my ($function, $expected, $age, $kind) = @$case;
	my $call = "accessreq.$function('$age', 'too long', server => 'acme'";
	my $n = value("SELECT count(*) FROM $expected");

	cmp_ok($n, '>', 12, "$function: some qualify");
	is(value("SELECT string_agg(access_request_id, ' ') FROM (SELECT * FROM $call, max_actions => 100000)) p"),
		value("SELECT string_agg(id, ' ' ORDER BY at, id COLLATE \"C\") FROM $expected"), "$function: what it would do is what the items say, the oldest first");
	is(value("SELECT count(*) || ' ' || count(action_id) || ' ' || bool_and(reason ~ 'since')::text || ' ' || min(server) FROM $call, max_actions => 100000)"), "$n 0 true acme", "$function: a dry run by default, with the reasons");
	is(value("SELECT count(*) FROM $call, max_actions => 10)"), '10', "$function: max_actions");
	is(value("SELECT count(*) FROM $call, max_actions => 0)"), '0', "$function: none");
	is(value('SELECT count(*) FROM accessreq.action'), $function eq 'cancel_stale' ? '0' : value("SELECT count(*) FROM accessreq.action WHERE kind = 'cancel'"), "$function: nothing is enqueued by looking");
	is(state_of("SELECT * FROM accessreq.$function('-1 day', 'x')"), '22023', "$function: not a negative age");
	is(state_of("SELECT * FROM accessreq.$function(NULL, 'x')"), '22004', "$function: not null");
	is(state_of("SELECT * FROM accessreq.$function('1 day', 'x', max_actions => NULL)"), '22004', "$function: nor the number");
	is(state_of("SELECT * FROM accessreq.$function('1 day', 'x', max_actions => -1)"), '22023', "$function: which is not negative");
	is(state_of("SELECT * FROM accessreq.$function('1 day', 'x', server => 'nowhere')"), '42704', "$function: of a server that there is");
	my $before = value('SELECT count(*) FROM accessreq.action');
	value("BEGIN; SELECT * FROM $call, dry_run => false); ROLLBACK");
	is(value('SELECT count(*) FROM accessreq.action'), $before, "$function: a rollback leaves nothing");

	$sandbox->forget;
	my $first = value("SELECT string_agg(access_request_id, ' ') FROM (SELECT * FROM $call, max_actions => 5)) p");
	my $done = value("SELECT string_agg(access_request_id, ' ' ORDER BY action_id) FROM $call, max_actions => 5, dry_run => false)");
	is($done, $first, "$function: for real it takes those that the dry run named");
	is(value("SELECT count(*) FROM accessreq.action WHERE kind = '$kind' AND id > $before"), '5', "$function: enqueues so many");
	is(value("SELECT count(*) FROM $call, max_actions => 100000) p WHERE access_request_id = ANY (string_to_array('$done', ' '))"), '0', "$function: what is under way is not chosen again");
	ok(drained(), "$function: they are sent");
	my %sent;
	for my $r ($sandbox->requests(qr{^POST \S*/(cancel|bulk-cancel|close)$}))
	{
		my $body = decode_json($r->{body});

		$sent{$_}++ for grep { defined } @{ $body->{accessRequestIds} || [] }, $body->{accountActivityId};
	}
	is(join(' ', map { "$_ $sent{$_}" } sort keys %sent), join(' ', map { "$_ 1" } sort split / /, $done), "$function: the tenant got these, each once");
	is(value("SELECT count(*) FROM $call, max_actions => 100000) p WHERE access_request_id = ANY (string_to_array('$done', ' '))"), '0', "$function: nor is what was done, before a pull shows it");
}
is(state_of("SELECT * FROM accessreq.cancel_stale('1 day', '')"), '22023', 'cancel_stale: a comment is needed');
is(state_of("SELECT * FROM accessreq.close_stuck('1 day', NULL)"), '', 'close_stuck: a message is not');

# ------------------------------------------------------------------ servers, and roles

add_server($node, 'zeta', $second->url);
value("CALL accessreq.sync('zeta')");
is(value("SELECT string_agg(DISTINCT server, ' ') FROM accessreq.cancel_stale('1 day', 'x', max_actions => 100000)"), 'acme zeta', 'a server of null: all');
value(<<'SQL');
CREATE ROLE one LOGIN; CREATE ROLE two LOGIN;
GRANT USAGE ON FOREIGN SERVER zeta TO one, two;
GRANT SELECT ON accessreq.request_status, accessreq.phase TO one, two;
GRANT EXECUTE ON FUNCTION accessreq.cancel_stale, accessreq.close_stuck, accessreq.enqueue_cancel, accessreq.enqueue_close, accessreq.acted_requests, accessreq.request_once, accessreq.equal_request, accessreq.enqueue_create TO one, two;
SQL
my $one = new_session($node, user => 'one');
my $two = new_session($node, user => 'two');
is($one->value("SELECT string_agg(DISTINCT server, ' ') FROM accessreq.cancel_stale('1 day', 'x', max_actions => 100000)"), 'zeta', 'all that the role may use');
is(state_of("SELECT * FROM accessreq.cancel_stale('1 day', 'x', server => 'acme')", $one), '42501', 'not one that it may not');
value("SELECT accessreq.hold_actions('zeta')");
sub either { my ($words) = @_; my $pattern = join '|', map { quotemeta } split / /, $words; return qr/$pattern/ }
for my $function ('cancel_stale', 'close_stuck')
{
	my $call = "SELECT coalesce(string_agg(access_request_id, ' ' ORDER BY access_request_id), '') FROM accessreq.$function('1 day', 'x', max_actions => 2, dry_run => false, server => 'zeta')";
	my $first = $one->value($call);

	like($first, qr/^\S+ \S+$/, "$function: a role chooses two");
	my $second = $two->value($call);
	like($second, qr/^\S+ \S+$/, "$function: another role chooses two");
	unlike($second, either($first), "$function: others, though it does not see those");
	# at once: the second waits, and then chooses others
	$one->value('BEGIN');
	$first = $one->value($call);
	$two->send($call);
	ok(poll_until('the other to wait', sub { value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'two' AND wait_event_type = 'Lock' AND wait_event = 'object'") == 1 }), "$function: of two at once one waits");
	$one->value('COMMIT');
	$second = $two->finish->{out};
	like($second, qr/^\S+ \S+$/, "$function: and then chooses two");
	unlike($second, either($first), "$function: others");
}
is(value("SELECT count(*) - count(DISTINCT access_request_ids[1]) FROM accessreq.action WHERE server = 'zeta'"), '0', 'no request is ended twice');
# what could not be ended is left alone for a week, and does not stand in the way
my $blocked = value("SELECT access_request_id FROM accessreq.cancel_stale('1 day', 'x', max_actions => 1, server => 'zeta')");
sub chosen { return value("SELECT count(*) FROM accessreq.cancel_stale('1 day', 'x', max_actions => 100000, server => 'zeta') WHERE access_request_id = '$blocked'") }
value("UPDATE accessreq.action SET state = 'failed', http_status = 400, settled_at = now() - interval '6 days', access_request_ids = ARRAY['$blocked'] WHERE id = (SELECT min(id) FROM accessreq.action WHERE server = 'zeta' AND kind = 'cancel')");
is(chosen(), '0', 'one that was refused is not chosen');
is(value("SELECT '$blocked' = ANY (accessreq.acted_requests('zeta', 'close')) || ' ' || ('$blocked' = ANY (accessreq.acted_requests('zeta', 'cancel')))"), 'false true', 'though it may be closed');
value("BEGIN; UPDATE accessreq.action SET http_status = 403 WHERE access_request_ids = ARRAY['$blocked']");
is(chosen(), '1', 'one that another role may not end is chosen');
value('ROLLBACK');
value("BEGIN; UPDATE accessreq.action SET http_status = NULL WHERE access_request_ids = ARRAY['$blocked']");
is(chosen(), '1', 'one that was never sent is chosen');
value('ROLLBACK');
value("UPDATE accessreq.action SET settled_at = now() - interval '8 days' WHERE access_request_ids = ARRAY['$blocked']");
is(chosen(), '1', 'but again after a week');
value("UPDATE accessreq.action SET state = 'unknown' WHERE access_request_ids = ARRAY['$blocked']");
is(chosen(), '0', 'one whose outcome is unknown is not');
value("UPDATE accessreq.action SET state = 'done' WHERE access_request_ids = ARRAY['$blocked']");
is(chosen(), '1', 'one that was accepted, and is still open after more than a day, is');
value("UPDATE accessreq.action SET settled_at = now() WHERE access_request_ids = ARRAY['$blocked']");
is(chosen(), '0', 'not within the day');
value("UPDATE accessreq.action SET server = 'acme' WHERE access_request_ids = ARRAY['$blocked']");
is(chosen(), '1', 'an action of another server\'s is none of this one\'s');
value("SELECT accessreq.release_actions('zeta')");
ok(drained(), 'sent');
# a server without a mapping is not among all
value("CREATE SERVER unmapped FOREIGN DATA WRAPPER accessreq OPTIONS (base_url 'http://127.0.0.1:9', api 'v2024'); INSERT INTO accessreq.request_status SELECT (jsonb_populate_record(r, '{\"server\": \"unmapped\"}')).* FROM accessreq.request_status r WHERE server = 'zeta'");
is(value("SELECT string_agg(DISTINCT server, ' ') FROM accessreq.cancel_stale('1 day', 'x', max_actions => 100000)"), 'acme zeta', 'a server without a user mapping is left out');
is(state_of("SELECT * FROM accessreq.cancel_stale('1 day', 'x', dry_run => false, server => 'unmapped')"), '42704', 'and is an error where it is named');
value("DELETE FROM accessreq.request_status WHERE server = 'unmapped'; DROP SERVER unmapped");
# nor is one that takes no such action; a dry run says what the real one would
for my $case (
	[ 'read-only', 'cancel_stale', 'acme', "ALTER SERVER acme OPTIONS (ADD read_only 'on')", '25006' ],
	[ 'without a close', 'close_stuck', 'acme', "ALTER SERVER acme OPTIONS (SET api 'v3')", '0A000' ],
	[ 'of another database', 'cancel_stale', 'acme', "UPDATE accessreq.sync_job SET origin = '1:1' WHERE server = 'acme'", '55000' ])
{
	my ($what, $function, $server, $change, $sqlstate) = @$case;

	is(state_of("BEGIN; $change; SELECT * FROM accessreq.$function('1 day', 'x', server => '$server')"), $sqlstate, "a server $what is an error where it is named");
	value("BEGIN; $change");
	for my $dry ('true', 'false')
	{
		my $r = $admin->run("SELECT string_agg(DISTINCT server, ' ') FROM accessreq.$function('1 day', 'x', max_actions => 100000, dry_run => $dry)");

		is($r->{out}, 'zeta', "a server $what is left out, dry_run => $dry");
		like($r->{err}, qr/NOTICE:  00000: server "$server" is left out: \S/, 'and that is said');
	}
	value('ROLLBACK');
}
# nothing is left: that is no success
value("BEGIN; ALTER SERVER acme OPTIONS (ADD read_only 'on'); ALTER SERVER zeta OPTIONS (ADD read_only 'on')");
is(state_of("SELECT * FROM accessreq.cancel_stale('1 day', 'x')"), '55000', 'where no server takes it, that is an error');
is(state_of("BEGIN; SET accessreq.enabled = off; SELECT * FROM accessreq.cancel_stale('1 day', 'x')"), '55000', 'nor where calls are switched off');
is(state_of("BEGIN; SET accessreq.allowed_hosts = 'elsewhere'; SELECT * FROM accessreq.cancel_stale('1 day', 'x', server => 'acme')"), '42501', 'nor where the host is not allowed');
value("BEGIN; ALTER SERVER acme OPTIONS (SET base_url 'https://elsewhere.example')");
is(value("SELECT string_agg(DISTINCT server, ' ') FROM accessreq.cancel_stale('1 day', 'x', max_actions => 100000)"), 'zeta', 'one that is not set up does not keep the others from it');
value('ROLLBACK');
# to wait for another in vain is no reason to leave a server out
$one->value("BEGIN; SELECT count(*) FROM accessreq.cancel_stale('1 day', 'x', max_actions => 0, dry_run => false, server => 'zeta')");
is(state_of("SET lock_timeout = '100ms'; SELECT * FROM accessreq.cancel_stale('1 day', 'x', dry_run => false)"), '55P03', 'lock_timeout');
value('RESET lock_timeout');
$one->value('ROLLBACK');
is(state_of("SELECT accessreq.check_enqueue('merge_config', 'acme', true)"), '22023', 'check_enqueue() knows three kinds');
is(state_of("BEGIN READ ONLY; SELECT * FROM accessreq.cancel_stale('1 day', 'x', dry_run => false)"), '25006', 'not in a read-only transaction');
is(state_of("BEGIN READ ONLY; SELECT * FROM accessreq.cancel_stale('1 day', 'x')"), '', 'where one may look');
$admin->run('ROLLBACK');
is($one->run("SELECT accessreq.acted_requests('acme', 'cancel')")->{sqlstate}, '42501', 'acted_requests() wants USAGE');
is($one->run("SELECT accessreq.equal_request('acme', 'a', 'ROLE', 'b')")->{sqlstate}, '42501', 'so does equal_request()');

# -------------------------------------------------------------------------- request_once

my ($role) = split /\n/, value("SELECT v ->> 'id' FROM accessreq.get('v2024/roles', max_rows => 40, server => 'acme') v WHERE v ->> 'requestable' = 'true'");
my @who = split /\n/, value("SELECT v ->> 'id' FROM accessreq.get('v2024/identities', max_rows => 30, server => 'acme') v");
sub once { my ($who, $session) = @_; return ($session || $admin)->value("SELECT coalesce(action_id::text, 'none') || '|' || coalesce(access_request_id, '') || '|' || reason FROM accessreq.request_once('$who', 'ROLE', '$role', 'because', server => 'acme')") }
# a pull that begins in so many minutes
sub pulled_in { my ($minutes) = @_; return "UPDATE accessreq.sync_run SET started = now() + interval '$minutes minutes' WHERE run_id = (SELECT max(run_id) FROM accessreq.sync_run WHERE server = 'acme'); UPDATE accessreq.sync_job SET last_success_at = now() + interval '$minutes minutes' WHERE server = 'acme'" }
sub creates { my ($who) = @_; return scalar(grep { ($_->{body} // '') =~ /$who/ } $sandbox->requests(qr{^POST \S*/access-requests$})) }

value("SELECT accessreq.hold_actions('acme')");
my ($id) = once($who[1]) =~ /^(\d+)\|\|no equal request is open$/;
ok($id, 'asks where there is none');
is(once($who[1]), 'none||an action that asks for it is queued', 'not while it is queued');
like(once($who[2]), qr/^\d+\|/, 'for another person');
value("SELECT accessreq.release_actions('acme')");
ok(drained(), 'sent');
is(value("SELECT state FROM accessreq.action WHERE id = $id"), 'done', 'and done');
my $request = value("SELECT access_request_ids[1] FROM accessreq.action WHERE id = $id");
is(once($who[1]), "none|$request|an action that asks for it is done", 'not when it is done and its row not here yet');
# a pull that should have met it, and has not: the person held it already
value("BEGIN; @{[ pulled_in(9) ]}");
like(once($who[1]), qr/^none/, 'a pull of a little later may not have met it');
value("ROLLBACK; BEGIN; @{[ pulled_in(11) ]}");
like(once($who[1]), qr/^\d+\|\|no equal/, 'but when a later pull has not met it');
value('ROLLBACK');
ok(poll_until('the tenant to list it', sub { value("CALL accessreq.sync('acme')"); value("SELECT count(*) FROM accessreq.request_status WHERE access_request_id = '$request'") }), 'pulled');
is(once($who[1]), "none|$request|an equal request is open", 'not while it is open');
is(creates($who[1]), 1, 'the tenant was asked once');
value("SELECT accessreq.hold_actions('acme'); UPDATE accessreq.request_status SET state = 'REJECTED' WHERE access_request_id = '$request'");
like(once($who[1]), qr/^\d+\|\|no equal request/, 'again when it was rejected');
value("UPDATE accessreq.request_status SET state = 'EXECUTING', request_type = 'REVOKE_ACCESS' WHERE access_request_id = '$request'; SELECT accessreq.cancel_action(max(id)) FROM accessreq.action WHERE settled_at IS NULL");
like(once($who[1]), qr/^\d+\|\|no equal/, 'a revoke is no equal request');
value("SELECT accessreq.cancel_action(max(id)) FROM accessreq.action; UPDATE accessreq.request_status SET request_type = 'GRANT_ACCESS' WHERE access_request_id = '$request'");
# what is being taken back is none either; what comes then is sent a minute later
sub later { my ($who, $name) = @_;
	like(once($who), qr/^\d+\|\|the equal request is being taken back/, $name);
	is(value('SELECT not_before BETWEEN enqueued_at + interval \'55 seconds\' AND enqueued_at + interval \'1 minute\' FROM accessreq.action ORDER BY id DESC LIMIT 1'), 't', 'and is asked for a minute later');
	return }
for my $end (
	[ 'a cancel', "accessreq.enqueue_cancel('$request', 'x', server => 'acme')" ],
	[ 'a close', "accessreq.enqueue_close(ARRAY['other', '$request'], server => 'acme')" ],
	[ 'a revoke', "accessreq.enqueue_create(accessreq.revoke_request('$who[1]', 'ROLE', '$role', 'x'), server => 'acme')" ])
{
	my ($what, $call) = @$end;

	value("BEGIN; SELECT set_config('tst.id', $call ::text, false)");
	later($who[1], "$what that is queued takes it back");
	like(once($who[1]), qr/^none\|\|an action that asks for it is queued/, 'once');
	value("SELECT accessreq.cancel_action(max(id)) FROM accessreq.action; UPDATE accessreq.action SET state = 'done', settled_at = clock_timestamp() WHERE id = current_setting('tst.id')::bigint");
	later($who[1], "$what that was accepted, too");
	value("SELECT accessreq.cancel_action(max(id)) FROM accessreq.action; @{[ pulled_in(11) ]}");
	like(once($who[1]), qr/^none\|$request\|an equal request is open/, "$what that it has outlived does not");
	value("UPDATE accessreq.action SET state = 'failed' WHERE id = current_setting('tst.id')::bigint");
	like(once($who[1]), qr/^none\|$request\|an equal request is open/, "nor $what that failed");
	value('ROLLBACK');
}
# sent and not listed yet, and cancelled
value("BEGIN; SELECT accessreq.request_once('$who[13]', 'ROLE', '$role', 'x', server => 'acme')");
value("UPDATE accessreq.action SET state = 'done', settled_at = now(), access_request_ids = '{tst-x}' WHERE id = (SELECT max(id) FROM accessreq.action)");
like(once($who[13]), qr/^none\|tst-x/, 'what was asked for and is not listed yet');
value("SELECT accessreq.enqueue_cancel('tst-y', 'x', server => 'acme')");
like(once($who[13]), qr/^none\|tst-x/, 'nor touched by the cancel of another');
value("SELECT accessreq.enqueue_cancel('tst-x', 'x', server => 'acme')");
later($who[13], 'is asked for again when it is being cancelled');
value('ROLLBACK');
# asked for with somebody else: taken back when both are
value("BEGIN; SELECT accessreq.request_once('$who[13]', 'ROLE', '$role', 'x', server => 'acme')");
value("UPDATE accessreq.action SET state = 'done', settled_at = now(), access_request_ids = '{tst-x,tst-y}' WHERE id = (SELECT max(id) FROM accessreq.action)");
value("SELECT accessreq.enqueue_cancel('tst-x', 'x', server => 'acme')");
like(once($who[13]), qr/^none\|\|an action that asks for it is done/, 'of two one is cancelled, which may be the other one\'s');
value("SELECT accessreq.enqueue_cancel('tst-y', 'x', server => 'acme')");
later($who[13], 'both are');
value('ROLLBACK');
# a revoke for a day to come
for my $revoke ("accessreq.revoke_request('$who[1]', 'ROLE', '$role', 'x'), not_before => now() + interval '10 minutes'", "accessreq.revoke_request('$who[1]', 'ROLE', '$role', 'x', remove_date => now() + interval '30 days')")
{
	value("BEGIN; SELECT accessreq.enqueue_create($revoke, server => 'acme')");
	like(once($who[1]), qr/^none\|$request\|an equal request is open/, 'a revoke for a day to come takes nothing back yet');
	value('ROLLBACK');
}
# runs are not kept for ever
value("BEGIN; SELECT accessreq.request_once('$who[13]', 'ROLE', '$role', 'x', server => 'acme'); DELETE FROM accessreq.sync_run");
value("UPDATE accessreq.action SET state = 'done', settled_at = now() WHERE id = (SELECT max(id) FROM accessreq.action)");
like(once($who[13]), qr/^none/, 'without runs, what was done just now counts');
value("UPDATE accessreq.sync_job SET last_success_at = now() + interval '61 minutes' WHERE server = 'acme'");
like(once($who[13]), qr/^\d+\|\|no equal/, 'until a pull ended an hour later');
value('ROLLBACK');
# a revoke of what is held already
value("BEGIN; SELECT accessreq.enqueue_create(accessreq.revoke_request('$who[14]', 'ROLE', '$role', 'x'), server => 'acme')");
later($who[14], 'a revoke is not overtaken');
value('ROLLBACK');
is(value("SELECT accessreq.request_status.state FROM accessreq.request_status WHERE access_request_id = '$request'"), 'EXECUTING', 'all that was tried');
value("SELECT accessreq.release_actions('acme')");
ok(drained(), 'sent');

# bodies of the other form; states
value("SELECT accessreq.hold_actions('acme'); SELECT accessreq.enqueue_create(jsonb_build_object('requestType', 'GRANT_ACCESS', 'requestedFor', jsonb_build_array('$who[3]', '$who[4]'), 'requestedItems', jsonb_build_array(jsonb_build_object('type', 'ROLE', 'id', '$role', 'comment', 'x'))), server => 'acme')");
is(once($_), 'none||an action that asks for it is queued', 'a request for several people') for @who[ 3, 4 ];
# of which one is pulled and the other is not
my $both = value('SELECT max(id) FROM accessreq.action');
value("BEGIN; UPDATE accessreq.action SET state = 'done', settled_at = now(), access_request_ids = '{tst-a,tst-b}' WHERE id = $both; INSERT INTO accessreq.request_status (server, account_activity_item_id, access_request_id, state, requested_for_id, item_type, item_id, content_hash, first_seen_at, changed_at) VALUES ('acme', 'tst-a', 'tst-a', 'REJECTED', '$who[3]', 'ROLE', '$role', 0, now(), now())");
is(once($who[4]), 'none||an action that asks for it is done', 'the one that is not here yet is on its way, under an id that is not told');
like(once($who[3]), qr/^\d+\|\|no equal/, 'the other, which was rejected, is not');
value('ROLLBACK');
value("SELECT accessreq.enqueue_create(jsonb_build_object('requestType', 'GRANT_ACCESS', 'requestedForWithRequestedItems', jsonb_build_array(jsonb_build_object('identityId', '$who[5]', 'requestedItems', jsonb_build_array(jsonb_build_object('type', 'ROLE', 'id', '$role', 'comment', 'x', 'accountSelection', NULL))))), server => 'acme')")
  if state_of("SELECT accessreq.enqueue_create(jsonb_build_object('requestType', 'GRANT_ACCESS', 'requestedForWithRequestedItems', jsonb_build_array(jsonb_build_object('identityId', '$who[5]', 'requestedItems', jsonb_build_array(jsonb_build_object('type', 'ROLE', 'id', '$role'))))), server => 'acme')");
is(once($who[5]), 'none||an action that asks for it is queued', 'a request with items for each person');
value("SELECT accessreq.enqueue_create(accessreq.revoke_request('$who[6]', 'ROLE', '$role', 'x'), server => 'acme')");
like(once($who[6]), qr/^\d+\|/, 'a revoke that is queued is none');
my $mine = value('SELECT max(id) FROM accessreq.action');
for my $case ([ sending => 0 ], [ unknown => 0 ], [ failed => 1 ], [ cancelled => 1 ])
{
	my ($state, $asks) = @$case;
	my $settled = $state eq 'sending' ? 'NULL' : 'now()';

	value("BEGIN; UPDATE accessreq.action SET state = '$state', settled_at = $settled WHERE id = $mine");
	like(once($who[6]), $asks ? qr/^\d+\|/ : qr/^none\|\|an action that asks for it is $state/, "where one is $state: " . ($asks ? 'asks again' : 'does not'));
	value('ROLLBACK');
}
value('SELECT count(accessreq.cancel_action(id)) FROM accessreq.action WHERE settled_at IS NULL');
# asked for, taken away, asked for again
value("BEGIN; SELECT accessreq.request_once('$who[11]', 'ROLE', '$role', 'x', server => 'acme')");
value("UPDATE accessreq.action SET state = 'done', settled_at = now(), access_request_ids = '{tst-c}' WHERE id = (SELECT max(id) FROM accessreq.action)");
like(once($who[11]), qr/^none\|tst-c/, 'what was asked for');
value("SELECT accessreq.enqueue_create(accessreq.revoke_request('$who[11]', 'ROLE', '$role', 'x'), server => 'acme')");
later($who[11], 'and revoked since, can be asked for again');
value('ROLLBACK');
# REPEATABLE READ: what others have committed meanwhile counts
$one->value('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM accessreq.request_status');
like(once($who[12]), qr/^\d+\|/, 'a session asks');
value("GRANT USAGE ON FOREIGN SERVER acme TO one");
is(once($who[12], $one), 'none||an action that asks for it is queued', 'a transaction that began before learns of it');
$one->value('COMMIT');
# many in one transaction, where much is settled
sub two_thousand
{
	my $since = time;

	is(value("SELECT count(*) FROM generate_series(1, 2000) n, accessreq.equal_request('acme', '$who[1]', 'ROLE', '$role') q WHERE q.reason = 'an equal request is open'"), '2000', 'two thousand that are found');
	return time - $since;
}
my $beside = two_thousand();
value("BEGIN; INSERT INTO accessreq.action (server, server_oid, kind, request, owner, enqueued_by, origin, owner_oid, state, enqueued_at, settled_at, access_request_ids)
	SELECT 'acme', 0, 'cancel', '{}', current_user, current_user, accessreq.origin(), current_user::regrole, 'done', now(), now(), ARRAY[md5(n::text)] FROM generate_series(1, 20000) n");
cmp_ok(two_thousand(), '<', 5 * $beside + 1, 'do not read what is settled');
value('ROLLBACK');
value("BEGIN; SELECT accessreq.hold_actions('acme')");
# the first thousand of five, and the last
my @took = map {
	my $since = time;
	is(value("SELECT count(action_id) FROM generate_series(1, 1000) n, accessreq.request_once('tst-$_-' || n, 'ROLE', '$role', 'x', server => 'acme')"), '1000', 'a thousand more in a transaction');
	time - $since;
} 1 .. 5;
cmp_ok($took[4], '<', 4 * $took[0] + 1, 'whose cost does not grow with those that wait');
is(value("SELECT count(*) FROM pg_locks WHERE locktype IN ('advisory', 'object') AND pid = pg_backend_pid() AND mode = 'ExclusiveLock'"), '1', 'nor their locks');
value('ROLLBACK');

# another role's, two sessions at once
value("GRANT USAGE ON FOREIGN SERVER acme TO one, two");
like(once($who[7], $one), qr/^\d+\|/, 'a role asks');
is(once($who[7], $two), 'none||an action that asks for it is queued', 'another role learns of it');
$one->value('BEGIN');
like(once($who[8], $one), qr/^\d+\|/, 'a transaction asks');
$two->send("SELECT coalesce(action_id::text, 'none') FROM accessreq.request_once('$who[8]', 'ROLE', '$role', 'because', server => 'acme')");
ok(poll_until('the other to wait', sub { value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'two' AND wait_event_type = 'Lock'") == 1 }), 'another waits for it');
$one->value('COMMIT');
is($two->finish->{out}, 'none', 'and does not ask then');
$one->value('BEGIN');
once($who[9], $one);
$two->send("SELECT coalesce(action_id::text, 'none') FROM accessreq.request_once('$who[9]', 'ROLE', '$role', 'because', server => 'acme')");
ok(poll_until('the other to wait', sub { value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'two' AND wait_event_type = 'Lock'") == 1 }), 'another waits');
$one->value('ROLLBACK');
like($two->finish->{out}, qr/^\d+$/, 'and asks where the first went back');

# who may not use a server does not keep others from it
$two->value("SELECT pg_advisory_lock(hashtextextended('accessreq ask/acme', 0))");
value('CREATE ROLE nobody LOGIN');
my $nobody = new_session($node, user => 'nobody');
is(state_of("SELECT accessreq.check_enqueue('create', 'acme', true)", $nobody), '42501', 'the lock is for who may use the server');
$nobody->quit;

# what it is given
is(value("SELECT length((accessreq.asked_people(jsonb_build_object('requestedFor', jsonb_build_array(repeat(U&'\\00e9', 300)))))[1])"), '255', 'an index does not take an endless id');
my $long = value("SELECT string_agg(md5(n::text), '') FROM generate_series(1, 300) n");
value("SELECT accessreq.hold_actions('acme')");
like(once($long), qr/^\d+\|/, 'a person with a long id');
is(once($long), 'none||an action that asks for it is queued', 'is found again');
like(once("$long-2"), qr/^\d+\|/, 'and not taken for another');
value('SELECT count(accessreq.cancel_action(id)) FROM accessreq.action WHERE settled_at IS NULL');
is(value("SELECT string_agg(accessreq.asks_for(b::jsonb, 'a', 'ROLE', 'r')::text, ' ') FROM unnest(ARRAY['{}', '[]', '1', '{\"requestedFor\": {\"a\": 1}, \"requestedItems\": {\"type\": 1}}', '{\"requestedFor\": [\"a\"], \"requestedItems\": 7}', '{\"requestedForWithRequestedItems\": [1, {\"identityId\": \"a\", \"requestedItems\": \"x\"}]}', '{\"requestedFor\": [\"a\"], \"requestedItems\": [{\"type\": \"ROLE\", \"id\": \"r\"}]}']) b"),
	'false false false false false false true', 'asks_for() takes what comes');
is(state_of("SELECT * FROM accessreq.request_once(NULL, 'ROLE', '$role', 'x', server => 'acme')"), '22004', 'nobody');
is(state_of("SELECT * FROM accessreq.request_once('$who[1]', 'CAR', '$role', 'x', server => 'acme')"), '22023', 'a type that there is not');
is(state_of("SELECT * FROM accessreq.request_once('$who[1]', 'ROLE', '', 'x', server => 'acme')"), '22023', 'no item');
is(state_of("SELECT * FROM accessreq.request_once('$who[10]', 'ROLE', '$role', 'x', remove_date => '2001-01-01', server => 'acme')"), '22023', 'a date that has passed');
is(state_of("SELECT * FROM accessreq.request_once('$who[1]', 'ROLE', '$role', 'x', server => 'nowhere')"), '42704', 'a server that there is not');
is(state_of("SELECT * FROM accessreq.request_once('$who[1]', 'ROLE', '$role', 'x')"), '42P08', 'which of two servers');
value("SELECT accessreq.release_actions('acme')");
done_testing();
