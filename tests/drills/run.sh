#!/usr/bin/env bash
# What a real gateway does in real trouble: killed, out of disk, behind a captive portal, with a long queue.
#
#   run.sh DRILL [OPTION...] [BINARY]
#
# DRILL is self-test (of the drills; takes no BINARY), kill-loop, captive-portal, disk-full, read-only, corruption,
# backlog, secrets or acks; README.md says what each proves, `run.sh DRILL --help` what it takes. Exit code 1: what must
# hold did not. Needs Python 3.11 or later and nothing else; disk-full and read-only also need leave to mount. BINARY is
# target/release/hardtack unless named. What a drill leaves behind (logs, data) is removed unless something did not
# hold, or --keep is given.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH=$here PYTHONDONTWRITEBYTECODE=1 DRILLS_ROOT=$here/../..
exec python3 -m drill "$@"
