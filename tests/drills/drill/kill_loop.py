"""Kills the gateway with -9 at random moments, again and again, while writers write, readers read and the origin fails.

An operator looks at what is parked or dead as one would: what the origin's log has is resolved, the rest is retried. At
the end the origin is well, the queue drains, and the checker holds every promise against what really happened.
"""

import asyncio
import collections
import contextlib
import dataclasses
import random
import time

from . import wire
from .checker import Kind, Outcome, Write, check
from .gateway import LIVE_STATES, Failed, Gateway
from .origin import Origin
from .report import Report, percentile
from .writers import Numbers, numbered, told

CONFIG = """
[upstreams.origin]
url = "{origin}"
connect_timeout = "1s"
first_byte_timeout = "1s"
probe = {{ path = "/healthz", interval = "1s" }}

[[routes]]
name = "keyed"
match = {{ path = "/keyed/**" }}
upstream = "origin"
write = {{ mode = "on-failure", order_by = "header:x-lane", idempotency = "inject", honoured = true }}

[[routes]]
name = "plain"
match = {{ path = "/plain/**" }}
upstream = "origin"
write = {{ mode = "on-failure", order_by = "header:x-lane" }}

[[routes]]
name = "always"
match = {{ path = "/always/**" }}
upstream = "origin"
write = {{ mode = "always", order_by = "path" }}

[[routes]]
name = "loose"
match = {{ path = "/loose/**" }}
upstream = "origin"
write = {{ mode = "on-failure", order_by = "none", idempotency = "inject", honoured = true }}

[[routes]]
name = "reads"
match = {{ path = "/**" }}
upstream = "origin"

[queue]
recovery_spread = "200ms"
replay_rate = "1000/s"
max_attempts = 1000
"""

# Ways to fail: each comes once before any comes again.
OUTAGES = [
    "refuse", "close", "read-and-close", "execute-and-close", "503", "503-retry-after", "hang", "execute-and-hang"
]  # fmt: skip

# Beyond it a body goes to a file of its own.
LARGE_BODY_BYTES = 100_000

# Why a write may need the operator here: nobody knows whether it was executed; or a DELETE was, and its repetition 404.
EXPECTED_REASONS = ("ambiguous", "rejected")

# So many of the queued writes are taken back at once by their clients.
CANCELLED_PART = 0.03


@dataclasses.dataclass
class Lane:
    """One writer that sends one write after the other. A stubborn one has keys of its own, and sends a write again until it
    is told what became of it."""

    name: str
    kind: Kind
    path: str
    methods: tuple[str, ...]
    is_ordered: bool = True
    is_stubborn: bool = False


LANES = [
    *(Lane(f"keyed-{i}", Kind.KEYED, "/keyed/orders", ("POST",)) for i in range(2)),
    *(Lane(f"stubborn-{i}", Kind.KEYED, "/keyed/orders", ("POST",), is_stubborn=True) for i in range(2)),
    *(Lane(f"plain-{i}", Kind.PLAIN, "/plain/orders", ("POST",)) for i in range(3)),
    *(Lane(f"idempotent-{i}", Kind.IDEMPOTENT, "/plain/things/{number}", ("PUT", "DELETE")) for i in range(3)),
    *(Lane(f"always-{i}", Kind.PLAIN, f"/always/lane-{i}", ("POST",)) for i in range(2)),
    *(Lane(f"loose-{i}", Kind.KEYED, "/loose/orders", ("POST",), is_ordered=False) for i in range(2)),
]


def add_arguments(options):
    options.add_argument("--kills", type=int, default=300)
    options.add_argument("--seed", type=int, default=None, help="of the moments, outages and sizes; printed by each run")
    options.add_argument("--pause", type=float, default=0.04, help="seconds between two writes of a writer, on average")


async def run(options):
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    origin = await Origin.start(options.directory)
    gateway = Gateway(options.binary, options.directory, CONFIG.format(origin=origin.url))
    loop = KillLoop(gateway, origin, random.Random(seed), options)
    try:
        await loop.trouble()
        await loop.settle()
        return await loop.judge(seed)
    finally:
        (options.directory / "writes.log").write_text("".join(f"{write}\n" for write in loop.writes))
        gateway.kill()
        await origin.stop()


