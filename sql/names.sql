--
-- Names that are none: empty, or the text of a failed lookup.  No view and no
-- column shows one; raw keeps it.
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

-- what is a name and what is none
CREATE FUNCTION tst.who(id text, name text, type text DEFAULT 'IDENTITY') RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_object('type', type, 'id', id, 'name', name)
$$;
CREATE TEMP TABLE said (n int GENERATED ALWAYS AS IDENTITY, id text, name text, type text DEFAULT 'IDENTITY');
INSERT INTO said (id, name) VALUES ('p-1', ''), ('p-1', '  '), ('p-1', E'\t\u00a0 \n'), ('p-1', 'p-1'), ('p-1', 'null'), ('p-1', ' undefined '), ('p-1', 'UNKNOWN'), ('p-1', 'Unknown user'),
	('p-1', 'Identity not found'), ('p-1', 'Identity 2c91808568c529c60168cca6f90c1313 not found.'), ('p-1', '404 Not Found'), ('p-1', 'Could not find identity'),
	('p-1', 'Unable to resolve p-1'), ('p-1', 'Failed to look up name'), ('p-1', 'Error: timeout'), ('p-1', 'java.lang.NullPointerException: null'), ('p-1', '{"detailCode":"404 Not found"}'),
	-- people
	('p-1', 'Ann Null'), ('p-1', 'Null'), ('p-1', 'Noah Unknown-Foundling'), ('p-1', 'Notfound Smith'), ('p-1', 'p-2'), ('p-1', ' Ann '), ('p-1', 'Ken Otfound'), ('p-1', 'Error Terror'), ('p-1', 'Бэлла'), ('', 'Ann Noid');
INSERT INTO said (id, name, type) VALUES ('g-1', 'Failed to provision, watchers of', 'GOVERNANCE_GROUP'), ('g-1', 'Unknown', 'GOVERNANCE_GROUP'), ('g-1', '', 'GOVERNANCE_GROUP'), ('g-1', 'null', 'GOVERNANCE_GROUP'), ('m-1', 'Error: watcher', 'MACHINE_IDENTITY'), ('p-1', 'Not found', NULL), (NULL, 'Not found', NULL);
SELECT tst.put(jsonb_agg(tst.item('tst-n' || lpad(n::text, 2, '0'), 'tst-rn' || n, jsonb_build_object('requestedFor', tst.who(id, name, type))) ORDER BY n)) FROM said;
SELECT d.name AS said, s.requested_for_id, s.requested_for_name, s.raw->'requestedFor'->>'name' IS NOT DISTINCT FROM d.name
FROM accessreq.status(filters => 'accountActivityItemId sw "tst-n"') s JOIN said d ON s.account_activity_item_id = 'tst-n' || lpad(d.n::text, 2, '0') ORDER BY d.n;

