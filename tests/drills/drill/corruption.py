"""Damages `queue.redb` and the spool while the gateway is down: flipped bytes, a truncated file, an empty one. Each time
the process must start and serve, if need be at a second try, deliver all that can be read, unaltered, and count what cannot."""

import random
import shutil
import signal

from .checker import Kind, Outcome, check
from .gateway import LIVE_STATES, Failed, Gateway
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
# What is dead, because it cannot be read, must not hold up what can.
write = {{ mode = "on-failure", order_by = "header:x-lane", on_stuck = "continue" }}

[[routes]]
name = "reads"
match = {{ path = "/**" }}
upstream = "origin"

[queue]
recovery_spread = "0s"
replay_rate = "10000/s"
"""

DATABASE = "queue.redb"
SPOOL = "spool"
PAGE_BYTES = 4096
# The first byte of a page that only leads to others.
BRANCH = 2
# The type of the keys of redb's own tables; the kind of the type of the values follows.
OWN_KEYS = b"redb::TransactionIdWithPagination"


def add_arguments(options):
    options.add_argument("--rounds", type=int, default=15)
    options.add_argument("--seed", type=int, default=None, help="of the places that are damaged; printed by each run")


async def run(options):
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    report = Report("corruption")
    report.row("seed", seed)
    origin = await Origin.start(options.directory, sync=False)
    gateway = Gateway(options.binary, options.directory, CONFIG.format(origin=origin.url))
    try:
        await gateway.start()
        writers = Writers(gateway, "/orders", Kind.PLAIN)
        await origin.mode("refuse")
        await writers.send([f"lane-{i}" for i in range(10)], per_lane=30)
        await writers.send(["large"], per_lane=10, filling=100_000)
        report.row("writes queued", writers.count(Outcome.QUEUED))
        gateway.kill()
        whole = options.directory / "whole"
        shutil.copytree(gateway.data, whole)
        await origin.mode("ok")
        dice = random.Random(seed)
        for number in range(options.rounds):
            damage = DAMAGES[number % len(DAMAGES)]
            shutil.rmtree(gateway.data)
            shutil.copytree(whole, gateway.data)
            damage(gateway.data, dice)
            what = f"{number + 1}. {damage.__name__.replace('_', ' ')}"
            delivered = await survive(what, gateway, origin, writers.writes, report)
            if damage is pages_that_lead_the_wrong_way:
                report.must(delivered == len(writers.writes), f"{what}: {delivered} delivered, and every record is there")
            gateway.kill()
    finally:
        gateway.kill()
        await origin.stop()
    return report


async def survive(what, gateway, origin, writes, report):
    had = len(origin.executions())
    try:
        seconds = await gateway.start()
    except Failed:
        # The library panicked on the way out of a panic. Whoever supervises the process starts it once more.
        if gateway.process.returncode != -signal.SIGABRT:
            raise
        what += " (twice)"
        seconds = await gateway.start()
    page = await gateway.send("GET", "/page")
    report.must(page.status == 200, f"{what}: a read is answered {page.status}")
    await gateway.drained(within_secs=90)
    new = await gateway.send("POST", "/orders", {"x-lane": "new", "content-type": "application/json"}, b"{}")
    report.must(new.status in (200, 202), f"{what}: a new write is answered {new.status}")

    states = {i: item["state"] for i, item in (await gateway.items(f"{LIVE_STATES},parked,dead")).items()}
    executions = origin.executions()[had:]
    verdict = check(writes, executions, states)
    parked, dead = (sum(state == which for state in states.values()) for which in ("parked", "dead"))
    errors = await gateway.metric("hardtack_storage_errors_total")
    report.row(
        what,
        f"started in {seconds:.2f} s, delivered {len(executions)}, parked {parked}, dead {dead}, "
        f"gone {len(verdict.lost)}, counted {errors:.0f}",
    )
    report.must(not (verdict.lost and not errors), f"{what}: {len(verdict.lost)} writes are gone, and nothing was counted")
    for kind, numbers in verdict.violations().items():
        report.must(kind == "lost", f"{what}: {kind}: {numbers[:10]}")
    return len(executions)


def flip(file, dice, times):
    content = bytearray(file.read_bytes())
    for _ in range(times):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    file.write_bytes(content)


def cut(file, keep_bytes):
    with open(file, "r+b") as opened:
        opened.truncate(keep_bytes)


def one_flipped_bit(data, dice):
    flip(data / DATABASE, dice, 1)


def hundred_flipped_bits(data, dice):
    flip(data / DATABASE, dice, 100)


def hundred_flipped_bits_and_what_only_a_commit_reads(data, dice):
    """Of what kind the values of the database's own tables are: it reads that when it writes, and trusts it."""
    file = data / DATABASE
    content = file.read_bytes()
    assert OWN_KEYS in content, "the database keeps its own tables otherwise"
    file.write_bytes(content.replace(OWN_KEYS + b"\x01", OWN_KEYS + b"\xff"))
    flip(file, dice, 100)


def a_page_of_zeros(data, dice):
    file = data / DATABASE
    content = bytearray(file.read_bytes())
    start = dice.randrange(len(content) // PAGE_BYTES) * PAGE_BYTES
    content[start : start + PAGE_BYTES] = bytes(PAGE_BYTES)
    file.write_bytes(content)


def pages_that_lead_the_wrong_way(data, _):
    """Every record is there; who looks for it by its id does not find it. After the number of keys and, for each of the pages
    below, its checksum and its number, come the keys, of 16 bytes each."""
    file = data / DATABASE
    content = bytearray(file.read_bytes())
    for start in range(0, len(content), PAGE_BYTES):
        keys = int.from_bytes(content[start + 2 : start + 4], "little")
        first, length = start + 8 + 24 * (keys + 1), 16 * keys
        if content[start] == BRANCH and first + length <= start + PAGE_BYTES:
            content[first : first + length] = bytes(length)
    file.write_bytes(content)


def flipped_bits_in_the_header(data, dice):
    file = data / DATABASE
    content = bytearray(file.read_bytes())
    for _ in range(4):
        content[dice.randrange(320)] ^= 1 << dice.randrange(8)
    file.write_bytes(content)


def half_of_the_file(data, _):
    cut(data / DATABASE, (data / DATABASE).stat().st_size // 2)


def a_random_part_of_the_file(data, dice):
    cut(data / DATABASE, dice.randrange((data / DATABASE).stat().st_size))


def an_empty_file(data, _):
    cut(data / DATABASE, 0)


def garbage(data, dice):
    (data / DATABASE).write_bytes(dice.randbytes(100_000))


def a_flipped_bit_in_a_spooled_body(data, dice):
    flip(dice.choice(spooled(data)), dice, 1)


def a_truncated_spooled_body(data, dice):
    cut(dice.choice(spooled(data)), 1000)


def a_missing_spooled_body(data, dice):
    dice.choice(spooled(data)).unlink()


def spooled(data):
    return sorted(file for file in (data / SPOOL).rglob("*") if file.is_file())


DAMAGES = [
    one_flipped_bit,
    hundred_flipped_bits,
    hundred_flipped_bits_and_what_only_a_commit_reads,
    a_page_of_zeros,
    pages_that_lead_the_wrong_way,
    flipped_bits_in_the_header,
    half_of_the_file,
    a_random_part_of_the_file,
    an_empty_file,
    garbage,
    a_flipped_bit_in_a_spooled_body,
    a_truncated_spooled_body,
    a_missing_spooled_body,
]
