#!/usr/bin/env bash
# The public HTTP caching suite against a built gateway: its npm package http-cache-tests, pinned in package-lock.json, or
# a checkout of its current state (https://github.com/http-tests/cache-tests), whose own dependencies are installed.
#
#   run.sh [OPTION...] [BINARY]
#
#   --suite DIR     the checkout in DIR instead of the npm package
#   --pass NAME     only this pass: "default" or "set-cookie-store"; otherwise both, one after the other
#   --times N       each pass N times; fails when the outcome of any test differs between two runs
#   --update        writes required.txt anew, from what the npm package's tests come to now
#   --record FILE   writes the outcomes of one pass to FILE, for table.mjs
#   --through URL   any cache that runs already, in place of a gateway of ours; needs --origin-port, the port of 127.0.0.1
#                   it forwards to, and with --record also --program NAME --version TEXT
#
# The npm package fails when a test of required.txt is not passed, or one is neither there nor in not-required.txt. A
# checkout fails when an outcome is not the recorded one (results/). Needs Node and npm. BINARY is target/release/hardtack
# unless named.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

suite=
binary=$root/target/release/hardtack
options=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --suite) suite=$(realpath "$2"); shift ;;
    --record) options+=("$1" "$(realpath "$2")"); shift ;;
    --pass|--times|--through|--origin-port|--program|--version) options+=("$1" "$2"); shift ;;
    --update) options+=("$1") ;;
    -*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
    *) binary=$1 ;;
  esac
  shift
done

if [[ -z $suite ]]; then
  # Installed outside the sources, from the lock file, without running anybody's install scripts.
  work=$root/target/conformance
  mkdir -p "$work"
  cp "$here/package.json" "$here/package-lock.json" "$work/"
  npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel=error
  suite=$work/node_modules/http-cache-tests
fi

exec node --no-warnings "$here/run.mjs" --binary "$(realpath -m "$binary")" --suite "$suite" "${options[@]}"
