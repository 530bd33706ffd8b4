#!/usr/bin/env bash
# What the worker's pulls cost and how fresh they keep the tables: requests,
# writes, time and memory, at a million rows.  Asserts nothing; the aims are
# printed beside.  Wants accessreq installed and the sandbox built; 8 GB of
# memory and 10 GB of disk at a million rows, and half an hour.
# Usage: test/bench/worker.sh [ROWS] [PART…]: large, latency, fresh; default all.
set -euo pipefail
cd "$(dirname "$0")/../.."
. script/lib.sh

pgxs_test=$(dirname "$(pg_config --pgxs)")/../test
work=$(mktemp -d /tmp/accessreq-worker.XXXXXX)
trap 'rm -rf "$work"' EXIT
# where the server's user can read them, wherever the checkout lies
cp test/bench/worker.pl test/perl/AccessReq.pm test/sandbox/accessreq-sandbox "$work"
chmod 755 "$work"
give_to_server_user "$work"
cd "$work"
as_server_user env PATH="$(pg_bindir):$PATH" TESTDIR="$work" \
	TESTLOGDIR="$work/tmp_check/log" PG_REGRESS="$pgxs_test/regress/pg_regress" \
	PERL5LIB="$pgxs_test/perl:$work" \
	ACCESSREQ_SANDBOX="$work/accessreq-sandbox" perl worker.pl "$@"
