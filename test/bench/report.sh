#!/usr/bin/env bash
# How long the report views take at a million rows, live: of everything, and of one
# item, person or approver.  Asserts nothing.  Wants accessreq installed and the
# sandbox built; 8 GB of memory and 10 GB of disk, and ten minutes.
# Usage: test/bench/report.sh [ROWS]
set -euo pipefail
cd "$(dirname "$0")/../.."
. test/bench/lib.sh
run_bench report.pl "$@"
