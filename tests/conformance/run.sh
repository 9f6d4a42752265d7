#!/usr/bin/env bash
# The public HTTP caching suite (npm package http-cache-tests, pinned in package-lock.json) against a built gateway.
#
#   run.sh [--update] [BINARY]
#
# Fails when a test listed in required.txt is not passed. --update writes that list anew, from what is passed now.
# Needs Node and npm. BINARY is target/release/hardtack unless named.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)

update=()
if [[ ${1:-} == --update ]]; then
  update=(--update)
  shift
fi
binary=$(realpath "${1:-$root/target/release/hardtack}")
work=$root/target/conformance

# Installed outside the sources, from the lock file, without running anybody's install scripts.
mkdir -p "$work"
cp "$here/package.json" "$here/package-lock.json" "$work/"
npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel=error

exec node --no-warnings "$here/run.mjs" "${update[@]}" \
  --binary "$binary" --suite "$work/node_modules/http-cache-tests" --required "$here/required.txt"
