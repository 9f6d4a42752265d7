"""Hits from the disk tier, in the page cache, beside hits from memory."""

from .. import table
from ..load import Wrk, measure, rounds
from ..servers import Gateway, Nginx
from ..stage import stage
from ..work import fill

OBJECTS = 20_000
ANY = Wrk("/object/0", "objects.lua", arguments=[OBJECTS])


class GatewayDisk(Gateway):
    title = "hardtack, from disk"
    storage = 'disk_free_min = "1KiB"\nmemory = "1MiB"'


class GatewayMemory(Gateway):
    title = "hardtack, from memory"


def run(options):
    with stage(options.directory, GatewayMemory, GatewayDisk, Nginx) as on:
        for server in on.servers:
            fill(server, OBJECTS)
        before = on.origin.count()
        found = rounds(on.servers, ANY, options)
        asked = on.origin.count() - before
        made = table.of_runs(f"Hits of {OBJECTS:,} objects of 1 KiB, at random", found, GatewayMemory.title, table.missing(on.missing))
        made.notes.append(f"The origin was asked {asked} times meanwhile.")
        return made
