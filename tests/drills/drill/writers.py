"""Writes that bear a number, so that the origin's log can tell them apart, and clients that send them."""

import asyncio
import collections
import hashlib
import json

from . import wire
from .checker import Outcome, Write


class Numbers:
    """Running numbers of the writes of one drill."""

    def __init__(self):
        self.last = 0

    def next(self):
        self.last += 1
        return self.last


def numbered(number, lane, filling=200):
    """Fields and content of a write."""
    content = json.dumps({"number": number, "filling": "x" * filling}).encode()
    fields = {
        "content-type": "application/json",
        "x-lane": lane,
        "x-number": number,
        "x-digest": hashlib.sha256(content).hexdigest(),
    }
    return fields, content


def told(answer):
    """What an answer tells the client; None for one that no write may get here."""
    match answer.status:
        case 202:
            return Outcome.QUEUED
        case 200 | 201 | 204:
            return Outcome.ANSWERED
        case 503:
            return Outcome.REFUSED
        case 502 | 504:
            return Outcome.UNKNOWN
    return None


class Writers:
    """Clients that write each in a lane of its own, one write after the other, and remember what they were told."""

    def __init__(self, gateway, path, kind, method="POST"):
        self.gateway, self.path, self.kind, self.method = gateway, path, kind, method
        self.numbers = Numbers()
        self.writes = []
        self.unexpected = collections.Counter()

    async def send(self, lanes, per_lane, filling=200):
        """`per_lane` writes in each of these lanes; the lanes at the same time."""
        async with asyncio.TaskGroup() as tasks:
            for lane in lanes:
                tasks.create_task(self._send_in(lane, per_lane, filling))

    async def _send_in(self, lane, count, filling):
        connection = wire.Connection(self.gateway.port)
        for _ in range(count):
            await self.send_one(connection, lane, filling)
        connection.close()

    async def send_one(self, connection, lane, filling=200):
        """One write; returns the answer, or None where it was lost."""
        number = self.numbers.next()
        fields, content = numbered(number, lane, filling)
        write = Write(number, self.kind, lane, Outcome.UNKNOWN)
        answer = None
        try:
            answer = await connection.request(self.method, self.path.format(number=number), fields, content)
            outcome = told(answer)
            if outcome is None:
                self.unexpected[f"{answer.status} {answer.reason()}"] += 1
            write.outcome = outcome or Outcome.UNKNOWN
            if outcome is Outcome.QUEUED:
                write.item = answer.json()["id"]
        except (wire.Lost, wire.Unsent):
            pass
        self.writes.append(write)
        return answer

    def count(self, outcome):
        return sum(write.outcome is outcome for write in self.writes)
