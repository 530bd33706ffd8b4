#!/usr/bin/env bash
# How fast the queue of actions is: enqueueing, commit to receipt, actions a
# second, and how it uses the vendor's budget.  Asserts nothing; the aims are
# printed beside.  Wants accessreq installed and the sandbox built; two minutes.
# Usage: test/bench/queue.sh [PART…]: enqueue, latency, rate, concurrency,
# budget; default all.
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/bench/lib.sh
run_bench queue.pl "$@"
