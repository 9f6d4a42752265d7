"""Hits from memory, of four sizes."""

from .. import table
from ..load import Wrk, rounds
from ..servers import Floor, FloorPerCore, FloorPlain, FloorSendfile, Gateway, Haproxy, Nginx, NginxBuffers, Varnish
from ..stage import stage

SIZES = {"1k": "1 KiB", "10k": "10 KiB", "100k": "100 KiB", "1m": "1 MiB"}


class GatewayLogged(Gateway):
    title = "hardtack, every access event written"
    extra = '[telemetry]\nlog = { format = "json", level = "info" }\naccess = { hits = "all", other = "all" }'


def run(options):
    caches = (Gateway, GatewayLogged, Nginx, NginxBuffers, Haproxy, Varnish)
    with stage(options.directory, *caches, Floor, FloorPerCore, FloorPlain, FloorSendfile) as on:
        return "\n\n".join(str(of_size(on, name, title, options)) for name, title in SIZES.items())


def of_size(on, name, title, options):
    # What a log costs shows best on the smallest, what sendfile saves on all others.
    skipped = FloorPlain if name == "1k" else GatewayLogged
    measured = [server for server in on.servers if not isinstance(server, skipped)]
    found = rounds(measured, Wrk(f"/size/{name}"), options)
    return table.of_runs(f"Hits of {title} from memory", found, "nginx", table.missing(on.missing))
