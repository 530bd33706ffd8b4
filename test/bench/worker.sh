#!/usr/bin/env bash
# What the worker's pulls cost and how fresh they keep the tables: requests,
# writes, time and memory, at a million rows.  Asserts nothing; the aims are
# printed beside.  Wants accessreq installed and the sandbox built; 8 GB of
# memory and 10 GB of disk at a million rows, and half an hour.
# Usage: test/bench/worker.sh [ROWS] [PART…]: large, latency, fresh; default all.
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/bench/lib.sh
run_bench worker.pl "$@"
