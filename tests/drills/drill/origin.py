"""The origin as the drills hold it: a process of its own that fails on command, and its log of executed writes."""

import asyncio
import json
import subprocess
import sys

from .gateway import free_port


class Origin:
    """A running origin; `origin_server.py` says what its modes mean."""

    def __init__(self, port, log_file, process):
        self.port = port
        self.log_file = log_file
        self.process = process
        self.turn = asyncio.Lock()
        self.read_to = 0
        self.log = []

    @classmethod
    async def start(cls, directory, name="origin", sync=True):
        port, log_file = free_port(), directory / f"{name}.log"
        log_file.touch()
        command = [sys.executable, "-m", "drill.origin_server", str(port), str(log_file)]
        process = await asyncio.create_subprocess_exec(
            *command, *([] if sync else ["--no-sync"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        origin = cls(port, log_file, process)
        await process.stdout.readline()
        return origin

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def mode(self, mode, pause_secs=0.0):
        """What happens to requests from now on; `pause_secs`: on average between an execution and its answer."""
        return await self._command({"mode": mode, "pause_secs": pause_secs})

    async def counts(self):
        """What was counted since the start: reads, writes, executed, in_flight, peak_in_flight (of writes)."""
        return await self._command({})

    async def forget_peak(self):
        return await self._command({"forget_peak": True})

    async def _command(self, command):
        async with self.turn:
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            await self.process.stdin.drain()
            return json.loads(await self.process.stdout.readline())

    def executions(self):
        """The whole log so far, in order of execution."""
        with open(self.log_file, "rb") as file:
            file.seek(self.read_to)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.read_to += len(line)
                self.log.append(json.loads(line))
        return self.log

    async def stop(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
