"""Stale-while-revalidate under load: an object that is fresh for a second, from an origin that takes 20 ms."""

from .. import table
from ..load import Wrk, rounds
from ..servers import Gateway, Nginx, Varnish
from ..stage import stage


def run(options):
    with stage(options.directory, Gateway, Nginx, Varnish) as on:
        found = rounds(on.servers, Wrk("/second/one"), options, [on.origin])
        return table.of_runs("Stale while revalidated: fresh for 1 s", found, "nginx", table.missing(on.missing))
