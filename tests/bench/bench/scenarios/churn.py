"""An hour of churn within small budgets: what grows that should not, and whether anybody is answered wrongly."""

import json
import pathlib
import random
import statistics
import sys
import time
import urllib.error
import urllib.request

from ..paced import Popularity, asking
from ..processes import Broken
from ..servers import Gateway
from ..stage import stage
from ..table import Table

MEMORY_MIB, DISK_MIB = 64, 512
# About 850 MiB together: more than both tiers hold.
OBJECTS = 40_000
EXPONENT = 0.8
PER_SEC = 1_000
SAMPLE_SECS = 10
# Of the whole time: 5, 10, 20, 40 and 60 minutes of an hour.
SHOWN = (1 / 12, 1 / 6, 1 / 3, 2 / 3, 1)
MIB = 1024 * 1024


class GatewaySmall(Gateway):
    storage = f'disk_free_min = "1KiB"\nmemory = "{MEMORY_MIB}MiB"\ndisk = "{DISK_MIB}MiB"'


def run(options):
    if options.churn_seconds < 2 * SAMPLE_SECS:
        raise Broken(f"--churn-seconds is at least {2 * SAMPLE_SECS}: it samples each {SAMPLE_SECS}")
    with stage(options.directory, GatewaySmall) as on:
        (server,) = on.servers
        popularity = Popularity(OBJECTS, EXPONENT)
        with asking(server.port, "/mixed/", popularity, PER_SEC) as asked:
            samples = watch(server, asked, popularity, options.churn_seconds)
        return shown(samples, asked.total(), server.cpu_secs(), options.churn_seconds)


def watch(server, asked, popularity, seconds):
    """Purges once a second, and samples, until the time is over."""
    began, second, failed, samples = time.monotonic(), 0, 0, []
    while second < seconds:
        # On a busy machine, what takes longer than a second uses up the next one.
        second = max(second + 1, int(time.monotonic() - began))
        time.sleep(max(0.0, began + second - time.monotonic()))
        failed += purge(server, second, popularity.draw())
        if second >= (len(samples) + 1) * SAMPLE_SECS:
            samples.append({"second": second} | sample(server))
            if len(samples) % 6 == 0:
                print(json.dumps(samples[-1] | asked.total()), file=sys.stderr, flush=True)
    if failed or asked.total()["failed"]:
        raise Broken(f"{failed} purges and {asked.total()['failed']} requests failed")
    return samples


def purge(server, second, number):
    """One URL, in turn removed and marked stale; every minute all that begin alike."""
    url = server.url(f"/mixed/{number}")
    selector = {"prefix": server.url(f"/mixed/{random.randint(10, 99)}")} if second % 60 == 0 else {"url": url}
    token = (server.directory / "data/admin.token").read_text().strip()
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.admin_port}/api/v1/cache/purge",
        json.dumps(selector | {"soft": second % 2 == 0}).encode(),
        {"authorization": f"Bearer {token}", "content-type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=60).read()
    except (urllib.error.URLError, TimeoutError) as error:
        # One of thousands must not end an hour of measuring; it is counted.
        print(f"a purge failed: {error}", file=sys.stderr)
        return 1
    return 0


def sample(server):
    process = pathlib.Path(f"/proc/{server.process.pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    kept = server.metrics()
    return {
        "rss": int(status["VmRSS"].split()[0]) * 1024,
        # Each by the gateway's own account.
        "memory tier": int(kept.get('hardtack_cache_bytes{tier="memory"}', 0)),
        "disk tier": int(kept.get('hardtack_cache_bytes{tier="disk"}', 0)),
        "files": sum(allocated_bytes(file) for file in (server.directory / "data").rglob("*")),
        "open files": len(list((process / "fd").iterdir())),
        "threads": int(status["Threads"]),
    }


def allocated_bytes(file):
    try:
        return file.stat().st_blocks * 512
    except FileNotFoundError:
        # It was evicted meanwhile.
        return 0


def shown(samples, asked, cpu_secs, seconds):
    marks = [samples[max(0, round(len(samples) * share) - 1)] for share in SHOWN]
    after = [f"{mark['second'] / 60:.3g} min" for mark in marks]
    title = f"{PER_SEC:,} requests a second for {seconds / 60:.3g} minutes"
    table = Table(title, ["", "budget", *after, "growth an hour"])
    for name, budget in {"rss": None, "memory tier": MEMORY_MIB, "disk tier": DISK_MIB, "files": None}.items():
        growth = f"{round(growth_per_hour(samples, name) / 1024):,} KiB"
        table.row(f"{name}, MiB", budget, *(mark[name] / MIB for mark in marks), growth)
    for name in ("open files", "threads"):
        table.row(name, None, *(mark[name] for mark in marks), growth_per_hour(samples, name))
    answers = ", ".join(f"{kind}: {count:,}" for kind, count in asked.items())
    table.notes = [
        f"{OBJECTS:,} objects of 1 to 100 KiB, Zipf {EXPONENT}; one in twenty may not be stored, one in five is fresh for ten "
        "seconds; one is purged each second, and one in ninety each minute. Growth: least squares over the second half.",
        f"{answers}. CPU: {cpu_secs / asked['requests'] * 1e5:.3g} s per 100,000.",
    ]
    return table


def growth_per_hour(samples, name):
    half = samples[len(samples) // 2 :]
    if len(half) < 2:
        return 0.0
    line = statistics.linear_regression([one["second"] for one in half], [one[name] for one in half])
    return line.slope * 3600
