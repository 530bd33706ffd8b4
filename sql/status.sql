--
-- status, count_status, status_of: filters, quoting, order, pages.
--
\pset format unaligned
\pset tuples_only on
\pset null <null>
SET accessreq.server = 'acme';
SELECT tst.admin('DELETE', 'fault');
SELECT tst.drop_items('tst-%') >= 0;

-- items of known shape, far ahead of the sandbox's own
SELECT tst.put(jsonb_agg(tst.item(format('tst-s%s', lpad(i::text, 3, '0')), 'tst-rs' || (i + 1) / 2, jsonb_build_object(
	'created', to_char(timestamp '2027-01-01' + i * interval '1 minute', 'YYYY-MM-DD"T"HH24:MI:SS".000Z"'),
	'modified', CASE WHEN i % 10 > 0 THEN to_char(timestamp '2027-02-01' - i * interval '1 hour', 'YYYY-MM-DD"T"HH24:MI:SS".000Z"') END,
	'state', CASE WHEN i % 3 = 0 THEN 'CANCELLED' ELSE 'EXECUTING' END,
	'requestedFor', jsonb_build_object('type', 'IDENTITY', 'id', 'tst-for' || i % 2, 'name', 'F'),
	'requester', jsonb_build_object('type', 'IDENTITY', 'id', 'tst-by' || i % 4, 'name', 'B'))))) FROM generate_series(1, 120) i;
\set mine '\'accountActivityItemId sw "tst-s"\''

-- one item, every column
SELECT tst.put_item('tst-full', 'tst-rfull', '{
	"id": "item-1", "name": "Say \"yes\" \\ 50% off_role %d 山田 😀", "type": "ENTITLEMENT", "requestType": "REVOKE_ACCESS",
	"state": "SOMETHING_NEW", "requesterComment": {"comment": "because", "created": "2027-01-01T00:00:00Z"},
	"requestedFor": [{"type": "IDENTITY", "id": "p-1", "name": "O''Connor \"Bob\""}],
	"created": "2027-01-01T10:20:30.123456Z", "modified": null, "startDate": "2027-01-01T10:20", "removeDate": "2028-01-01T00:00:00+02:00",
	"cancelable": false, "cancelledRequestDetails": {"comment": "no", "owner": {"type": "IDENTITY", "id": "c-1", "name": "C"}, "modified": "2027-01-02T00:00:00.000Z"},
	"sodViolationContext": {"state": "SUCCESS", "violationCheckResult": {"violatedPolicies": [{"id": "1", "name": "A & B"}, {"id": "2", "name": "C"}]}},
	"description": "what it is", "privilegeLevel": "HIGH",
	"requestedAccounts": [{"sourceName": "AD"}, {"sourceName": "SAP"}, {"sourceName": "AD"}],
	"errorMessages": [[{"locale": "de-DE", "text": "Kaputt"}, {"locale": "en-US", "text": "Broken"}], [{"locale": "en-US", "text": "Again"}]],
	"clientMetadata": {"k": "v"}, "unknownKey": [1, 2.50]}');
SET timezone = 'UTC';
SELECT key, value FROM accessreq.status_of('{tst-rfull}') s, jsonb_each_text(to_jsonb(s) - 'raw') ORDER BY key;
SELECT raw->'unknownKey', raw->'created', raw->'removeDate' FROM accessreq.status_of('{tst-rfull}');
SELECT array_agg(a.attname ORDER BY a.attnum)
	= (SELECT array_agg(c.attname ORDER BY c.attnum) FROM pg_attribute c
	   WHERE c.attrelid = 'accessreq.request_status'::regclass AND c.attnum > 1 AND NOT c.attisdropped
	   AND c.attname NOT IN ('content_hash', 'first_seen_at', 'changed_at', 'missing_since')) AS columns_agree
FROM pg_attribute a WHERE a.attrelid = 'accessreq.item_status'::regclass AND a.attnum > 0;

