"""Writes acknowledged into the queue: each on the disk before its 202."""

import statistics

from ..load import Wrk, measure
from ..servers import Gateway
from ..stage import stage
from ..table import Table
from ..work import sync_alone

QUEUE = """
[queue]
max_items = 10000000
max_lane_items = 10000000
max_client_items = 10000000
"""


def run(options):
    with stage(options.directory) as on:
        server = on.add(Gateway, route='write = { mode = "always", order_by = "header:x-lane" }', extra=QUEUE)
        server.start()
        on.origin.kill()
        return of_writers(server, options)


def of_writers(server, options):
    counts = (1, 8, 64)
    found, synced = {count: [] for count in counts}, []
    for _ in range(options.rounds):
        for count in counts:
            synced += sync_alone(server.directory / "beside", 0.5)
            # wrk has two threads, and each at least one connection.
            load = Wrk("/orders", "write.lua", max(count, 2))
            found[count].append(measure(server, load, options.seconds))
    table = Table("Writes acknowledged", ["writers", "a second", "CPU us a write", "p50 ms", "p99 ms", "failed"])
    for count, runs in found.items():
        middle = lambda of: statistics.median(map(of, runs))
        table.row(
            str(max(count, 2)),
            middle(lambda run: run.per_sec),
            middle(lambda run: run.cpu_per_100k * 10),
            middle(lambda run: run.p50_us / 1e3),
            middle(lambda run: run.p99_us / 1e3),
            sum(run.errors + run.bad for run in runs),
        )
    ordered = sorted(synced)
    p50, p99 = (ordered[len(ordered) * part // 100] * 1e3 for part in (50, 99))
    table.notes = [f"4 KiB and fdatasync on the same disk, between the runs: p50 {p50:.2f} ms, p99 {p99:.2f} ms."]
    return table
