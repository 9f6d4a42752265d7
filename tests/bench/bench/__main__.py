"""Runs scenarios, prints their tables, and writes them into docs/performance.md if that is asked for."""

import argparse
import importlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile

from . import document, servers
from .processes import Broken

SCENARIOS = ["hits", "disk", "stale", "pass", "collapse", "http2", "zipf", "slow_disk", "queue", "memory", "restart"]
# Those that run only when they are named, for the time they take or what else they need.
NAMED = ["churn", "scaling", "builds"]
ROOT = pathlib.Path(os.environ["BENCH_ROOT"])


def main():
    parser = argparse.ArgumentParser(prog="run.sh", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=", ".join(SCENARIOS + NAMED))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of one run")
    parser.add_argument("--churn-seconds", type=int, default=3600, help="of churn")
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/hardtack")
    parser.add_argument("--beside", type=pathlib.Path, help="another build, for builds")
    options = parser.parse_args()
    unknown = set(options.scenarios) - set(SCENARIOS + NAMED)
    if unknown:
        parser.error(f"no such scenario: {', '.join(sorted(unknown))}")
    for binary in filter(None, [options.binary, options.beside]):
        if not binary.exists():
            parser.error(f"no such binary: {binary}; cargo build --release")
    if ("builds" in options.scenarios) != (options.beside is not None):
        parser.error("builds needs --beside BINARY, and nothing else does")
    if not shutil.which("wrk"):
        parser.error("wrk is missing")
    servers.Gateway.binary = options.binary.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(run(options))


def run(options):
    tables = {}
    for name in options.scenarios or SCENARIOS:
        options.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"hardtack-bench-{name}-"))
        scenario = importlib.import_module(f".scenarios.{name if name != 'pass' else 'passing'}", __package__)
        try:
            tables[name] = scenario.run(options)
        except Broken as error:
            print(f"\n{name}\n  BROKEN: {error}\n  kept: {options.directory}", file=sys.stderr)
            return 1
        shutil.rmtree(options.directory)
        print(f"\n{tables[name]}", flush=True)
    if options.write:
        document.write(ROOT / "docs/performance.md", tables)
    return 0


main()
