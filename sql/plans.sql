--
-- A server's name finds its rows by the key, as text and as name, also where a
-- function has it as an argument: "server" is text COLLATE "C" for that.
--
\pset format unaligned
\pset tuples_only on
INSERT INTO accessreq.request_status (server, account_activity_item_id, access_request_id, state, content_hash, first_seen_at, changed_at)
SELECT 'acme', md5(i::text), md5((i / 2)::text), 'REQUEST_COMPLETED', i, now(), now() FROM generate_series(1, 5000) i;
INSERT INTO accessreq.approval (server, account_activity_item_id, ordinal) SELECT server, account_activity_item_id, 1 FROM accessreq.request_status;
ANALYZE accessreq.request_status;
ANALYZE accessreq.approval;
SET enable_bitmapscan = off;

EXPLAIN (COSTS OFF) SELECT state FROM accessreq.request_status WHERE server = 'acme' AND account_activity_item_id = 'x';
EXPLAIN (COSTS OFF) SELECT state FROM accessreq.request_status WHERE server = 'acme'::name AND account_activity_item_id = 'x';
EXPLAIN (COSTS OFF) SELECT state FROM accessreq.request_status WHERE server = 'acme'::text AND account_activity_item_id = ANY ('{x,y}');
EXPLAIN (COSTS OFF) SELECT state FROM accessreq.request_status WHERE access_request_id = 'x';
EXPLAIN (COSTS OFF) SELECT * FROM accessreq.request_status s JOIN accessreq.approval a USING (server, account_activity_item_id)
WHERE s.access_request_id = 'x' AND s.server = 'acme'::name;

-- prepared, with a generic plan
PREPARE by_name (name, text) AS SELECT state FROM accessreq.request_status WHERE server = $1 AND account_activity_item_id = $2;
SET plan_cache_mode = force_generic_plan;
EXPLAIN (COSTS OFF) EXECUTE by_name ('acme', 'x');
DEALLOCATE by_name;

-- in a function of a user's, inlined
CREATE FUNCTION tst.state_sql(server name, id text) RETURNS SETOF text STABLE
BEGIN ATOMIC
	SELECT s.state FROM accessreq.request_status s WHERE s.server = state_sql.server AND s.account_activity_item_id = id;
END;
EXPLAIN (COSTS OFF) SELECT * FROM tst.state_sql('acme', 'x');
EXPLAIN (COSTS OFF) SELECT f.* FROM pg_foreign_server v, tst.state_sql(v.srvname, 'x') f WHERE v.srvname = 'acme';

-- and in PL/pgSQL
CREATE FUNCTION tst.state_plpgsql(server name, id text) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
	result text;
BEGIN
	SELECT s.state INTO result FROM accessreq.request_status s
	WHERE s.server = state_plpgsql.server AND s.account_activity_item_id = id;
	RETURN result;
END
$$;
BEGIN;
SELECT pg_stat_get_xact_numscans('accessreq.request_status'::regclass) AS seqscans,
	pg_stat_get_xact_numscans('accessreq.request_status_pkey'::regclass) AS keyscans \gset
SELECT tst.state_plpgsql('acme', md5('7'));
SELECT pg_stat_get_xact_numscans('accessreq.request_status'::regclass) - :seqscans AS seqscans,
	pg_stat_get_xact_numscans('accessreq.request_status_pkey'::regclass) - :keyscans AS keyscans;
COMMIT;
RESET plan_cache_mode;
DROP FUNCTION tst.state_sql, tst.state_plpgsql;
TRUNCATE accessreq.request_status, accessreq.approval;
