#!/bin/bash
# What storing costs: microseconds of backend CPU an item, by part, and bytes
# of WAL, for a first pull, an unchanged one, and one in which 1 % changed.
#
#   test/bench/store.sh [ROWS]          default 100000; in a throwaway cluster
#   test/bench/store.sh --build DIR     only build store_bench.so and tables.sql there
#
# PG_CONFIG chooses the server.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
src=$here/../../src
pg_config=${PG_CONFIG:-pg_config}

# The module, and the part of the extension's script that makes tables: the
# functions would want the whole library.
build() {
	local out=$1 file objects=()
	for file in json item person row mode version writer tables page guard rowset statement lookup quarantine store; do
		objects+=("$src/$file.c")
	done
	"${CC:-gcc}" -std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Wno-unused-parameter \
		-Werror=implicit-function-declaration -fno-strict-aliasing -fwrapv -fPIC -shared \
		-Wl,-Bsymbolic -DSTORE_BENCH ${STORE_BENCH_CFLAGS:-} \
		-I"$here" -I"$src" -isystem "$($pg_config --includedir-server)" \
		$(pkg-config --cflags libcjson) "$here/store_bench.c" "${objects[@]}" \
		-o "$out/store_bench.so" $(pkg-config --libs libcjson)
	{
		echo 'CREATE SCHEMA accessreq;'
		awk '/^CREATE TABLE/ { on = 1 }
			 /^SELECT pg_catalog.pg_extension_config_dump/ { exit }
			 on' "$here/../../accessreq--1.0.sql"
	} > "$out/tables.sql"
}

if [ "${1:-}" = --build ]; then
	build "$2"
	exit
fi

rows=${1:-100000}
dir=$(mktemp -d /tmp/store_bench.XXXXXX)
bin=$($pg_config --bindir)

as_postgres() {
	if [ "$(id -u)" = 0 ]; then
		(cd "$dir" && runuser -u postgres -- "$@")
	else
		"$@"
	fi
}
sql() {
	as_postgres "$bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$dir" -d postgres "$@"
}
stop() {
	as_postgres "$bin/pg_ctl" -D "$dir/data" -m immediate stop > /dev/null 2>&1 || true
	rm -rf "$dir"
}
trap stop EXIT

build "$dir"
chmod 755 "$dir"
[ "$(id -u)" != 0 ] || chown -R postgres: "$dir"
as_postgres "$bin/initdb" -D "$dir/data" -E UTF8 --locale=C.UTF-8 -A trust > /dev/null
as_postgres "$bin/pg_ctl" -D "$dir/data" -w -l "$dir/log" \
	-o "-c listen_addresses='' -c unix_socket_directories=$dir -c max_wal_size=8GB -c shared_buffers=${SHARED_BUFFERS:-512MB}" start > /dev/null
sql -f "$dir/tables.sql"
sql -v module="$dir/store_bench" -f "$here/store.sql"

# One pull in a session of its own; WAL of the whole cluster, so nothing else runs.
pull() {
	echo "== $1"
	sql 2>&1 <<-END | sed 's/^.*NOTICE:  //'
		SELECT pg_current_wal_insert_lsn() AS lsn \gset
		SELECT clock_timestamp() AS start \gset
		CALL bench.pull($rows, 250, $2, $3);
		SELECT format('  %s s, %s bytes of WAL an item',
			round(extract(epoch FROM clock_timestamp() - :'start'), 1),
			round(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), :'lsn') / $rows, 1));
	END
}

sql -c 'SELECT format($$items of %s bytes$$, round(avg(length(bench.item(i))))) FROM generate_series(1, 1000) i'
# A cluster in use recycles its WAL files and has its memory; a new one makes
# both while we measure, which costs half as much again.
sql -c "CALL bench.pull($rows)" -c 'TRUNCATE accessreq.request_status, accessreq.approval, accessreq.phase, accessreq.manual_work_item' \
	-c CHECKPOINT 2> /dev/null
pull 'first pull' 0 0
pull 'unchanged' 0 0
pull 'unchanged, again' 0 0
pull '1 % changed' 1 100
pull 'all changed' 1 1
echo "== sizes"
sql -F ' ' -c "SELECT '  ' || relname, pg_size_pretty(pg_table_size(oid)), pg_size_pretty(pg_indexes_size(oid)), reltuples
	FROM pg_class WHERE relnamespace = 'accessreq'::regnamespace AND relkind = 'r' AND pg_table_size(oid) > 8192 ORDER BY 1"
