"""kill -9 with a million entries on disk, and the time to the first hit from there."""

import time

from .. import work
from ..processes import get
from ..servers import Gateway
from ..stage import stage
from ..table import Table

ENTRIES = 1_000_000
OFTEN = 5
SETTLED_SECS = 2


class GatewayFull(Gateway):
    title = "hardtack"


def run(options):
    with stage(options.directory, GatewayFull) as on:
        (server,) = on.servers
        filled = work.fill(server, ENTRIES)
        settled(server)
        # One that is known to be there: while too much waits for the disk, an answer is in memory only.
        work.fill(server, 1, first=ENTRIES)
        kept = settled(server)
        table = Table("After kill -9", ["entries", "ms to the first hit from disk", "memory MB"])
        for _ in range(OFTEN):
            server.kill()
            took = first_hit(server)
            table.row(stored(server), took * 1e3, server.memory_bytes() / 1e6)
        table.notes = [f"{kept:,} entries, filled in {filled:.0f} s. From the start of the process to the whole answer."]
        return table


def first_hit(server):
    # Readiness is the hit itself.
    server.ready_path = f"/object/{ENTRIES}"
    took = server.start()
    status = get(server.url(server.ready_path)).headers["cache-status"]
    if "hit" not in status:
        raise work.Broken(f"not a hit: {status}")
    return took


def settled(server):
    """Entries on disk, once nothing waits for it any more."""
    before, now = None, stored(server)
    while before != now:
        time.sleep(SETTLED_SECS)
        before, now = now, stored(server)
    return now


def stored(server):
    """Entries on disk, by its own metrics."""
    deadline = time.monotonic() + 30
    while True:
        entries = server.metrics().get('hardtack_cache_entries{tier="disk"}')
        if entries is not None or time.monotonic() > deadline:
            return int(entries or 0)
        time.sleep(0.1)
