--
-- Every call against the sandbox: what is sent, and what comes back.
--
\pset format unaligned
\pset tuples_only on
\pset null <null>
SET accessreq.server = 'acme';
SELECT tst.admin('DELETE', 'fault');
SELECT tst.drop_items('tst-%') >= 0;

-- grant_request: bodies, nothing is sent
SELECT tst.forget();
SELECT accessreq.grant_request('{p1,p2}', 'ROLE', 'r1');
SELECT accessreq.grant_request('{p1}', 'ACCESS_PROFILE', 'a1', 'why "not" \ 100% ☃', '2999-01-02 03:04:05.6789+02',
	'2999-12-31 00:00:00Z', '{"ticket": "INC-1"}');
SELECT accessreq.grant_request('{p1}', 'ROLE', 'r1', '');
SELECT accessreq.grant_request(NULL, 'ROLE', 'r1');
SELECT accessreq.grant_request('{}', 'ROLE', 'r1');
SELECT accessreq.grant_request('{p1,NULL,p1}', 'ROLE', 'r1');
-- one for each 10 people where it is an entitlement, else one
SELECT jsonb_array_length(b->'requestedFor'), b->'requestedFor'->>0, b->'requestedFor'->>-1
FROM accessreq.grant_request((SELECT array_agg('p' || i) FROM generate_series(1, 11) i), 'ENTITLEMENT', 'e1') b;
SELECT jsonb_array_length(b->'requestedFor')
FROM accessreq.grant_request((SELECT array_agg('p' || i) FROM generate_series(1, 20) i), 'ENTITLEMENT', 'e1') b;
SELECT jsonb_array_length(b->'requestedFor')
FROM accessreq.grant_request((SELECT array_agg('p' || i) FROM generate_series(1, 30) i), 'ROLE', 'r1') b;
SELECT accessreq.revoke_request('p1', 'ENTITLEMENT', 'e1', 'left the team');
SELECT accessreq.revoke_request('p1', 'ROLE', 'r1', 'left the team', '2999-01-01 00:00Z');
SELECT * FROM tst.asked();

-- create
SELECT tst.forget();
SELECT requested_for, item_type, item_id, cardinality(access_request_ids), attributes_hash IS NOT NULL, existing
FROM accessreq.grant_request('{tst-p1,tst-p2}', 'ROLE', 'wait-r1', 'please', NULL, NULL, '{"batch": "tst"}') b, accessreq.create(b);
SELECT method, path, status, body::jsonb FROM tst.asked();
-- the same again is no error: it exists
SELECT requested_for, existing
FROM accessreq.grant_request('{tst-p1,tst-p2}', 'ROLE', 'wait-r1') b, accessreq.create(b);
-- each person with items of his own
SELECT requested_for, item_type, item_id, cardinality(access_request_ids), existing FROM accessreq.create('{"requestedForWithRequestedItems": [
	{"identityId": "tst-p1", "requestedItems": [{"type": "ROLE", "id": "wait-r2"}, {"type": "ACCESS_PROFILE", "id": "wait-a2"}]},
	{"identityId": "tst-p2", "requestedItems": [{"type": "ROLE", "id": "wait-r1"}]}]}');
-- access that is already held: accepted, and never listed
SELECT requested_for, item_id, existing FROM accessreq.create('{"requestedFor": ["tst-p1"], "requestedItems": [{"type": "ROLE", "id": "held-1"}]}');
-- a revoke
SELECT requested_for, item_type, item_id, existing FROM accessreq.create(accessreq.revoke_request('tst-p1', 'ROLE', 'wait-r3', 'left'));
-- what came of them, a moment later
SELECT tst.admin('POST', 'advance', '{"ms": 1000}') IS NOT NULL;
SELECT requested_for_id, item_type, item_id, request_type, state, requester_comment, client_metadata
FROM accessreq.status(requested_for => 'tst-p1') ORDER BY item_id COLLATE "C";
SELECT requested_for_id, item_id, state FROM accessreq.status(requested_for => 'tst-p2');
-- an old tenant's answer is empty: a row for each that was sent
SELECT tst.create_server('old', 'beta', 'oldtenant');
SET client_min_messages = error;
SELECT * FROM accessreq.create('{"requestedFor": ["tst-p3", "tst-p4"], "requestedItems": [{"type": "ROLE", "id": "wait-r1"}]}', server => 'old');
RESET client_min_messages;
DROP SERVER old CASCADE;
-- the tenant's own no
SELECT tst.fails($$SELECT accessreq.create('{"requestedFor": ["unknown-1"], "requestedItems": [{"type": "ROLE", "id": "r"}]}')$$);

