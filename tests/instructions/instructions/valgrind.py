"""The gateway under callgrind: started, counted, ended."""

import os
import pathlib
import re
import signal
import socket
import subprocess
import time

READY_WITHIN_SECS = 120
IDLE_WITHIN_SECS = 60
# Looks at a gateway that sleeps, before it counts as idle. One may fall between a wake-up and what it wakes.
IDLE_LOOKS = 2


class Broken(Exception):
    """Nothing can be counted."""


class Gateway:
    """hardtack with its defaults, one worker thread, and instructions counted only while asked for."""

    def __init__(self, binary, directory, origin, nobody, disk):
        self.binary = binary
        self.directory = pathlib.Path(directory)
        self.directory.mkdir()
        self.origin = origin
        self.nobody = nobody
        self.disk = disk
        self.port, self.admin_port = free_ports(2)
        self.process = None
        self.dumps = 0

    def config(self):
        return f"""\
[listen]
proxy = "127.0.0.1:{self.port}"
admin = "127.0.0.1:{self.admin_port}"
[storage]
dir = "{self.directory / 'data'}"
disk = "{self.disk}"
disk_free_min = "1KiB"
[upstreams.origin]
url = "{self.origin}"
[upstreams.nobody]
url = "{self.nobody}"
[[routes]]
name = "queued"
match.path = "/queued/**"
upstream = "nobody"
write = {{ mode = "always" }}
[[routes]]
name = "all"
upstream = "origin"
"""

    def start(self):
        config = self.directory / "gateway.toml"
        config.write_text(self.config())
        command = [
            "valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={self.directory / 'profile'}",
            self.binary, "run", "--config", config,
        ]  # fmt: skip
        with open(self.directory / "log", "wb") as log:
            self.process = subprocess.Popen(
                command,
                # What else stands in the environment does not change the count.
                env={"PATH": os.environ["PATH"], "TOKIO_WORKER_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        began = time.monotonic()
        # Whoever runs commands finds the gateway by this file, which is written once it listens.
        while not (self.directory / "data/gateway.json").exists():
            if self.process.poll() is not None:
                raise Broken(f"the gateway ended with {self.process.returncode}: {self.log_end()}")
            if time.monotonic() - began > READY_WITHIN_SECS:
                raise Broken(f"the gateway does not start: {self.log_end()}")
            time.sleep(0.05)
        self.hold_deliveries()

    def hold_deliveries(self):
        """Has queued writes wait, because attempts to deliver them come by the clock."""
        command = [self.binary, "queue", "pause", "--data-dir", self.directory / "data"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Broken(f"deliveries cannot be paused: {done.stderr}")

    def wait_until_idle(self):
        """Waits until all its threads sleep.

        Whether a peer's bytes are there when the gateway first looks for them would else be a race, and a look in vain with
        a wake-up costs more than none.
        """
        began, looks = time.monotonic(), 0
        while looks < IDLE_LOOKS:
            looks = looks + 1 if self.sleeps() else 0
            if time.monotonic() - began > IDLE_WITHIN_SECS:
                raise Broken(f"the gateway does not come to rest: {self.log_end()}")

    def sleeps(self):
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            try:
                # The name may hold spaces; what follows its last bracket does not.
                state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if state != "S":
                return False
        return True

    def count(self, work):
        """The instructions that the gateway executes while `work` is done, by all its threads."""
        self.wait_until_idle()
        self.control("-i", "on")
        work()
        self.wait_until_idle()
        self.control("-i", "off")
        self.control("--dump")
        self.dumps += 1
        return instructions(self.profile())

    def profile(self):
        """The profile of what was counted last."""
        return self.directory / f"profile.{self.dumps}"

    def control(self, *arguments):
        done = subprocess.run(
            ["callgrind_control", *arguments, str(self.process.pid)], capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0 or "OK" not in done.stdout:
            raise Broken(f"callgrind_control {' '.join(arguments)}: {done.stdout}{done.stderr}")

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def log_end(self):
        return (self.directory / "log").read_text(errors="replace")[-2000:]


def instructions(profile):
    """The sum of a profile."""
    found = re.search(r"^totals: (\d+)$", profile.read_text(), re.MULTILINE)
    if found is None:
        raise Broken(f"no totals in {profile}")
    return int(found[1])


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
