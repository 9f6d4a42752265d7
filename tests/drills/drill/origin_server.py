"""An origin that fails on command, and keeps a log of what it executed.

Usage: python3 -m drill.origin_server PORT LOG [--no-sync]

Each executed write is one JSON line in LOG, on the disk (fdatasync) before the answer is sent. A write bears its number
in the field x-number and a digest of its content in x-digest. A POST with an Idempotency-Key has its effect once for
each key; a DELETE of what is deleted already is a 404.

Commands come as JSON lines on standard input, each answered by one on standard output: {"mode": MODE} changes what
happens to requests from now on, {"report": true} tells what was counted. It ends with its standard input.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import random
import sys

from . import wire

HTML = {"content-type": "text/html; charset=utf-8"}
LOGIN_PAGE = b"<!doctype html><title>Wi-Fi</title><form action=/login>Room number?</form>"
JSON = {"content-type": "application/json"}

# What a read may be answered with from the store of a cache.
READ_FIELDS = {**JSON, "cache-control": "max-age=1, stale-if-error=86400"}


class Origin:
    """One port, one log, one mode at a time."""

    def __init__(self, port, log, sync):
        self.port = port
        self.log = open(log, "ab", buffering=0)
        self.sync = sync
        self.mode = "ok"
        self.pause_secs = 0.0
        self.listener = None
        self.writers = set()
        self.keys = set()
        self.deleted = set()
        self.counts = {"reads": 0, "writes": 0, "executed": 0, "in_flight": 0, "peak_in_flight": 0}

    async def set_mode(self, mode, pause_secs):
        self.mode, self.pause_secs = mode, pause_secs
        if mode == "refuse" and self.listener:
            self.listener.close()
            self.listener = None
            for writer in list(self.writers):
                writer.transport.abort()
        elif mode != "refuse" and not self.listener:
            self.listener = await asyncio.start_server(self.serve, "127.0.0.1", self.port, backlog=1024)

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                if self.mode != "close":
                    while (request := await wire.read_message(reader)) and await self.answer(request, reader, writer):
                        pass
        finally:
            self.writers.discard(writer)
            writer.transport.abort()

    async def answer(self, request, reader, writer):
        """Does with a request what the mode says; returns whether the connection goes on."""
        method = request.start[0]
        is_write = method not in ("GET", "HEAD")
        self.counts["writes" if is_write else "reads"] += 1
        match self.mode:
            case "close" | "read-and-close":
                return False
            case "execute-and-close":
                self.execute(request, is_write)
                return False
            case "hang" | "execute-and-hang":
                if self.mode == "execute-and-hang":
                    self.execute(request, is_write)
                # Until the gateway gives up.
                await reader.read(1)
                return False
            case "503":
                writer.write(wire.answer_bytes(503, JSON, b"{}"))
            case "503-retry-after":
                writer.write(wire.answer_bytes(503, {**JSON, "retry-after": "1"}, b"{}"))
            case "login-page":
                writer.write(wire.answer_bytes(200, HTML, LOGIN_PAGE))
            case "login-redirect":
                writer.write(wire.answer_bytes(302, {**HTML, "location": "http://login.hotel.example/?room"}, LOGIN_PAGE))
            case "login-required":
                writer.write(wire.answer_bytes(511, HTML, LOGIN_PAGE))
            case _:
                writer.write(await self.well(request, is_write))
        await writer.drain()
        return True

    async def well(self, request, is_write):
        if not is_write:
            return wire.answer_bytes(200, READ_FIELDS, json.dumps({"reads": self.counts["reads"]}).encode())
        self.counts["in_flight"] += 1
        self.counts["peak_in_flight"] = max(self.counts["peak_in_flight"], self.counts["in_flight"])
        try:
            status = self.execute(request, is_write)
            # Between the execution and the answer is where a kill hurts most.
            if self.pause_secs:
                await asyncio.sleep(random.uniform(0, 2 * self.pause_secs))
        finally:
            self.counts["in_flight"] -= 1
        return wire.answer_bytes(status, JSON, b"" if status == 204 else b'{"executed": true}')

    def execute(self, request, is_write):
        """Logs the write as executed, durably; returns the status that says so."""
        if not is_write or "x-number" not in request.fields:
            return 200
        method, target = request.start[:2]
        key = request.fields.get("idempotency-key")
        status, has_effect = {"POST": 201, "PUT": 200}.get(method, 204), True
        if method == "DELETE" and target in self.deleted:
            status, has_effect = 404, False
        elif method == "POST" and key in self.keys:
            has_effect = False
        line = {
            "number": int(request.fields["x-number"]),
            "effect": has_effect,
            "intact": hashlib.sha256(request.content).hexdigest() == request.fields.get("x-digest"),
            "key": key,
            "attempt": request.fields.get("hardtack-attempt"),
            "credentials": credentials_digest(request.fields),
        }
        self.log.write(json.dumps(line).encode() + b"\n")
        if self.sync:
            os.fdatasync(self.log.fileno())
        self.counts["executed"] += 1
        if method == "DELETE":
            self.deleted.add(target)
        elif method == "POST" and key:
            self.keys.add(key)
        return status


def credentials_digest(fields):
    """What tells whether credentials arrived as they were sent, without writing them down; None where there are none."""
    found = [fields[name] for name in ("authorization", "cookie", "x-api-key") if name in fields]
    return hashlib.sha256("\n".join(found).encode()).hexdigest() if found else None


async def main(port, log, sync):
    origin = Origin(port, log, sync)
    await origin.set_mode("ok", 0.0)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print("{}", flush=True)
    while line := await commands.readline():
        command = json.loads(line)
        if "mode" in command:
            await origin.set_mode(command["mode"], command.get("pause_secs", 0.0))
        if command.get("forget_peak"):
            origin.counts["peak_in_flight"] = origin.counts["in_flight"]
        print(json.dumps(origin.counts), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], "--no-sync" not in sys.argv))
