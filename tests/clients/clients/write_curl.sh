#!/usr/bin/env bash
# curl writes, and reads the receipt by the Location it got.
set -euo pipefail
proxy=$1 url=$2
through=(curl --silent --show-error --max-time 20 --proxy "$proxy" --noproxy '')
read -r status location < <("${through[@]}" --output /dev/null --write-out '%{http_code} %header{location}\n' \
  --json '{"from": "curl"}' "$url")
# A path, in the URL's own authority.
[[ $location != /* ]] || location=$(sed -E 's#^([a-z]+://[^/]+).*#\1#' <<<"$url")$location
receipt=$("${through[@]}" "$location")
state=$(python3 -c 'import json, sys; print(json.loads(sys.argv[1])["state"])' "$receipt")
printf '%s %s | %s\n' "$status" "$state" "$location"
