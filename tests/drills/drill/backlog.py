"""One origin of three is dead while 50,000 writes for it are queued in 20 lanes; then it comes back. All must be delivered
once and in order, by never more deliveries at a time than its share, a quarter of its permits; and reads and writes of
the other two origins must be as fast as before, both during the outage and during the replay."""

import asyncio
import time

from . import wire
from .checker import Kind, Outcome, check
from .gateway import LIVE_STATES, Gateway, eventually
from .origin import Origin
from .report import Report, percentile
from .writers import Writers

CONFIG = """
[upstreams.first]
url = "{first}"

[upstreams.second]
url = "{second}"

[upstreams.dead]
url = "{dead}"

[[routes]]
name = "first"
match = {{ path = "/first/**" }}
upstream = "first"
write = {{ mode = "on-failure", order_by = "none" }}

[[routes]]
name = "second"
match = {{ path = "/second/**" }}
upstream = "second"
write = {{ mode = "on-failure", order_by = "none" }}

[[routes]]
name = "dead"
match = {{ path = "/dead/**" }}
upstream = "dead"
write = {{ mode = "on-failure", order_by = "header:x-lane" }}

[queue]
max_items = 200000
max_lane_items = 200000
max_client_items = 200000
max_bytes = "2GiB"
recovery_spread = "0s"
replay_rate = "{rate}/s"

[limits]
max_in_flight_per_upstream = {permits}
"""

PERMITS = 32
SHARE = PERMITS // 4

# So long the origin takes for a write on average, so that deliveries overlap as much as they may.
ORIGIN_PAUSE_SECS = 0.004

# What a p99 may grow to: twice, and what the scheduler of a small machine adds. By what requests that do not go through
# the gateway become slower meanwhile, the origins and this drill itself are to blame.
MAX_FACTOR, MAX_MORE_SECS = 2, 0.01

# Origins that are well, all the time.
HEALTHY = ["first", "second"]


def add_arguments(options):
    options.add_argument("--writes", type=int, default=50_000)
    options.add_argument("--lanes", type=int, default=20)
    options.add_argument("--rate", type=int, default=1000, help="replay_rate, a second")
    options.add_argument("--seconds", type=float, default=15, help="of measuring before the outage, and during it")


async def run(options):
    report = Report("backlog")
    origins = [await Origin.start(options.directory, name, sync=False) for name in ("first", "second", "dead")]
    first, second, dead = origins
    urls = {"first": first.url, "second": second.url, "dead": dead.url}
    config = CONFIG.format(**urls, permits=PERMITS, rate=options.rate)
    gateway = Gateway(options.binary, options.directory, config)
    latencies = Latencies(gateway, first)
    try:
        await gateway.start()
        async with asyncio.TaskGroup() as tasks:
            measuring = [tasks.create_task(work) for work in latencies.measurements()]
            try:
                writers = await outage(gateway, dead, latencies, options, report)
                await recovery(gateway, dead, latencies, options, report)
            finally:
                for task in measuring:
                    task.cancel()
        await conclude(gateway, dead, writers, report)
        latencies.conclude(report)
    finally:
        gateway.kill()
        for origin in origins:
            await origin.stop()
    return report