class KillLoop:
    """Everything that goes on at the same time, and what was seen."""

    def __init__(self, gateway, origin, dice, options):
        self.gateway, self.origin, self.dice = gateway, origin, dice
        self.kills_wanted, self.pause_secs = options.kills, options.pause
        self.up = asyncio.Event()
        self.ending = asyncio.Event()
        self.numbers = Numbers()
        self.writes = []
        self.locations = {}
        self.unexpected = collections.Counter()
        self.failures = collections.Counter()
        self.cancels = collections.Counter()
        self.sent_again = 0
        self.reads = collections.Counter()
        self.read_secs = []
        self.start_secs = []
        self.kills, self.kills_at_start, self.stops = 0, 0, 0
        self.exit_codes = collections.Counter()
        self.outages = collections.Counter()
        self.operator_did = collections.Counter()
        self.first_seen = {}

    async def trouble(self):
        """Until the gateway was killed as often as is wanted; afterwards it runs, and the origin is well."""
        async with asyncio.TaskGroup() as tasks:
            for lane in LANES:
                tasks.create_task(self.write_on(lane))
            for _ in range(2):
                tasks.create_task(self.read_on())
            tasks.create_task(self.fail_origin())
            tasks.create_task(self.operate_on())
            try:
                await self.kill_on()
            finally:
                self.ending.set()
        await self.origin.mode("ok")

    async def kill_on(self):
        while self.kills < self.kills_wanted:
            if self.dice.random() < 0.15:
                self.gateway.spawn()
                await asyncio.sleep(self.dice.uniform(0, 0.3))
                self.kills_at_start += 1
            else:
                self.start_secs.append(await self.gateway.start())
                self.up.set()
                await asyncio.sleep(self.dice.uniform(0.05, 2.0))
            # Stopped only when it was ready: before that, SIGTERM ends it as it ends any process.
            was_ready = self.up.is_set()
            self.up.clear()
            if was_ready and self.dice.random() < 0.1:
                self.stops += 1
                self.exit_codes[await self.gateway.stop()] += 1
            else:
                self.gateway.kill()
                self.kills += 1
                if self.kills % 25 == 0:
                    print(f"{self.kills} kills, {len(self.writes)} writes", flush=True)
        self.start_secs.append(await self.gateway.start())
        self.up.set()

    async def fail_origin(self):
        coming = []
        while not self.ending.is_set():
            await self.origin.mode("ok", pause_secs=self.dice.choice([0, 0.005, 0.02]))
            await self.unless_ending(self.dice.uniform(0.2, 2))
            coming = coming or self.dice.sample(OUTAGES, len(OUTAGES))
            outage = coming.pop()
            self.outages[outage] += 1
            await self.origin.mode(outage)
            await self.unless_ending(self.dice.uniform(0.2, 1.5))

    async def unless_ending(self, secs):
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.ending.wait(), secs)

    async def write_on(self, lane):
        connection = wire.Connection(self.gateway.port)
        while not self.ending.is_set():
            if self.up.is_set():
                await self.write(lane, connection)
            await self.unless_ending(self.dice.expovariate(1 / self.pause_secs))
        connection.close()

    async def write(self, lane, connection):
        number = self.numbers.next()
        size = LARGE_BODY_BYTES if self.dice.random() < 0.02 else self.dice.randrange(20, 2000)
        fields, content = numbered(number, lane.name, size)
        if lane.is_stubborn:
            fields["idempotency-key"] = f'"key-{number}"'
        request = (self.dice.choice(lane.methods), lane.path.format(number=number), fields, content)
        write = Write(number, lane.kind, lane.name if lane.is_ordered else None, Outcome.UNKNOWN)
        await self.attempt(write, connection, request)
        while lane.is_stubborn and write.outcome not in (Outcome.QUEUED, Outcome.ANSWERED) and not self.ending.is_set():
            await self.unless_ending(0.1)
            self.sent_again += 1
            await self.attempt(write, connection, request)
        if lane.is_stubborn and write.outcome is Outcome.REFUSED:
            # The last attempt was; another one before it was perhaps executed.
            write.outcome = Outcome.UNKNOWN
        if write.outcome is Outcome.QUEUED and self.dice.random() < CANCELLED_PART:
            await self.cancel(write, connection)
        # Within a lane this is the order of acknowledgement: the next write is sent after it.
        self.writes.append(write)

    async def attempt(self, write, connection, request):
        try:
            answer = await connection.request(*request)
        except (wire.Lost, wire.Unsent):
            write.outcome = Outcome.UNKNOWN
            self.failures["the connection ended"] += 1
            return
        write.outcome = told(answer) or Outcome.UNKNOWN
        if told(answer) is None:
            self.unexpected[f"{answer.status} {answer.reason()}"] += 1
        elif write.outcome in (Outcome.REFUSED, Outcome.UNKNOWN):
            self.failures[f"{answer.status} {answer.reason()}".strip()] += 1
        elif write.outcome is Outcome.QUEUED:
            write.item = answer.json()["id"]
            self.locations[write.item] = answer.fields["location"]

    async def cancel(self, write, connection):
        """Takes it back; that it is being sent, or was, is an answer too."""
        try:
            answer = await connection.request("DELETE", self.locations[write.item])
        except (wire.Lost, wire.Unsent):
            write.outcome = Outcome.UNKNOWN
            return
        self.cancels[answer.status] += 1
        if answer.status in (200, 204):
            write.outcome, write.cancelled_at = Outcome.CANCELLED, len(self.origin.executions())
        elif answer.status != 409:
            self.unexpected[f"{answer.status} {answer.reason()} to a cancel"] += 1

    async def read_on(self):
        connection = wire.Connection(self.gateway.port)
        while not self.ending.is_set():
            if self.up.is_set():
                began = time.monotonic()
                try:
                    answer = await connection.request("GET", f"/pages/{self.dice.randrange(10)}")
                    self.read_secs.append(time.monotonic() - began)
                    self.reads[answer.status] += 1
                except (wire.Lost, wire.Unsent):
                    self.reads["killed"] += 1
            await self.unless_ending(0.05)
        connection.close()

    async def operate_on(self):
        while not self.ending.is_set():
            if self.up.is_set():
                # It is killed while the operator works, too.
                with contextlib.suppress(wire.Lost, wire.Unsent):
                    await self.operate()
            await self.unless_ending(0.5)

    async def operate(self):
        """Asks the origin's log about each item that is parked or dead, and acts upon it."""
        items = await self.gateway.items("parked,dead")
        number_of = {write.item: write.number for write in self.writes if write.item}
        executed = {line["number"] for line in self.origin.executions()}
        for identity, item in items.items():
            # A write that is under way might be logged in a moment; an operator takes longer to come, too.
            if time.monotonic() - self.first_seen.setdefault(identity, time.monotonic()) < 1:
                continue
            # One whose 202 was lost with its connection is nobody's but the operator's: its body would tell.
            number = number_of.get(identity) or await self.number_in(item)
            verb = "resolve" if number in executed else "retry"
            if item["reason"] not in EXPECTED_REASONS:
                self.unexpected[f"{item['state']} {item['reason']}, {item['remark']}"] += 1
            answer = await self.gateway.api("POST", f"queue/items/{identity}/{verb}", {})
            del self.first_seen[identity]
            self.operator_did[f"{verb} ({item['state']} {item['reason']}): {answer.status}"] += 1

    async def number_in(self, item):
        whole = (await self.gateway.api("GET", f"queue/items/{item['id']}")).json()
        return int(find(whole, "x-number"))

    async def settle(self):
        """Lets the queue drain, with an operator who also hurries what waits for its next attempt."""
        deadline = time.monotonic() + 90 + len(self.writes) / 100
        while live := await self.gateway.items(LIVE_STATES):
            if time.monotonic() > deadline:
                some = [live[identity] for identity in list(live)[:3]]
                raise Failed(f"{len(live)} items are still not delivered, though the origin is well: {some}")
            await self.operate()
            for identity in [identity for identity, item in live.items() if item["state"] == "waiting"][:100]:
                await self.gateway.api("POST", f"queue/items/{identity}/retry", {})
            await asyncio.sleep(1)

    async def judge(self, seed):
        states = await self.gateway.items(f"{LIVE_STATES},parked,dead")
        verdict = check(self.writes, self.origin.executions(), {i: item["state"] for i, item in states.items()})
        report = Report("kill-loop")
        report.row("seed", seed)
        report.row("kills -9", self.kills)
        report.row("- of these while it started", self.kills_at_start)
        report.row("stops by SIGTERM, exit codes", f"{self.stops}, {dict(self.exit_codes)}")
        report.row("seconds to start, p50 / max", f"{percentile(self.start_secs, 50):.3f} / {max(self.start_secs):.3f}")
        report.row("outages of the origin", dict(self.outages))
        report.row("reads by status", dict(self.reads))
        report.row("seconds of a read, p50 / p99", " / ".join(f"{percentile(self.read_secs, p):.4f}" for p in (50, 99)))
        report.row("the operator", dict(self.operator_did))
        report.row("writes that failed visibly", dict(self.failures))
        report.row("sent again by stubborn clients", self.sent_again)
        report.row("cancels by status", dict(self.cancels))
        for what, value in verdict.rows().items():
            report.row(what, value)
        for what, numbers in verdict.violations().items():
            report.must(False, f"{what}: {len(numbers)}, first {numbers[:10]}")
        await self.judge_receipts(report)
        report.must(not self.unexpected, f"answers and states that are in no table: {dict(self.unexpected)}")
        report.must(set(self.exit_codes) <= {0}, f"SIGTERM ended with {dict(self.exit_codes)}")
        return report

    async def judge_receipts(self, report):
        """A receipt is kept, and says of a write that it was delivered only if it was."""
        effects = {line["number"] for line in self.origin.executions() if line["effect"]}
        queued = [write for write in self.writes if write.outcome is Outcome.QUEUED]
        missing, wrong = [], []
        for write in self.dice.sample(queued, min(200, len(queued))):
            answer = await self.gateway.send("GET", self.locations[write.item])
            if answer.status != 200:
                missing.append(write.number)
            elif answer.json()["state"] == "done" and write.number not in effects:
                wrong.append(write.number)
        report.row("receipts asked for", min(200, len(queued)))
        report.must(not missing, f"receipts are gone: {missing[:10]}")
        report.must(not wrong, f"receipts that say done, wrongly: {wrong[:10]}")


def find(value, name):
    """The value of the field `name`, wherever a view of an item has it: as a key, or as a pair in a list."""
    if isinstance(value, dict):
        if name in value:
            return value[name]
        if str(value.get("name", "")).lower() == name:
            return value["value"]
        value = list(value.values())
    if isinstance(value, list):
        if len(value) == 2 and value[0] == name:
            return value[1]
        for inner in value:
            if (found := find(inner, name)) is not None:
                return found
    return None
