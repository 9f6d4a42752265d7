"""Counts each scenario, and compares with the record."""

import argparse
import os
import pathlib
import shutil
import signal
import socket
import sys
import tempfile

from . import record
from .origin import Origin
from .scenarios import BATCH_REQUESTS, BATCHES, SCENARIOS, WARM_UP_REQUESTS, Client
from .valgrind import Broken, Gateway

ROOT = pathlib.Path(os.environ["INSTRUCTIONS_ROOT"]).resolve()


def main():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("binary", nargs="?", type=pathlib.Path, default=ROOT / "target/release/hardtack")
    parser.add_argument("--record", action="store_true", help="write the record anew")
    parser.add_argument("--profiles", type=pathlib.Path, help="keep a profile of each scenario here")
    options = parser.parse_args()
    if not options.binary.is_file():
        parser.error(f"no such binary: {options.binary}; cargo build --release")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    directory = pathlib.Path(tempfile.mkdtemp(prefix="hardtack-instructions-"))
    try:
        counted = count(options, directory)
    except Broken as error:
        print(f"BROKEN: {error}\nkept: {directory}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(directory)
    made_with = record.made_with(options.binary)
    if options.record:
        record.write(counted, made_with)
        print(f"\nwritten: {record.PATH.relative_to(ROOT)}")
    else:
        sys.exit(record.compare(counted, made_with))


def count(options, directory):
    """Instructions a request, by scenario."""
    origin = Origin()
    # A port of ours on which nobody listens, so that nobody else will.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        nobody_url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        counted = {}
        print("Instructions a request, of all threads:")
        for number, scenario in enumerate(SCENARIOS):
            # Each has a gateway of its own, which no other scenario has left anything in.
            gateway = Gateway(
                options.binary.resolve(), directory / str(number), origin.url, nobody_url, scenario.disk
            )
            try:
                counted[scenario.name] = instructions_of(scenario, gateway, origin, options.profiles)
            finally:
                gateway.kill()
        return counted


def instructions_of(scenario, gateway, origin, profiles):
    """Instructions a request of one scenario."""
    gateway.start()
    origin.before = gateway.wait_until_idle
    client = Client(gateway, origin)
    for _ in range(WARM_UP_REQUESTS):
        client.ask(scenario)
    batches = [
        gateway.count(lambda: client.batch(scenario, BATCH_REQUESTS)) / BATCH_REQUESTS for _ in range(BATCHES)
    ]
    if profiles:
        profiles.mkdir(parents=True, exist_ok=True)
        shutil.copy(gateway.profile(), profiles / f"callgrind.out.{scenario.name.replace(' ', '-')}")
    fewest, most = round(min(batches)), round(max(batches))
    print(f"{scenario.name:<40} {fewest:>9}   batches up to {most}", flush=True)
    return fewest


main()
