#!/usr/bin/env bash
# What the gateway costs beside the caches one would use instead, on this machine, in one interleaved run.
#
#   run.sh [SCENARIO...] [--rounds N] [--seconds N] [--churn-seconds N] [--write] [--binary BINARY] [--beside BINARY]
#
# SCENARIO and --beside: see README.md; without one, all but those that must be named. --write puts the tables into docs/performance.md. Needs Python 3.11 or
# later, cargo and wrk; peers (nginx, haproxy, varnish) are measured where they are installed, and those that are missing
# are named. All traffic stays on loopback. --binary is target/release/hardtack unless named.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
export CARGO_TARGET_DIR=${RIG_TARGET_DIR:-$root/target/bench-rig}
cargo build --quiet --release --locked --manifest-path "$here/rig/Cargo.toml"
export PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 BENCH_ROOT=$root BENCH_RIG=$CARGO_TARGET_DIR/release/rig
ulimit -n "$(ulimit -Hn)"
exec python3 -m bench "$@"