-- cancel
SELECT tst.put_item('tst-c1', 'tst-rc1'), tst.put_item('tst-c2', 'tst-rc2'), tst.put_item('tst-c3', 'tst-rc2');
SELECT tst.forget();
SELECT accessreq.cancel('tst-rc1', 'no longer "needed" \ 100%');
SELECT method, path, status, body FROM tst.asked();
SELECT state, cancel_comment, cancelable FROM accessreq.status_of('{tst-rc1}');
SELECT tst.fails($$SELECT accessreq.cancel('tst-rc1', 'again')$$);
SELECT tst.fails($$SELECT accessreq.cancel('tst-nothing', 'x')$$);
SELECT tst.fails($$SELECT accessreq.cancel('it''s "odd" \ %s', 'x')$$);
-- a rollback does not take it back
BEGIN;
SELECT accessreq.cancel('tst-rc2', 'all its items');
ROLLBACK;
SELECT account_activity_item_id, state FROM accessreq.status_of('{tst-rc2}') ORDER BY 1;

-- cancel_many: each id once, nulls skipped, 50 a call
SELECT * FROM accessreq.cancel_many(NULL, 'x');
SELECT * FROM accessreq.cancel_many('{}', 'x');
SELECT * FROM accessreq.cancel_many('{NULL,NULL}', 'x');
SELECT tst.put(jsonb_agg(tst.item('tst-m' || i, 'tst-rm' || i))) FROM generate_series(1, 60) i;
SELECT tst.forget();
SELECT * FROM accessreq.cancel_many('{tst-rm1,NULL,tst-rm2,tst-rm1}', 'cleaning up');
SELECT method, path, status, body FROM tst.asked();
SELECT account_activity_item_id, state, cancel_comment FROM accessreq.status_of('{tst-rm1,tst-rm2,tst-rm3}') ORDER BY 1;
-- the tenant refuses a batch with an unknown id; the next one is sent
SELECT tst.forget();
SELECT outcome, count(*), min(access_request_id COLLATE "C"), tst.mask(min(error))
FROM accessreq.cancel_many((SELECT array_agg('tst-rm' || i ORDER BY i) || '{tst-unknown}' FROM generate_series(3, 52) i), 'x')
GROUP BY outcome ORDER BY outcome;
SELECT path, status, jsonb_array_length(body::jsonb->'accessRequestIds') FROM tst.asked();

-- close: 500 a call, ended a moment later
SELECT tst.forget();
SELECT * FROM accessreq.close(NULL);
SELECT * FROM accessreq.close('{}');
SELECT access_request_id, outcome, error, length(job_id) FROM accessreq.close('{tst-rm53,tst-rm54,tst-rm53}', 'stuck', 'Completed', 'Success');
SELECT access_request_id, outcome FROM accessreq.close('{tst-rm55}');
SELECT method, path, status, body FROM tst.asked();
SELECT tst.admin('POST', 'advance', '{"ms": 1000}') IS NOT NULL;
SELECT access_request_id, state FROM accessreq.status_of('{tst-rm53,tst-rm54,tst-rm55}') ORDER BY 1;
SELECT tst.forget();
SELECT count(*), count(DISTINCT job_id) FROM accessreq.close((SELECT array_agg('tst-no' || i) FROM generate_series(1, 501) i));
SELECT path, status, jsonb_array_length(body::jsonb->'accessRequestIds') FROM tst.asked();

-- configuration
SELECT accessreq.get_config() AS config \gset
SELECT tst.forget();
SELECT key, value FROM jsonb_each(accessreq.merge_config('{}')) WHERE value IS DISTINCT FROM (:'config'::jsonb)->key;
SELECT method, path, body::jsonb = :'config' FROM tst.asked();
-- objects merge, arrays and scalars replace, null is stored, nothing is removed
SELECT accessreq.merge_config('{"autoApprovalEnabled": true,
	"requestOnBehalfOfConfig": {"allowRequestOnBehalfOfAnyoneByAnyone": true},
	"entitlementRequestConfig": {"accessRequestConfig": {"approvalSchemes": [], "denialCommentRequired": null}}}') AS merged \gset
SELECT path, (:'config'::jsonb) #> path, (:'merged'::jsonb) #> path
FROM unnest(ARRAY['autoApprovalEnabled', 'approvalsMustBeExternal', 'requestOnBehalfOfConfig',
	'approvalReminderAndEscalationConfig', 'entitlementRequestConfig,accessRequestConfig']) p, string_to_array(p, ',') path;
