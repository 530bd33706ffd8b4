--
-- From what the tenant answers, or does not, to SQLSTATE, message, DETAIL, HINT:
-- the table of doc/errors.md.
--
\pset format unaligned
\pset tuples_only on
SET accessreq.server = 'acme';
SET accessreq.max_retries = 0;
SELECT tst.admin('DELETE', 'fault');
SELECT accessreq.count_status(filters => 'accountActivityItemId eq "none"');

CREATE FUNCTION pg_temp.get(kind text, more jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
	SELECT tst.fault(kind, 'access-request-status', '{"count": -1}'::jsonb || more);
	SELECT tst.fails('SELECT accessreq.count_status()');
$$;
CREATE FUNCTION pg_temp.post(kind text, more jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
	SELECT tst.fault(kind, 'access-requests/', '{"count": -1}'::jsonb || more);
	SELECT tst.fails('SELECT accessreq.cancel(''tst-x'', ''y'')');
$$;

-- statuses, of what reads and of what changes
SELECT status, pg_temp.get('status', jsonb_build_object('status', status))
FROM unnest('{400,401,403,404,405,408,409,410,413,414,415,422,500,501,502,503,504,599}'::int[]) status;
SELECT status, pg_temp.post('status', jsonb_build_object('status', status))
FROM unnest('{400,401,403,404,408,409,500,503}'::int[]) status;
-- 429: the seconds, where they cannot be waited for; else waited for, once
-- (a client of its own for each run: the budget outlives it)
SELECT tst.create_server('limited', 'v2024', 'limited ' || clock_timestamp());
ALTER SERVER limited OPTIONS (ADD request_timeout '3s');
SELECT accessreq.count_status(server => 'limited') > 0;
SELECT tst.fault('status', 'access-request-status', '{"status": 429, "headers": {"Retry-After": "1"}}');
SELECT tst.fails($$SELECT accessreq.count_status(server => 'limited')$$);
SELECT tst.fault('status', 'access-request-status', '{"status": 429, "headers": {"Retry-After": "1"}, "count": 2}');
SELECT tst.fails($$SELECT accessreq.count_status(server => 'limited')$$);
SELECT tst.fault('status', 'access-request-status', '{"status": 429, "headers": {"Retry-After": "700"}}');
SELECT tst.fails($$SELECT accessreq.count_status(server => 'limited')$$);
-- nobody asks again before that; here as the tenant's limit, not as a lost answer
SELECT tst.forget();
SELECT regexp_replace(tst.fails($$SELECT accessreq.cancel('tst-x', 'y', server => 'limited')$$), '\d+ s', '<n> s', 'g');
SELECT outcome, regexp_replace(error, '\d+ s', '<n> s', 'g') FROM accessreq.cancel_many('{tst-x}', 'y', server => 'limited');
SELECT * FROM tst.asked();
SELECT step, ok, regexp_replace(detail, '\d+ s', '<n> s'), hint FROM accessreq.check('limited') WHERE step = 'budget';
DROP SERVER limited CASCADE;
-- nobody there
CREATE SERVER nobody FOREIGN DATA WRAPPER accessreq OPTIONS (base_url 'http://127.0.0.1:1', api 'v2024');
CREATE USER MAPPING FOR CURRENT_USER SERVER nobody OPTIONS (client_id 'a', client_secret 'b');
SELECT tst.fails($$SELECT accessreq.count_status(server => 'nobody')$$);
SELECT tst.fails($$SELECT * FROM accessreq.cancel_many('{tst-x}', 'y', server => 'nobody')$$);
ALTER USER MAPPING FOR CURRENT_USER SERVER nobody OPTIONS (DROP client_id, DROP client_secret, ADD access_token 'a.b.c');
SELECT tst.fails($$SELECT accessreq.cancel('tst-x', 'y', server => 'nobody')$$);
SELECT access_request_id, outcome, tst.mask(error) FROM accessreq.cancel_many('{tst-x,tst-y}', 'y', server => 'nobody');
SELECT access_request_id, outcome, tst.mask(error) FROM accessreq.close('{tst-x}', server => 'nobody');
DROP SERVER nobody CASCADE;

-- one message, in English; the tracking id of the body, else of the header
SELECT body, pg_temp.get('status', jsonb_build_object('status', 400, 'body', body)) FROM unnest(ARRAY[
	'{"detailCode":"400.1 Bad request","trackingId":"one-from-the-body","messages":[{"locale":"de-DE","text":"Nein."},{"locale":"en-US","text":"No."}],"causes":[]}',
	'{"messages":[{"locale":"de-DE","text":"Nein."}]}',
	'{"messages":[],"causes":[{"locale":"en-US","text":"A cause."}]}',
	'{"detailMessage":"Specified limit is invalid."}', '{"message":" Spaces around. "}', '{"error":"JWT validation failed"}',
	'{"error":"invalid_request","error_description":"Described."}', '{"detailCode":"only a code"}',
	'{}', '[]', '"text"', '', 'plain text', '{"message":{"not":"text"}}', '{"message":"line\nbreak\u0000\ttab \ud83d\ude00 ü"}',
	'{"message":"half a \ud83d pair"}',
	'{"errorName":"A name","errorMessage":"Under errorMessage."}', '{"errorName":"only a name","errorMessage":null}',
	'{"error_code":"4","formatted_msg":"Under formatted_msg.","message":""}', '{"type":"about:blank","title":"A title","detail":"Under detail."}',
	'{"title":"Under title.","detail":" ","status":400}', '[{"locale":"de-DE","text":"Nein."},{"locale":"en-US","text":"In a list."}]',
	'["a string in a list"]', '[{"message":"an object in a list"}]', '{"error":{"code":1,"message":"under error"},"detailCode":"a code"}',
	'{"error":{"errors":[{"message":"too deep"}]}}', '{"messages":["a string among messages"]}', '{"messages":{"text":"no list"},"error":"a word"}', '" "', 'null', '17']) body;
SELECT pg_temp.get('status', jsonb_build_object('status', 400, 'body', jsonb_build_object('message', repeat('long ', 1000))::text)) ~ '"(long ){190,200}(long)?"';
SELECT pg_temp.get('status', '{"status": 400, "body": "{\"detailMessage\":\"Specified offset is invalid.\"}"}');

-- a gateway's page, a redirect, what is no JSON, too much of it
SELECT status, pg_temp.get('html', jsonb_build_object('status', status)) FROM unnest('{200,403,404,414,502,503}'::int[]) status;
SELECT status, pg_temp.get('redirect', jsonb_build_object('status', status)) FROM unnest('{301,302,303,307,308}'::int[]) status;
SELECT tst.forget();
SELECT pg_temp.post('redirect', '{"status": 307}');
SELECT method, path FROM tst.asked();
SELECT tst.fault('garbage', 'access-request-status');
SELECT tst.fails('SELECT * FROM accessreq.status()');
SELECT tst.fault('html', 'access-request-status', '{"status": 200}');
SELECT tst.fails('SELECT * FROM accessreq.status()');
SELECT tst.fault('html', 'access-request-config', '{"status": 200}');
SELECT tst.fails('SELECT accessreq.get_config()');
SELECT tst.fault('status', 'access-request-status', '{"status": 200, "body": "{\"not\": \"an array\"}"}');
SELECT tst.fails('SELECT * FROM accessreq.status()');
SELECT body, tst.fault('status', 'access-request-status', jsonb_build_object('status', 200, 'body', body)),
	tst.fails('SELECT * FROM accessreq.status()')
FROM unnest(ARRAY['', '[', '[1]', '[{"accountActivityItemId":"a"}', '[{"accountActivityItemId":"a"},]', 'null', '[{"accountActivityItemId":""}]']) body;
SET accessreq.max_response_size = '64kB';
SELECT tst.fault('oversize', 'access-request-status', '{"bytes": 100000}');
SELECT tst.fails('SELECT accessreq.count_status()');
RESET accessreq.max_response_size;
SELECT tst.fault('truncate', 'access-request-status');
SELECT tst.fails('SELECT * FROM accessreq.status()');
SELECT pg_temp.get('close');

-- no answer to what changes: it may have been carried out, and is not sent again
SET accessreq.max_retries = 3;
SELECT tst.put_item('tst-e1', 'tst-re1'), tst.put_item('tst-e2', 'tst-re2'), tst.put_item('tst-e3', 'tst-re3');
SELECT tst.fault('drop_answer', 'access-requests/');
SELECT tst.forget();
SELECT tst.fails($$SELECT accessreq.cancel('tst-re1', 'y')$$);
SELECT method, path FROM tst.asked();
SELECT state FROM accessreq.status_of('{tst-re1}');
-- of many: a row, and the next batch is sent
SELECT tst.fault('drop_answer', 'access-requests/');
SELECT outcome, count(*), tst.mask(min(error)) FROM accessreq.cancel_many((SELECT array_agg('tst-re2' || i) FROM generate_series(1, 50) i) || '{tst-re2,tst-re3}', 'y')
GROUP BY outcome ORDER BY outcome;
-- 401, 403: none would get through, so the rest is not sent
CREATE FUNCTION pg_temp.outcomes(status int) RETURNS text LANGUAGE sql AS $$
	SELECT tst.fault('status', 'access-requests/', jsonb_build_object('status', status, 'count', -1));
	SELECT tst.forget();
	SELECT string_agg(outcome || ' ' || n, ', ') || '; asked ' || (SELECT count(*) FROM tst.asked())
	FROM (SELECT outcome, count(*) AS n
		  FROM accessreq.cancel_many((SELECT array_agg('tst-re' || i) FROM generate_series(1, 60) i), 'y') GROUP BY outcome) x
$$;
SELECT status, pg_temp.outcomes(status)
FROM unnest('{400,401,403,404,500,503}'::int[]) status;
SELECT tst.forget();
SELECT tst.fault('status', 'access-requests/', '{"status": 403, "count": -1}');
SELECT outcome, count(*), tst.mask(min(error)) FROM accessreq.cancel_many((SELECT array_agg('tst-re' || i) FROM generate_series(1, 60) i), 'y') GROUP BY outcome;
SELECT count(*) FROM tst.asked();
-- a status that does not accept, or an answer that is no JSON: nobody knows
SELECT tst.put_item('tst-e4', 'tst-re4'), tst.put_item('tst-e5', 'tst-re5');
SELECT status, tst.fault('html', 'access-requests', jsonb_build_object('status', status)), tst.fails($$SELECT accessreq.cancel('tst-re4', 'y')$$)
FROM unnest('{202,200}'::int[]) status;
SELECT tst.fault('status', 'access-requests', '{"status": 204}');
SELECT tst.fails($$SELECT accessreq.cancel('tst-re4', 'y')$$);
SELECT tst.fault('html', 'access-requests', '{"status": 202}');
SELECT outcome, tst.mask(error), job_id FROM accessreq.close('{tst-re4}');
SELECT tst.fault('html', 'access-requests', '{"status": 202}');
SELECT outcome, tst.mask(error) FROM accessreq.cancel_many('{tst-re4}', 'y');
SELECT state FROM accessreq.status_of('{tst-re4}');
SELECT tst.fault('page', 'access-requests');
SELECT tst.fails($$SELECT accessreq.cancel('tst-re4', 'y')$$);
SELECT state FROM accessreq.status_of('{tst-re4}');
-- nothing, where it is accepted, is an answer
SELECT tst.fault('answer', 'access-requests');
SELECT accessreq.cancel('tst-re5', 'y');

-- what reads is tried again
SELECT status, tst.fault('status', 'access-request-status', jsonb_build_object('status', status, 'count', 2)),
	tst.fails('SELECT accessreq.count_status()') FROM unnest('{503,408}'::int[]) status;
SET accessreq.max_retries = 1;
SELECT tst.forget();
SELECT tst.fault('status', 'access-request-status', '{"status": 503, "count": 2}');
SELECT tst.fails('SELECT accessreq.count_status()');
SELECT count(*) FROM tst.asked();
RESET accessreq.max_retries;
-- a 401 once, with a new token
SELECT tst.forget();
SELECT tst.fault('status', 'access-request-status', '{"status": 401}');
SELECT tst.fails('SELECT accessreq.count_status()');
SELECT r->>'path', r->>'status' FROM jsonb_array_elements(tst.admin('GET', 'requests')) r;

-- a token's own failures
CREATE FUNCTION pg_temp.token(kind text, more jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS $$
	SELECT tst.admin('POST', 'tokens/revoke');
	SELECT tst.fault(kind, 'oauth/token', '{"count": -1}'::jsonb || more);
	SELECT tst.fails('SELECT accessreq.count_status()');
$$;
SET accessreq.max_retries = 0;
SELECT status, pg_temp.token('status', jsonb_build_object('status', status)) FROM unnest('{400,401,403,404,500}'::int[]) status;
SELECT pg_temp.token('html', '{"status": 200}');
SELECT body, pg_temp.token('status', jsonb_build_object('status', 200, 'body', body)) FROM unnest(ARRAY['{}', '{"access_token": ""}', '{"access_token": 1}',
	'{"access_token": "line\r\nbreak", "expires_in": 700}']) body;
SELECT tst.fails($$SELECT * FROM accessreq.cancel_many('{x}', 'y')$$);
SELECT tst.admin('DELETE', 'fault');
SELECT tst.fails('SELECT accessreq.count_status()');
RESET accessreq.max_retries;

-- a token without a user, and one that sees only its own
SELECT tst.create_server('nouser', 'v2024', 'nouser');
SELECT tst.create_server('self', 'v2024', 'self');
SELECT tst.fails($$SELECT accessreq.count_status(server => 'nouser')$$);
SELECT step, ok, tst.mask(detail), hint FROM accessreq.check('nouser') WHERE ok IS NOT TRUE;
SELECT tst.fails($$SELECT accessreq.set_config('{}', server => 'self')$$);
SELECT step, ok, regexp_replace(detail, '\d+', '<n>', 'g'), hint FROM accessreq.check('self') WHERE step = 'level';
-- no secret in any of it
ALTER USER MAPPING FOR CURRENT_USER SERVER self OPTIONS (SET client_secret 'very-s3cret & odd');
SELECT tst.fails($$SELECT accessreq.count_status(server => 'self')$$);
SELECT step, ok, tst.mask(detail), hint FROM accessreq.check('self') WHERE ok IS NOT TRUE;
DROP SERVER nouser CASCADE;
DROP SERVER self CASCADE;
-- check() never raises for what it tests
SELECT step, ok, detail, hint FROM accessreq.check('nowhere');
CREATE SERVER t FOREIGN DATA WRAPPER accessreq OPTIONS (base_url 'http://127.0.0.1:1', api 'v2024');
SELECT step, ok, detail, hint FROM accessreq.check('t');
CREATE USER MAPPING FOR CURRENT_USER SERVER t OPTIONS (access_token 'x');
SELECT step, ok, regexp_replace(tst.mask(detail), '\d+ of', '<n> of'), hint FROM accessreq.check('t');
SET accessreq.allowed_hosts = 'x';
SELECT step, ok, detail, hint FROM accessreq.check('t');
RESET accessreq.allowed_hosts;
SET accessreq.enabled = off;
SELECT step, ok, detail, hint FROM accessreq.check('t');
RESET accessreq.enabled;
DROP SERVER t CASCADE;
SELECT tst.drop_items('tst-%') > 0;
