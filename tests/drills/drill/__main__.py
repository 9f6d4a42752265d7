"""Runs one drill, shows what it came to, and cleans up behind it."""

import argparse
import asyncio
import importlib
import os
import pathlib
import shutil
import signal
import sys
import tempfile

from .gateway import Failed

DRILLS = [
    "self-test", "kill-loop", "captive-portal", "disk-full", "read-only", "corruption", "backlog", "secrets", "acks"
]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(prog="run.sh", description="Drills of the write queue.")
    drills = parser.add_subparsers(dest="drill", required=True)
    for name in DRILLS:
        module = importlib.import_module(f".{name.replace('-', '_')}", __package__)
        options = drills.add_parser(name, description=module.__doc__, formatter_class=argparse.RawTextHelpFormatter)
        options.set_defaults(module=module)
        options.add_argument("--keep", action="store_true", help="keep logs and data")
        module.add_arguments(options)
        if name != "self-test":
            options.add_argument("binary", nargs="?", type=pathlib.Path, default="target/release/hardtack")
    options = parser.parse_args()
    # As with an interrupt, so that no process is left behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(run(options))


def run(options):
    if hasattr(options, "binary"):
        options.binary = find_binary(options.binary)
    options.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"hardtack-{options.drill}-"))
    failed = True
    try:
        failed = asyncio.run(options.module.run(options)).show() != 0
    except Failed as error:
        print(f"\n{options.drill}\n  BROKEN: {error}", file=sys.stderr)
    finally:
        if options.keep or failed:
            print(f"kept: {options.directory}", file=sys.stderr)
        else:
            shutil.rmtree(options.directory)
    return 1 if failed else 0


def find_binary(path):
    """As named; the default is below the root of the repository, wherever the drill was called."""
    found = path if path.exists() else pathlib.Path(os.environ.get("DRILLS_ROOT", ".")) / path
    if not found.exists():
        sys.exit(f"no such binary: {path}")
    return found.resolve()


main()