SELECT accessreq.get_config() = :'merged';
-- a key that the configuration lacks belongs to another api
SELECT tst.fails($$SELECT accessreq.merge_config('{"requestReminders": {"limit": 1}}')$$);
SELECT tst.fails($$SELECT accessreq.merge_config('{"requestOnBehalfOfConfig": {"nonsense": 1}}')$$);
SELECT tst.fails($$SELECT accessreq.merge_config('{"autoApprovalEnabled": "yes"}')$$);
SELECT accessreq.get_config() = :'merged';
SELECT accessreq.set_config(:'config') = :'config';
SELECT accessreq.get_config() = :'config';
SELECT tst.fails($$SELECT accessreq.set_config('[1]')$$);
SELECT tst.fails($$SELECT accessreq.set_config('null')$$);
SELECT tst.fails($$SELECT accessreq.set_config(NULL)$$);
SELECT tst.fails($$SELECT accessreq.merge_config(NULL)$$);
SELECT tst.fails($$SELECT accessreq.merge_config('"x"')$$);

-- get: arrays are rows, pages followed; an object is a row
SELECT count(*), count(DISTINCT i->>'id') FROM accessreq.get('v2024/identities') i;
SELECT count(*) FROM accessreq.get('/v2024/roles', NULL, 7);
SELECT count(*) FROM accessreq.get('v2024/roles', max_rows => 0);
SELECT tst.forget();
SELECT i->>'name' FROM accessreq.get('v2024/identities', '{"limit": 2, "offset": 1}', 3) i;
SELECT query FROM tst.asked();
SELECT i->>'modified' FROM accessreq.get('v2024/public-identities-config') i;
SELECT tst.forget();
SELECT count(*) FROM accessreq.get('v2024/roles', '{"filters": "name sw \"50% & ü/+\" and id eq \"x\"", "a b": 1.50, "c": true, "d": null}', 1);
SELECT query FROM tst.asked();
SELECT tst.forget();
-- a number leaves with all its digits
SELECT count(*) FROM accessreq.get('v2024/roles', '{"a": 1700000000000000, "b": 12345678901234567890123, "c": 0.1234567890123456789, "d": -1e3}', 1);
SELECT query FROM tst.asked();
SELECT tst.fails(format('SELECT * FROM accessreq.get(%L, %L)', 'v2024/roles', query)) FROM unnest(ARRAY['{"offset": 1.5}', '{"offset": "1"}', '{"limit": 99999999999999999999}', '{"limit": null}']) query;
SELECT tst.fails(format('SELECT * FROM accessreq.get(%L)', path)) FROM unnest(ARRAY['', '/', 'v2024/../v3/roles', './roles', 'v2024/roles?limit=1',
	'v2024/roles#x', E'v2024/roles\r\nX: y', 'v2024\roles', 'https://evil.example.com/x', '//evil.example.com/x', 'v2024//roles', 'v2024/..']) path;
SELECT tst.forget();
SELECT tst.fails(format('SELECT * FROM accessreq.get(%L)', path)) FROM unnest(ARRAY['v2024/nothing', 'v2024/%2e%2e/x', 'v2024/a b/ü', 'v2024/roles%3Flimit=1']) path;
SELECT path FROM tst.asked();
SELECT tst.fails($$SELECT * FROM accessreq.get(NULL)$$);
SELECT tst.fails($$SELECT * FROM accessreq.get('v2024/roles', '[1]')$$);
SELECT tst.fails($$SELECT * FROM accessreq.get('v2024/roles', '{"x": [1]}')$$);
SELECT tst.fails($$SELECT * FROM accessreq.get('v2024/roles', '{"limit": "x"}')$$);
SELECT tst.fails($$SELECT * FROM accessreq.get('v2024/roles', '{"offset": -1}')$$);
SELECT tst.fails($$SELECT * FROM accessreq.get('v2024/roles', NULL, -1)$$);

-- one statement over a request of three items sends three cancels, cancel_many one
SELECT tst.put(jsonb_agg(tst.item('tst-three' || i, 'tst-rthree'))) FROM generate_series(1, 3) i;
SELECT tst.forget();
SELECT tst.fails($$SELECT accessreq.cancel(access_request_id, 'x') FROM accessreq.status_of('{tst-rthree}')$$);
SELECT count(*) FROM tst.asked() WHERE method = 'POST';
SELECT tst.put(jsonb_agg(tst.item('tst-three' || i, 'tst-rthree'))) FROM generate_series(1, 3) i;
SELECT tst.forget();
SELECT outcome FROM accessreq.cancel_many((SELECT array_agg(access_request_id) FROM accessreq.status_of('{tst-rthree}')), 'x');
SELECT count(*) FROM tst.asked() WHERE method = 'POST';

-- take away what is left
SELECT count(tst.admin('DELETE', 'items?id=' || account_activity_item_id)) > 0
FROM accessreq.status(filters => 'created gt "2026-01-01T00:00:00Z"') WHERE requested_for_id ~ '^tst-p\d$';
SELECT tst.drop_items('tst-%') > 0;
