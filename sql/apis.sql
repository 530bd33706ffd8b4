--
-- Every value of the option api: the paths, and which calls it lacks.
--
\pset format unaligned
\pset tuples_only on
\pset null <null>
SELECT tst.admin('DELETE', 'fault');
SELECT tst.drop_items('tst-%') >= 0;
CREATE TEMP TABLE apis (n int, api text, server text);
INSERT INTO apis SELECT n, api, 'tst_' || api
FROM unnest('{beta,v3,v2024,v2025,v2026,v1}'::text[]) WITH ORDINALITY AS a (api, n);
SELECT tst.create_server(server, api) FROM apis;

-- one of each call on every api: what it gives, and what was asked
CREATE FUNCTION pg_temp.answers(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE statement INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SELECT tst.put(jsonb_agg(tst.item('tst-' || api || k, 'tst-r-' || api || k))) FROM apis, generate_series(1, 5) k;
-- an api that the vendor says is deprecated is told of once a session
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "tst-beta1"', server => 'tst_beta');
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "tst-beta1"', server => 'tst_beta');
\c
\pset format unaligned
\pset tuples_only on
\pset null <null>
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "tst-beta1"', server => 'tst_v2024');
SET client_min_messages = error;
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "tst-beta1"', server => 'tst_beta');
RESET client_min_messages;
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "tst-beta1"', server => 'tst_beta');
CREATE TEMP TABLE apis (n int, api text, server text);
INSERT INTO apis SELECT n, api, 'tst_' || api
FROM unnest('{beta,v3,v2024,v2025,v2026,v1}'::text[]) WITH ORDINALITY AS a (api, n);
CREATE FUNCTION pg_temp.answers(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	answer text;
BEGIN
	EXECUTE statement INTO answer;
	RETURN answer;
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE || ': ' || SQLERRM;
END
$$;
SELECT tst.forget();
SELECT api, pg_temp.answers(format('SELECT account_activity_item_id FROM accessreq.status(filters => %L, server => %L)',
	'accountActivityItemId eq "tst-' || api || '1"', server)) FROM apis ORDER BY n;
SELECT method, path, status FROM tst.asked();
SELECT tst.forget();
SELECT api, pg_temp.answers(format('SELECT string_agg(account_activity_item_id, '','' ORDER BY account_activity_item_id) FROM accessreq.status_of(%L, server => %L)',
	format('{tst-r-%s1,tst-r-%s2}', api, api), server)) FROM apis ORDER BY n;
SELECT path, count(*), min(status), max(status) FROM tst.asked() GROUP BY path ORDER BY path COLLATE "C";
SELECT tst.forget();
SELECT api, pg_temp.answers(format('SELECT accessreq.cancel(%L, ''x'', server => %L)', 'tst-r-' || api || '1', server)) FROM apis ORDER BY n;
SELECT method, path, status FROM tst.asked();
SELECT tst.forget();
SELECT api, pg_temp.answers(format('SELECT string_agg(outcome, '','') FROM accessreq.cancel_many(%L, ''x'', server => %L)',
	format('{tst-r-%s2,tst-r-%s3}', api, api), server)) FROM apis ORDER BY n;
SELECT method, path, status FROM tst.asked();
SELECT tst.forget();
SELECT api, pg_temp.answers(format('SELECT outcome FROM accessreq.close(%L, server => %L)', format('{tst-r-%s4}', api), server)) FROM apis ORDER BY n;
SELECT method, path, status FROM tst.asked();
SELECT tst.forget();
SELECT api, pg_temp.answers(format('SELECT existing FROM accessreq.create(%L, server => %L)',
	format('{"requestedFor": ["tst-%s"], "requestedItems": [{"type": "ROLE", "id": "wait-x"}]}', api), server)) FROM apis ORDER BY n;
SELECT method, path, status FROM tst.asked();
-- the configuration comes in two shapes
SELECT tst.forget();
SELECT api, pg_temp.answers(format('SELECT string_agg(k, '','' ORDER BY k) FROM jsonb_object_keys(accessreq.get_config(server => %L)) k', server)) FROM apis ORDER BY n;
SELECT api, pg_temp.answers(format('SELECT accessreq.merge_config(''{"reauthorizationEnabled": false}'', server => %L)->>''reauthorizationEnabled''', server)) FROM apis ORDER BY n;
SELECT method, path, status FROM tst.asked();
SELECT api, pg_temp.answers(format('SELECT accessreq.merge_config(''{"autoApprovalEnabled": false}'', server => %L)->>''autoApprovalEnabled''', server)) FROM apis ORDER BY n;

-- a call that an api lacks names those that have it
SELECT tst.fails($$SELECT * FROM accessreq.close('{x}', server => 'tst_v3')$$);
SELECT tst.fails($$SELECT * FROM accessreq.close('{}', server => 'tst_v3')$$);

-- close, where it exists, ended them a moment later
SELECT tst.admin('POST', 'advance', '{"ms": 1000}') IS NOT NULL;
SELECT api, pg_temp.answers(format('SELECT string_agg(right(account_activity_item_id, 1) || '' '' || state, '', '' ORDER BY account_activity_item_id) FROM accessreq.status(filters => %L, server => ''tst_v2024'')',
	'accessRequestId sw "tst-r-' || api || '"')) FROM apis ORDER BY n;

-- check() says when an api ends
SELECT api, (SELECT detail FROM accessreq.check(server::name) WHERE step = 'api') FROM apis ORDER BY n;

-- a pull through each
SET client_min_messages = warning;
CALL accessreq.sync('tst_beta');
CALL accessreq.sync('tst_v1');
RESET client_min_messages;
SELECT (SELECT count(*) FROM accessreq.request_status WHERE server = 'tst_beta') = accessreq.count_status(server => 'tst_beta'),
	(SELECT count(*) FROM accessreq.request_status WHERE server = 'tst_v1') = accessreq.count_status(server => 'tst_v1');

SELECT count(tst.admin('DELETE', 'items?id=' || account_activity_item_id)) FROM apis, accessreq.status(requested_for => 'tst-' || api, server => 'tst_v2024');
SELECT tst.drop_items('tst-%');
TRUNCATE accessreq.request_status, accessreq.approval, accessreq.phase, accessreq.manual_work_item, accessreq.sync_job, accessreq.sync_run;
SET client_min_messages = warning;
DROP SERVER tst_beta, tst_v3, tst_v2024, tst_v2025, tst_v2026, tst_v1 CASCADE;
