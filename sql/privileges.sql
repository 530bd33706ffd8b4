--
-- Who may do what, and what the catalogs say of it.
--
\pset format unaligned
\pset tuples_only on
\pset null <null>

-- every object has a comment; these have none
SELECT pg_describe_object(d.classid, d.objid, 0) FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'accessreq')
AND CASE d.classid
	WHEN 'pg_class'::regclass THEN
		(SELECT relkind NOT IN ('S', 'c') FROM pg_class WHERE oid = d.objid) AND obj_description(d.objid, 'pg_class') IS NULL
	WHEN 'pg_type'::regclass THEN
		-- a table's row type, and arrays, follow their own
		(SELECT typtype = 'c' AND (SELECT relkind = 'c' FROM pg_class WHERE oid = typrelid) OR typtype NOT IN ('c', 'b')
		 FROM pg_type WHERE oid = d.objid) AND obj_description(d.objid, 'pg_type') IS NULL
	ELSE obj_description(d.objid, d.classid::regclass::name) IS NULL
END ORDER BY 1;
SELECT obj_description('accessreq'::regnamespace, 'pg_namespace') IS NOT NULL, obj_description(oid, 'pg_extension') IS NOT NULL
FROM pg_extension WHERE extname = 'accessreq';

-- all that belongs to it is in its schema, and nothing else is there
SELECT pg_describe_object('pg_class'::regclass, oid, 0) FROM pg_class c
WHERE relnamespace = 'accessreq'::regnamespace AND relkind IN ('r', 'v', 'S', 'm', 'f', 'p', 'c')
AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype IN ('e', 'i'));

-- a dump has all tables and all sequences
SELECT c.relname, c.relkind FROM pg_class c WHERE c.relnamespace = 'accessreq'::regnamespace AND c.relkind IN ('r', 'S', 'p')
AND NOT c.oid = ANY (SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'accessreq') ORDER BY 1;
SELECT c.relname, c.relkind, x.condition = '' FROM pg_extension e, unnest(e.extconfig, e.extcondition) x (oid, condition) JOIN pg_class c USING (oid)
WHERE e.extname = 'accessreq' ORDER BY c.relname COLLATE "C";
-- which can be restored: no reg* columns
SELECT attrelid::regclass, attname, atttypid::regtype FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
WHERE c.relnamespace = 'accessreq'::regnamespace AND attnum > 0 AND atttypid::regtype::text LIKE 'reg%';
-- ids and server have one collation
SELECT c.relname, a.attname FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'accessreq'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND (a.attname = 'server' OR a.attname LIKE '%\_id' AND a.attname <> 'tracking_id')
AND a.atttypid = 'text'::regtype AND a.attcollation <> 'pg_catalog."C"'::regcollation;

-- what PUBLIC may execute: nothing that calls out
SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'accessreq'::regnamespace
AND has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT p.proname, p.prokind, p.provolatile, p.proparallel, p.procost, p.proisstrict, p.prosecdef FROM pg_proc p
WHERE p.pronamespace = 'accessreq'::regnamespace AND NOT has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY p.proname COLLATE "C";
-- "server" ends every call's arguments, and may be left out; procedures begin with it
SELECT p.proname, p.proargnames[p.pronargs], (p.proargtypes::oid[])[p.pronargs - 1]::regtype, p.pronargdefaults > 0 FROM pg_proc p
WHERE p.pronamespace = 'accessreq'::regnamespace AND NOT has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY p.proname COLLATE "C";
-- nobody was granted anything on tables but for what monitors look at, and PUBLIC
-- no more than the schema
SELECT c.relname, a.grantee::regrole, a.privilege_type FROM pg_class c, aclexplode(c.relacl) a
WHERE c.relnamespace = 'accessreq'::regnamespace AND a.grantee <> c.relowner;
SELECT p.oid::regprocedure, a.grantee::regrole FROM pg_proc p, aclexplode(p.proacl) a
WHERE p.pronamespace = 'accessreq'::regnamespace AND a.grantee NOT IN (0, p.proowner);
SELECT has_schema_privilege('public', 'accessreq', 'USAGE'), has_schema_privilege('public', 'accessreq', 'CREATE'),
	has_foreign_data_wrapper_privilege('public', 'accessreq', 'USAGE');
-- the C functions that are not strict take nulls (those of the background are
-- called with them in 100_worker.pl: they would start something)
CREATE TABLE tst.null_calls AS
SELECT p.oid::regprocedure::text AS f, format('SELECT * FROM %s(%s)', p.oid::regproc, (SELECT string_agg(format('NULL::%s', t::regtype), ', ')
	FROM unnest(p.proargtypes::oid[]) t)) AS call
