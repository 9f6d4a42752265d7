#!/usr/bin/env bash
# What the gateway costs beside the caches one would use instead, on this machine, in one interleaved run.
#
#   run.sh [SCENARIO...] [--rounds N] [--seconds N] [--write] [--binary BINARY] [--beside BINARY]
#
# SCENARIO: see README.md; all of them unless named. --write puts the tables into docs/performance.md. Needs Python 3.11 or
# later, cargo and wrk; peers (nginx, haproxy, varnish) are measured where they are installed, and those that are missing
# are named. All traffic stays on loopback. BINARY is target/release/hardtack unless named.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
export CARGO_TARGET_DIR=${RIG_TARGET_DIR:-$root/target/bench-rig}
cargo build --quiet --release --locked --manifest-path "$here/rig/Cargo.toml"
export PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 BENCH_ROOT=$root BENCH_RIG=$CARGO_TARGET_DIR/release/rig
ulimit -n "$(ulimit -Hn)"
exec python3 -m bench "$@"
