# The report views: every figure is compared with another computation, from the
# items as the tenant sent them (raw), on 20,000 of them.

use strict;
use warnings;
use AccessReq;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = accessreq_node('reports', conf => "accessreq.missing_limit = 1\n");
my $sandbox = new_sandbox(rows => 20000, open => 8, reference => 'now');
my $admin = new_session($node);

sub value { return $admin->value(@_) }

# Nothing is there yet: every view and the dashboard say so, and do not fail.
my @views = split /\n/, value("SELECT relname FROM pg_class WHERE relnamespace = 'accessreq'::regnamespace AND relkind = 'v' ORDER BY 1");
cmp_ok(scalar(@views), '>=', 18, 'the views');
is(value("SELECT count(*) FROM accessreq.$_"), '0', "$_ of nothing") for @views;
is(value("SELECT d -> 'tiles' ->> 'open' || ' ' || (d -> 'tiles' ->> 'items') || ' ' || (d -> 'backlog')::text || ' ' || (d -> 'open_on_day')::text FROM accessreq.dashboard_data() d"), '0 0 [] []', 'a dashboard of nothing');

# ------------------------------------------------------------------------ the data

add_server($node, 'acme', $sandbox->url);
# a state that is not known at first
my @still = grep { $_->{state} eq 'EXECUTING' } @{ $sandbox->dump };
sub set_state { my ($n, $state) = @_; return $sandbox->admin('POST', 'change', { id => $still[$n]{accountActivityItemId}, set => { state => $state } }) }
set_state(60, undef);
value("CALL accessreq.sync('acme')");
set_state(61, undef);
value("CALL accessreq.sync('acme', full_scan => true)");
set_state($_, 'REQUEST_COMPLETED') for 60, 61;
# things happen that are then observed
my @dump = @{ $sandbox->dump };
my @open = grep { $_->{state} eq 'EXECUTING' } @dump;
$sandbox->admin('POST', 'change', { id => $open[$_]{accountActivityItemId}, set => { state => 'REQUEST_COMPLETED' } }) for 0 .. 19;
$sandbox->admin('POST', 'change', { id => $open[$_]{accountActivityItemId}, set => { state => 'REJECTED' } }) for 20 .. 29;
my @closed = grep { $_->{state} eq 'REQUEST_COMPLETED' } @dump;
$sandbox->admin('POST', 'change', { id => $closed[$_]{accountActivityItemId}, set => { state => 'EXECUTING' } }) for 0 .. 4;
$sandbox->admin('DELETE', "items?id=$_->{accountActivityItemId}") for @open[ 40 .. 44 ], @closed[ 40 .. 49 ];
# a tenant of next year
$sandbox->admin('POST', 'change', {
	id => $open[$_]{accountActivityItemId},
	set => {
		state => 'AWAITING_ORACLE',
		approvalDetails => [ { approvalId => "o$_", status => 'PENDING', scheme => 'ORACLE', forwarded => JSON::PP::true(),
				originalOwner => { type => 'MACHINE', id => 'm1', name => 'Delphi' }, currentOwner => undef,
				timeoutConfig => { expiresOn => '2097-03-04T05:06:07Z', note => 'x' } } ],
		accessRequestPhases => [ { name => 'DIVINATION', state => 'EXECUTING', started => '2026-01-01T00:00:00Z', finished => undef } ] } }) for 50 .. 52;
# who holds it has no name, has no id, is nobody
my $olga = { type => 'IDENTITY', id => 'olga', name => 'Original Olga' };
my @owners = ([ { type => 'GOVERNANCE_GROUP', id => 'cur', name => undef }, $olga ], [ { type => 'IDENTITY', id => undef, name => 'Nameless' }, $olga ], [ undef, { type => 'IDENTITY', id => 'orig', name => undef } ], [ $olga, undef ]);
$sandbox->admin('POST', 'change', {
	id => $open[ 70 + $_ ]{accountActivityItemId},
	set => {
		approvalDetails => [ { approvalId => "p$_", status => 'PENDING', scheme => 'MANAGER', forwarded => JSON::PP::false(), currentOwner => $owners[$_][0], originalOwner => $owners[$_][1],
				timeoutConfig => { createdOn => '2001-01-01T00:00:00Z', steps => [ 'P7D', { at => '2098-01-01T00:00:00Z' }, { at => '2097-01-01T00:00:00Z' } ] } } ] } }) for 0 .. $#owners;
