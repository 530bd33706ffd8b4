--
-- What the other tests use: servers on the sandbox, and helpers in schema tst.
-- Run by script/test with a sandbox whose URL is in ACCESSREQ_SANDBOX_URL.
--
\getenv sandbox ACCESSREQ_SANDBOX_URL
SET client_min_messages = warning;
DROP ROLE IF EXISTS accessreq_test_user, accessreq_test_other, accessreq_test_files;
RESET client_min_messages;

-- the worker of this database has come
SELECT accessreq.start_worker() > 0 AS worker;

CREATE SCHEMA tst;
CREATE TABLE tst.settings (sandbox text);
INSERT INTO tst.settings VALUES (:'sandbox');

-- one server for each value of "api"; no budget, because tests are in a hurry
CREATE FUNCTION tst.create_server(name text, api text, client_id text DEFAULT 'regress')
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER accessreq OPTIONS (base_url %L, api %L, rate_limit %L)',
				   name, (SELECT sandbox FROM tst.settings), api, '0');
	EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER %I OPTIONS (client_id %L, client_secret %L)',
				   name, client_id, 'sandbox-secret');
END
$$;

-- a call of the sandbox's admin interface
CREATE FUNCTION tst.admin_text(method text, path text, body text DEFAULT NULL)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	answer text;
BEGIN
	CREATE TEMP TABLE admin_answer (line text);
	EXECUTE format('COPY admin_answer FROM PROGRAM %L WITH (FORMAT csv, DELIMITER E''\x01'', QUOTE E''\x02'')',
				   format('curl -s -X %s --data-binary @- %s <<"."%s.%s', method,
						  quote_literal((SELECT sandbox FROM tst.settings) || '/_sandbox/' || path),
						  E'\n' || coalesce(body || E'\n', ''), E'\n'));
	SELECT string_agg(line, '') INTO answer FROM admin_answer;
	DROP TABLE admin_answer;
	RETURN answer;
END
$$;
CREATE FUNCTION tst.admin(method text, path text, body text DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
	SELECT tst.admin_text(method, path, body)::jsonb
$$;

-- the next call of that path fails in this way
CREATE FUNCTION tst.fault(kind text, path text, more jsonb DEFAULT '{}')
RETURNS void LANGUAGE sql AS $$
	SELECT tst.admin('DELETE', 'fault');
	SELECT tst.admin('POST', 'fault', (jsonb_build_object('kind', kind, 'path', path) || more)::text);
$$;

-- what clients asked since the last call of this: method, path and query
CREATE FUNCTION tst.forget() RETURNS void LANGUAGE sql AS $$ SELECT tst.admin('DELETE', 'requests') $$;
CREATE FUNCTION tst.asked()
RETURNS TABLE (method text, path text, query text, status int, body text) LANGUAGE sql AS $$
	SELECT r->>'method', r->>'path', r->>'query', (r->>'status')::int, r->>'body'
	FROM jsonb_array_elements(tst.admin('GET', 'requests')) WITH ORDINALITY AS x (r, n)
	WHERE r->>'api' <> 'token' ORDER BY n
$$;

-- ids and ports differ from run to run
CREATE FUNCTION tst.mask(text) RETURNS text LANGUAGE sql AS $$
	SELECT regexp_replace(regexp_replace(regexp_replace(regexp_replace(regexp_replace($1,
		'^libcurl \d[^,]*, .*', 'libcurl <version>'),
		'The HTTP library says: "[^"]*"', 'The HTTP library says: "<text>"', 'g'),
		'Tracking id: [0-9a-f]+', 'Tracking id: <id>', 'g'),
		'127\.0\.0\.1:\d+', '127.0.0.1:<port>', 'g'),
		'\m[0-9a-f]{32}\M|(?<=^process )\d+', '<id>', 'g')
$$;

-- what a statement raises
CREATE FUNCTION tst.fails(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN tst.mask(concat_ws(E'\n', SQLSTATE || ': ' || message,
							  'DETAIL: ' || nullif(detail, ''), 'HINT: ' || nullif(hint, '')));
END
$$;

-- items of a test: put them, whatever a run before left, and take them away
CREATE FUNCTION tst.item(id text, request_id text, more jsonb DEFAULT '{}') RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('accountActivityItemId', id,
		'accessRequestId', request_id, 'id', 'role-1', 'name', 'Role of ' || id, 'type', 'ROLE',
		'state', 'EXECUTING', 'requestType', 'GRANT_ACCESS', 'cancelable', true,
		'created', '2026-01-02T03:04:05.678Z', 'modified', '2026-01-02T03:04:05.678Z',
		'requester', '{"type":"IDENTITY","id":"tst-requester","name":"Reva Quester"}'::jsonb,
		'requestedFor', '{"type":"IDENTITY","id":"tst-person","name":"Per Sohn"}'::jsonb,
		'approvalIds', '["tst-approval"]'::jsonb,
		'approvalDetails', '[{"approvalId":"tst-approval","status":"PENDING","scheme":"MANAGER","forwarded":false,
			"currentOwner":{"type":"IDENTITY","id":"tst-owner","name":"Olga Owner"}}]'::jsonb) || more
$$;
-- (50 at a time: a shell's argument has a limit)
CREATE FUNCTION tst.put(items jsonb) RETURNS int LANGUAGE sql AS $$
	SELECT sum((tst.admin('POST', 'items', chunk::text)->>'put')::int)
	FROM (SELECT jsonb_agg(i) AS chunk FROM jsonb_array_elements(items) WITH ORDINALITY AS x (i, n) GROUP BY n / 50 OFFSET 0) x
$$;
CREATE FUNCTION tst.put_item(id text, request_id text, more jsonb DEFAULT '{}') RETURNS int LANGUAGE sql AS $$
	SELECT tst.put(jsonb_build_array(tst.item(id, request_id, more)))
$$;
CREATE FUNCTION tst.drop_items(pattern text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	-- not as JSON: a test may have left what is none
	ids text[] := (SELECT array_agg(id) FROM (SELECT (regexp_matches(tst.admin_text('GET', 'dump'),
					'"accountActivityItemId": ?"(tst-[^"]*)"', 'g'))[1] AS id) x WHERE id LIKE pattern);
	url text := (SELECT sandbox FROM tst.settings) || '/_sandbox/items?id=';
BEGIN
	-- one curl for all of them
	-- who does not read what it is given breaks the pipe
	EXECUTE format('COPY (SELECT 1) TO PROGRAM %L', 'cat > /dev/null; curl -s -g -o /dev/null -X DELETE '
		|| coalesce((SELECT string_agg(quote_literal(url || i), ' -o /dev/null ') FROM unnest(ids) i), url || 'none'));
	RETURN coalesce(cardinality(ids), 0);
END
$$;

SELECT tst.create_server('acme', 'v2024');
SELECT tst.admin('DELETE', 'fault') IS NOT NULL AS sandbox_answers;
SELECT step, ok FROM accessreq.check('acme');
