#!/usr/bin/env bash
# How long after a cancel, a termination or a statement_timeout a backend that
# waits for a silent peer answers, by phase, in ms.  Asserts nothing; the aim
# is 50 ms.  Wants accessreq installed.  Usage: test/bench/cancel.sh [ROUNDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/bench/lib.sh
run_bench cancel.pl "${1:-20}"
