--
-- The API's documented limits: a class 22 error that names the rule, and no
-- request of the budget spent on it.
--
\pset format unaligned
\pset tuples_only on
SET accessreq.server = 'acme';
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"');
SELECT tst.forget();

CREATE FUNCTION pg_temp.create(body text) RETURNS text LANGUAGE sql AS $$
	SELECT tst.fails(format('SELECT * FROM accessreq.create(%L)', body))
$$;
CREATE FUNCTION pg_temp.item(item text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.create(format('{"requestedFor": ["p"], "requestedItems": [%s]}', item))
$$;
CREATE FUNCTION pg_temp.revoke(item text) RETURNS text LANGUAGE sql AS $$
	SELECT pg_temp.create(format('{"requestType": "REVOKE_ACCESS", "requestedFor": ["p"], "requestedItems": [%s]}', item))
$$;
CREATE FUNCTION pg_temp.items(n int, type text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('{"type": "%s", "id": "i%s", "comment": "c"}', type, i), ', ') FROM generate_series(1, n) i
$$;
CREATE FUNCTION pg_temp.people(n int) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(format('"unknown-%s"', i), ', ') FROM generate_series(1, n) i
$$;

-- the body of a request
SELECT tst.fails('SELECT * FROM accessreq.create(NULL)');
SELECT body, pg_temp.create(body) FROM unnest(ARRAY['[]', '"x"', 'null', '{}', '{"requestedFor": []}',
	'{"requestedFor": "p"}', '{"requestedFor": [1]}', '{"requestedFor": [""]}', '{"requestedFor": ["p"]}',
	'{"requestedFor": ["p"], "requestedItems": []}', '{"requestedFor": ["p"], "requestedItems": {}}',
	'{"requestType": "TAKE_ACCESS"}', '{"requestType": 1}',
	'{"requestedFor": ["p"], "requestedItems": [{"type": "ROLE", "id": "r"}], "clientMetadata": {"a": 1}}',
	'{"requestedFor": ["p"], "requestedItems": [{"type": "ROLE", "id": "r"}], "clientMetadata": "a"}']) body;
SELECT item, pg_temp.item(item) FROM unnest(ARRAY['1', '{}', '{"type": "GROUP", "id": "r"}', '{"type": "role", "id": "r"}',
	'{"type": "ROLE"}', '{"type": "ROLE", "id": ""}', '{"type": "ROLE", "id": 1}',
	'{"type": "ROLE", "id": "r", "startDate": ""}', '{"type": "ROLE", "id": "r", "startDate": "tomorrow"}',
	'{"type": "ROLE", "id": "r", "startDate": 1}', '{"type": "ROLE", "id": "r", "startDate": "2020-01-01T00:00:00Z"}',
	'{"type": "ROLE", "id": "r", "removeDate": "2020-01-01T00:00:00Z"}',
	'{"type": "ROLE", "id": "r", "removeDate": "2999-01-01"}', '{"type": "ROLE", "id": "r", "removeDate": "2999-01-01T00:00:00+02:00"}',
	'{"type": "ROLE", "id": "r", "clientMetadata": {"a": {"b": "c"}}}', '{"type": "ROLE", "id": "r", "clientMetadata": ["a"]}']) item;
-- 25 entitlements, and 10 people with any
SELECT pg_temp.item(pg_temp.items(26, 'ENTITLEMENT'));
SELECT pg_temp.create(format('{"requestedFor": [%s], "requestedItems": [%s]}', pg_temp.people(11), pg_temp.items(1, 'ENTITLEMENT')));
-- requestedForWithRequestedItems
SELECT body, pg_temp.create(body) FROM unnest(ARRAY[
	'{"requestedForWithRequestedItems": []}', '{"requestedForWithRequestedItems": {}}',
	'{"requestedForWithRequestedItems": [{}]}', '{"requestedForWithRequestedItems": [{"identityId": "p"}]}',
	'{"requestedForWithRequestedItems": [{"identityId": "p", "requestedItems": []}]}',
	'{"requestedForWithRequestedItems": [{"identityId": "p", "requestedItems": [{"type": "ROLE", "id": "r"}]}], "requestedFor": []}',
	'{"requestedForWithRequestedItems": [{"identityId": "p", "requestedItems": [{"type": "ROLE", "id": "r"}]}], "requestedItems": []}',
	'{"requestType": "REVOKE_ACCESS", "requestedForWithRequestedItems": [{"identityId": "p", "requestedItems": [{"type": "ROLE", "id": "r", "comment": "c"}]}]}']) body;
-- a revoke: one identity, one entitlement, a comment on each item, no start
SELECT pg_temp.create(format('{"requestType": "REVOKE_ACCESS", "requestedFor": ["a", "b"], "requestedItems": [%s]}', pg_temp.items(1, 'ROLE')));
SELECT pg_temp.revoke(pg_temp.items(2, 'ENTITLEMENT'));
SELECT pg_temp.revoke('{"type": "ROLE", "id": "r"}');
SELECT pg_temp.revoke('{"type": "ROLE", "id": "r", "comment": ""}');
SELECT pg_temp.revoke('{"type": "ROLE", "id": "r", "comment": "c", "startDate": "2999-01-01T00:00:00Z"}');

-- the functions that make bodies obey the same rules
SELECT statement, tst.fails(statement) FROM unnest(ARRAY[
	$$SELECT accessreq.grant_request('{p}', 'GROUP', 'g')$$, $$SELECT accessreq.grant_request('{p}', NULL, 'g')$$,
	$$SELECT accessreq.grant_request('{p}', 'ROLE', NULL)$$, $$SELECT accessreq.grant_request('{p}', 'ROLE', '')$$,
	$$SELECT accessreq.grant_request('{""}', 'ROLE', 'r')$$,
	$$SELECT accessreq.grant_request('{p}', 'ROLE', 'r', start_date => '2020-01-01')$$,
	$$SELECT accessreq.grant_request('{p}', 'ROLE', 'r', remove_date => '2020-01-01')$$,
	$$SELECT accessreq.grant_request('{p}', 'ROLE', 'r', start_date => 'infinity')$$,
	$$SELECT accessreq.grant_request('{p}', 'ROLE', 'r', remove_date => '10000-01-01')$$,
	$$SELECT accessreq.grant_request('{p}', 'ROLE', 'r', client_metadata => '{"a": 1}')$$,
	$$SELECT accessreq.grant_request('{p}', 'ROLE', 'r', client_metadata => '[]')$$,
	$$SELECT accessreq.revoke_request('p', 'ROLE', 'r', NULL)$$, $$SELECT accessreq.revoke_request('p', 'ROLE', 'r', '')$$,
	$$SELECT accessreq.revoke_request(NULL, 'ROLE', 'r', 'c')$$, $$SELECT accessreq.revoke_request('', 'ROLE', 'r', 'c')$$,
	$$SELECT accessreq.revoke_request('p', 'ROLE', 'r', 'c', '2020-01-01')$$]) statement;

-- cancel and close
SELECT statement, tst.fails(statement) FROM unnest(ARRAY[
	$$SELECT accessreq.cancel(NULL, 'c')$$, $$SELECT accessreq.cancel('', 'c')$$,
	$$SELECT accessreq.cancel('r', NULL)$$, $$SELECT accessreq.cancel('r', '')$$,
	$$SELECT * FROM accessreq.cancel_many('{r}', NULL)$$, $$SELECT * FROM accessreq.cancel_many('{r}', '')$$,
	$$SELECT * FROM accessreq.cancel_many('{}', NULL)$$, $$SELECT * FROM accessreq.cancel_many('{r,""}', 'c')$$,
	$$SELECT * FROM accessreq.close('{""}')$$,
	$$SELECT * FROM accessreq.close('{r}', execution_status => 'terminated')$$,
	$$SELECT * FROM accessreq.close('{r}', completion_status => 'Done')$$]) statement;

-- status
SELECT statement, tst.fails(statement) FROM unnest(ARRAY[
	$$SELECT * FROM accessreq.status(page_size => 0)$$, $$SELECT * FROM accessreq.status(page_size => 251)$$,
	$$SELECT * FROM accessreq.status(row_offset => -1)$$, $$SELECT * FROM accessreq.status(row_offset => 2147483648)$$,
	$$SELECT * FROM accessreq.status(max_rows => -1)$$,
	$$SELECT * FROM accessreq.status(request_state => 'CANCELLED')$$,
	$$SELECT * FROM accessreq.status(regarding_identity => 'x', requested_for => 'y')$$,
	$$SELECT * FROM accessreq.status(regarding_identity => 'x', requested_by => 'y')$$,
	$$SELECT accessreq.count_status(regarding_identity => 'x', requested_by => 'y')$$,
	$$SELECT accessreq.count_status(request_state => 'executing')$$,
	$$SELECT * FROM accessreq.status_of('{a,""}')$$, $$SELECT * FROM accessreq.refresh('{a,""}')$$]) statement;

-- all of that, and nothing was asked
SELECT * FROM tst.asked();

-- at the limits they are sent: the tenant's own answer
SELECT count(*) FROM accessreq.create(format('{"requestedFor": ["tst-l1"], "requestedItems": [%s]}', pg_temp.items(25, 'ENTITLEMENT'))::jsonb);
SELECT pg_temp.create(format('{"requestedFor": [%s], "requestedItems": [%s]}', pg_temp.people(10), pg_temp.items(1, 'ENTITLEMENT')));
SELECT pg_temp.create(format('{"requestedFor": [%s], "requestedItems": [%s]}', pg_temp.people(11), pg_temp.items(26, 'ROLE')));
SELECT status, jsonb_array_length(body::jsonb->'requestedFor'), jsonb_array_length(body::jsonb->'requestedItems') FROM tst.asked();
SELECT count(tst.admin('DELETE', 'items?id=' || account_activity_item_id)) FROM accessreq.status(requested_for => 'tst-l1');