async def outage(gateway, dead, latencies, options, report):
    await latencies.during("before", options.seconds)
    resident_before = resident_bytes(gateway)
    await dead.mode("refuse")
    writers = Writers(gateway, "/dead/orders", Kind.PLAIN)
    began = time.monotonic()
    await writers.send([f"lane-{i}" for i in range(options.lanes)], options.writes // options.lanes)
    took_secs = time.monotonic() - began
    queued = writers.count(Outcome.QUEUED)
    report.row("writes queued / lanes", f"{queued} / {options.lanes}")
    report.row("acknowledged a second, by as many writers as lanes", queued / took_secs)
    report.row("bytes of memory a queued write", (resident_bytes(gateway) - resident_before) / queued)
    report.must(queued == len(writers.writes), f"not queued: {len(writers.writes) - queued}, {dict(writers.unexpected)}")
    await latencies.during("outage", options.seconds)
    return writers


async def recovery(gateway, dead, latencies, options, report):
    await dead.forget_peak()
    latencies.phase = "replay"
    await dead.mode("ok", pause_secs=ORIGIN_PAUSE_SECS)
    began = time.monotonic()

    # The origin's own count: listing the queue again and again would be a load of its own.
    async def are_executed():
        return (await dead.counts())["executed"] >= options.writes

    await eventually("everything is delivered", are_executed, 120 + 4 * options.writes / options.rate, pause_secs=0.5)
    took_secs = time.monotonic() - began
    latencies.phase = None
    await gateway.drained(within_secs=30)
    report.row("delivered a second", options.writes / took_secs)


async def conclude(gateway, dead, writers, report):
    executions = dead.executions()
    states = {i: item["state"] for i, item in (await gateway.items(f"{LIVE_STATES},parked,dead")).items()}
    verdict = check(writers.writes, executions, states)
    for what, value in verdict.rows().items():
        report.row(what, value)
    for what, numbers in verdict.violations().items():
        report.must(False, f"{what}: {len(numbers)}, first {numbers[:10]}")
    delivered = {line["number"] for line in executions}
    for which in (0, -1):
        report.must(writers.writes[which].number in delivered, f"not delivered: {writers.writes[which]}")
    peak = (await dead.counts())["peak_in_flight"]
    report.row("deliveries at the same time, at most / share", f"{peak} / {SHARE}")
    report.must(peak <= SHARE, f"{peak} deliveries at the same time, the share is {SHARE}")


class Latencies:
    """Reads (never from the store) and writes of healthy origins at a steady rate, by what happened meanwhile; and reads
    of one of these origins that do not go through the gateway."""

    def __init__(self, gateway, origin):
        self.gateway, self.origin = gateway, origin
        self.phase = None
        self.secs = {}
        self.failures = []

    async def during(self, phase, seconds):
        self.phase = phase
        await asyncio.sleep(seconds)
        self.phase = None

    def measurements(self):
        yield self.measure("direct", self.origin.port, "GET", "/direct", pause_secs=0.01)
        for origin in HEALTHY:
            yield self.measure("read", self.gateway.port, "GET", f"/{origin}/page", pause_secs=0.01)
            yield self.measure("write", self.gateway.port, "POST", f"/{origin}/order", pause_secs=0.02)

    async def measure(self, kind, port, method, path, pause_secs):
        connection = wire.Connection(port)
        number = 0
        while True:
            number += 1
            phase, began = self.phase, time.perf_counter()
            try:
                answer = await connection.request(method, f"{path}-{number}")
            except (wire.Lost, wire.Unsent) as error:
                self.failures.append(repr(error))
            else:
                if answer.status != 200:
                    self.failures.append(f"{method}: {answer.status} {answer.reason()}")
                if phase == self.phase:
                    self.secs.setdefault((kind, phase), []).append(time.perf_counter() - began)
            await asyncio.sleep(pause_secs)

    def p99(self, kind, phase):
        return percentile(self.secs[kind, phase], 99)

    def conclude(self, report):
        report.must(not self.failures, f"failures at healthy origins: {len(self.failures)}, first {self.failures[:3]}")
        for kind in ("direct", "read", "write"):
            for phase in ("before", "outage", "replay"):
                secs = self.secs[kind, phase]
                p50, p99 = (percentile(secs, percent) * 1000 for percent in (50, 99))
                what = f"healthy origins, milliseconds of a {kind}, {phase}, p50 / p99 (of)"
                report.row(what, f"{p50:.2f} / {p99:.2f} ({len(secs)})")
        for kind in ("read", "write"):
            for phase in ("outage", "replay"):
                before, now = self.p99(kind, "before"), self.p99(kind, phase)
                not_ours = max(0, self.p99("direct", phase) - self.p99("direct", "before"))
                slower = f"p99 of a {kind} went from {before * 1000:.2f} to {now * 1000:.2f} ms, {phase}"
                report.must(now <= MAX_FACTOR * before + MAX_MORE_SECS + not_ours, slower)


def resident_bytes(gateway):
    with open(f"/proc/{gateway.process.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024