-- filters
SELECT accessreq.count_status(filters => :mine);
SELECT filter, accessreq.count_status(filters => filter), (SELECT count(*) FROM accessreq.status(filters => filter)) FROM unnest(ARRAY[
	'accountActivityItemId eq "tst-s007"', 'accountActivityItemId in ("tst-s007", "tst-s008", "nope")',
	'accountActivityItemId ge "tst-s118" and accountActivityItemId sw "tst-s"', 'accountActivityItemId gt "tst-s118" and accountActivityItemId le "tst-s120"',
	'created ge "2027-01-01T01:59:00Z" and created lt "2027-01-01T02:00:00Z"', 'created gt 2027-01-01T01:59:00Z',
	'accessRequestId eq "tst-rs1"', 'accessRequestId sw "tst-rs1" and accountActivityItemId ne "tst-s001"', 'accessRequestId ge "tst-rs9" and accessRequestId sw "tst-r"']) filter;
SELECT filter, tst.fails(format('SELECT accessreq.count_status(filters => %L)', filter)) FROM unnest(ARRAY['modified gt "2027-01-01T00:00:00Z"',
	'state eq "EXECUTING"', 'accountActivityItemId EQ "x"', 'accountActivityItemId eq x', 'nonsense', 'accessRequestId in ("a", "b")']) filter;
-- whom it is about
SELECT accessreq.count_status(requested_for => 'tst-for1'), accessreq.count_status(requested_by => 'tst-by1'),
	accessreq.count_status(requested_for => 'tst-for1', requested_by => 'tst-by1'),
	accessreq.count_status(requested_for => 'tst-for1', requested_by => 'tst-by2'),
	accessreq.count_status(regarding_identity => 'tst-by3'), accessreq.count_status(assigned_to => 'tst-owner', filters => :mine);
SELECT accessreq.count_status(filters => :mine, request_state => 'EXECUTING');
SELECT count(*), min(state), max(state) FROM accessreq.status(filters => :mine, request_state => 'EXECUTING');
-- "me" is the token's user
SELECT accessreq.count_status(requested_for => 'me') > 0, accessreq.count_status(requested_for => 'me') = count(*), count(DISTINCT requested_for_id)
FROM accessreq.status(requested_for => 'me');
SELECT accessreq.count_status() > accessreq.count_status(filters => :mine);
-- empty is not given
SELECT accessreq.count_status('', '', '', '', :mine, '');

-- names that break careless quoting, as values and in answers
CREATE TEMP TABLE odd (n int, id text);
INSERT INTO odd VALUES (1, 'tst-q"uote'), (2, 'tst-q\back\\slash'), (3, 'tst-q100%20%s%n'), (4, 'tst-q''; DROP TABLE x; --'),
	(5, 'tst-qünïcödé-山田-😀'), (6, 'tst-q a&b=c+d/e?f#g'), (7, 'tst-q" or accountActivityItemId sw "'), (8, E'tst-q\ttab');
