"""Hits from memory while the disk is slow: alone, beside misses that are stored, and beside those with a slow disk."""

import collections
import contextlib
import mmap
import os
import struct
import subprocess

from ..load import HERE, Wrk, median, rounds
from ..paced import EachOnce, asking
from ..processes import Broken
from ..servers import Gateway
from ..stage import stage
from ..table import Table

# Of 1 to 100 KiB; one in twenty may not be stored.
MISSES_PER_SEC = 300
SYNC_MS, TRANSFER_MS = 100, 5


class GatewayAlone(Gateway):
    title = "nothing else"


class GatewayBeside(Gateway):
    title = "beside misses that are stored"

    def __init__(self, *arguments, **changes):
        super().__init__(*arguments, **changes)
        self.numbers = EachOnce()
        self.asked = []

    def asking(self):
        return asking(self.port, "/mixed/", self.numbers, MISSES_PER_SEC)

    def outcomes(self):
        """What came of all its misses so far."""
        return sum((collections.Counter(asked.total()) for asked in self.asked), collections.Counter())

    def stored(self):
        return int(self.metrics().get('hardtack_cache_entries{tier="disk"}', 0))

    def given_up(self):
        """Not written: too much waited for the disk."""
        return int(self.metrics().get('hardtack_storage_errors_total{op="skipped"}', 0))


class GatewaySlow(GatewayBeside):
    """Its calls to the disk wait (slow_disk.c)."""

    title = "the same, and the disk is slow"

    @property
    def environment(self):
        library, counters = self.directory / "slow_disk.so", self.directory / "waited"
        if not library.exists():
            compiling = ["cc", "-O2", "-shared", "-fPIC", "-o", library, HERE / "slow_disk.c"]
            if (run := subprocess.run(compiling, capture_output=True, text=True)).returncode != 0:
                raise Broken(f"slow_disk.c: {run.stderr}")
            counters.write_bytes(bytes(mmap.PAGESIZE))
        return {
            "LD_PRELOAD": str(library),
            "SLOW_DISK": os.path.realpath(self.directory / "data"),
            "SLOW_DISK_SYNC_MS": str(SYNC_MS),
            "SLOW_DISK_TRANSFER_MS": str(TRANSFER_MS),
            "SLOW_DISK_WAITED": str(counters),
        }

    def waited(self):
        """Syncs and transfers that were slow so far."""
        return struct.unpack_from("=QQ", (self.directory / "waited").read_bytes())


def run(options):
    with stage(options.directory, GatewayAlone, GatewayBeside, GatewaySlow) as on:
        _, beside, slow = on.servers
        before = slow.waited()
        found = rounds(on.servers, Wrk("/size/1k"), options, [on.origin], misses)
        waited = [after - before for after, before in zip(slow.waited(), before)]
        check(beside, slow, waited, options)
        return shown(found, beside, slow, waited)


@contextlib.contextmanager
def misses(server):
    """Asks `server` for what it does not have, if it is one of those."""
    if not isinstance(server, GatewayBeside):
        yield
        return
    with server.asking() as asked:
        server.asked.append(asked)
        yield


def check(beside, slow, waited, options):
    """A slow disk that nobody waited for would show nothing."""
    for server in (beside, slow):
        outcomes = server.outcomes()
        if outcomes["failed"] or outcomes["fwd=uri-miss"] != outcomes["requests"]:
            raise Broken(f"{server.title}: not all were misses: {outcomes}")
    if waited_secs(*waited) < options.rounds * options.seconds / 2:
        raise Broken(f"the disk was not slow: {waited} syncs and transfers waited")
    shares = [server.stored() / server.outcomes()["requests"] for server in (slow, beside)]
    if shares[0] >= shares[1]:
        raise Broken(f"as much is stored on the slow disk: {shares}")


def waited_secs(syncs, transfers):
    return (syncs * SYNC_MS + transfers * TRANSFER_MS) / 1e3


def shown(found, beside, slow, waited):
    columns = ["", "requests/s", "CPU s/100k", "p50 ms", "p99 ms", "ratio", "slowest ms", "failed"]
    table = Table("Hits of 1 KiB from memory while the disk is slow", columns)
    alone = median(found[GatewayAlone.title], lambda run: run.p99_us)
    for name, runs in found.items():
        p99 = median(runs, lambda run: run.p99_us)
        table.row(
            name,
            median(runs, lambda run: run.per_sec),
            median(runs, lambda run: run.cpu_per_100k),
            median(runs, lambda run: run.p50_us) / 1e3,
            p99 / 1e3,
            p99 / alone,
            median(runs, lambda run: run.max_us) / 1e3,
            sum(run.bad + run.errors for run in runs),
        )
    foreign = max(run.foreign for runs in found.values() for run in runs)
    (syncs, transfers), secs = waited, waited_secs(*waited)
    kept = [f"{server.stored():,} of {server.outcomes()['requests']:,}" for server in (beside, slow)]
    table.notes = [
        f"Misses: {MISSES_PER_SEC} a second of 1 to 100 KiB, of which one in twenty may not be stored; CPU is with theirs.",
        f"Slow: each sync of a file or directory of the gateway's takes {SYNC_MS} ms longer, each read and write {TRANSFER_MS} "
        f"ms, held up before the system call, and nothing is in the page cache. {syncs:,} syncs and {transfers:,} transfers were, {secs:,.0f} s together. Entries on "
        f"disk at the end: {kept[0]} that were asked for, with the slow disk {kept[1]}; {slow.given_up():,} were not to be "
        "written, as too much waited.",
        f"{len(found[GatewayAlone.title])} interleaved runs each, medians; ratio of p99 to the first. Clients that wait do "
        f"not ask: what they waited for is in the slowest. Of other processes at most {foreign:.2f} of a core.",
    ]
    return table
