-- A tour of accessreq, to be pasted line by line into the psql that script/demo
-- names at its end. It shows; what each thing promises: doc/reference.md.

-- What is there? Everything explains itself.
\dx+ accessreq
\d+ accessreq.request_item
\dv+ accessreq.*
SELECT obj_description('accessreq.cancel_stale'::regproc);

-- Does the connection work, and if not, why?
SELECT * FROM accessreq.check('acme');

-- The demo has a background worker keep the tables fresh; from now on every 5 seconds.
SELECT accessreq.start_sync('acme', every => '5 seconds');
SELECT server, health, reason, lag_seconds FROM accessreq.sync_status;

-- What is open, how old, and whom does it wait for?
SELECT item_name, requested_for_name, stage, round(age_days) AS days, current_approvers
FROM accessreq.open_item ORDER BY age_days DESC NULLS LAST LIMIT 10;

-- Who sits on approvals?
SELECT approver_name, approver_type, approver_id, waiting, round(oldest_days) AS oldest_days
FROM accessreq.approval_backlog ORDER BY waiting DESC, oldest_days DESC LIMIT 10;

-- How long do approvals take, by item?
SELECT r.item_type, r.item_name, count(*), percentile_cont(0.5) WITHIN GROUP (ORDER BY p.duration_hours)::int AS median_hours
FROM accessreq.phase_detail p JOIN accessreq.request_status r USING (server, account_activity_item_id)
WHERE p.name = 'APPROVAL_PHASE' AND (p.state = 'COMPLETED' OR r.state = 'REJECTED') AND p.finished IS NOT NULL
GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 10;

-- How did requests end, week by week?
SELECT week::date, sum(completed) AS completed, sum(rejected) AS rejected, sum(provisioning_failed + error) AS failed
FROM accessreq.item_outcome GROUP BY 1 ORDER BY 1 DESC LIMIT 8;

-- What failed, and why?
SELECT source_names, error_text, items FROM accessreq.provisioning_failure ORDER BY items DESC LIMIT 5;

-- What is stuck, and what would end it?
SELECT item_name, requested_for_name, phase, round(executing_days) AS days, advice FROM accessreq.stuck_item ORDER BY executing_days DESC LIMIT 5;

-- What does a state mean?
SELECT state, count(*), accessreq.explain_state(state) FROM accessreq.request_status GROUP BY state ORDER BY 2 DESC;

-- How many were open on the days of the last week?
SELECT day, open, estimated FROM accessreq.state_on_day ORDER BY day DESC LIMIT 7;

-- What would be cancelled, if everything older than 30 days were? Nothing is done yet.
SELECT access_request_id, reason FROM accessreq.cancel_stale('30 days', 'waited too long', max_actions => 3, server => 'acme');

-- Do it in a transaction, and change your mind: nothing is sent.
BEGIN;
SELECT access_request_id, action_id FROM accessreq.cancel_stale('30 days', 'waited too long', max_actions => 3, dry_run => false, server => 'acme');
ROLLBACK;
SELECT count(*) FROM accessreq.action;

-- And now for good: the worker sends them as soon as it is committed.
SELECT access_request_id, action_id FROM accessreq.cancel_stale('30 days', 'waited too long', max_actions => 3, dry_run => false, server => 'acme');
SELECT max(id) AS last FROM accessreq.action \gset
CALL accessreq.wait_for_action(:last);
SELECT id, kind, state, http_status, tracking_id FROM accessreq.action;

-- The tables know it after the next pull, or now:
SELECT i.item_name, r.old_state, r.new_state
FROM accessreq.refresh(ARRAY(SELECT unnest(access_request_ids) FROM accessreq.action WHERE kind = 'cancel'), server => 'acme') r
JOIN accessreq.request_status i USING (account_activity_item_id)
WHERE r.old_state = 'EXECUTING';

-- The history that the API does not keep:
SELECT observed_at, old_state, new_state FROM accessreq.state_history WHERE old_state IS NOT NULL ORDER BY observed_at DESC LIMIT 5;

-- Any other list of the tenant:
SELECT v ->> 'name' AS role, v ->> 'requestable' AS requestable FROM accessreq.get('v2024/roles', max_rows => 3, server => 'acme') v;

-- An error says what was wrong, and what to do.
SELECT accessreq.cancel('nobody-knows-this', 'mistake', server => 'acme');

-- Stop pulling (start_sync goes on).
SELECT accessreq.stop_sync('acme');
