"""What is counted: one kind of request each, over one connection, one after the other."""

import dataclasses
import socket
from collections.abc import Callable

from .valgrind import Broken

# Before anything is counted: what is done once only is done then, such as the growth of tables and buffers.
WARM_UP_REQUESTS = 300
# A multiple of 100: of so many hits one is logged by default.
BATCH_REQUESTS = 200
# The fewest of so many are taken: what the gateway does by the clock only ever adds to a batch.
BATCHES = 5
ANSWERED_WITHIN_SECS = 60


@dataclasses.dataclass
class Scenario:
    """A kind of request, and how one knows that it was answered as meant."""

    name: str
    # The bytes of the request with this number.
    request: Callable[[int], bytes]
    # How its answer begins, and what must be in its head.
    status: bytes
    mark: bytes
    # Requests to the origin for each of the client's.
    forwarded: int = 0
    # The disk tier. Where something is stored or invalidated it is off, because it is written behind, by the clock.
    disk: str = "10GiB"


def plain(method, path, *fields, body=b""):
    """A request like those of a small client."""
    lines = [b"%s %s HTTP/1.1" % (method, path), b"Host: gateway.example", b"User-Agent: counter/1", b"Accept: */*", *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


POSTED = [b"Content-Type: application/json", b"Content-Length: 256"]
BODY = b"{" + b" " * 254 + b"}"

SCENARIOS = [
    Scenario(
        "hit of 1 KiB from memory",
        lambda number: plain(b"GET", b"/fresh/hit"),
        b"HTTP/1.1 200 ",
        b"hit",
    ),
    Scenario(
        "conditional hit, answered with 304",
        lambda number: plain(b"GET", b"/fresh/hit", b'If-None-Match: "one"'),
        b"HTTP/1.1 304 ",
        b"hit",
    ),
    Scenario(
        "GET of 1 KiB passed through, no-store",
        lambda number: plain(b"GET", b"/passed"),
        b"HTTP/1.1 200 ",
        b"fwd=",
        forwarded=1,
    ),
    Scenario(
        "miss of 1 KiB, stored in memory",
        lambda number: plain(b"GET", b"/fresh/%06d" % number),
        b"HTTP/1.1 200 ",
        b"stored",
        forwarded=1,
        disk="0",
    ),
    Scenario(
        "POST of 256 bytes passed through",
        lambda number: plain(b"POST", b"/passed", *POSTED, body=BODY),
        b"HTTP/1.1 200 ",
        b"fwd=",
        forwarded=1,
        disk="0",
    ),
    Scenario(
        "POST of 256 bytes queued",
        lambda number: plain(b"POST", b"/queued/orders", *POSTED, body=BODY),
        b"HTTP/1.1 202 ",
        b"",
    ),
]


class Client:
    """One connection to the gateway. Each request is sent once the gateway waits for it."""

    def __init__(self, gateway, origin):
        self.gateway = gateway
        self.origin = origin
        self.number = 0
        self.connection = socket.create_connection(("127.0.0.1", gateway.port), ANSWERED_WITHIN_SECS)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def batch(self, scenario, count):
        """Sends so many requests, each after the last one's answer, which must be as meant."""
        seen = self.origin.requests
        for _ in range(count):
            head = self.ask(scenario)
            if not head.startswith(scenario.status) or scenario.mark not in head:
                raise Broken(f"{scenario.name}: answered with {head.decode(errors='replace')}")
        forwarded = self.origin.requests - seen
        if forwarded != scenario.forwarded * count:
            raise Broken(f"{scenario.name}: the origin saw {forwarded} requests of {count}")

    def ask(self, scenario):
        """Sends a request; the head of its answer."""
        self.number += 1
        self.gateway.wait_until_idle()
        self.connection.sendall(scenario.request(self.number))
        return self.receive()

    def receive(self):
        """The head of an answer that has arrived whole."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self.more()
        head, _, body = received.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length" and not head.startswith(b"HTTP/1.1 304 "):
                length = int(value)
        while len(body) < length:
            body += self.more()
        return head

    def more(self):
        received = self.connection.recv(65536)
        if not received:
            raise Broken("the gateway closed the connection")
        return received