FROM pg_proc p WHERE p.pronamespace = 'accessreq'::regnamespace AND p.prokind = 'f' AND p.proname NOT IN ('validator', 'status', 'check',
	'start_sync', 'stop_sync', 'start_worker', 'stop_worker') ORDER BY 1;
SET accessreq.enabled = off;
SELECT f, tst.fails(call) FROM tst.null_calls ORDER BY f COLLATE "C";
RESET accessreq.enabled;
DROP TABLE tst.null_calls;

-- an ordinary role
TRUNCATE accessreq.request_status, accessreq.approval, accessreq.phase, accessreq.manual_work_item, accessreq.sync_job, accessreq.sync_run;
CREATE ROLE accessreq_test_user;
CREATE ROLE accessreq_test_other;
GRANT USAGE ON SCHEMA tst TO accessreq_test_user, accessreq_test_other;
SET ROLE accessreq_test_user;
CREATE FUNCTION pg_temp.try() RETURNS TABLE (call text, result text) LANGUAGE sql AS $$
	SELECT c, tst.fails(c) FROM unnest(ARRAY[
		$q$SELECT * FROM accessreq.check('acme')$q$, $q$SELECT accessreq.create('{}', server => 'acme')$q$,
		$q$SELECT accessreq.cancel('x', 'y', server => 'acme')$q$, $q$SELECT * FROM accessreq.cancel_many('{x}', 'y', server => 'acme')$q$,
		$q$SELECT * FROM accessreq.close('{x}', server => 'acme')$q$, $q$SELECT * FROM accessreq.status(server => 'acme')$q$,
		$q$SELECT * FROM accessreq.status_of('{x}', server => 'acme')$q$, $q$SELECT accessreq.count_status(server => 'acme')$q$,
		$q$SELECT accessreq.get_config(server => 'acme')$q$, $q$SELECT accessreq.set_config('{}', server => 'acme')$q$,
		$q$SELECT accessreq.merge_config('{}', server => 'acme')$q$, $q$SELECT * FROM accessreq.get('v2024/roles', server => 'acme')$q$,
		$q$SELECT * FROM accessreq.refresh('{x}', server => 'acme')$q$]) c
$$;
-- may make bodies, and call nothing
SELECT accessreq.grant_request('{p}', 'ROLE', 'r') IS NOT NULL, accessreq.revoke_request('p', 'ROLE', 'r', 'c') IS NOT NULL;
SELECT * FROM pg_temp.try();
CALL accessreq.sync('acme');
SELECT * FROM accessreq.request_status;
SELECT * FROM accessreq.sync_run;
SELECT tst.fails('INSERT INTO accessreq.sync_job (server) VALUES (''x'')');
RESET ROLE;
-- EXECUTE alone is not enough: USAGE on the server
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA accessreq TO accessreq_test_user, accessreq_test_other;
GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA accessreq TO accessreq_test_user, accessreq_test_other;
SET ROLE accessreq_test_user;
SELECT * FROM pg_temp.try();
SELECT * FROM accessreq.check('acme');
CALL accessreq.sync('acme');
RESET ROLE;
-- nor is USAGE: a mapping for himself
GRANT USAGE ON FOREIGN SERVER acme TO accessreq_test_user, accessreq_test_other;
SET ROLE accessreq_test_user;
SELECT * FROM pg_temp.try();
SELECT * FROM accessreq.check('acme');
CALL accessreq.sync('acme');
-- which he may make: he has USAGE
CREATE USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (client_id 'self', client_secret 'sandbox-secret');
SELECT step, ok FROM accessreq.check('acme');
SELECT accessreq.count_status(requested_for => 'me') > 0;
RESET ROLE;
-- or for PUBLIC; his own wins
CREATE USER MAPPING FOR PUBLIC SERVER acme OPTIONS (client_id 'everybody', client_secret 'sandbox-secret');
SET ROLE accessreq_test_other;
SELECT tst.forget();
SELECT accessreq.count_status() > 500;
SET ROLE accessreq_test_user;
SELECT accessreq.count_status() < 500;
DROP USER MAPPING FOR CURRENT_USER SERVER acme;
SELECT accessreq.count_status() > 500;
RESET ROLE;
SELECT DISTINCT r->>'client_id' FROM jsonb_array_elements(tst.admin('GET', 'requests')) r ORDER BY 1;
-- nobody reads another's secret
SET ROLE accessreq_test_user;
SELECT srvname, usename, umoptions FROM pg_user_mappings WHERE srvname = 'acme' ORDER BY usename;
RESET ROLE;

