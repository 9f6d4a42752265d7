#!/usr/bin/env bash
# What a request costs in instructions, by callgrind, beside what the record says it did.
#
#   run.sh [--record] [--profiles DIRECTORY] [BINARY]
#
# Exit code 1: a scenario differs from record.json by more than 3 %, in either direction. --record writes record.json anew.
# --profiles keeps a profile of each scenario, for callgrind_annotate. Needs valgrind, and Python 3.11 or later and nothing
# besides. All traffic stays on loopback. BINARY is target/release/hardtack unless named.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
for tool in python3 valgrind callgrind_control; do
  command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 1; }
done
export PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 INSTRUCTIONS_ROOT=$here/../..
exec python3 -m instructions "$@"
