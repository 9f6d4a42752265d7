"""Memory per stored object of 1 KiB, all told: what the process grows by."""

import subprocess

from ..servers import Gateway, Nginx, Varnish
from ..stage import stage
from ..table import Table, missing
from ..work import fill

OBJECTS = 200_000


class GatewayLarge(Gateway):
    storage = 'disk_free_min = "1KiB"\nmemory = "2GiB"'


def run(options):
    table = Table(f"Memory per stored object of 1 KiB ({OBJECTS:,} of them)", ["", "bytes each", "and in files on a tmpfs"])
    with stage(options.directory, GatewayLarge, Nginx, Varnish) as on:
        for server in on.servers:
            # What is opened and allocated by the first ones is not of each.
            fill(server, 1_000, first=OBJECTS)
            before = server.memory_bytes()
            fill(server, OBJECTS)
            grown = server.memory_bytes() - before
            files = kept_bytes(server.tmpfs()) // OBJECTS if isinstance(server, Nginx) else 0
            table.row(server.title, grown // OBJECTS, files)
        table.notes = missing(on.missing) + ["Growth of the proportional set size from 1,000 objects on."]
    return table


def kept_bytes(directory):
    """Bytes that its files take up."""
    return int(subprocess.run(["du", "-sB1", directory], capture_output=True, text=True, check=True).stdout.split()[0])
