"""The gateway under drill: a process that is started, killed, and started again on the same directory and ports."""

import asyncio
import json
import random
import signal
import socket
import subprocess
import time
import urllib.parse

from . import wire

READY_WITHIN_SECS = 60

# Everything that an item can be before it has ended.
LIVE_STATES = "queued,sending,waiting"


class Failed(Exception):
    """The drill cannot go on: the gateway ended, or something that must come did not."""


class Gateway:
    """A gateway with a configuration of its own below `directory`, not yet started."""

    def __init__(self, binary, directory, config, data=None):
        self.binary = binary
        self.directory = directory
        self.data = data or directory / "data"
        self.port, self.admin_port = free_port(), free_port()
        self.process = None
        self.config_file = directory / "gateway.toml"
        self.configure(config)

    def configure(self, config):
        """Lays down the configuration of the next start: what every drill has, and `config`."""
        self.config_file.write_text(
            f"""\
[listen]
proxy = "127.0.0.1:{self.port}"
admin = "127.0.0.1:{self.admin_port}"
shutdown_grace = "5s"
[storage]
dir = "{self.data}"
memory = "16MiB"
disk = "64MiB"
disk_free_min = "1KiB"
[forward]
allow_networks = ["127.0.0.0/8"]
[telemetry]
log = {{ format = "json", level = "info" }}
{config}"""
        )

    def spawn(self):
        """Starts the process, and does not wait for it."""
        (self.data / "gateway.json").unlink(missing_ok=True)
        with open(self.directory / "gateway.log", "ab") as log:
            command = [self.binary, "run", "--config", self.config_file]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    async def start(self):
        """Starts the process; returns the seconds it took to be ready."""
        self.spawn()
        began = time.monotonic()
        await eventually("the gateway is ready", self._is_ready, READY_WITHIN_SECS, pause_secs=0.01)
        return time.monotonic() - began

    async def _is_ready(self):
        if self.process.poll() is not None:
            raise Failed(f"the gateway ended with {self.process.returncode}: {self.log_end()}")
        if not (self.data / "gateway.json").exists():
            return False
        try:
            return (await wire.ask(self.admin_port, "GET", "/readyz")).status == 200
        except (wire.Unsent, wire.Lost):
            return False

    def kill(self):
        """kill -9, as a power cut would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    async def stop(self):
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.to_thread(self.process.wait)

    def log_end(self):
        """The last of what it logged, for messages."""
        return (self.directory / "gateway.log").read_text(errors="replace")[-3000:]

    async def send(self, method, target, fields=None, content=b"", timeout_secs=30):
        """One request to the proxy listener, on a connection of its own."""
        return await wire.ask(self.port, method, target, fields, content, timeout_secs)

    async def api(self, method, path, body=None):
        """One request to the admin API, with the admin token."""
        token = (self.data / "admin.token").read_text().strip()
        fields = {"authorization": f"Bearer {token}"}
        if body is not None:
            fields["content-type"] = "application/json"
        content = b"" if body is None else json.dumps(body).encode()
        return await wire.ask(self.admin_port, method, f"/api/v1/{path}", fields, content)

    async def items(self, states):
        """All items of the queue in these states (a comma list), page by page, by id."""
        found, cursor = {}, None
        while True:
            query = {"state": states, "limit": 1000} | ({"cursor": cursor} if cursor else {})
            answer = await self.api("GET", f"queue/items?{urllib.parse.urlencode(query)}")
            if answer.status != 200:
                raise Failed(f"queue/items was answered {answer.status}: {answer.content[:500]}")
            page = answer.json()
            found.update((item["id"], item) for item in page["items"])
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    async def drained(self, within_secs):
        """Waits until nothing is left that would still be sent."""

        async def is_empty():
            return not await self.items(LIVE_STATES)

        await eventually("the queue is drained", is_empty, within_secs, pause_secs=0.2)

    async def metric(self, name):
        """The sum of all samples of a metric."""
        text = (await wire.ask(self.admin_port, "GET", "/metrics")).content.decode()
        samples = (line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name)
        return sum(float(line.rsplit(" ", 1)[1]) for line in samples)


async def eventually(what, holds, within_secs, pause_secs=0.05):
    """Waits until `holds()` is true; `Failed` where it is not in time."""
    deadline = time.monotonic() + within_secs
    while not await holds():
        if time.monotonic() > deadline:
            raise Failed(f"not within {within_secs} s: {what}")
        await asyncio.sleep(pause_secs)


def free_port():
    """A port below those that the system gives to outgoing connections, so that none takes it during a restart."""
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
