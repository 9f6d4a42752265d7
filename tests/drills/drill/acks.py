"""How fast writes are acknowledged, each on the disk: 64 writers against one, and against the disk itself.

Bounds: 64 writers get at least 10 times the rate of one (they share commits), and the p99 of their 202 is at most 8 times
that of writing 4 KiB and fdatasync, measured on the same disk in the same run, before, between and after."""

import asyncio
import os
import time

from . import wire
from .gateway import Gateway
from .origin import Origin
from .report import Report, percentile
from .writers import numbered

CONFIG = """
[upstreams.origin]
url = "{origin}"

[[routes]]
name = "orders"
match = {{ path = "/**" }}
upstream = "origin"
write = {{ mode = "always", order_by = "header:x-lane" }}

[queue]
max_items = 1000000
max_lane_items = 1000000
max_client_items = 1000000

[limits]
max_connections_per_client = 1000
"""

MANY = 64
MIN_RATIO = 10
MAX_OF_THE_DISK = 8


def add_arguments(options):
    options.add_argument("--seconds", type=float, default=5, help="of each of the two measurements, taken twice")


async def run(options):
    report = Report("acks")
    origin = await Origin.start(options.directory)
    gateway = Gateway(options.binary, options.directory, CONFIG.format(origin=origin.url))
    try:
        # Nothing is delivered meanwhile: it is acknowledging that is measured.
        await origin.mode("refuse")
        await gateway.start()
        await measure(gateway, options, report)
    finally:
        gateway.kill()
        await origin.stop()
    return report


async def measure(gateway, options, report):
    synced, one, many = [], [], []
    seconds = options.seconds
    # Opens what opens lazily, and finds the origin lost.
    await acknowledge(gateway, MANY, 1)
    for _ in range(2):
        synced += sync_alone(options.directory / "beside", 1)
        one += await acknowledge(gateway, 1, seconds)
        synced += sync_alone(options.directory / "beside", 1)
        many += await acknowledge(gateway, MANY, seconds)
    synced += sync_alone(options.directory / "beside", 1)

    report.row("milliseconds of 4 KiB and fdatasync, p50 / p99", quantiles(synced))
    for writers, took in ((1, one), (MANY, many)):
        report.row(f"acknowledged a second, {writers} writers", len(took) / (2 * seconds))
        report.row(f"milliseconds to the 202, {writers} writers, p50 / p99", quantiles(took))
    ratio = len(many) / len(one)
    of_the_disk = percentile(many, 99) / percentile(synced, 99)
    report.row("rate, 64 writers to 1", ratio)
    report.row("p99, 64 writers to the disk", of_the_disk)
    report.must(ratio >= MIN_RATIO, f"64 writers get {ratio:.1f} times the rate of one, not {MIN_RATIO}")
    report.must(of_the_disk <= MAX_OF_THE_DISK, f"the p99 is {of_the_disk:.1f} times the disk's, not {MAX_OF_THE_DISK}")


def quantiles(secs):
    return " / ".join(f"{percentile(secs, percent) * 1000:.2f}" for percent in (50, 99))


def sync_alone(file, seconds):
    """Seconds that each write of 4 KiB with its fdatasync took, one after the other."""
    took = []
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        os.write(descriptor, bytes(4096))
        os.fdatasync(descriptor)
        took.append(time.perf_counter() - began)
    os.close(descriptor)
    return took


async def acknowledge(gateway, writers, seconds):
    """Seconds that each 202 took, for so many writers at the same time."""
    loop = asyncio.get_running_loop()
    end = time.perf_counter() + seconds
    connecting = [
        loop.create_connection(lambda lane=lane: Writer(lane, end), "127.0.0.1", gateway.port) for lane in range(writers)
    ]
    made = [writer for _, writer in await asyncio.gather(*connecting)]
    await asyncio.gather(*(writer.ended for writer in made))
    return [took for writer in made for took in writer.took]


class Writer(asyncio.Protocol):
    """Sends its write again whenever it is acknowledged. A bare protocol, and always the same bytes: the client shares the
    machine with what it measures, so it must cost little."""

    def __init__(self, lane, end):
        fields, content = numbered(0, f"lane-{lane}")
        self.request = wire.request_bytes("POST", "/orders", {"host": "gateway", **fields}, content)
        self.end = end
        self.took, self.received = [], b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        self.send()

    def send(self):
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data):
        self.received += data
        head, end_of_head, content = self.received.partition(b"\r\n\r\n")
        if not end_of_head or len(content) < content_length(head):
            return
        now = time.perf_counter()
        if not head.startswith(b"HTTP/1.1 202 "):
            self.fail(head + content)
            return
        self.took.append(now - self.began)
        self.received = b""
        if now < self.end:
            self.send()
        else:
            self.ended.set_result(None)
            self.transport.abort()

    def connection_lost(self, error):
        self.fail(repr(error))

    def fail(self, what):
        if not self.ended.done():
            self.ended.set_exception(ConnectionError(f"not acknowledged: {what}"))


def content_length(head):
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0
