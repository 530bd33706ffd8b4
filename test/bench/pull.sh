#!/usr/bin/env bash
# Times CALL accessreq.sync() from the sandbox: a first pull and an unchanged
# one, with the backend's CPU and the WAL written.
# Usage: test/bench/pull.sh [ROWS]    (default 100000)
set -euo pipefail
cd "$(dirname "$0")/../.."
. script/lib.sh
rows=${1:-100000}
export PATH="$(pg_bindir):$PATH"
dir=$(mktemp -d /tmp/accessreq-bench.XXXXXX)
chmod 755 "$dir"
cleanup() {
	as_server_user pg_ctl -D "$dir/cluster" -m immediate stop >/dev/null 2>&1 || true
	kill "${SANDBOX_PID:-}" 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
cp test/sandbox/accessreq-sandbox "$dir/"
give_to_server_user "$dir"
start_sandbox "$dir" --port 0 --rows "$rows" --seed 3 --rate 0 --pace 0
as_server_user initdb -D "$dir/cluster" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
cat >> "$dir/cluster/postgresql.conf" <<CONF
port = 5432
listen_addresses = ''
unix_socket_directories = '$dir'
shared_preload_libraries = 'accessreq'
accessreq.allowed_hosts = '127.0.0.1'
max_wal_size = 8GB
checkpoint_timeout = 1h
autovacuum = off
CONF
as_server_user pg_ctl -D "$dir/cluster" -l "$dir/log" -w start >/dev/null
export PGHOST=$dir PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
psql -Xq -c "CREATE EXTENSION accessreq" \
	-c "CREATE SERVER acme FOREIGN DATA WRAPPER accessreq OPTIONS (base_url '$SANDBOX_URL', api 'v2024', rate_limit '0')" \
	-c "CREATE USER MAPPING FOR CURRENT_USER SERVER acme OPTIONS (client_id 'bench', client_secret 'sandbox-secret')"

# One pull in a backend of its own; its CPU from /proc, in clock ticks.
pull() {
	psql -XqAt <<-SQL 2>&1 | grep -v NOTICE
		CREATE FUNCTION pg_temp.cpu() RETURNS float LANGUAGE sql AS \$\$
			SELECT (f[14]::float + f[15]::float) / $(getconf CLK_TCK)
			FROM regexp_split_to_array(regexp_replace(
				pg_read_file('/proc/' || pg_backend_pid() || '/stat'), '^.*\) ', 'x x '), ' ') AS f \$\$;
		SELECT pg_temp.cpu() AS cpu, pg_current_wal_insert_lsn() AS lsn, clock_timestamp() AS t \gset
		CALL accessreq.sync('acme');
		SELECT format('%s: %s rows in %s s, %s rows/s, backend CPU %s us an item, WAL %s',
			'$1', rows_seen, round(extract(epoch FROM finished - started), 2),
			round(rows_seen / extract(epoch FROM finished - started)),
			round(((pg_temp.cpu() - :cpu) * 1e6 / rows_seen)::numeric, 1),
			pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), :'lsn')))
		FROM accessreq.sync_run ORDER BY run_id DESC LIMIT 1;
	SQL
}
pull "first pull"
pull "nothing changed"
