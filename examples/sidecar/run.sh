#!/usr/bin/env bash
# The sidecar example on this machine, without containers: an API that goes away and comes back, a gateway beside the
# application, and the application, which does not notice.
#
#   run.sh [BINARY]
#
# BINARY is a built gateway; without one it is built. Needs python3. Exits 1 when something is not as it is told here.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
if [[ $# -gt 0 ]]; then
  binary=$(realpath "$1")
else
  cargo build --release --locked --manifest-path "$root/Cargo.toml"
  binary=$root/target/release/hardtack
fi

scratch=$(mktemp -d)
api=
gateway=
# Ends a child and waits for it; the job's own message is not part of the story.
stop() {
  [[ -z $1 ]] || { kill "$1" && wait "$1"; } 2>/dev/null || true
}
cleanup() {
  stop "$api"
  stop "$gateway"
  rm -rf "$scratch"
}
trap cleanup EXIT

# Runs a command until it succeeds, for at most 15 s.
eventually() {
  for _ in $(seq 300); do
    "$@" && return
    sleep 0.05
  done
  echo "never happened: $*" >&2
  cat "$scratch/gateway.log" >&2 2>/dev/null || true
  exit 1
}

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
api_listens() { (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; }
start_api() {
  python3 "$here/api.py" "$port" &
  api=$!
  eventually api_listens
}

# Runs the application once: app_says TEXT
app_says() {
  local said
  said=$(API_URL=$gateway_url python3 "$here/app.py")
  echo "$said"
  [[ $said == *"$1"* ]] || { echo "expected: $1" >&2; exit 1; }
}
app_is_asked_again() { API_URL=$gateway_url python3 "$here/app.py" | grep -q 'fwd-status=304'; }

echo "== the API is there"
start_api
"$binary" run --listen 127.0.0.1:0 --admin 127.0.0.1:0 --data-dir "$scratch/data" \
  --upstream "http://127.0.0.1:$port" 2>"$scratch/gateway.log" &
gateway=$!
eventually test -s "$scratch/data/gateway.json"
gateway_url=http://$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["proxy"][0])' "$scratch/data/gateway.json")
app_says 'hardtack; fwd=uri-miss; fwd-status=200; stored'
app_says 'hardtack; fwd=stale; fwd-status=304; stored'

echo "== the API is gone"
stop "$api"
api=
app_says 'detail=disconnected'
app_says 'hardtack; hit; '

echo "== the API is back"
start_api
eventually app_is_asked_again
app_says 'hardtack; fwd=stale; fwd-status=304; stored'
