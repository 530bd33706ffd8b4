--
-- Pulls: what is stored, what is left alone, what is put aside, and where a
-- pull cannot run.
--
\pset format unaligned
\pset tuples_only on
\pset null <null>
SET accessreq.server = 'acme';
SET timezone = 'UTC';
SET client_min_messages = warning;
SELECT tst.admin('DELETE', 'fault');
SELECT tst.drop_items('tst-%') >= 0;
TRUNCATE accessreq.request_status, accessreq.approval, accessreq.phase, accessreq.manual_work_item, accessreq.sync_job, accessreq.sync_run, accessreq.quarantined_item;
SELECT tst.put(jsonb_agg(tst.item('tst-y' || i, 'tst-ry' || i))) FROM generate_series(1, 4) i;
SELECT tst.put_item('tst-y5', 'tst-ry4');

-- the first pull
CALL accessreq.sync('acme');
SELECT count(*) = accessreq.count_status() FROM accessreq.request_status;
SELECT rows_new = (SELECT count(*) FROM accessreq.request_status), rows_seen = rows_new, rows_changed, rows_quarantined, rows_missing,
	pages = ceil(rows_seen / 250.0), finished >= started, error, pid = pg_backend_pid(), kind, requests >= pages FROM accessreq.sync_run;
SELECT server, owner = current_user, enabled, every, reconcile_every, keep, keep_raw, failures, last_error, last_scan_at IS NOT NULL, tenant FROM accessreq.sync_job;
SELECT access_request_id, item_id, item_name, item_type, request_type, state, requester_name, requested_for_id, created, cancelable,
	client_metadata, raw->>'accountActivityItemId', first_seen_at = changed_at, missing_since
FROM accessreq.request_status WHERE account_activity_item_id = 'tst-y1';
SELECT ordinal, approval_id, status, scheme, forwarded, current_owner_type, current_owner_id, current_owner_name, original_owner_id, pending_since
FROM accessreq.approval WHERE account_activity_item_id = 'tst-y1';

-- the second one rewrites nothing
CREATE TEMP VIEW versions AS
SELECT 'request_status' AS t, account_activity_item_id AS id, 0 AS ordinal, xmin::text || ctid AS version FROM accessreq.request_status
UNION ALL SELECT 'approval', account_activity_item_id, ordinal, xmin::text || ctid FROM accessreq.approval
UNION ALL SELECT 'phase', account_activity_item_id, ordinal, xmin::text || ctid FROM accessreq.phase
UNION ALL SELECT 'manual_work_item', account_activity_item_id, ordinal, xmin::text || ctid FROM accessreq.manual_work_item;
CREATE TEMP TABLE before AS TABLE versions;
CREATE TEMP VIEW touched AS SELECT t, id, ordinal FROM (TABLE versions EXCEPT ALL TABLE before) x;
SELECT t, count(*) > 0 FROM before GROUP BY t ORDER BY t;
CALL accessreq.sync('acme');
SELECT * FROM touched;
SELECT rows_new, rows_changed, rows_seen = (SELECT count(*) FROM accessreq.request_status) FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;

-- one row changes, with more and then fewer children; one is new
SELECT tst.put_item('tst-y1', 'tst-ry1', '{"state": "REJECTED", "modified": "2026-02-03T04:05:06.789Z", "approvalDetails": [
	{"approvalId": "tst-approval", "status": "APPROVED"}, {"approvalId": "b", "status": "REJECTED", "comment": "no"}],
	"accessRequestPhases": [{"name": "P", "started": "2026-01-02T03:04:05.123456Z"}], "manualWorkItemDetails": [{"status": "PENDING"}]}');
SELECT tst.put_item('tst-y6', 'tst-ry6');
CALL accessreq.sync('acme');
SELECT * FROM touched ORDER BY t, id, ordinal;
SELECT rows_new, rows_changed FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
SELECT state, modified, first_seen_at < changed_at FROM accessreq.request_status WHERE account_activity_item_id = 'tst-y1';
SELECT ordinal, approval_id, status, comment, current_owner_id FROM accessreq.approval WHERE account_activity_item_id = 'tst-y1' ORDER BY ordinal;
SELECT ordinal, name, started FROM accessreq.phase WHERE account_activity_item_id = 'tst-y1';
SELECT tst.put_item('tst-y1', 'tst-ry1', '{"state": "REJECTED", "approvalDetails": [{"approvalId": "b", "status": "REJECTED"}]}');
CALL accessreq.sync('acme');
SELECT ordinal, approval_id, status, comment FROM accessreq.approval WHERE account_activity_item_id = 'tst-y1' ORDER BY ordinal;
SELECT count(*) FROM accessreq.phase WHERE account_activity_item_id = 'tst-y1';
SELECT count(*) FROM accessreq.manual_work_item WHERE account_activity_item_id = 'tst-y1';
-- what the tenant does not return any more stays, and is not marked in this release
SELECT tst.admin('DELETE', 'items?id=tst-y6');
CALL accessreq.sync('acme');
SELECT missing_since FROM accessreq.request_status WHERE account_activity_item_id = 'tst-y6';
SELECT rows_missing, error FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;