-- a pull by an ordinary role writes as the tables' owner, and reads back only what it is granted
SET ROLE accessreq_test_user;
SET client_min_messages = warning;
CALL accessreq.sync('acme');
RESET client_min_messages;
SELECT tst.fails('SELECT * FROM accessreq.request_status');
SELECT count(*) FROM accessreq.refresh('{x}', server => 'acme');
RESET ROLE;
SELECT (SELECT count(*) FROM accessreq.request_status WHERE server = 'acme') = accessreq.count_status(server => 'acme');
SELECT owner, owner_oid = 'accessreq_test_user'::regrole, enabled, last_error, failures, last_success_at IS NOT NULL FROM accessreq.sync_job WHERE server = 'acme';
SELECT owner, kind, finished IS NOT NULL, error, pid = pg_backend_pid() FROM accessreq.sync_run;
-- another's pull is one of its own
SET ROLE accessreq_test_other;
SET client_min_messages = warning;
CALL accessreq.sync('acme');
RESET client_min_messages;
RESET ROLE;
SELECT owner FROM accessreq.sync_job WHERE server = 'acme';
SELECT owner, rows_seen > 500, rows_new > 500, rows_changed, error FROM accessreq.sync_run ORDER BY run_id;
-- a reader needs SELECT, nothing else, and gets nothing else
GRANT SELECT ON accessreq.request_status, accessreq.action TO accessreq_test_other;
SET ROLE accessreq_test_other;
SELECT count(*) > 500 FROM accessreq.request_status;
SELECT statement, tst.fails(statement) FROM unnest(ARRAY['UPDATE accessreq.request_status SET state = ''x''',
	'DELETE FROM accessreq.request_status', 'INSERT INTO accessreq.request_status SELECT * FROM accessreq.request_status',
	'TRUNCATE accessreq.request_status', 'SELECT * FROM accessreq.approval',
	'CREATE TRIGGER t BEFORE INSERT ON accessreq.request_status FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()',
	'DELETE FROM accessreq.action']) statement;
RESET ROLE;
-- actions: those of one's own roles
INSERT INTO accessreq.action (server, server_oid, kind, request, owner, enqueued_by, origin, owner_oid, enqueued_at)
SELECT 'acme', 0, 'cancel', '{}', r, r, 'x', 0, now() FROM unnest('{accessreq_test_other,accessreq_test_user,nobody_any_more}'::text[]) r;
SET ROLE accessreq_test_other;
SELECT owner FROM accessreq.action;
RESET ROLE;
GRANT accessreq_test_user TO accessreq_test_other;
SET ROLE accessreq_test_other;
SELECT owner FROM accessreq.action ORDER BY owner;
RESET ROLE;
SELECT count(*) FROM accessreq.action;
DELETE FROM accessreq.action;

-- an error on the second page, a cancel: the role is the caller's again
SET ROLE accessreq_test_user;
SELECT tst.fault('status', 'access-request-status', '{"status": 500, "skip": 2, "count": -1}');
SET accessreq.max_retries = 0;
SET client_min_messages = error;
\set VERBOSITY terse
CALL accessreq.sync('acme', full_scan => true);
\echo :LAST_ERROR_SQLSTATE
SELECT current_user, session_user = current_user, current_setting('search_path');
SELECT tst.fault('hang', 'access-request-status', '{"skip": 2, "count": -1}');
SET statement_timeout = '300ms';
CALL accessreq.sync('acme', full_scan => true);
\echo :LAST_ERROR_SQLSTATE
RESET statement_timeout;
SELECT current_user, session_user = current_user, current_setting('search_path');
SELECT tst.admin('DELETE', 'fault');
CALL accessreq.sync('acme');
RESET ROLE;
SELECT owner, finished IS NOT NULL, rows_seen > 0, error FROM accessreq.sync_run WHERE owner = 'accessreq_test_user' ORDER BY run_id;
SELECT failures, last_error FROM accessreq.sync_status;

-- away again
RESET client_min_messages;
RESET accessreq.max_retries;
DROP USER MAPPING FOR PUBLIC SERVER acme;
DROP OWNED BY accessreq_test_user, accessreq_test_other;
DROP ROLE accessreq_test_user, accessreq_test_other;
TRUNCATE accessreq.request_status, accessreq.approval, accessreq.phase, accessreq.manual_work_item, accessreq.sync_job, accessreq.sync_run;
