"""The disk fails under the gateway: its file system (an ext4 of its own) becomes read-only while writes come and while
results must be recorded. What cannot be stored must be refused with 503; what cannot be noted as sent must not be sent
where a repetition would do harm; stored pages are still served; and after the disk is mended and the gateway started
again, everything acknowledged is delivered once.

Needs root and a loop device; without them the drill is skipped, and says so."""

from .captive_portal import conclude
from .checker import Kind, Outcome
from .disk_full import CONFIG, LANES
from .gateway import Gateway, eventually
from .mounts import NOT_ALLOWED, BreakableDisk, enter_namespace
from .origin import Origin
from .report import Report
from .writers import Writers


def add_arguments(_):
    """None."""


async def run(options):
    report = Report("read-only")
    disk = BreakableDisk(options.directory / "disk")
    if not enter_namespace(options.directory) or not disk.make():
        disk.unmount()
        report.skipped = f"{NOT_ALLOWED}; or no ext4, no loop device"
        return report
    origin = await Origin.start(options.directory)
    config = CONFIG.format(origin=origin.url)
    gateway = Gateway(options.binary, options.directory, config, data=disk.path / "data")
    try:
        await gateway.start()
        await drill(gateway, origin, disk, report)
    finally:
        gateway.kill()
        await origin.stop()
        disk.unmount()
    return report


async def drill(gateway, origin, disk, report):
    writers = Writers(gateway, "/orders", Kind.PLAIN)
    await gateway.send("GET", "/page")
    await origin.mode("refuse")
    await writers.send(LANES, per_lane=25)
    report.row("writes queued", writers.count(Outcome.QUEUED))

    disk.fail()
    await writers.send(LANES, per_lane=5)
    refused = writers.count(Outcome.REFUSED)
    report.row("writes to the read-only disk / refused", f"{5 * len(LANES)} / {refused}")
    report.must(refused == 5 * len(LANES), f"not all were refused: {writers.unexpected}, {writers.writes[-20:]}")
    page = await gateway.send("GET", "/page")
    report.must(page.status == 200, f"a stored page is answered {page.status}")

    # Deliveries could begin; none can be noted as begun.
    await origin.mode("ok")

    async def is_connected():
        return (await gateway.send("GET", "/another-page")).status == 200

    await eventually("reads reach the origin again", is_connected, 60, pause_secs=0.5)
    executed = len(origin.executions())
    report.row("delivered from the read-only disk", executed)

    gateway.kill()
    disk.mend()
    await gateway.start()
    await gateway.drained(within_secs=90)
    await conclude(gateway, origin, writers, report)
