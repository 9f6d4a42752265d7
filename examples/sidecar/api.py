"""The API that the application depends on: one price, with an entity tag and no word about freshness, like most.

Usage: api.py PORT
"""

import itertools
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PRICE = json.dumps({"article": "hardtack, 1 kg", "price": 4.2}).encode()
TAG = '"price-1"'
count = itertools.count(1)


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        is_known = self.headers.get("If-None-Match") == TAG
        print(f"api: request {next(count)}, {'not modified' if is_known else 'whole answer'}", flush=True)
        self.send_response(304 if is_known else 200)
        self.send_header("ETag", TAG)
        if not is_known:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(PRICE)))
        self.end_headers()
        if not is_known:
            self.wfile.write(PRICE)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
