#!/usr/bin/env bash
# curl, which takes the proxy as an option.
set -euo pipefail
proxy=$1 url=$2
curl --silent --show-error --max-time 20 --proxy "$proxy" --noproxy '' --cacert "$CA" \
  --write-out '\n%{http_code} %header{cache-status}\n' "$url" |
  { read -r body; read -r said; printf '%s | %s\n' "$said" "$body"; }
