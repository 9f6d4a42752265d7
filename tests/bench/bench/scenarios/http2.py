"""Hits of 1 KiB over HTTP/2 without TLS."""

from .. import table
from ..load import Streams, rounds
from ..servers import FloorHttp2, Gateway, HaproxyHttp2, NginxHttp2
from ..stage import stage


def run(options):
    with stage(options.directory, Gateway, NginxHttp2, HaproxyHttp2, FloorHttp2) as on:
        found = rounds(on.servers, Streams("/size/1k"), options)
        return table.of_runs("Hits of 1 KiB over HTTP/2 without TLS", found, NginxHttp2.title, table.missing(on.missing))
