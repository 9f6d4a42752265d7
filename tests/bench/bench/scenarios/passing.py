"""Answers that nobody may store, and uploads: the way through."""

from .. import table
from ..load import Wrk, rounds
from ..servers import FloorPass, Gateway, Haproxy, HaproxyPass, Nginx, NginxPass, Varnish
from ..stage import stage

GETS = {
    "Pass-through of 1 KiB that may not be stored": Wrk("/unstorable/1k"),
    "Pass-through of 1 MiB that may not be stored": Wrk("/unstorable/1m"),
}
UPLOADS = {"Uploads of 1 MiB": Wrk("/upload", "upload.lua")}


class GatewayUnlogged(Gateway):
    """As its peers are run: without an access log."""

    title = "hardtack, without access events"
    extra = '[telemetry]\naccess = { hits = "none", other = "none" }'


def run(options):
    servers = (NginxPass, Nginx, Gateway, GatewayUnlogged, Haproxy, HaproxyPass, Varnish, FloorPass)
    with stage(options.directory, *servers) as on:
        tables = [of_load(on, on.servers, title, load, options) for title, load in GETS.items()]
        # The floor takes no bodies.
        takers = [server for server in on.servers if not isinstance(server, FloorPass)]
        tables += [of_load(on, takers, title, load, options) for title, load in UPLOADS.items()]
    return "\n\n".join(tables)


def of_load(on, measured, title, load, options):
    found = rounds(measured, load, options, [on.origin])
    return str(table.of_runs(title, found, NginxPass.title, table.missing(on.missing)))