SELECT tst.put(jsonb_agg(tst.item('tst-odd' || n, id, jsonb_build_object('name', id, 'requestedFor', jsonb_build_object('id', id, 'name', 'N ' || id))))) FROM odd;
SELECT n, s.account_activity_item_id, s.access_request_id = id, s.item_name = id, s.requested_for_name = 'N ' || id, s.raw->>'name' = id
FROM odd, accessreq.status_of(ARRAY[id]) s ORDER BY n;
SELECT n, count(s.*), min(s.account_activity_item_id)
FROM odd LEFT JOIN LATERAL accessreq.status(requested_for => id) s ON true GROUP BY n ORDER BY n;
SELECT n, accessreq.count_status(filters => format('accessRequestId eq "%s"', replace(replace(id, '\', '\\'), '"', '\"'))) FROM odd ORDER BY n;
SELECT count(*) FROM accessreq.status_of((SELECT array_agg(id) FROM odd));

-- sorters
SELECT array_agg(right(account_activity_item_id, 3)) FROM accessreq.status(filters => :mine, max_rows => 5);
SELECT sorter, (SELECT array_agg(right(account_activity_item_id, 3)) FROM accessreq.status(filters => :mine, sorters => sorter, max_rows => 5))
FROM unnest(ARRAY['created', '-created', '-accountActivityItemId', 'name', '-name', 'modified,accountActivityItemId', '']) sorter;
SELECT tst.fails(format('SELECT * FROM accessreq.status(filters => %L, sorters => ''state'')', :mine));

-- pages: all of them up to max_rows, never fewer
SELECT tst.forget();
SELECT count(*), count(DISTINCT account_activity_item_id) FROM accessreq.status(filters => :mine, page_size => 50);
SELECT regexp_replace(query, '&sorters.*', '') FROM tst.asked();
SELECT tst.forget();
SELECT count(*), count(DISTINCT account_activity_item_id) FROM accessreq.status(filters => :mine, sorters => 'created', page_size => 50);
SELECT regexp_replace(query, '&filters.*', '') FROM tst.asked();
-- the total is a multiple of the page: the tenant answers 400 behind its end, and that is the end
SELECT count(*), count(DISTINCT account_activity_item_id) FROM accessreq.status(filters => :mine, sorters => '-created', page_size => 60);
SELECT count(*), count(DISTINCT account_activity_item_id) FROM accessreq.status(filters => :mine, page_size => 60);
SELECT count(*) FROM accessreq.status(filters => :mine, sorters => 'created', page_size => 60, row_offset => 120);
SELECT count(*) FROM accessreq.status(filters => :mine, row_offset => 100000);
SELECT m, (SELECT count(*) FROM accessreq.status(filters => :mine, page_size => 50, max_rows => m)) FROM unnest('{0,1,50,51,119,120,121,null}'::bigint[]) m;
SELECT tst.forget();
SELECT count(*) FROM accessreq.status(filters => :mine, max_rows => 0);
SELECT count(*) FROM tst.asked();
SELECT o, count(s.*), min(right(account_activity_item_id, 3)) FROM unnest('{0,1,60,119,120,500}'::bigint[]) o
LEFT JOIN LATERAL accessreq.status(filters => :mine, row_offset => o, page_size => 50) s ON true GROUP BY o ORDER BY o;
SELECT min(right(account_activity_item_id, 3)), count(*) FROM accessreq.status(filters => :mine, sorters => '-accountActivityItemId', row_offset => 10, page_size => 50, max_rows => 60);
-- more than the biggest page, without any filter
SELECT count(*) = accessreq.count_status(), count(*) > 500, count(DISTINCT account_activity_item_id) = count(*) FROM accessreq.status();

-- status_of: each id once, as many at a time as the api takes
SELECT count(*) FROM accessreq.status_of(NULL);
SELECT count(*) FROM accessreq.status_of('{}');
SELECT count(*) FROM accessreq.status_of('{NULL}');
SELECT tst.forget();
SELECT account_activity_item_id FROM accessreq.status_of('{tst-rs2,NULL,tst-rs1,tst-nothing,tst-rs2}') ORDER BY 1;
SELECT count(*), bool_and(query LIKE '%filters=accessRequestId\%20eq\%20\%22tst-%') FROM tst.asked();
SELECT tst.create_server('bet', 'beta');
SELECT tst.forget();
SET client_min_messages = error;
SELECT account_activity_item_id FROM accessreq.status_of('{tst-rs2,NULL,tst-rs1,tst-nothing,tst-rs2}', server => 'bet') ORDER BY 1;
SELECT count(*), count(DISTINCT account_activity_item_id) FROM accessreq.status_of((SELECT array_agg('tst-rs' || i) FROM generate_series(1, 60) i), server => 'bet');
SELECT n, s.account_activity_item_id FROM odd, accessreq.status_of(ARRAY[id, 'x'], server => 'bet') s ORDER BY n;
RESET client_min_messages;
SELECT count(*), max(ids) FROM (SELECT (SELECT count(*) FROM regexp_matches(query, 'tst-', 'g')) AS ids FROM tst.asked()) x;
-- a request with more items than a page
SELECT tst.put(jsonb_agg(tst.item(format('tst-b%s', lpad(i::text, 3, '0')), 'tst-big'))) FROM generate_series(1, 260) i;
SELECT count(*), count(DISTINCT account_activity_item_id) FROM accessreq.status_of('{tst-big}');
SELECT count(*), count(DISTINCT account_activity_item_id) FROM accessreq.status_of('{tst-big,tst-rs1}', server => 'bet');
DROP SERVER bet CASCADE;

-- an item that cannot be read is an error here; a pull puts it aside
SELECT tst.fault('bad_item', 'access-request-status');
SELECT tst.fails(format('SELECT * FROM accessreq.status(filters => %L)', :mine));
SELECT tst.fault('bad_item', 'access-request-status', '{"body": "[1]"}');
SELECT tst.fails(format('SELECT * FROM accessreq.status(filters => %L)', :mine));
-- one without an id is shown, wherever it stands, and the pages go on behind the last that has one
CREATE FUNCTION pg_temp.without_id(index int, id text, filters text, OUT n bigint, OUT ids bigint, OUT nameless text) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM tst.fault('bad_item', 'access-request-status', jsonb_build_object('index', index, 'body', format('{"name": "no id", "accountActivityItemId": %s}', id)));
	SELECT count(*), count(DISTINCT s.account_activity_item_id), max(s.item_name) FILTER (WHERE s.account_activity_item_id IS NULL) INTO n, ids, nameless
	FROM accessreq.status(filters => without_id.filters, page_size => 50) s;
END
$$;
SELECT v.index, v.id, x.* FROM (VALUES (0, 'null'), (25, '""'), (49, 'null'), (49, '{}')) v (index, id), pg_temp.without_id(v.index, v.id, :mine) x;
SELECT tst.fault('bad_item', 'access-request-status', '{"body": "{\"name\": \"no id\"}", "index": 0}');
SELECT account_activity_item_id, item_name, raw FROM accessreq.status_of('{tst-rs1}') ORDER BY 1;
-- more than a page of them: the pages go on by offset
SELECT tst.admin('DELETE', 'fault');
SELECT tst.put(jsonb_agg(tst.item(NULL, 'tst-without', jsonb_build_object('name', 'without ' || i)))) FROM generate_series(1, 260) i;
SELECT count(*), count(account_activity_item_id), count(DISTINCT item_name) FROM accessreq.status(filters => 'accessRequestId eq "tst-without"', page_size => 50);
SELECT count(*), count(account_activity_item_id), count(DISTINCT item_name) FROM accessreq.status(filters => 'accessRequestId eq "tst-without"');
SELECT tst.fails('SELECT * FROM accessreq.status_of(''{tst-without}'')');
SELECT count(*) - count(account_activity_item_id), count(DISTINCT account_activity_item_id) > 500, count(DISTINCT item_name) FILTER (WHERE account_activity_item_id IS NULL) FROM accessreq.status(page_size => 50);
SELECT tst.admin('DELETE', 'items?id=');
SELECT tst.admin('DELETE', 'fault');
SELECT tst.drop_items('tst-%') > 0;

-- a result type that somebody altered is an error, and no crash; and undone it
-- works, though a dropped column stays in it
ALTER TYPE accessreq.item_status ADD ATTRIBUTE extra text;
SELECT tst.fails('SELECT * FROM accessreq.status(max_rows => 1)');
SELECT tst.fails($$SELECT * FROM accessreq.status_of('{x}')$$);
ALTER TYPE accessreq.item_status DROP ATTRIBUTE extra;
SELECT count(*), count(account_activity_item_id), count(raw) FROM accessreq.status(max_rows => 3);
BEGIN;
ALTER TYPE accessreq.item_status DROP ATTRIBUTE description;
SELECT tst.fails('SELECT * FROM accessreq.status(max_rows => 1)');
ROLLBACK;
BEGIN;
ALTER TYPE accessreq.item_status ALTER ATTRIBUTE state TYPE bigint;
SELECT tst.fails('SELECT * FROM accessreq.status(max_rows => 1)');
ROLLBACK;
-- nor is a script of another version than the library
CREATE FUNCTION tst.of_another_version(statement text, symbol text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE FUNCTION tst.%s LANGUAGE c AS %L, %L', statement, (SELECT probin FROM pg_proc WHERE oid = 'accessreq.check(name)'::regprocedure), symbol);
END
$$;
SELECT tst.of_another_version('next_check(server name, OUT step text, OUT ok bool, OUT detail text, OUT hint text, OUT cost numeric) RETURNS SETOF record', 'accessreq_check');
SELECT tst.of_another_version('last_check(server name, OUT step text, OUT ok text, OUT detail text, OUT hint text) RETURNS SETOF record', 'accessreq_check');
SELECT tst.of_another_version('next_worker(OUT pid int, OUT state text, OUT since timestamptz)', 'accessreq_worker');
SELECT tst.of_another_version('last_budgets(OUT budget text, OUT purpose text) RETURNS SETOF record', 'accessreq_request_budgets');
SELECT tst.fails($$SELECT * FROM tst.next_check('acme')$$);
SELECT tst.fails($$SELECT * FROM tst.last_check('acme')$$);
SELECT tst.fails('SELECT * FROM tst.next_worker()');
SELECT tst.fails('SELECT * FROM tst.last_budgets()');
DROP FUNCTION tst.next_check, tst.last_check, tst.next_worker, tst.last_budgets, tst.of_another_version;
