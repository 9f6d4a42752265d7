"""200,000 objects of 1 KiB, asked for by a Zipf distribution, with memory for a tenth of them."""

from .. import table
from ..load import Wrk, rounds
from ..servers import Gateway, Nginx, Varnish
from ..stage import stage
from ..work import fill

OBJECTS = 200_000
# Exponents of web caches lie between 0.6 and 0.9 (Breslau et al., 1999).
EXPONENT = 0.8


class GatewayTenth(Gateway):
    storage = 'disk_free_min = "1KiB"\nmemory = "40MiB"'


class VarnishTenth(Varnish):
    """No second tier: what does not fit is fetched again."""

    title = "Varnish, memory only"
    malloc = "40m"


def run(options):
    with stage(options.directory, GatewayTenth, Nginx, VarnishTenth) as on:
        for server in on.servers:
            fill(server, OBJECTS)
        load = Wrk("/object/0", "zipf.lua", arguments=[OBJECTS, EXPONENT])
        found = rounds(on.servers, load, options, [on.origin])
        title = f"{OBJECTS:,} objects, Zipf {EXPONENT}, 40 MiB of memory"
        return table.of_runs(title, found, "nginx", table.missing(on.missing))
