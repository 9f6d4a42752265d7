"""After an outage somebody else answers in the origin's place: a login page for every replay (200 text/html), then a
redirect to another host, then 511. Nothing may be taken for delivered, parked or given up, and no attempt be spent; when
the origin is back, everything is delivered once, in order. Once without a probe, so that the answers are all there is to
go by, and once with a probe that knows its origin. No write may even reach the portal: whoever is there after an outage
is looked at first. The writes are POSTs that must not be sent twice."""

from .checker import Kind, Outcome, check
from .gateway import LIVE_STATES, Gateway, eventually
from .origin import Origin
from .report import Report
from .writers import Writers

CONFIG = """
[upstreams.origin]
url = "{origin}"
{probe}

[[routes]]
name = "orders"
match = {{ path = "/**" }}
upstream = "origin"
write = {{ mode = "on-failure", order_by = "header:x-lane" }}

[queue]
recovery_spread = "0s"
replay_rate = "1000/s"
"""

# Only the origin counts its reads.
PROBE = """probe = { path = "/healthz", interval = "1s", body = '"reads"' }"""

# So many looks (or probes) each kind of portal must have answered before its turn is over; fewer and fewer, because the
# gateway looks less and less often.
PORTALS = {"login-page": 3, "login-redirect": 2, "login-required": 1}

PORTAL_WITHIN_SECS = 150

WRITES = 20


def add_arguments(_):
    """None."""


async def run(options):
    report = Report("captive-portal")
    for name, probe in (("unproven", ""), ("probed", PROBE)):
        directory = options.directory / name
        directory.mkdir()
        origin = await Origin.start(directory)
        gateway = Gateway(options.binary, directory, CONFIG.format(origin=origin.url, probe=probe))
        try:
            await gateway.start()
            writers = Writers(gateway, "/orders", Kind.PLAIN, "POST")
            await drill(gateway, origin, writers, Act(report, name))
        finally:
            gateway.kill()
            await origin.stop()
    return report


class Act:
    """A part of a report."""

    def __init__(self, report, name):
        self.report, self.name = report, name

    def row(self, what, value):
        self.report.row(f"{self.name}: {what}", value)

    def must(self, holds, otherwise):
        self.report.must(holds, f"{self.name}: {otherwise}")


async def drill(gateway, origin, writers, report):
    """An outage, then one portal after another, then the origin."""
    await origin.mode("refuse")
    await writers.send([f"lane-{i}" for i in range(5)], per_lane=WRITES // 5)
    before = await gateway.items(LIVE_STATES)
    report.row("writes queued over the outage", writers.count(Outcome.QUEUED))
    report.must(writers.count(Outcome.QUEUED) == len(before) == WRITES, f"not all were queued: {writers.writes}")

    for portal, answers in PORTALS.items():
        counts_before = await origin.counts()
        await origin.mode(portal)

        async def was_asked(times=counts_before["reads"] + answers):
            return (await origin.counts())["reads"] >= times

        await eventually(f"{answers} looks got to the portal ({portal})", was_asked, PORTAL_WITHIN_SECS)
        counts = await origin.counts()
        for which in ("reads", "writes"):
            report.row(f"{which} answered by {portal}", counts[which] - counts_before[which])
        report.must(counts["writes"] == 0, f"{portal} got a write, though a look tells that it is not the origin")
        hold(await gateway.items(f"{LIVE_STATES},parked,dead,done"), before, portal, report)

    await origin.mode("ok")
    await gateway.drained(within_secs=120)
    await conclude(gateway, origin, writers, report)


def hold(items, before, portal, report):
    """Every item is as it was when the outage began."""
    for identity, item in before.items():
        now = items.get(identity)
        report.must(now is not None, f"{portal}: {identity} is gone")
        if now is not None:
            # `sending` is allowed: the next canary is perhaps under way.
            report.must(now["state"] in LIVE_STATES.split(","), f"{portal}: {identity} became {now['state']}")
            is_same = now["state"] == "sending" or now["attempts"] == item["attempts"]
            report.must(is_same, f"{portal}: {identity} was charged {now['attempts']} attempts")


async def conclude(gateway, origin, writers, report):
    """Everything acknowledged was delivered, and the checker finds nothing."""
    states = {i: item["state"] for i, item in (await gateway.items(f"{LIVE_STATES},parked,dead")).items()}
    verdict = check(writers.writes, origin.executions(), states)
    for what, value in verdict.rows().items():
        report.row(what, value)
    for what, numbers in verdict.violations().items():
        report.must(False, f"{what}: {len(numbers)}, first {numbers[:10]}")
    report.must(not states, f"not delivered: {states}")
    report.must(not writers.unexpected, f"answers that are in no table: {dict(writers.unexpected)}")
