"""Processes that are measured: how they are started, what they cost, how they end."""

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

READY_WITHIN_SECS = 120
TICKS_PER_SEC = os.sysconf("SC_CLK_TCK")


class Broken(Exception):
    """Nothing can be measured: a server did not start, or a client was answered wrongly."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server with its files below `directory`. Subclasses say how it is run, in `command`."""

    # What tables call it.
    title = None
    # What must be installed.
    needs = None
    # A path that is answered with 200 once it is ready; it reaches the origin.
    ready_path = "/size/1k"
    # Variables besides our own.
    environment = {}

    def __init__(self, directory, origin=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.origin = origin
        self.port = free_port()
        self.process = None

    @classmethod
    def is_installed(cls):
        return cls.needs is None or shutil.which(cls.needs, path=os.environ["PATH"] + ":/usr/sbin") is not None

    def command(self):
        raise NotImplementedError

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def spawn(self):
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                env=os.environ | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def start(self):
        """Starts the process and waits until it answers; the seconds that took."""
        self.spawn()
        began = time.monotonic()
        while not self.answers():
            if self.process.poll() is not None:
                raise Broken(f"{self.title} ended with {self.process.returncode}: {self.log_end()}")
            if time.monotonic() - began > READY_WITHIN_SECS:
                raise Broken(f"{self.title} does not answer: {self.log_end()}")
            time.sleep(0.01)
        return time.monotonic() - began

    def answers(self):
        try:
            return get(self.url(self.ready_path)).status == 200
        except (urllib.error.URLError, OSError):
            return False

    def kill(self, sign=signal.SIGKILL):
        """kill -9 of all its processes, as a power cut would."""
        if self.process is None:
            return
        for pid in self.pids():
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                pass
        self.process.wait()
        self.process = None

    def pids(self):
        """Its process, and all below it."""
        found, left = [], [self.process.pid]
        while left:
            pid = left.pop()
            found.append(pid)
            for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                left += map(int, children.read_text().split())
        return found

    def cpu_secs(self):
        """User and system time that it has used so far."""
        return sum(map(cpu_secs_of, self.pids()))

    def memory_bytes(self):
        """Proportional set size, files on a tmpfs that are its cache not counted."""
        return sum(map(pss_bytes_of, self.pids()))

    def log_end(self):
        return (self.directory / "log").read_text(errors="replace")[-2000:]


def cpu_secs_of(pid):
    # The name may hold spaces; what follows its last bracket does not.
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SEC


def pss_bytes_of(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def busy_secs():
    """Time that all processors of the machine together have worked."""
    user, nice, system, _idle, _wait, interrupt, soft = map(int, open("/proc/stat").readline().split()[1:8])
    return (user + nice + system + interrupt + soft) / TICKS_PER_SEC


def get(url, timeout_secs=60, **fields):
    request = urllib.request.Request(url, headers=fields)
    return urllib.request.urlopen(request, timeout=timeout_secs)