-- refresh: these requests, now, with the state before and after
SELECT accessreq.cancel('tst-ry4', 'both items');
SELECT * FROM accessreq.refresh('{tst-ry4,NULL,tst-nothing,tst-ry4}') ORDER BY 1;
SELECT * FROM accessreq.refresh('{tst-ry4}') ORDER BY 1;
SELECT account_activity_item_id, state, cancel_comment FROM accessreq.request_status WHERE access_request_id = 'tst-ry4' ORDER BY 1;
SELECT tst.put_item('tst-y7', 'tst-ry7');
SELECT * FROM accessreq.refresh('{tst-ry7}');
SELECT * FROM accessreq.refresh(NULL);
SELECT * FROM accessreq.refresh('{}');
-- it is the transaction's: a rollback undoes what it stored
SELECT tst.put_item('tst-y7', 'tst-ry7', '{"state": "TERMINATED"}');
BEGIN;
SELECT * FROM accessreq.refresh('{tst-ry7}');
SELECT state FROM accessreq.request_status WHERE account_activity_item_id = 'tst-y7';
ROLLBACK;
SELECT state FROM accessreq.request_status WHERE account_activity_item_id = 'tst-y7';
SELECT * FROM accessreq.refresh('{tst-ry7}');

-- an item that cannot be stored is put aside with its reason, and the pull goes on
SELECT tst.admin('POST', 'items?raw=1&id=tst-z1&request=tst-rz1', '{"accountActivityItemId":"tst-z1","accessRequestId":"tst-rz1","name":01}');
CREATE FUNCTION tst.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.item_name = 'Role of tst-z2' THEN
		RAISE EXCEPTION 'no % here', new.item_name USING ERRCODE = 'P0001';
	END IF;
	RETURN new;
END
$$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON accessreq.request_status FOR EACH ROW EXECUTE FUNCTION tst.refuse();
SELECT tst.put_item('tst-z2', 'tst-rz2'), tst.put_item('tst-z3', 'tst-rz3');
CALL accessreq.sync('acme');
SELECT account_activity_item_id, attempts, error_code, error, convert_from(item, 'UTF8') LIKE '{%tst-z%' FROM accessreq.quarantined_item ORDER BY 1;
SELECT account_activity_item_id FROM accessreq.request_status WHERE account_activity_item_id LIKE 'tst-z%';
SELECT rows_quarantined, rows_new, error FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
CALL accessreq.sync('acme');
SELECT account_activity_item_id, attempts FROM accessreq.quarantined_item ORDER BY 1;
SELECT count(*) FROM accessreq.refresh('{tst-rz2}');
-- gone once it can be stored
DROP TRIGGER refuse ON accessreq.request_status;
SELECT tst.put_item('tst-z1', 'tst-rz1');
CALL accessreq.sync('acme');
SELECT count(*) FROM accessreq.quarantined_item;
SELECT account_activity_item_id FROM accessreq.request_status WHERE account_activity_item_id LIKE 'tst-z%' ORDER BY 1;

-- a trigger runs as the tables' owner: its function must be his, or a superuser's
CREATE ROLE accessreq_test_other;
ALTER FUNCTION tst.refuse() OWNER TO accessreq_test_other;
CREATE TRIGGER sneaky AFTER INSERT ON accessreq.phase FOR EACH ROW EXECUTE FUNCTION tst.refuse();
SELECT tst.put_item('tst-y8', 'tst-ry8');
SELECT tst.fails($$SELECT * FROM accessreq.refresh('{tst-ry8}')$$);
CALL accessreq.sync('acme');
SELECT current_user = session_user, current_setting('search_path');
SELECT count(*) FROM accessreq.quarantined_item;
ALTER TABLE accessreq.phase DISABLE TRIGGER sneaky;
SELECT * FROM accessreq.refresh('{tst-ry8}');
DROP TRIGGER sneaky ON accessreq.phase;
DROP FUNCTION tst.refuse();
DROP ROLE accessreq_test_other;

-- not where a page cannot be committed
BEGIN;
CALL accessreq.sync('acme');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
CREATE PROCEDURE tst.wrapped() LANGUAGE plpgsql AS $$
BEGIN
	CALL accessreq.sync('acme');
