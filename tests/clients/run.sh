#!/usr/bin/env bash
# Real clients through a built gateway: curl, Python (urllib, requests), Node (fetch with a proxy agent, fetch with the
# environment's proxy, the http module). Each reads a page twice through the forward proxy and through a reverse route,
# and once over TLS through a tunnel. Then curl, requests and fetch write to an origin that is out of reach, read the
# receipts by the Location they got, and find them done once the origin is back.
#
#   run.sh [BINARY]
#
# A missing client is a failure. Needs bash, curl, python3, node and npm; installs the rest, pinned, below target/.
# BINARY is target/release/hardtack unless named.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
binary=$(realpath "${1:-$root/target/release/hardtack}")
work=$root/target/clients
mkdir -p "$work"

for tool in curl python3 node npm; do
  command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 1; }
done
[[ -x $work/venv/bin/python ]] || python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
cp "$here/package.json" "$here/package-lock.json" "$work/"
npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --loglevel=error

scratch=$(mktemp -d)
children=()
cleanup() {
  for child in "${children[@]}"; do
    kill "$child" 2>/dev/null || true
    wait "$child" 2>/dev/null || true
  done
  rm -rf "$scratch"
}
trap cleanup EXIT

# Waits until FILE exists, for at most 15 s, while the process that makes it lives.
appears() {
  local file=$1 maker=$2
  for _ in $(seq 300); do
    [[ -e $file ]] && return
    kill -0 "$maker" 2>/dev/null || break
    sleep 0.05
  done
  echo "never appeared: $file" >&2
  cat "$scratch"/*.log >&2
  exit 1
}

# The value at a path of a JSON file: json FILE KEY…
json() {
  python3 -c '
import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]:
    value = value[int(key) if isinstance(value, list) else key]
print(value)' "$@"
}

"$work/venv/bin/python" "$here/origin.py" "$scratch" 2>"$scratch/origin.log" &
origin=$!
children+=("$origin")
appears "$scratch/origin.json" "$origin"
http=$(json "$scratch/origin.json" http)
tls=$(json "$scratch/origin.json" tls)
later=$(json "$scratch/origin.json" later)

cat >"$scratch/gateway.toml" <<TOML
[listen]
proxy = "127.0.0.1:0"
admin = "127.0.0.1:0"
[storage]
dir = "$scratch/data"
disk_free_min = "1KiB"
[forward]
allow_networks = ["127.0.0.0/8"]
connect_ports = [443, $tls]
[[routes]]
name = "writes"
match = { host = "127.0.0.1:$later" }
write = { mode = "on-failure" }
[queue]
recovery_spread = "0s"
TOML
"$binary" run --config "$scratch/gateway.toml" --upstream "http://127.0.0.1:$http" 2>"$scratch/gateway.log" &
children+=($!)
appears "$scratch/data/gateway.json" $!
gateway=http://$(json "$scratch/data/gateway.json" proxy 0)

export CA=$scratch/ca.pem NODE_MODULES=$work/package.json
python=$work/venv/bin/python
failures=0

# Runs a client and holds what it printed (left in `said`) against a pattern: expect PATTERN WHAT COMMAND…
said=
expect() {
  local pattern=$1 what=$2
  shift 2
  said=$("$@" 2>&1) || said="failed: $said"
  # shellcheck disable=SC2053 # a pattern is meant
  if [[ $said == $pattern ]]; then
    echo "ok    $what: $said"
  else
    echo "FAIL  $what: $said (expected $pattern)"
    failures=$((failures + 1))
  fi
}

# The three ways through the gateway, for one client that is called as COMMAND… PROXY URL.
check() {
  local name=$1 path=/$1
  shift
  local forward=("$@" "$gateway" "http://127.0.0.1:$http$path-forward")
  expect "200 hardtack; fwd=uri-miss; fwd-status=200; stored; ttl=* | $path-forward #1" "$name, miss" "${forward[@]}"
  expect "200 hardtack; hit; ttl=* | $path-forward #1" "$name, hit" "${forward[@]}"

  local reverse=("$@" "" "$gateway$path-reverse")
  expect "200 hardtack; fwd=uri-miss; fwd-status=200; stored; ttl=* | $path-reverse #1" "$name, route" "${reverse[@]}"
  expect "200 hardtack; hit; ttl=* | $path-reverse #1" "$name, route, hit" "${reverse[@]}"

  # What goes through a tunnel is nobody's business but the client's: no Cache-Status, and never from the store.
  local tunnel=("$@" "$gateway" "https://localhost:$tls$path-tunnel")
  expect "200 ?( )| $path-tunnel #1" "$name, tunnel" "${tunnel[@]}"
  expect "200 ?( )| $path-tunnel #2" "$name, tunnel again" "${tunnel[@]}"
}

check curl bash "$here/clients/curl.sh"
check urllib "$python" "$here/clients/urllib_client.py"
check requests "$python" "$here/clients/requests_client.py"
check node-fetch node "$here/clients/fetch.mjs"
check node-fetch-environment node "$here/clients/fetch_env.mjs"
check node-http node "$here/clients/http_module.mjs"

locations=()
# Writes while the origin is out of reach: outage NAME COMMAND…, called as COMMAND… PROXY URL.
outage() {
  local name=$1
  shift
  expect "202 @(queued|waiting) | http://127.0.0.1:$later/.well-known/hardtack/queue/*" "$name, write in an outage" \
    "$@" "$gateway" "http://127.0.0.1:$later/$name"
  locations+=("${said##*| }")
}

outage curl bash "$here/clients/write_curl.sh"
outage requests "$python" "$here/clients/write_requests.py"
outage node-fetch node "$here/clients/write_fetch.mjs" absolute
outage node-fetch-tunnel node "$here/clients/write_fetch.mjs" tunnel

kill -USR1 "$origin"
# What a receipt says once the write has ended, and the origin's own status.
receipt() {
  local through=(curl --silent --show-error --max-time 60 --proxy "$gateway" --noproxy '' --output "$scratch/receipt")
  "${through[@]}" --header 'Prefer: wait=50' "$1"
  printf '%s ' "$(json "$scratch/receipt" state)"
  "${through[@]}" --write-out '%{http_code}' "$1/response"
}
for location in "${locations[@]}"; do
  expect "done 201" "receipt after the outage" receipt "$location"
done
expect '{"/curl": 1, "/requests": 1, "/node-fetch": 1, "/node-fetch-tunnel": 1}' "what the origin was sent, in order" \
  curl --silent --show-error --max-time 20 "http://127.0.0.1:$later/written"

echo "sidecar example:"
"$root/examples/sidecar/run.sh" "$binary" || failures=$((failures + 1))

[[ $failures == 0 ]] || { echo "$failures checks failed" >&2; exit 1; }
