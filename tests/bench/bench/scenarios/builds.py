"""Another build of the gateway beside this one: what options of the compiler, or a change, come to."""

from .. import table
from ..load import Wrk, rounds
from ..servers import Gateway
from ..stage import stage

LOADS = {
    "Two builds: hits of 1 KiB from memory": Wrk("/size/1k"),
    "Two builds: pass-through of 1 KiB that may not be stored": Wrk("/unstorable/1k"),
    "Two builds: misses of 1 KiB, each stored": Wrk("/object/0", "misses.lua"),
}


class GatewayBeside(Gateway):
    title = "the other build"


def run(options):
    GatewayBeside.binary = options.beside.resolve()
    with stage(options.directory, Gateway, GatewayBeside) as on:
        found = {title: rounds(on.servers, load, options, [on.origin]) for title, load in LOADS.items()}
    return "\n\n".join(str(table.of_runs(title, runs, Gateway.title)) for title, runs in found.items())