EXCEPTION WHEN others THEN
	RAISE WARNING '% %', SQLSTATE, SQLERRM;
END
$$;
CALL tst.wrapped();
DO $$ BEGIN CALL accessreq.sync('acme'); EXCEPTION WHEN others THEN RAISE WARNING '%', SQLSTATE; END $$;
CREATE FUNCTION tst.in_function() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL accessreq.sync('acme'); END $$;
SELECT tst.fails('SELECT tst.in_function()');
-- but from a procedure that may commit
CREATE PROCEDURE tst.nightly() LANGUAGE plpgsql AS $$ BEGIN CALL accessreq.sync('acme'); COMMIT; CALL accessreq.sync(full_scan => true); END $$;
CALL tst.nightly();
SELECT finished IS NOT NULL, error FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 2;
-- the lock is given back, whatever happened
SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND objsubid IN (1, 2) AND classid = 'pg_foreign_server'::regclass;

-- what the tenant answers goes wrong: a run with its error, and the next one goes on
SET accessreq.max_retries = 0;
\set VERBOSITY terse
SELECT tst.fault('html', 'access-request-status', '{"status": 502, "skip": 1}');
CALL accessreq.sync('acme', true);
\echo :LAST_ERROR_SQLSTATE
SELECT pages, finished IS NOT NULL, error, cursor->>'after' IS NOT NULL FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
SELECT failures, last_error FROM accessreq.sync_job;
SELECT tst.fault('garbage', 'access-request-status');
CALL accessreq.sync('acme');
SELECT failures FROM accessreq.sync_job;
SELECT tst.forget();
CALL accessreq.sync('acme');
SELECT method, query LIKE '%accountActivityItemId\%20gt\%20%', query LIKE '%count=true%' FROM tst.asked() LIMIT 1;
SELECT failures, last_error FROM accessreq.sync_job;
-- full_scan starts anew
SELECT tst.fault('status', 'access-request-status', '{"status": 500, "skip": 1}');
CALL accessreq.sync('acme');
SELECT tst.forget();
CALL accessreq.sync('acme', true);
SELECT query LIKE '%accountActivityItemId\%20gt\%20%' FROM tst.asked() LIMIT 1;
-- a page most of whose items cannot be stored ends the run
CREATE FUNCTION tst.refuse_all() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nothing at all'; END $$;
CREATE TRIGGER refuse_all BEFORE INSERT ON accessreq.request_status FOR EACH ROW EXECUTE FUNCTION tst.refuse_all();
DELETE FROM accessreq.request_status WHERE account_activity_item_id IN (SELECT account_activity_item_id FROM accessreq.request_status ORDER BY 1 LIMIT 130);
CALL accessreq.sync('acme', true);
\echo :LAST_ERROR_SQLSTATE
SELECT rows_quarantined, error FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
DROP TRIGGER refuse_all ON accessreq.request_status;
DROP FUNCTION tst.refuse_all();
CALL accessreq.sync('acme', true);
SELECT count(*) FROM accessreq.quarantined_item;

-- another tenant under the same name is an error, not a mixture
ALTER USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (SET client_id 'othertenant');
\set VERBOSITY default
CALL accessreq.sync('acme');
\echo :LAST_ERROR_SQLSTATE
SELECT tst.fails($$SELECT * FROM accessreq.refresh('{tst-ry1}')$$);
ALTER USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (SET client_id 'regress');
-- two servers keep their rows apart
SELECT tst.create_server('twin', 'v2024');
CALL accessreq.sync('twin');
SELECT count(DISTINCT n) FROM (SELECT count(*) AS n FROM accessreq.request_status WHERE account_activity_item_id <> 'tst-y6' GROUP BY server) x;
SELECT server, count(*) FROM accessreq.sync_job GROUP BY server ORDER BY server;
DROP SERVER twin CASCADE;

-- raw is not kept where the job says so
SELECT tst.put_item('tst-y9', 'tst-ry9');
UPDATE accessreq.sync_job SET keep_raw = false WHERE server = 'acme';
CALL accessreq.sync('acme');
SELECT raw, item_name FROM accessreq.request_status WHERE server = 'acme' AND account_activity_item_id = 'tst-y9';

SELECT tst.drop_items('tst-%') > 0;
DROP VIEW touched, versions;
DROP PROCEDURE tst.wrapped, tst.nightly;
DROP FUNCTION tst.in_function;
TRUNCATE accessreq.request_status, accessreq.approval, accessreq.phase, accessreq.manual_work_item, accessreq.sync_job, accessreq.sync_run, accessreq.quarantined_item;
