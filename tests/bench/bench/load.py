"""Load, and what it cost the server: interleaved rounds, so that what disturbs the machine disturbs everyone alike."""

import contextlib
import dataclasses
import json
import math
import pathlib
import resource
import statistics
import subprocess
import time

from . import servers
from .processes import Broken, busy_secs

HERE = pathlib.Path(__file__).parent
CONNECTIONS = 64
# Of a core, that other processes may take.
FOREIGN_MAX = 0.3
TRIES_MAX = 3


@dataclasses.dataclass
class Found:
    """One run of one server."""

    requests: int
    seconds: float
    cpu_secs: float
    p50_us: float
    p99_us: float
    max_us: float
    bytes: int
    bad: int
    errors: int
    foreign: float

    @property
    def per_sec(self):
        return self.requests / self.seconds

    @property
    def cpu_per_100k(self):
        return self.cpu_secs / self.requests * 100_000 if self.requests else math.nan


class Wrk:
    """Keep-alive connections that ask as fast as they are answered."""

    def __init__(self, path, script=None, connections=CONNECTIONS, arguments=()):
        self.path, self.script, self.connections, self.arguments = path, script, connections, arguments

    def command(self, server, seconds):
        lua = server.directory / "wrk.lua"
        own = (HERE / self.script).read_text() if self.script else ""
        lua.write_text(own + (HERE / "wrk.lua").read_text())
        return [
            "wrk", "-t2", f"-c{self.connections}", f"-d{math.ceil(seconds)}s", "--timeout", "10s", "-s", lua,
            server.url(self.path), "--", *map(str, self.arguments),
        ]  # fmt: skip

    def read(self, output):
        line = next((line for line in output.splitlines() if line.startswith("FOUND ")), None)
        if line is None:
            raise Broken(f"wrk says: {output}")
        return json.loads(line.removeprefix("FOUND "))


class Streams:
    """HTTP/2 without TLS: 8 connections with 8 requests in flight on each."""

    def __init__(self, path):
        self.path = path

    def command(self, server, seconds):
        return [servers.RIG, "streams", "--to", f"127.0.0.1:{server.port}", "--path", self.path, "--seconds", str(seconds)]

    def read(self, output):
        return json.loads(output)


def measure(server, load, seconds, also=()):
    """One run. `also`: other servers whose work is part of it, such as the origin."""
    before, busy, others, client = server.cpu_secs(), busy_secs(), sum_cpu(also), client_secs()
    began = time.monotonic()
    run = subprocess.run(load.command(server, seconds), capture_output=True, text=True)
    took = time.monotonic() - began
    if run.returncode != 0:
        raise Broken(f"{server.title}: {run.stderr or run.stdout}")
    cpu = server.cpu_secs() - before
    ours = cpu + sum_cpu(also) - others + client_secs() - client
    found = load.read(run.stdout)
    foreign = max(0.0, (busy_secs() - busy - ours) / took)
    names = ("requests", "seconds", "p50_us", "p99_us", "max_us", "bytes", "bad", "errors")
    return Found(cpu_secs=cpu, foreign=foreign, **{name: found[name] for name in names})


def sum_cpu(measured):
    return sum(server.cpu_secs() for server in measured)


def client_secs():
    """Of this process too: it may ask for something beside the load."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def rounds(measured, load, options, also=(), beside=lambda server: contextlib.nullcontext()):
    """All servers once per round; a list of runs for each. A run that others disturbed is repeated. `beside`: what else goes
    on while a server is measured."""
    for server in measured:
        measure(server, load, 1, also)
    found = {server.title: [] for server in measured}
    for _ in range(options.rounds):
        for server in measured:
            runs = []
            while not runs or (runs[-1].foreign > FOREIGN_MAX and len(runs) < TRIES_MAX):
                with beside(server):
                    runs.append(measure(server, load, options.seconds, also))
            found[server.title].append(min(runs, key=lambda run: run.foreign))
    return found


def median(runs, of):
    return statistics.median(of(run) for run in runs)
