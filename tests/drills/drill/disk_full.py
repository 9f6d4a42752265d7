"""Fills the disk (a small tmpfs) under the gateway, up to the last byte, while writes come and while results must be
recorded. Whatever cannot be stored must be refused with 503 before any 202; nothing acknowledged may be lost; and once
there is room again the queue must go on by itself, without a restart. Then the same with kill -9 on the full disk.

Mounting takes root, or leave to make a user namespace; without either the drill is skipped, and says so."""

import shutil

from .captive_portal import conclude
from .checker import Kind, Outcome
from .gateway import LIVE_STATES, Failed, Gateway, eventually
from .mounts import NOT_ALLOWED, enter_namespace, small_disk
from .origin import Origin
from .report import Report
from .writers import Writers

CONFIG = """
[upstreams.origin]
url = "{origin}"

[[routes]]
name = "orders"
match = {{ path = "/orders" }}
upstream = "origin"
write = {{ mode = "always", order_by = "header:x-lane" }}

[[routes]]
name = "reads"
match = {{ path = "/**" }}
upstream = "origin"

[queue]
recovery_spread = "0s"
replay_rate = "1000/s"
"""

DISK_MIB = 96

BODY_BYTES = 60_000

LANES = [f"lane-{i}" for i in range(4)]


def add_arguments(_):
    """None."""


async def run(options):
    report = Report("disk-full")
    if not enter_namespace(options.directory):
        report.skipped = NOT_ALLOWED
        return report
    origin = await Origin.start(options.directory)
    with small_disk(options.directory / "disk", DISK_MIB) as disk:
        config = CONFIG.format(origin=origin.url)
        gateway = Gateway(options.binary, options.directory, config, data=disk / "data")
        drill = DiskFull(gateway, origin, disk, report)
        try:
            await gateway.start()
            await drill.recovers_without_a_restart()
            await drill.survives_a_kill()
            await conclude(gateway, origin, drill.writers, report)
        finally:
            gateway.kill()
            await origin.stop()
    return report


class DiskFull:
    """The two acts, and what they share."""

    def __init__(self, gateway, origin, disk, report):
        self.gateway, self.origin, self.disk, self.report = gateway, origin, disk, report
        self.writers = Writers(gateway, "/orders", Kind.PLAIN)
        self.ballast = disk / "ballast"

    async def recovers_without_a_restart(self):
        await self.gateway.send("GET", "/page")
        await self.origin.mode("refuse")
        self.fill(leave_bytes=24 << 20)
        await self.write_until_refused("until the disk was full")
        await self.hold_nothing_is_missing("when writes were refused")

        self.fill()
        await self.writers.send(LANES, per_lane=5, filling=200)
        await self.hold_nothing_is_missing("with not a byte free")
        page = await self.gateway.send("GET", "/page")
        self.report.must(page.status == 200, f"with a full disk a stored page is answered {page.status}")

        # Results come in while the disk is full: there is a reserve for them.
        await self.origin.mode("ok")
        await eventually("reads reach the origin again", self.is_connected, 60, pause_secs=0.5)
        await self.settled()
        self.report.row("delivered while the disk was full", len(self.origin.executions()))
        self.report.must(self.origin.executions(), "nothing is delivered while the disk is full")
        await self.origin.mode("refuse")

        self.ballast.unlink()
        await self.accepts_again()
        await self.origin.mode("ok")
        await self.gateway.drained(within_secs=120)

    async def survives_a_kill(self):
        await self.origin.mode("refuse")
        self.fill(leave_bytes=24 << 20)
        await self.write_until_refused("until it was full again")
        self.fill()
        await self.writers.send(LANES, per_lane=2, filling=200)
        self.gateway.kill()
        self.report.row("starts on a full disk", await self.starts())
        self.ballast.unlink()
        if self.gateway.process.poll() is not None:
            await self.gateway.start()
        await self.hold_nothing_is_missing("after kill -9 on a full disk")
        await self.accepts_again()
        await self.origin.mode("ok")
        await self.gateway.drained(within_secs=120)

    async def starts(self):
        try:
            return f"yes, in {await self.gateway.start():.3f} s"
        except Failed:
            return "no; it ended"

    def fill(self, leave_bytes=0):
        """Takes what is free on the disk, but for so many bytes."""
        with open(self.ballast, "ab", buffering=0) as file:
            free = shutil.disk_usage(self.disk).free - leave_bytes
            try:
                while free > 0:
                    free -= file.write(bytes(min(free, 1 << 20)))
            except OSError:
                # What the gateway wrote meanwhile is missing here.
                pass

    async def write_until_refused(self, when):
        queued_before, refused_before = (self.writers.count(outcome) for outcome in (Outcome.QUEUED, Outcome.REFUSED))
        for _ in range(1000):
            if self.writers.count(Outcome.REFUSED) >= refused_before + 20:
                break
            await self.writers.send(LANES, per_lane=1, filling=BODY_BYTES)
        refused = self.writers.count(Outcome.REFUSED) - refused_before
        queued = self.writers.count(Outcome.QUEUED) - queued_before
        self.report.row(f"writes queued / refused {when}", f"{queued} / {refused}")
        self.report.must(queued, f"no write was queued {when}")
        self.report.must(refused, "the disk is full, and nothing was refused")
        self.report.must(self.writers.count(Outcome.UNKNOWN) == 0, "a full disk ended connections")

    async def hold_nothing_is_missing(self, when):
        items = await self.gateway.items(f"{LIVE_STATES},parked,dead")
        queued = [write for write in self.writers.writes if write.outcome is Outcome.QUEUED]
        executed = {line["number"] for line in self.origin.executions()}
        missing = [write.number for write in queued if write.item not in items and write.number not in executed]
        self.report.row(f"acknowledged and missing {when}", len(missing))
        self.report.must(not missing, f"acknowledged and missing {when}: {missing[:10]}")

    async def settled(self):
        """Waits until the origin has executed nothing new for some seconds; perhaps nothing can be delivered at all."""
        seen = []

        async def is_still():
            seen.append(len(self.origin.executions()))
            return len(seen) > 5 and seen[-5] == seen[-1]

        await eventually("deliveries on the full disk end or stop", is_still, 120, pause_secs=1)

    async def is_connected(self):
        return (await self.gateway.send("GET", "/other-page")).status == 200

    async def accepts_again(self):
        """There is room: the next write, or one soon after, is acknowledged."""

        async def is_accepted():
            before = self.writers.count(Outcome.QUEUED)
            await self.writers.send(["lane-again"], per_lane=1, filling=200)
            return self.writers.count(Outcome.QUEUED) > before

        await eventually("with room on the disk, writes are acknowledged again", is_accepted, 30)
