-- What script/demo shows; run by psql with the variable base_url.
\set ECHO queries
\pset footer off

CREATE EXTENSION accessreq;

CREATE SERVER acme FOREIGN DATA WRAPPER accessreq
  OPTIONS (base_url :'base_url', api 'v2024');

CREATE USER MAPPING FOR CURRENT_USER SERVER acme
  OPTIONS (client_id 'demo', client_secret 'sandbox-secret');

-- what works, what does not, and what to do
SELECT * FROM accessreq.check();

-- pull all statuses
CALL accessreq.sync('acme');

-- what is there
SELECT state, count(*), min(created)::date AS oldest
FROM accessreq.request_status GROUP BY state ORDER BY 2 DESC;

-- who others wait for
SELECT approver_name, approver_type, waiting, round(oldest_days) AS oldest_days
FROM accessreq.approval_backlog ORDER BY waiting DESC, oldest_days DESC LIMIT 5;

-- a stored procedure that cancels the oldest request that still can be
CREATE PROCEDURE cancel_oldest(reason text) LANGUAGE plpgsql AS $$
DECLARE
  r record;
  change record;
BEGIN
  SELECT server, access_request_id, item_name, requested_for_name INTO STRICT r
  FROM accessreq.request_status
  WHERE state = 'EXECUTING' AND cancelable
  ORDER BY created LIMIT 1;
  PERFORM accessreq.cancel(r.access_request_id, reason, server => r.server::name);
  RAISE NOTICE 'cancelled: % for %', r.item_name, r.requested_for_name;
  -- read it back into the table
  FOR change IN
    SELECT * FROM accessreq.refresh(ARRAY[r.access_request_id], server => r.server::name)
  LOOP
    RAISE NOTICE 'item %: % -> %', change.account_activity_item_id,
      change.old_state, change.new_state;
  END LOOP;
END $$;

CALL cancel_oldest('not needed any more');

SELECT item_name, requested_for_name, state, cancel_comment
FROM accessreq.request_status ORDER BY changed_at DESC LIMIT 1;

-- keep it fresh from the background
SELECT accessreq.start_sync('acme', every => '2 seconds');
SELECT pg_sleep(3);
SELECT server, health, lag_seconds < 10 AS fresh, worker FROM accessreq.sync_status;
