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
TRUNCATE accessreq.request_status, accessreq.approval, accessreq.phase, accessreq.manual_work_item, accessreq.sync_job, accessreq.sync_run, accessreq.quarantined_item, accessreq.state_change, accessreq.approval_change;
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
SELECT ordinal, approval_id, status, scheme, forwarded, current_owner_type, current_owner_id, current_owner_name, original_owner_id, pending_since IS NOT NULL
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
CALL accessreq.sync('acme', full_scan => true);
SELECT * FROM touched;
SELECT rows_new, rows_changed, rows_seen = (SELECT count(*) FROM accessreq.request_status) FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;

-- one row changes, with more and then fewer children; one is new
SELECT tst.put_item('tst-y1', 'tst-ry1', '{"state": "REJECTED", "modified": "2026-02-03T04:05:06.789Z", "approvalDetails": [
	{"approvalId": "tst-approval", "status": "APPROVED"}, {"approvalId": "b", "status": "REJECTED", "comment": "no"}],
	"accessRequestPhases": [{"name": "P", "started": "2026-01-02T03:04:05.123456Z"}], "manualWorkItemDetails": [{"status": "PENDING"}]}');
SELECT tst.put_item('tst-y6', 'tst-ry6');
CALL accessreq.sync('acme', full_scan => true);
SELECT * FROM touched ORDER BY t, id, ordinal;
SELECT rows_new, rows_changed FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
SELECT state, modified, first_seen_at < changed_at FROM accessreq.request_status WHERE account_activity_item_id = 'tst-y1';
SELECT ordinal, approval_id, status, comment, current_owner_id FROM accessreq.approval WHERE account_activity_item_id = 'tst-y1' ORDER BY ordinal;
SELECT ordinal, name, started FROM accessreq.phase WHERE account_activity_item_id = 'tst-y1';
SELECT tst.put_item('tst-y1', 'tst-ry1', '{"state": "REJECTED", "approvalDetails": [{"approvalId": "b", "status": "REJECTED"}]}');
CALL accessreq.sync('acme', full_scan => true);
SELECT ordinal, approval_id, status, comment FROM accessreq.approval WHERE account_activity_item_id = 'tst-y1' ORDER BY ordinal;
SELECT count(*) FROM accessreq.phase WHERE account_activity_item_id = 'tst-y1';
SELECT count(*) FROM accessreq.manual_work_item WHERE account_activity_item_id = 'tst-y1';
-- what the tenant does not return any more stays, and is marked
SELECT tst.admin('DELETE', 'items?id=tst-y6');
CALL accessreq.sync('acme', full_scan => true);
SELECT missing_since IS NOT NULL FROM accessreq.request_status WHERE account_activity_item_id = 'tst-y6';
SELECT rows_missing, error FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
-- one that comes back, unchanged, loses the mark
SELECT tst.put_item('tst-y6', 'tst-ry6');
CALL accessreq.sync('acme', full_scan => true);
SELECT missing_since FROM accessreq.request_status WHERE account_activity_item_id = 'tst-y6';
-- a cycle reads what may have changed: what is open, new, or was modified
SELECT tst.put_item('tst-y9', 'tst-ry9', jsonb_build_object('created', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')));
SELECT tst.put_item('tst-y2', 'tst-ry2', '{"state": "CANCELLED"}');
CALL accessreq.sync('acme');
SELECT kind, rows_new, rows_changed, rows_seen < (SELECT count(*) FROM accessreq.request_status), error FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
SELECT account_activity_item_id, old_state, new_state, run_id = (SELECT max(run_id) FROM accessreq.sync_run) FROM accessreq.state_change
WHERE account_activity_item_id IN ('tst-y2', 'tst-y9') ORDER BY 1, observed_at;
-- who holds an approval, since when, and how it came to him
SELECT tst.put_item('tst-y3', 'tst-ry3', '{"approvalDetails": [{"approvalId": "tst-approval", "status": "PENDING", "currentOwner": {"id": "p2", "name": "Second"}}]}');
CALL accessreq.sync('acme');
SELECT ordinal, old_status, new_status, new_owner_id FROM accessreq.approval_change WHERE account_activity_item_id = 'tst-y3' ORDER BY observed_at;
SELECT a.pending_since = c.observed_at FROM accessreq.approval a JOIN accessreq.approval_change c USING (server, account_activity_item_id)
WHERE account_activity_item_id = 'tst-y3' ORDER BY c.observed_at DESC LIMIT 1;

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
CALL accessreq.sync('acme', full_scan => true);
SELECT account_activity_item_id, attempts, error_code, error, convert_from(item, 'UTF8') LIKE '{%tst-z%' FROM accessreq.quarantined_item ORDER BY 1;
SELECT account_activity_item_id FROM accessreq.request_status WHERE account_activity_item_id LIKE 'tst-z%';
SELECT rows_quarantined, rows_new, error FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
CALL accessreq.sync('acme', full_scan => true);
SELECT account_activity_item_id, attempts FROM accessreq.quarantined_item ORDER BY 1;
SELECT count(*) FROM accessreq.refresh('{tst-rz2}');
-- gone once it can be stored
DROP TRIGGER refuse ON accessreq.request_status;
SELECT tst.put_item('tst-z1', 'tst-rz1');
CALL accessreq.sync('acme', full_scan => true);
SELECT count(*) FROM accessreq.quarantined_item;
SELECT account_activity_item_id FROM accessreq.request_status WHERE account_activity_item_id LIKE 'tst-z%' ORDER BY 1;

-- a trigger runs as the tables' owner: its function must be his, or a superuser's
CREATE ROLE accessreq_test_other;
ALTER FUNCTION tst.refuse() OWNER TO accessreq_test_other;
CREATE TRIGGER sneaky AFTER INSERT ON accessreq.phase FOR EACH ROW EXECUTE FUNCTION tst.refuse();
SELECT tst.put_item('tst-y8', 'tst-ry8');
SELECT tst.fails($$SELECT * FROM accessreq.refresh('{tst-ry8}')$$);
CALL accessreq.sync('acme', full_scan => true);
SELECT current_user = session_user, current_setting('search_path');
SELECT count(*) FROM accessreq.quarantined_item;
ALTER TABLE accessreq.phase DISABLE TRIGGER sneaky;
SELECT * FROM accessreq.refresh('{tst-ry8}');
DROP TRIGGER sneaky ON accessreq.phase;
DROP FUNCTION tst.refuse();
DROP ROLE accessreq_test_other;

-- not where a page cannot be committed
BEGIN;
CALL accessreq.sync('acme', full_scan => true);
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

-- what the tenant answers goes wrong: a run with its error, and the next one
SET accessreq.max_retries = 0;
\set VERBOSITY terse
SELECT tst.fault('html', 'access-request-status', '{"status": 502, "skip": 2}');
CALL accessreq.sync('acme', true);
\echo :LAST_ERROR_SQLSTATE
SELECT pages, finished IS NOT NULL, error FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
SELECT failures, last_error FROM accessreq.sync_status;
SELECT tst.fault('garbage', 'access-request-status');
CALL accessreq.sync('acme', full_scan => true);
SELECT failures FROM accessreq.sync_status;
CALL accessreq.sync('acme', full_scan => true);
SELECT failures, last_error FROM accessreq.sync_status;
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
CALL accessreq.sync('acme', full_scan => true);
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
SELECT tst.put_item('tst-y10', 'tst-ry10');
UPDATE accessreq.sync_job SET keep_raw = false WHERE server = 'acme';
CALL accessreq.sync('acme', full_scan => true);
SELECT raw, item_name FROM accessreq.request_status WHERE server = 'acme' AND account_activity_item_id = 'tst-y10';

-- closed items that are older than the job keeps go, with their history, and stay away
SELECT tst.put_item('tst-k1', 'tst-rk1', '{"state": "CANCELLED", "created": "2020-01-01T00:00:00Z", "modified": "2020-01-02T00:00:00Z"}'),
	tst.put_item('tst-k2', 'tst-rk2', '{"state": "EXECUTING", "created": "2020-01-01T00:00:00Z", "modified": "2020-01-02T00:00:00Z"}'),
	tst.put_item('tst-k3', 'tst-rk3', jsonb_build_object('state', 'CANCELLED', 'created', '2020-01-01T00:00:00Z',
		'modified', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')));
CALL accessreq.sync('acme', full_scan => true);
SELECT account_activity_item_id FROM accessreq.request_status WHERE server = 'acme' AND account_activity_item_id LIKE 'tst-k%' ORDER BY 1;
UPDATE accessreq.sync_job SET keep = '5 years' WHERE server = 'acme';
CALL accessreq.sync('acme', full_scan => true);
CALL accessreq.sync('acme', full_scan => true);
SELECT account_activity_item_id FROM accessreq.request_status WHERE server = 'acme' AND account_activity_item_id LIKE 'tst-k%' ORDER BY 1;
SELECT account_activity_item_id FROM accessreq.state_change WHERE server = 'acme' AND account_activity_item_id LIKE 'tst-k%' ORDER BY 1;
UPDATE accessreq.sync_job SET keep = NULL WHERE server = 'acme';
-- runs that ended long ago go as well
INSERT INTO accessreq.sync_run (server, owner, owner_oid, kind, started, finished) VALUES ('acme', 'x', 0, 'cycle', now() - interval '31 days', now() - interval '31 days'),
	('acme', 'y', 0, 'cycle', now() - interval '29 days', now() - interval '29 days');
CALL accessreq.sync('acme');
SELECT owner FROM accessreq.sync_run WHERE owner IN ('x', 'y');
-- a server that is renamed takes its rows along
ALTER SERVER acme RENAME TO apex;
SELECT tst.fails($$SELECT accessreq.rename_server('nothing', 'apex')$$);
SELECT accessreq.rename_server('acme', 'apex');
SELECT server, count(*) > 0 FROM accessreq.request_status WHERE server IN ('acme', 'apex') GROUP BY server;
CALL accessreq.sync('apex');
SELECT kind, rows_new, rows_changed, error FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
ALTER SERVER apex RENAME TO acme;
SELECT accessreq.rename_server('apex', 'acme');
SELECT tst.fails($$SELECT accessreq.rename_server('acme', 'twin')$$);
-- a job of another database: nothing is pulled or sent, until it is adopted
UPDATE accessreq.sync_job SET origin = '1/1' WHERE server = 'acme';
SELECT tst.forget();
CALL accessreq.sync('acme');
\echo :LAST_ERROR_SQLSTATE
SELECT tst.fails($$SELECT accessreq.cancel('tst-ry1', 'x')$$);
SELECT * FROM accessreq.cancel_many('{tst-ry1}', 'x');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM tst.asked() WHERE method <> 'GET' AND path NOT LIKE '%oauth%';
SELECT accessreq.count_status() > 0;
CREATE ROLE accessreq_test_other;
GRANT USAGE ON SCHEMA accessreq, tst TO accessreq_test_other;
GRANT EXECUTE ON FUNCTION tst.fails(text) TO accessreq_test_other;
GRANT EXECUTE ON FUNCTION accessreq.adopt(name), accessreq.forget(name), accessreq.rename_server(name, name) TO accessreq_test_other;
SET ROLE accessreq_test_other;
SELECT tst.fails($$SELECT accessreq.adopt('acme')$$);
SELECT tst.fails($$SELECT accessreq.forget('acme')$$);
SELECT tst.fails($$SELECT accessreq.rename_server('acme', 'x')$$);
RESET ROLE;
DROP OWNED BY accessreq_test_other;
DROP ROLE accessreq_test_other;
SELECT tst.fails($$SELECT accessreq.adopt('nothing')$$);
SELECT accessreq.adopt('acme');
CALL accessreq.sync('acme');
SELECT count(*) FROM accessreq.state_change WHERE old_state IS NULL AND observed_at > (SELECT started FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1);
SELECT owner = current_user, timeline FROM accessreq.sync_job WHERE server = 'acme';
-- and forgotten
SELECT table_name, deleted > 0 FROM accessreq.forget('twin');
SELECT count(*) FROM accessreq.request_status WHERE server = 'twin';

SELECT tst.drop_items('tst-%') > 0;
DROP VIEW touched, versions;
DROP PROCEDURE tst.wrapped, tst.nightly;
DROP FUNCTION tst.in_function;
TRUNCATE accessreq.request_status, accessreq.approval, accessreq.phase, accessreq.manual_work_item, accessreq.sync_job, accessreq.sync_run, accessreq.quarantined_item;
