"""An origin that says which path it was asked for and how many times, over HTTP and over TLS, on loopback.

Usage: origin.py DIRECTORY

Writes `origin.json` ({"http": PORT, "tls": PORT}) and `ca.pem` (whom to trust for the TLS port) into DIRECTORY. Runs
until it is killed.
"""

import collections
import json
import os
import pathlib
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme


class Counting(BaseHTTPRequestHandler):
    """Answers every GET with its path and the number of times that path was asked for, fresh for five minutes."""

    protocol_version = "HTTP/1.1"
    asked = collections.Counter()
    lock = threading.Lock()

    def do_GET(self):
        with self.lock:
            self.asked[self.path] += 1
            body = f"{self.path} #{self.asked[self.path]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=300")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(context=None):
    """Starts a server on a free port; returns the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever).start()
    return server.server_address[1]


def main(directory):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)

    ports = {"http": serve(), "tls": serve(context)}
    # Whoever waits for the file must not read half of it.
    unfinished = directory / "origin.json.new"
    unfinished.write_text(json.dumps(ports))
    os.replace(unfinished, directory / "origin.json")


main(pathlib.Path(sys.argv[1]))