SELECT tst.fault('no_names', 'access-request-status', '{"count": -1}');
SELECT count(*) > 500, count(requester_name), count(requested_for_name), count(cancelled_by_name), count(requester_id) > 500, count(*) FILTER (WHERE raw #>> '{requester,name}' ~ '^Could not look up') > 100
FROM accessreq.status() WHERE raw #>> '{requestedFor,type}' = 'IDENTITY';
SELECT tst.admin('DELETE', 'fault');

-- who decides, and has decided
CREATE FUNCTION tst.approval(status text, current jsonb, original jsonb DEFAULT NULL, reviewed jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE sql AS $$
	SELECT jsonb_build_array(jsonb_build_object('approvalId', 'a', 'status', status, 'scheme', 'MANAGER', 'forwarded', false,
		'currentOwner', current, 'originalOwner', original, 'reviewedBy', reviewed, 'modified', '2026-01-03T00:00:00.000Z'))
$$;
CREATE TEMP TABLE decided (id text, approval jsonb, more jsonb DEFAULT '{}');
INSERT INTO decided VALUES
	-- he who holds it
	('tst-p1-no-name', tst.approval('PENDING', tst.who('o-1', '')), DEFAULT),
	('tst-p2-failed', tst.approval('PENDING', tst.who('o-2', 'Identity not found')), DEFAULT),
	('tst-p3-original-says', tst.approval('PENDING', tst.who('o-3', 'Identity not found'), tst.who('o-3', 'Olga Three')), DEFAULT),
	('tst-p4-another', tst.approval('PENDING', tst.who('o-4', ' '), tst.who('o-x', 'Somebody Else')), DEFAULT),
	('tst-p5-nobody', tst.approval('PENDING', tst.who('', ''), tst.who('o-5', 'Olga Five')), DEFAULT),
	('tst-p6-nothing', tst.approval('PENDING', tst.who('', 'Unknown user'), tst.who(NULL, '')), DEFAULT),
	-- he who decided
	('tst-q1-failed', tst.approval('APPROVED', tst.who('o-1', 'Olga One'), NULL, tst.who('o-1', 'Identity not found')), DEFAULT),
	('tst-q2-empty', tst.approval('REJECTED', tst.who('o-2', 'Olga Two'), NULL, tst.who(NULL, '')), DEFAULT),
	('tst-q3-empty', tst.approval('APPROVED', tst.who('o-3', 'Olga Three'), NULL, tst.who('', '')), DEFAULT),
	('tst-q4-another', tst.approval('APPROVED', tst.who('o-4', 'Olga Four'), NULL, tst.who('r-4', 'Could not find identity r-4')), DEFAULT),
	('tst-q5-nobody', tst.approval('APPROVED', NULL, NULL, tst.who(NULL, 'Lookup failed')), DEFAULT),
	('tst-q6-both', tst.approval('APPROVED', tst.who('o-6', 'Not found'), NULL, tst.who('o-6', 'Not found')), DEFAULT),
	-- the others
	('tst-r1', tst.approval('PENDING', tst.who('o-1', 'Olga One')), jsonb_build_object('requester', tst.who('s-1', 'Not found'), 'requestedFor', tst.who('s-1', 'Sam Self'),
		'cancelledRequestDetails', jsonb_build_object('comment', 'x', 'owner', tst.who('c-1', 'Unable to find the identity c-1')),
		'manualWorkItemDetails', jsonb_build_array(jsonb_build_object('status', 'PENDING', 'originalOwner', tst.who('w-1', ''), 'currentOwner', tst.who('w-1', 'Will Work')))));
SELECT tst.put(jsonb_agg(tst.item(id, 'tst-rr-' || right(id, -4), more || jsonb_build_object('approvalDetails', approval, 'created', to_char(now() - interval '20 days', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
	'requestedFor', coalesce(more->'requestedFor', tst.who('f-1', 'No such user: f-1')),
	'accessRequestPhases', jsonb_build_array(jsonb_build_object('name', 'APPROVAL_PHASE', 'state', 'EXECUTING', 'started', to_char(now() - interval '9 days', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')))) ))) FROM decided;
CALL accessreq.sync('acme');
CREATE TEMP VIEW mine AS SELECT * FROM accessreq.request_item WHERE account_activity_item_id ~ '^tst-[pqr]';
SELECT account_activity_item_id, current_approvers, decided_by FROM mine ORDER BY 1;
SELECT account_activity_item_id, current_approvers FROM accessreq.open_item WHERE account_activity_item_id ~ '^tst-[pqr]' ORDER BY 1;
SELECT account_activity_item_id, approver_id, approver_name, current_owner_name, original_owner_name, reviewed_by_id, reviewed_by_name
FROM accessreq.approval_detail WHERE account_activity_item_id ~ '^tst-[pqr]' ORDER BY 1;
SELECT approver_id, approver_name, waiting FROM accessreq.approval_backlog WHERE approver_id ~ '^o-' OR approver_id IS NULL ORDER BY 1;
SELECT DISTINCT requested_for_id, requested_for_name FROM accessreq.stuck_item WHERE account_activity_item_id ~ '^tst-[pqr]' ORDER BY 1;
SELECT requester_name, requested_for_name, cancelled_by_id, cancelled_by_name FROM mine WHERE account_activity_item_id = 'tst-r1';
SELECT original_owner_name, current_owner_name FROM accessreq.manual_work_item WHERE account_activity_item_id = 'tst-r1';
SELECT b->>'approver', b->>'waiting' FROM jsonb_array_elements(accessreq.dashboard_data('acme')->'backlog') b WHERE b->>'approver' ~ 'o-|Olga|nobody|ot found' ORDER BY 1;
SELECT account_activity_item_id, raw->'approvalDetails'->0->'reviewedBy'->>'name' FROM accessreq.request_status WHERE account_activity_item_id ~ '^tst-q' ORDER BY 1;
-- no column of any view has one
CREATE FUNCTION tst.shows(pattern text) RETURNS TABLE (relation text, col text, value text) LANGUAGE plpgsql AS $$
BEGIN
	FOR relation IN SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'accessreq'::regnamespace AND c.relkind IN ('r', 'v') AND c.relname NOT IN ('quarantined_item') ORDER BY 1 LOOP
		RETURN QUERY EXECUTE format('SELECT %L, k, v FROM accessreq.%I t, jsonb_each_text(to_jsonb(t) - ''raw'') AS x (k, v) WHERE v ~* $1 AND k NOT LIKE ''%%error%%'' LIMIT 3', relation, relation) USING pattern;
	END LOOP;
END
$$;
SELECT * FROM tst.shows('^(not found|identity.*not found|could not|unknown user|unable to |no such user|lookup failed|\s*$)');

-- history: the one who had it and has it, by name
SELECT tst.put_item('tst-p2-failed', 'tst-rr-p2-failed', jsonb_build_object('modified', '2026-02-02T00:00:00.000Z', 'approvalDetails', tst.approval('PENDING', tst.who('o-9', 'Identity not found'), tst.who('o-2', 'Olga Two'))));
CALL accessreq.sync('acme', full_scan => true);
SELECT old_owner_id, old_owner_name, new_owner_id, new_owner_name FROM accessreq.approval_change WHERE account_activity_item_id = 'tst-p2-failed' ORDER BY observed_at;
-- a pull that finds all as it was changes nothing
CALL accessreq.sync('acme', full_scan => true);
SELECT rows_new, rows_changed FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
SELECT tst.drop_items('tst-%') > 0;
