"""An origin that says which path it was asked for and how many times, over HTTP and over TLS, on loopback; and one that is
out of reach until SIGUSR1.

Usage: origin.py DIRECTORY

Writes `origin.json` ({"http": PORT, "tls": PORT, "later": PORT}) and `ca.pem` (whom to trust for the TLS port) into
DIRECTORY. Runs until it is killed.
"""

import collections
import json
import os
import pathlib
import signal
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import trustme


class Counting(BaseHTTPRequestHandler):
    """Answers every GET with its path and the number of times that path was asked for, fresh for five minutes, and every
    POST with 201. `/written` tells how many times each path was written."""

    protocol_version = "HTTP/1.1"
    asked = collections.Counter()
    written = collections.Counter()
    lock = threading.Lock()

    def do_GET(self):
        with self.lock:
            self.asked[self.path] += 1
            body = f"{self.path} #{self.asked[self.path]}".encode()
            if self.path == "/written":
                body = json.dumps(self.written).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=300")
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.lock:
            self.written[self.path] += 1
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def serve(context=None):
    """Starts a server on a free port; returns the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever).start()
    return server.server_address[1]


def serve_later():
    """Takes a free port, which refuses connections until the process gets SIGUSR1; returns the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counting, bind_and_activate=False)
    # Bound but not listening: nobody else can have the port, and nobody can connect.
    server.server_bind()

    def recover(*_):
        server.server_activate()
        threading.Thread(target=server.serve_forever).start()

    signal.signal(signal.SIGUSR1, recover)
    return server.server_address[1]


def main(directory):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(directory / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)

    ports = {"http": serve(), "tls": serve(context), "later": serve_later()}
    # Whoever waits for the file must not read half of it.
    unfinished = directory / "origin.json.new"
    unfinished.write_text(json.dumps(ports))
    os.replace(unfinished, directory / "origin.json")
    # Signals are handled by this thread.
    while True:
        signal.pause()


main(pathlib.Path(sys.argv[1]))