# failed today, with an old date
my $long_ago = value("SELECT to_char(now() - interval '100 days', 'YYYY-MM-DD')");
my @failed = grep { $_->{state} eq 'REQUEST_COMPLETED' && ($_->{modified} // 'z') lt $long_ago } @dump;
$sandbox->admin('POST', 'change', { id => $failed[$_]{accountActivityItemId}, set => { state => 'ERROR' }, touch => JSON::PP::false() }) for 80 .. 82;
value("CALL accessreq.sync('acme', full_scan => true)");
is(value('SELECT count(*) FROM accessreq.request_status WHERE missing_since IS NOT NULL'), '15', 'some are gone');
value('ANALYZE');

# The same from raw, by other means.
value(<<'SQL');
SET timezone = 'UTC';
CREATE TEMP TABLE i AS SELECT server, account_activity_item_id AS id, raw::jsonb AS j, first_seen_at, missing_since,
	raw::jsonb ->> 'state' AS state, (raw::jsonb ->> 'created')::timestamptz AS created, (raw::jsonb ->> 'modified')::timestamptz AS modified,
	coalesce(raw::jsonb ->> 'state' IN ('REQUEST_COMPLETED', 'CANCELLED', 'TERMINATED', 'REJECTED', 'PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR'), false) AS closed
FROM accessreq.request_status;
CREATE TEMP TABLE a AS SELECT server, id, n AS ordinal, v AS j, v ->> 'status' AS status,
	CASE WHEN v #>> '{currentOwner,id}' <> '' THEN v -> 'currentOwner' WHEN jsonb_typeof(v -> 'originalOwner') = 'object' THEN v -> 'originalOwner' ELSE '{}' END AS holder,
	(v ->> 'modified')::timestamptz AS modified
FROM i, jsonb_array_elements(CASE jsonb_typeof(j -> 'approvalDetails') WHEN 'array' THEN j -> 'approvalDetails' ELSE '[]' END) WITH ORDINALITY o (v, n);
CREATE TEMP TABLE p AS SELECT server, id, n AS ordinal, v ->> 'name' AS name, v ->> 'state' AS state, (v ->> 'started')::timestamptz AS started, (v ->> 'finished')::timestamptz AS finished
FROM i, jsonb_array_elements(CASE jsonb_typeof(j -> 'accessRequestPhases') WHEN 'array' THEN j -> 'accessRequestPhases' ELSE '[]' END) WITH ORDINALITY o (v, n);
CREATE TEMP TABLE ended AS SELECT server, id, max(finished) AS at FROM p GROUP BY 1, 2;
CREATE INDEX ON i (id); CREATE INDEX ON a (id); CREATE INDEX ON p (id); CREATE INDEX ON ended (id);
ANALYZE i; ANALYZE a; ANALYZE p; ANALYZE ended;
SQL

# Two queries give the same rows, of which there are some.
sub same
{
	my ($name, $view, $raw) = @_;
	my $n = value("SELECT count(*) FROM ($view) v");
	my $r = value("WITH v AS MATERIALIZED ($view), r AS MATERIALIZED ($raw) SELECT (SELECT count(*) FROM (TABLE v EXCEPT ALL TABLE r) x) || ' ' || (SELECT count(*) FROM (TABLE r EXCEPT ALL TABLE v) x)");

	cmp_ok($n, '>', 0, "$name: has rows ($n)");
	is($r, '0 0', "$name: zero differences")
	  or diag(value("WITH v AS MATERIALIZED ($view), r AS MATERIALIZED ($raw) (SELECT 'view', x::text FROM (TABLE v EXCEPT ALL TABLE r LIMIT 3) x) UNION ALL (SELECT 'raw', x::text FROM (TABLE r EXCEPT ALL TABLE v LIMIT 3) x)"));
	return;
}

my $closed_at = "CASE WHEN i.closed THEN CASE WHEN i.state = 'CANCELLED' AND i.j #>> '{cancelledRequestDetails,modified}' IS NOT NULL THEN (i.j #>> '{cancelledRequestDetails,modified}')::timestamptz ELSE coalesce((SELECT e.at FROM ended e WHERE e.id = i.id), i.modified, i.created) END END";
my $stage = "CASE WHEN i.missing_since IS NOT NULL THEN 'missing' WHEN i.closed THEN 'closed' WHEN i.state = 'PROVISIONING_VERIFICATION_PENDING' THEN 'verification' ELSE coalesce((SELECT replace(lower(p.name), '_phase', '') FROM p WHERE p.id = i.id AND p.state = 'EXECUTING' ORDER BY p.ordinal LIMIT 1), 'unknown') END";
my $holders = "(SELECT array_to_string(array_agg(DISTINCT coalesce(a.holder ->> 'name', a.holder ->> 'id')), '; ') FROM a WHERE a.id = i.id AND a.status = 'PENDING')";

same('request_item',
	'SELECT row_key, access_request_id, item_id, item_name, item_type, request_type, state, stage, is_open, closed_at, requester_id, requester_name, requested_for_id, requested_for_name, created, modified, start_date, remove_date, cancelable, sod_policies, current_approvers, decided_by, decided_at, missing_since IS NULL FROM accessreq.request_item',
	"SELECT i.server || '/' || i.id, i.j ->> 'accessRequestId', i.j ->> 'id', i.j ->> 'name', i.j ->> 'type', i.j ->> 'requestType', i.state, $stage, NOT i.closed AND i.missing_since IS NULL, $closed_at,
	i.j #>> '{requester,id}', i.j #>> '{requester,name}', coalesce(i.j #>> '{requestedFor,id}', i.j #>> '{requestedFor,0,id}'), coalesce(i.j #>> '{requestedFor,name}', i.j #>> '{requestedFor,0,name}'), i.created, i.modified, (i.j ->> 'startDate')::timestamptz, (i.j ->> 'removeDate')::timestamptz, (i.j ->> 'cancelable')::bool,
	(SELECT string_agg(v ->> 'name', '; ' ORDER BY n) FROM jsonb_array_elements(CASE jsonb_typeof(i.j #> '{sodViolationContext,violationCheckResult,violatedPolicies}') WHEN 'array' THEN i.j #> '{sodViolationContext,violationCheckResult,violatedPolicies}' ELSE '[]' END) WITH ORDINALITY o (v, n)),
	CASE WHEN NOT i.closed AND i.missing_since IS NULL THEN $holders END,
	(SELECT array_to_string(array_agg(DISTINCT coalesce(a.j #>> '{reviewedBy,name}', a.j #>> '{reviewedBy,id}', a.j #>> '{currentOwner,name}', a.j #>> '{currentOwner,id}')), '; ') FROM a WHERE a.id = i.id AND a.status IN ('APPROVED', 'REJECTED')),
	(SELECT max(a.modified) FROM a WHERE a.id = i.id AND a.status IN ('APPROVED', 'REJECTED')), i.missing_since IS NULL FROM i");
same('request_item: age_days', 'SELECT row_key, round(age_days::numeric, 2) FROM accessreq.request_item WHERE NOT is_open AND missing_since IS NULL',
	"SELECT i.server || '/' || i.id, round((extract(epoch FROM $closed_at - i.created) / 86400)::numeric, 2) FROM i WHERE i.closed AND i.missing_since IS NULL");
same('approval_detail', 'SELECT row_key, ordinal::bigint, status, scheme, approver_id, approver_name, is_waiting FROM accessreq.approval_detail',
	"SELECT a.server || '/' || a.id, a.ordinal, a.status, a.j ->> 'scheme', a.holder ->> 'id', a.holder ->> 'name', coalesce(a.status = 'PENDING', false) AND NOT i.closed AND i.missing_since IS NULL FROM a JOIN i USING (server, id)");
same('approval_detail: duration_hours', "SELECT row_key, ordinal::bigint, round(duration_hours::numeric, 3) FROM accessreq.approval_detail WHERE status IN ('APPROVED', 'REJECTED')",
	"SELECT a.server || '/' || a.id, a.ordinal, round((extract(epoch FROM a.modified - i.created) / 3600)::numeric, 3) FROM a JOIN i USING (server, id) WHERE a.status IN ('APPROVED', 'REJECTED')");
same('phase_detail', 'SELECT row_key, ordinal::bigint, name, state, started, finished, round(duration_hours::numeric, 3) FROM accessreq.phase_detail WHERE finished IS NOT NULL',
	"SELECT server || '/' || id, ordinal, name, state, started, finished, round((extract(epoch FROM finished - started) / 3600)::numeric, 3) FROM p WHERE finished IS NOT NULL");
same('state_history', 'SELECT row_key, old_state, new_state FROM accessreq.state_history',
	"SELECT server || '/' || account_activity_item_id, old_state, new_state FROM accessreq.state_change");
same('open_item', 'SELECT row_key, state, stage, current_approvers, cancelable, expires_at IS NULL, coalesce(expiry_estimated::text, \'none\') FROM accessreq.open_item',
	"SELECT i.server || '/' || i.id, i.state, $stage, $holders, (i.j ->> 'cancelable')::bool, NOT EXISTS (SELECT FROM a WHERE a.id = i.id AND a.status = 'PENDING' AND (a.j ->> 'timeoutConfig' ~ '209.-' OR (SELECT pending_since FROM accessreq.approval x WHERE x.account_activity_item_id = i.id AND x.ordinal = a.ordinal) IS NOT NULL)),
	CASE WHEN NOT EXISTS (SELECT FROM a WHERE a.id = i.id AND a.status = 'PENDING') THEN 'none' WHEN EXISTS (SELECT FROM a WHERE a.id = i.id AND a.j ->> 'timeoutConfig' ~ '209.-') THEN 'false' ELSE 'true' END FROM i WHERE NOT i.closed AND i.missing_since IS NULL");
is(value("SELECT string_agg(DISTINCT expires_at::text, ', ') FROM accessreq.open_item WHERE NOT expiry_estimated"), '2097-03-04 05:06:07+00, 2098-01-01 00:00:00+00', 'a date of the tenant\'s is when an approval expires, the last, wherever it stands');
is(value("SELECT bool_and(expires_at = pending_since + interval '90 days') FROM accessreq.open_item WHERE expiry_estimated"), 't', 'else 90 days after it began');
is(value("SET accessreq.approval_expiry = '10d'; SELECT bool_and(expires_at = pending_since + interval '10 days') FROM accessreq.open_item WHERE expiry_estimated; RESET accessreq.approval_expiry"), 't', 'or what accessreq.approval_expiry says');
same('approval_backlog', 'SELECT approver_id, approver_type, approver_name, waiting, forwarded FROM accessreq.approval_backlog',
	"SELECT a.holder ->> 'id', max(a.holder ->> 'type'), max(a.holder ->> 'name'), count(*), count(*) FILTER (WHERE (a.j ->> 'forwarded')::bool) FROM a JOIN i USING (server, id) WHERE a.status = 'PENDING' AND NOT i.closed AND i.missing_since IS NULL GROUP BY 1");
same('approval_backlog: oldest', 'SELECT approver_id, oldest_since FROM accessreq.approval_backlog',
	"SELECT DISTINCT ON (1) coalesce(x.current_owner_id, x.original_owner_id), x.pending_since FROM accessreq.approval x JOIN i ON i.id = x.account_activity_item_id WHERE x.status = 'PENDING' AND NOT i.closed AND i.missing_since IS NULL ORDER BY 1, 2");
for my $case ([ approval_latency => 'APPROVAL_PHASE', " OR i.state = 'REJECTED'" ], [ provisioning_time => 'PROVISIONING_PHASE', '' ])
{
	my ($view, $phase, $or) = @$case;

	same($view, "SELECT week, item_type, item_id, items, round(mean_hours::numeric, 3), round(median_hours::numeric, 3), round(p90_hours::numeric, 3), round(max_hours::numeric, 3) FROM accessreq.$view",
		"SELECT week, type, item, n, round((total / n)::numeric, 3), round(((h[(n + 1) / 2] + h[n / 2 + 1]) / 2)::numeric, 3),
		round((h[floor(f)::int + 1] + (f - floor(f)) * (coalesce(h[floor(f)::int + 2], 0) - h[floor(f)::int + 1]))::numeric, 3), round(h[n]::numeric, 3)
		FROM (SELECT to_timestamp(floor((extract(epoch FROM p.finished) + 259200) / 604800) * 604800 - 259200) AS week, i.j ->> 'type' AS type, i.j ->> 'id' AS item, count(*) AS n,
			sum(x.h) AS total, array_agg(x.h ORDER BY x.h) AS h, 0.9::float8 * (count(*) - 1) AS f
			FROM p JOIN i USING (server, id), LATERAL (SELECT extract(epoch FROM p.finished - p.started)::float8 / 3600) x (h)
			WHERE p.name = '$phase' AND (p.state = 'COMPLETED'$or) AND p.finished IS NOT NULL AND p.started IS NOT NULL GROUP BY 1, 2, 3) y");
}
same('item_outcome', 'SELECT week, item_type, closed, completed, rejected, cancelled, terminated, provisioning_failed, not_all_provisioned, error, round(rejection_rate::numeric, 6) FROM accessreq.item_outcome',
	"SELECT to_timestamp(floor((extract(epoch FROM at) + 259200) / 604800) * 604800 - 259200), type, count(*), sum((state = 'REQUEST_COMPLETED')::int), sum((state = 'REJECTED')::int), sum((state = 'CANCELLED')::int), sum((state = 'TERMINATED')::int), sum((state = 'PROVISIONING_FAILED')::int), sum((state = 'NOT_ALL_ITEMS_PROVISIONED')::int), sum((state = 'ERROR')::int), round(sum((state = 'REJECTED')::int)::numeric / count(*), 6) FROM (SELECT $closed_at AS at, i.j ->> 'type' AS type, i.state FROM i WHERE i.closed) x GROUP BY 1, 2");
same('provisioning_failure', 'SELECT source_names, items FROM (SELECT source_names, sum(items)::bigint AS items FROM accessreq.provisioning_failure GROUP BY 1) x',
	"SELECT s, count(*) FROM (SELECT (SELECT array_to_string(array_agg(name ORDER BY first), '; ') FROM (SELECT v ->> 'sourceName' AS name, min(n) AS first FROM jsonb_array_elements(CASE jsonb_typeof(i.j -> 'requestedAccounts') WHEN 'array' THEN i.j -> 'requestedAccounts' ELSE '[]' END) WITH ORDINALITY o (v, n) WHERE v ->> 'sourceName' IS NOT NULL GROUP BY 1) y) AS s FROM i WHERE i.state IN ('PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR')) z GROUP BY 1");
is(value("SELECT count(*) FROM accessreq.provisioning_failure WHERE error_text LIKE '%connector%'") > 0 ? 1 : 0, 1, 'with the error texts');
same('stuck_item', "SELECT row_key, phase, advice FROM accessreq.stuck_item",
	"SELECT i.server || '/' || i.id, p.name, CASE WHEN i.j ->> 'accessRequestId' IS NULL THEN NULL WHEN i.j ->> 'cancelable' = 'true' THEN 'cancel' WHEN i.j ->> 'cancelable' = 'false' THEN 'close' END FROM p JOIN i USING (server, id) WHERE p.state = 'EXECUTING' AND now() - p.started > interval '7 days' AND NOT i.closed AND i.missing_since IS NULL");
same('open_item: stage_since, age_days', "SELECT row_key, stage_since, round(age_days::numeric, 1) FROM accessreq.open_item WHERE stage_since IS NOT NULL AND created IS NOT NULL",
	"SELECT i.server || '/' || i.id, x.started, round((extract(epoch FROM now() - i.created) / 86400)::numeric, 1) FROM i, LATERAL (SELECT p.started FROM p WHERE p.id = i.id AND p.state = 'EXECUTING' ORDER BY p.ordinal LIMIT 1) x WHERE NOT i.closed AND i.missing_since IS NULL AND x.started IS NOT NULL AND i.created IS NOT NULL");
same('stuck_item: executing_days', "SELECT row_key, phase, round(executing_days::numeric, 1) FROM accessreq.stuck_item",
	"SELECT i.server || '/' || i.id, p.name, round((extract(epoch FROM now() - p.started) / 86400)::numeric, 1) FROM p JOIN i USING (server, id) WHERE p.state = 'EXECUTING' AND now() - p.started > interval '7 days' AND NOT i.closed AND i.missing_since IS NULL");
same('approval_detail: of those that wait', "SELECT row_key, ordinal::bigint, round(duration_hours::numeric, 1) FROM accessreq.approval_detail WHERE is_waiting AND pending_since IS NOT NULL",
	"SELECT a.server || '/' || a.id, a.ordinal, round((extract(epoch FROM now() - x.pending_since) / 3600)::numeric, 1) FROM a JOIN i USING (server, id) JOIN accessreq.approval x ON x.account_activity_item_id = a.id AND x.ordinal = a.ordinal WHERE a.status = 'PENDING' AND NOT i.closed AND i.missing_since IS NULL AND x.pending_since IS NOT NULL");
same('provisioning_failure: by error', 'SELECT source_names, error_text, items, first_at, last_at FROM accessreq.provisioning_failure',
	"SELECT s, e, count(*), min(at), max(at) FROM (SELECT (SELECT array_to_string(array_agg(name ORDER BY first), '; ') FROM (SELECT v ->> 'sourceName' AS name, min(n) AS first FROM jsonb_array_elements(CASE jsonb_typeof(i.j -> 'requestedAccounts') WHEN 'array' THEN i.j -> 'requestedAccounts' ELSE '[]' END) WITH ORDINALITY o (v, n) WHERE v ->> 'sourceName' IS NOT NULL GROUP BY 1) y) AS s,
	(SELECT string_agg(text, '; ' ORDER BY n) FROM (SELECT l -> 0 ->> 'text' AS text, n FROM jsonb_array_elements(CASE jsonb_typeof(i.j -> 'errorMessages') WHEN 'array' THEN i.j -> 'errorMessages' ELSE '[]' END) WITH ORDINALITY o (l, n)) z) AS e,
	coalesce(i.modified, i.created) AS at FROM i WHERE i.state IN ('PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR')) x GROUP BY 1, 2");
same('sod_violation', 'SELECT row_key, state, is_open, item_name, requested_for_id, sod_state, sod_policies, policies FROM accessreq.sod_violation',
	"SELECT server || '/' || id, state, NOT closed AND missing_since IS NULL, j ->> 'name', coalesce(j #>> '{requestedFor,id}', j #>> '{requestedFor,0,id}'), j #>> '{sodViolationContext,state}', (SELECT string_agg(v ->> 'name', '; ' ORDER BY n) FROM jsonb_array_elements(j #> '{sodViolationContext,violationCheckResult,violatedPolicies}') WITH ORDINALITY o (v, n)), jsonb_array_length(j #> '{sodViolationContext,violationCheckResult,violatedPolicies}') FROM i WHERE jsonb_typeof(j #> '{sodViolationContext,violationCheckResult,violatedPolicies}') = 'array' AND jsonb_array_length(j #> '{sodViolationContext,violationCheckResult,violatedPolicies}') > 0");
# access that ends later: the sandbox's own dates are past
my $later = $closed[60]{accountActivityItemId};
$sandbox->admin('POST', 'change', { id => $later, set => { removeDate => '2099-01-31T00:00:00Z', requestType => 'GRANT_ACCESS' } });
value("SELECT count(*) FROM accessreq.refresh(ARRAY['$closed[60]{accessRequestId}'])");
same('expiring_access', 'SELECT row_key, remove_date, round(days_left::numeric, 1) FROM accessreq.expiring_access',
	"SELECT server || '/' || account_activity_item_id, at, round((extract(epoch FROM at - now()) / 86400)::numeric, 1) FROM (SELECT *, (raw::jsonb ->> 'removeDate')::timestamptz AS at FROM accessreq.request_status) x
	WHERE at > now() AND raw::jsonb ->> 'state' = 'REQUEST_COMPLETED'
	AND account_activity_item_id NOT IN (SELECT b.account_activity_item_id FROM accessreq.request_status b JOIN accessreq.request_status v ON v.requested_for_id = b.requested_for_id AND v.item_id = b.item_id
		WHERE v.created > b.created AND v.state = 'REQUEST_COMPLETED' AND (v.request_type = 'REVOKE_ACCESS' OR v.raw::jsonb ->> 'removeDate' <> ''))");
cmp_ok(value("SELECT days_left FROM accessreq.expiring_access WHERE account_activity_item_id = '$later'"), '>', 26000, 'in so many days');
for my $case ([ revoke => "'REVOKE_ACCESS', NULL", "created + interval '1 day'", '' ], [ 'revoke before it' => "'REVOKE_ACCESS', NULL", "created - interval '1 day'", $later ],
	[ 'other date' => "'MODIFY_ACCESS', now() - interval '1 day'", "created + interval '1 day'", '' ], [ 'comment' => "'MODIFY_ACCESS', NULL", "created + interval '1 day'", $later ],
	[ 'revoke to come' => "'REVOKE_ACCESS', now() + interval '30 days'", "created + interval '1 day'", 'tst-later' ])
{
	my ($what, $set, $created, $expected) = @$case;

	value("BEGIN; INSERT INTO accessreq.request_status (server, account_activity_item_id, state, requested_for_id, item_type, item_id, request_type, remove_date, created, content_hash, first_seen_at, changed_at)
		SELECT server, 'tst-later', 'REQUEST_COMPLETED', requested_for_id, item_type, item_id, $set, $created, 0, now(), now() FROM accessreq.request_status WHERE account_activity_item_id = '$later'");
	is(value("SELECT coalesce(string_agg(account_activity_item_id, ','), '') FROM accessreq.expiring_access WHERE account_activity_item_id IN ('$later', 'tst-later')"), $expected, "expiring_access: a later request, $what");
	value('ROLLBACK');
}

# ------------------------------------------------------------------- over the days

# By brute force for some days: who had been created and had not ended.
value(<<"SQL");
CREATE TEMP TABLE life AS
SELECT i.id, least(coalesce(i.created, (SELECT min(p.started) FROM p WHERE p.id = i.id), i.modified), i.first_seen_at) AS opened,
	-- closed at its first sight: by its own dates
	CASE WHEN f.new_state IN ('REQUEST_COMPLETED', 'CANCELLED', 'TERMINATED', 'REJECTED', 'PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR')
		THEN least(i.first_seen_at, coalesce(CASE WHEN f.new_state = 'CANCELLED' THEN (i.j #>> '{cancelledRequestDetails,modified}')::timestamptz END, (SELECT e.at FROM ended e WHERE e.id = i.id), r.modified, i.created, i.first_seen_at)) END AS first_closed,
	i.first_seen_at, i.missing_since
FROM i JOIN accessreq.request_status r ON r.account_activity_item_id = i.id
JOIN accessreq.state_change f ON f.account_activity_item_id = i.id AND f.observed_at = i.first_seen_at;
SQL
# What each item was, from its dates and what was observed, and so for every day how many were open.
my %step;
my $today = value('SELECT (now()::date - date \'1970-01-01\')');
for my $line (split /\n/, value(<<'SQL'))
SELECT extract(epoch FROM l.opened) || '|' || coalesce(extract(epoch FROM l.first_closed)::text, '') || '|' || coalesce(extract(epoch FROM l.missing_since)::text, '') || '|' ||
	coalesce((SELECT string_agg(extract(epoch FROM c.observed_at) || '=' || coalesce(c.new_state, ''), ',' ORDER BY c.observed_at) FROM accessreq.state_change c WHERE c.account_activity_item_id = l.id AND c.observed_at > l.first_seen_at), '')
FROM life l
SQL
{
	my ($opened, $first_closed, $missing, $changes) = split /\|/, $line, -1;
	my @moments = ([ $opened, 1 ]);
	my ($was, %on) = (0);

	push @moments, [ $first_closed, 0 ] if $first_closed ne '';
	push @moments, map { [ /^(.*)=(.*)$/ ] } split /,/, $changes;
	push @moments, [ $missing, 0 ] if $missing ne '';
	for my $m (@moments)
	{
		my $open = $m->[1] =~ /^[01]$/ ? $m->[1] : $m->[1] !~ /^(REQUEST_COMPLETED|CANCELLED|TERMINATED|REJECTED|PROVISIONING_FAILED|NOT_ALL_ITEMS_PROVISIONED|ERROR)$/ ? 1 : 0;
		my $day = int($m->[0] / 86400);

		$step{$day} += $open - $was;
		$was = $open;
	}
}
my ($sum, @expected) = (0);
my ($first_day) = sort { $a <=> $b } keys %step;
for my $day ($first_day .. $today)
{
	$sum += $step{$day} // 0;
	push @expected, "$day $sum";
}
my @days = split /\n/, value("SELECT (day - date '1970-01-01') || ' ' || open FROM accessreq.state_on_day ORDER BY day");
cmp_ok(scalar(@days), '>', 700, 'state_on_day: two years of days');
is_deeply(\@days, \@expected, 'state_on_day: zero differences on any day');
is(value('SELECT open FROM accessreq.state_on_day ORDER BY day DESC LIMIT 1'), value('SELECT count(*) FROM accessreq.open_item'), 'today it is what is open');
is(value('SELECT bool_and(estimated) FROM accessreq.state_on_day WHERE day < now()::date'), 't', 'before the day of installation it is estimated');
cmp_ok(value("SELECT abs(a.open - b.open) FROM accessreq.state_on_day a, accessreq.state_on_day b WHERE a.day = now()::date AND b.day = now()::date - 1"), '<', 100, 'there is no step on that day');
same('time_in_state: what was observed', 'SELECT row_key, state, since FROM accessreq.time_in_state WHERE NOT estimated', "SELECT server || '/' || account_activity_item_id, new_state, observed_at FROM accessreq.state_change");
same('time_in_state: the whole life', "SELECT row_key, round(sum(hours)::numeric, 1) FROM accessreq.time_in_state GROUP BY 1 HAVING bool_or(estimated)",
	"SELECT i.server || '/' || i.id, round((extract(epoch FROM coalesce(i.missing_since, now()) - x.at) / 3600)::numeric, 1) FROM i, LATERAL (SELECT coalesce(i.created, (SELECT min(started) FROM p WHERE p.id = i.id), i.modified)) x (at) WHERE x.at < i.first_seen_at");
is(value("SELECT count(*) FROM accessreq.time_in_state a JOIN accessreq.time_in_state b ON b.row_key = a.row_key AND b.since > a.since AND b.since < a.until"), '0', 'no item is in two states at once');

# ------------------------------------------------------- states of next year, one item

is(value("SELECT DISTINCT status_label || ' ' || stage || ' ' || is_open || ' ' || current_approvers FROM accessreq.request_item WHERE state = 'AWAITING_ORACLE'"), 'AWAITING_ORACLE divination true Delphi', 'a state, a phase and a scheme that nobody knew');
is(value("SELECT accessreq.explain_state('AWAITING_ORACLE') ~ 'Not known' AND accessreq.explain_state('REJECTED') ~ 'approver'"), 't', 'explain_state()');
sub explain_plan { my ($sql) = @_; return value("SET enable_seqscan = on; EXPLAIN $sql") }
my $who = value('SELECT approver_id FROM accessreq.approval_backlog ORDER BY waiting LIMIT 1');
for my $case (
	[ 'an item', "SELECT * FROM accessreq.request_item WHERE server = 'acme' AND account_activity_item_id = '$later'" ],
	[ 'a person', "SELECT * FROM accessreq.request_item WHERE requested_for_id = '$closed[0]{requestedFor}{id}'" ],
	[ 'who asks', "SELECT * FROM accessreq.request_item WHERE requester_id = '$closed[0]{requester}{id}'" ],
	[ 'who asks for a thing', "SELECT * FROM accessreq.request_item WHERE item_id = '$closed[0]{id}'" ],
	[ 'an approver', "SELECT * FROM accessreq.approval_backlog WHERE server = 'acme' AND approver_id = '$who'" ],
	[ 'what an approver has', "SELECT * FROM accessreq.approval_detail WHERE status = 'PENDING' AND approver_id = '$who'" ],
	[ 'what an approver had', "SELECT * FROM accessreq.approval_detail WHERE approver_id = '$who'" ],
	[ 'what was seen of an item', "SELECT * FROM accessreq.state_history WHERE server = 'acme' AND account_activity_item_id = '$later'" ],
	[ 'what is open', 'SELECT * FROM accessreq.open_item' ],
	[ 'the life of an item', "SELECT * FROM accessreq.time_in_state WHERE server = 'acme' AND account_activity_item_id = '$later'" ])
{
	unlike(explain_plan($case->[1]), qr/Seq Scan/, "$case->[0] is found without reading everything");
}

# Weeks begin when the session's time zone says: an end on Sunday evening in Greenwich is one
# on Monday in Auckland.
value("CREATE TEMP TABLE done AS SELECT $closed_at AS at, i.j ->> 'type' AS type FROM i WHERE i.closed; SET timezone = 'Pacific/Auckland'");
same('item_outcome in another time zone', "SELECT to_char(week AT TIME ZONE 'Pacific/Auckland', 'YYYY-MM-DD HH24:MI'), item_type, closed FROM accessreq.item_outcome",
	"SELECT to_char(date_trunc('week', at AT TIME ZONE 'Pacific/Auckland'), 'YYYY-MM-DD HH24:MI'), type, count(*) FROM done GROUP BY 1, 2");
value("SET timezone = 'UTC'");
is(value("SET timezone = 'Pacific/Auckland'; SELECT bool_and(extract(isodow FROM week) = 1 AND week::time = '00:00') FROM accessreq.item_outcome; SET timezone = 'UTC'"), 't', 'weeks go by the session\'s time zone');

# --------------------------------------------------------------------- the dashboard

# Each figure, by other means: of a part (a path) as records.
sub part
{
	my ($path, $columns, $list) = @_;
	return "SELECT " . ($list // '*') . " FROM jsonb_to_recordset(accessreq.dashboard_data() -> '$path') x ($columns)";
}
my $failing = "('PROVISIONING_FAILED', 'NOT_ALL_ITEMS_PROVISIONED', 'ERROR')";
my $monday = "(now()::date - (extract(isodow FROM now())::int - 1))";
my $week = "(to_timestamp(floor((extract(epoch FROM %s) + 259200) / 604800) * 604800 - 259200))::date";
sub week { my ($at) = @_; return sprintf $week, $at }

same('dashboard: tiles', "SELECT d ->> 'items', d ->> 'open', round((d ->> 'oldest_days')::numeric, 1)::text, d ->> 'failed_week' FROM (SELECT accessreq.dashboard_data() -> 'tiles') x (d)",
	"SELECT count(*)::text, (count(*) FILTER (WHERE NOT closed AND missing_since IS NULL))::text, round(max((extract(epoch FROM now() - created) / 86400)::numeric) FILTER (WHERE NOT closed AND missing_since IS NULL), 1)::text,
	(count(*) FILTER (WHERE state IN $failing AND greatest($closed_at, (SELECT max(c.observed_at) FROM accessreq.state_change c WHERE c.account_activity_item_id = i.id AND c.old_state IS NOT NULL AND c.new_state = i.state)) > now() - interval '7 days'))::text FROM i");
is(value("SELECT count(*) FROM accessreq.request_status WHERE state = 'ERROR' AND modified < now() - interval '7 days' AND changed_at > first_seen_at"), '3', 'dashboard: with those that failed this week by what was seen');
is(value("SELECT (accessreq.dashboard_data() #>> '{tiles,lag_seconds}')::float8 BETWEEN 0 AND 3600"), 't', 'dashboard: the last pull');
value("BEGIN; INSERT INTO accessreq.sync_job (server, owner) VALUES ('never', 'postgres')");
is(value("SELECT accessreq.dashboard_data() #> '{tiles,lag_seconds}'"), 'null', 'dashboard: one that never was pulled is not hidden by the others');
value("UPDATE accessreq.sync_job SET owner = NULL WHERE server = 'never'");
is(value("SELECT accessreq.dashboard_data() #> '{tiles,lag_seconds}' <> 'null'"), 't', 'dashboard: nobody wants to pull that one');
value('ROLLBACK');
same('dashboard: open by age', part('open_by_age', 'age text, item_type text, items bigint'),
	"SELECT CASE WHEN d < 1 THEN 'under a day' WHEN d < 7 THEN '1 to 7 days' WHEN d < 30 THEN '7 to 30 days' WHEN d < 90 THEN '30 to 90 days' ELSE 'over 90 days' END, coalesce(type, 'none'), count(*)
	FROM (SELECT extract(epoch FROM now() - created) / 86400 AS d, j ->> 'type' AS type FROM i WHERE NOT closed AND missing_since IS NULL AND created IS NOT NULL) x GROUP BY 1, 2");
my $held = "SELECT coalesce(a.holder ->> 'name', a.holder ->> 'id', 'nobody') AS approver, count(*) AS waiting FROM a JOIN i USING (server, id) WHERE a.status = 'PENDING' AND NOT i.closed AND i.missing_since IS NULL GROUP BY a.holder ->> 'id', 1";
same('dashboard: backlog', part('backlog', 'approver text, waiting bigint', 'waiting'), "SELECT waiting FROM ($held) x ORDER BY waiting DESC LIMIT 15");
is(value('SELECT count(*) FROM (' . part('backlog', 'approver text, waiting bigint') . " EXCEPT $held) x"), '0', 'dashboard: of these approvers');
is(value('SELECT (accessreq.dashboard_data() -> \'approvers\')::int'), value("SELECT count(*) FROM ($held) x"), 'dashboard: of so many');
same('dashboard: latency', part('latency', 'week date, items bigint, median_hours numeric, p90_hours numeric', 'week, items, round(median_hours, 3), round(p90_hours, 3)'),
	"SELECT week, n, round(((h[(n + 1) / 2] + h[n / 2 + 1]) / 2)::numeric, 3), round((h[floor(f)::int + 1] + (f - floor(f)) * (coalesce(h[floor(f)::int + 2], 0) - h[floor(f)::int + 1]))::numeric, 3)
	FROM (SELECT @{[ week('p.finished') ]} AS week, count(*) AS n, array_agg(x.h ORDER BY x.h) AS h, 0.9::float8 * (count(*) - 1) AS f
		FROM p JOIN i USING (server, id), LATERAL (SELECT extract(epoch FROM p.finished - p.started)::float8 / 3600) x (h)
		WHERE p.name = 'APPROVAL_PHASE' AND (p.state = 'COMPLETED' OR i.state = 'REJECTED') AND p.started IS NOT NULL GROUP BY 1) y WHERE week >= $monday - 25 * 7");
same('dashboard: outcomes', part('outcomes', 'week date, completed bigint, rejected bigint, cancelled bigint, terminated bigint, failed bigint'),
	"SELECT @{[ week('at') ]}, sum((state = 'REQUEST_COMPLETED')::int), sum((state = 'REJECTED')::int), sum((state = 'CANCELLED')::int), sum((state = 'TERMINATED')::int), sum((state IN $failing)::int)
	FROM (SELECT $closed_at AS at, i.state FROM i WHERE i.closed) x WHERE at >= $monday - 25 * 7 GROUP BY 1");
# nothing may have ended yet in the week that begins
like(value('SELECT count(*) || \' \' || count(DISTINCT week) FROM (' . part('outcomes', 'week date') . ') x'), qr/^(26 26|25 25)$/, 'dashboard: half a year of weeks');
my $failures = "SELECT source_names, error_text, items FROM accessreq.provisioning_failure";
same('dashboard: failures', part('failures', 'source_names text, error_text text, items bigint', 'items'), "SELECT items FROM ($failures) x ORDER BY items DESC LIMIT 15");
is(value('SELECT count(*) FROM (' . part('failures', 'source_names text, error_text text, items bigint') . " EXCEPT $failures) x"), '0', 'dashboard: these failures');
is(value("SELECT accessreq.dashboard_data() -> 'kinds_of_failure'"), value("SELECT count(*) FROM ($failures) x"), 'dashboard: of so many kinds');
same('dashboard: stuck', part('stuck', 'access_request_id text, item_name text, item_type text, requested_for_name text, phase text, executing_days numeric, advice text, of_type bigint', 'item_type, round(executing_days, 1), of_type'),
	"SELECT type, round(days, 1), n FROM (SELECT i.j ->> 'type' AS type, (extract(epoch FROM now() - p.started) / 86400)::numeric AS days, count(*) OVER (PARTITION BY i.j ->> 'type') AS n, row_number() OVER (PARTITION BY i.j ->> 'type' ORDER BY p.started, i.id) AS place
	FROM p JOIN i USING (server, id) WHERE p.state = 'EXECUTING' AND now() - p.started > interval '7 days' AND NOT i.closed AND i.missing_since IS NULL) x WHERE place <= 50");
same('dashboard: open on each day', part('open_on_day', 'day date, open bigint, estimated boolean'), 'SELECT day, open, estimated FROM accessreq.state_on_day ORDER BY day DESC LIMIT 180');
is_deeply(decode_json(value("SELECT accessreq.dashboard_data('nobody')"))->{tiles}{open}, 0, 'of a server that has nothing');

# ---------------------------------------------------- another server, with the same ids

# What a view says of one does not depend on the other.
my @reports = split /\n/, value("SELECT relname FROM pg_class WHERE relnamespace = 'accessreq'::regnamespace AND relkind = 'v' AND reloptions @> '{security_invoker=true}' ORDER BY 1");
cmp_ok(scalar(@reports), '>=', 15, 'the reports');
my $now = join '', map { " - '$_'" } qw(age_days hours duration_hours executing_days oldest_days days_left mean_hours);    # the last: the order of a sum
# but for what depends on when one looks
my $until = value('SELECT now()::date');
my %where = (state_on_day => "day < '$until'", stuck_item => 'executing_days > 7.1', expiring_access => 'days_left > 1');
value("CREATE TEMP TABLE before_$_ AS SELECT to_jsonb(v) $now AS row FROM accessreq.$_ v WHERE " . ($where{$_} // 'true')) for @reports;
value(<<'SQL');
INSERT INTO accessreq.request_status SELECT (jsonb_populate_record(r, jsonb_build_object('server', 'beta', 'created', r.created - interval '200 days',
	'state', CASE r.state WHEN 'EXECUTING' THEN 'REQUEST_COMPLETED' WHEN 'REQUEST_COMPLETED' THEN 'EXECUTING' ELSE r.state END))).* FROM accessreq.request_status r;
INSERT INTO accessreq.phase SELECT (jsonb_populate_record(r, jsonb_build_object('server', 'beta', 'state', CASE r.state WHEN 'EXECUTING' THEN 'COMPLETED' ELSE 'EXECUTING' END,
	'finished', r.finished + interval '1 hour', 'started', r.started - interval '1 hour'))).* FROM accessreq.phase r;
INSERT INTO accessreq.approval SELECT (jsonb_populate_record(r, jsonb_build_object('server', 'beta', 'current_owner_name', 'Beta', 'status', CASE r.status WHEN 'PENDING' THEN 'APPROVED' ELSE 'PENDING' END))).* FROM accessreq.approval r;
INSERT INTO accessreq.state_change SELECT (jsonb_populate_record(r, '{"server": "beta", "new_state": "EXECUTING"}')).* FROM accessreq.state_change r;
SQL
value('ANALYZE');
is(value("SELECT count(*) FROM accessreq.request_status WHERE server = 'beta'"), '20000', 'another server has the same ids');
for (@reports)
{
	is(value("WITH v AS MATERIALIZED (SELECT to_jsonb(v) $now AS row FROM accessreq.$_ v WHERE server = 'acme' AND @{[ $where{$_} // 'true' ]}) SELECT (SELECT count(*) FROM (TABLE v EXCEPT ALL TABLE before_$_) x) || ' ' || (SELECT count(*) FROM (TABLE before_$_ EXCEPT ALL TABLE v) x)"), '0 0', "$_: nothing of another server's");
}
is(value("SELECT count(*) > 0 FROM accessreq.$_ WHERE server = 'beta'"), 't', "$_: which has its own") for grep { !/^(expiring_access|provisioning_time)$/ } @reports;
# dates that are a mistake
value("INSERT INTO accessreq.request_status (server, account_activity_item_id, state, created, content_hash, first_seen_at, changed_at) VALUES ('gamma', 'x', 'EXECUTING', '0001-01-01', 0, now(), now())");
is(value("SELECT count(*) || ' ' || min(open) || ' ' || bool_and(estimated) FROM accessreq.state_on_day WHERE server = 'gamma'"), 20 * 365 + 1 . ' 1 true', 'state_on_day begins twenty years ago');
# names and types are an interface
is(value("SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'accessreq'::regnamespace AND c.relkind = 'v' AND a.attnum > 0 AND (a.atttypid = 'interval'::regtype OR a.atttypid IN (SELECT oid FROM pg_type WHERE typcategory = 'A'))"), '0', 'no view has an interval or an array');
is(value("SELECT count(*) FROM pg_class c WHERE c.relnamespace = 'accessreq'::regnamespace AND c.relkind = 'v' AND c.relname NOT IN ('sync_status', 'sync_progress', 'action_queue') AND NOT c.reloptions @> '{security_invoker=true}'"), '0', 'the reports read with the rights of their reader');
is(value("SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'accessreq'::regnamespace AND c.relkind = 'v' AND a.attnum > 0 AND col_description(c.oid, a.attnum) IS NULL"), '0', 'every column has its comment')
  or diag(value("SELECT string_agg(c.relname || '.' || a.attname, ' ') FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace = 'accessreq'::regnamespace AND c.relkind = 'v' AND a.attnum > 0 AND col_description(c.oid, a.attnum) IS NULL"));
is(value("SELECT count(*) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = 1 WHERE c.relnamespace = 'accessreq'::regnamespace AND c.relkind = 'v' AND a.attname <> 'server'"), '0', 'every view leads with server');
is(value("SELECT string_agg(a.attname, ',') FROM pg_attribute a WHERE a.attrelid = 'accessreq.request_status'::regclass AND a.attnum > 0 AND a.attname <> 'raw' AND NOT EXISTS (SELECT FROM pg_attribute b WHERE b.attrelid = 'accessreq.request_item'::regclass AND b.attname = a.attname)"), '', 'request_item has every column but raw');
done_testing();
