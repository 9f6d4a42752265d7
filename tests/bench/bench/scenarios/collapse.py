"""200 requests for one URL in the same moment, for which the origin waits 20 ms before it answers."""

import itertools
import json
import statistics
import subprocess

from .. import servers
from ..processes import Broken
from ..servers import Gateway, Haproxy, Nginx, Varnish
from ..stage import stage
from ..table import Table, missing

CLIENTS = 200
ALONE = "the origin itself, one request"
URLS = {"An answer that may be stored": "/slow/", "An answer that may not be stored": "/slow-unstorable/"}
keys = itertools.count()


def run(options):
    with stage(options.directory, Gateway, Nginx, Haproxy, Varnish) as on:
        return "\n\n".join(str(of_url(on, title, path, options)) for title, path in URLS.items())


def of_url(on, title, path, options):
    found = {ALONE: []} | {server.title: [] for server in on.servers}
    for _ in range(options.rounds):
        found[ALONE].append(burst(on.origin, on.origin, f"{path}{next(keys)}", clients=1))
        for server in on.servers:
            found[server.title].append(burst(on.origin, server, f"{path}{next(keys)}"))
    table = Table(f"{CLIENTS} at once, cold: {title.lower()}", ["", "requests at the origin", "median ms", "slowest ms"])
    for name, runs in found.items():
        middle = [statistics.median(run[column] for run in runs) for column in ("asked", "median_ms", "slowest_ms")]
        table.row(name, int(middle[0]), *middle[1:])
    note = f"{options.rounds} interleaved runs each, medians; the origin waits 20 ms before it answers."
    table.notes = [*missing(on.missing), note]
    return table


def burst(origin, server, path, clients=CLIENTS):
    before = origin.count()
    command = [servers.RIG, "burst", "--to", f"127.0.0.1:{server.port}", "--path", path, "--clients", str(clients)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise Broken(f"{server.title}: {run.stderr}")
    return json.loads(run.stdout) | {"asked": origin.count() - before}
