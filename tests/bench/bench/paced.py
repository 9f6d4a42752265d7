"""Requests at an even pace, over a few connections, each answer looked at: load that measures nothing of the client."""

import bisect
import collections
import contextlib
import itertools
import random
import re
import socket
import threading
import time

CONNECTIONS = 8
TIMEOUT_SECS = 10
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# The first word after our name: `hit`, or `fwd=miss` and its like.
OUTCOME = re.compile(rb"\r\ncache-status: *[^;]*; *([a-z=-]+)", re.IGNORECASE)


class Popularity:
    """Draws numbers below `objects`, the n-th in proportion to 1/n^exponent."""

    def __init__(self, objects, exponent):
        self.sums = list(itertools.accumulate(n**-exponent for n in range(1, objects + 1)))

    def draw(self):
        return bisect.bisect_left(self.sums, random.random() * self.sums[-1])


class EachOnce:
    """Draws one number after the other."""

    def __init__(self):
        self.numbers = itertools.count()

    def draw(self):
        return next(self.numbers)


class Asked:
    """What came of all requests so far, counted by each connection on its own."""

    def __init__(self):
        self.counts = [collections.Counter() for _ in range(CONNECTIONS)]

    def total(self):
        total = sum(self.counts, collections.Counter())
        return {"requests": total.total(), "failed": 0} | dict(sorted(total.items()))


@contextlib.contextmanager
def asking(port, path, popularity, per_sec):
    """Asks for `path` and a number until the block ends; what came of it so far."""
    asked, ending = Asked(), threading.Event()
    threads = [
        threading.Thread(target=ask, args=(port, path, popularity, per_sec / CONNECTIONS, counts, ending), daemon=True)
        for counts in asked.counts
    ]
    for thread in threads:
        thread.start()
    try:
        yield asked
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def ask(port, path, popularity, per_sec, counts, ending):
    connection, due = None, time.monotonic()
    while not ending.is_set():
        due += 1 / per_sec
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            connection = connection or socket.create_connection(("127.0.0.1", port), TIMEOUT_SECS)
            counts[exchange(connection, f"{path}{popularity.draw()}")] += 1
        except (OSError, ValueError):
            counts["failed"] += 1
            if connection:
                connection.close()
            connection = None


def exchange(connection, path):
    """Where the answer came from. One that is not whole, not 200 or not of `path` is a ValueError."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
    received = bytearray()
    while (end := received.find(b"\r\n\r\n")) < 0:
        receive(connection, received)
    head = bytes(received[: end + 2])
    length, outcome = LENGTH.search(head), OUTCOME.search(head)
    if not head.startswith(b"HTTP/1.1 200 ") or not length or not outcome:
        raise ValueError(head)
    while len(received) < end + 4 + int(length.group(1)):
        receive(connection, received)
    if not received.startswith(path.encode(), end + 4) or len(received) != end + 4 + int(length.group(1)):
        raise ValueError(path)
    return outcome.group(1).decode()


def receive(connection, received):
    part = connection.recv(256 * 1024)
    if not part:
        raise ValueError("closed early")
    received += part
