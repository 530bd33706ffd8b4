#!/usr/bin/env bash
# How long after a cancel, a termination or a statement_timeout a backend that
# waits for a silent peer answers, by phase, in ms.  Asserts nothing; the aim
# is 50 ms.  Wants accessreq installed.  Usage: test/bench/cancel.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
. script/lib.sh

pgxs_test=$(dirname "$(pg_config --pgxs)")/../test
work=$(mktemp -d /tmp/accessreq-cancel.XXXXXX)
trap 'rm -rf "$work"' EXIT
# where the server's user can read them, wherever the checkout lies
cp test/bench/cancel.pl test/perl/AccessReq.pm "$work"
chmod 755 "$work"
give_to_server_user "$work"
cd "$work"
as_server_user env PATH="$(pg_bindir):$PATH" TESTDIR="$work" \
	TESTLOGDIR="$work/tmp_check/log" PG_REGRESS="$pgxs_test/regress/pg_regress" \
	PERL5LIB="$pgxs_test/perl:$work" perl cancel.pl "${1:-20}"
