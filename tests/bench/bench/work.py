"""Work besides load: filling caches, syncing a disk."""

import json
import os
import subprocess
import time

from . import servers
from .processes import Broken


def sync_alone(file, seconds):
    """Seconds that each write of 4 KiB with its fdatasync took, one after the other."""
    took = []
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        os.write(descriptor, bytes(4096))
        os.fdatasync(descriptor)
        took.append(time.perf_counter() - began)
    os.close(descriptor)
    return took


def fill(server, count, first=0):
    """Fetches `/object/first` and the following, each once; the seconds that took."""
    command = [servers.RIG, "fill", "--to", f"127.0.0.1:{server.port}", "--first", str(first), "--count", str(count)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise Broken(f"{server.title}: {run.stderr}")
    return json.loads(run.stdout)["seconds"]
