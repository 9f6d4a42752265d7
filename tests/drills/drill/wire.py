"""HTTP/1.1 over asyncio's streams, as much of it as the drills need, with nothing between them and the bytes."""

import asyncio
import dataclasses
import json

MAX_HEAD_BYTES = 64 * 1024


class Unsent(Exception):
    """No connection was to be had, so nothing was sent."""


class Lost(Exception):
    """The connection ended, or the time was up, before the answer was whole: what became of the request is unknown."""


@dataclasses.dataclass
class Message:
    """A request or an answer: its first line in three words, its fields by lower-case name, its content."""

    start: list[str]
    fields: dict[str, str]
    content: bytes

    @property
    def status(self):
        return int(self.start[1])

    def json(self):
        return json.loads(self.content)

    def reason(self):
        """The `reason` of a problem document; empty for every other answer."""
        if not self.fields.get("content-type", "").startswith("application/problem+json"):
            return ""
        return self.json().get("reason", "")


async def read_message(reader, has_content=True):
    """The next message, or None where the peer closed between two; `has_content`: whether the fields may promise any."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip()
    start = first.split(" ", 2)
    content = await _read_content(reader, fields, start) if has_content else b""
    return Message(start, fields, content)


async def _read_content(reader, fields, start):
    if "chunked" in fields.get("transfer-encoding", ""):
        content = bytearray()
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            content += (await reader.readexactly(size + 2))[:-2]
        while await reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return bytes(content)
    if "content-length" in fields:
        return await reader.readexactly(int(fields["content-length"]))
    is_answer = start[0].startswith("HTTP/")
    if is_answer and start[1] not in ("204", "304"):
        return await reader.read()
    return b""


def request_bytes(method, target, fields, content=b""):
    """A whole request; its Host is among `fields`."""
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    if content or method in ("POST", "PUT", "PATCH"):
        lines.append(f"content-length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def answer_bytes(status, fields=None, content=b"", with_length=True):
    """A whole answer. A 204 has no length, and no content."""
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in (fields or {}).items())]
    if with_length and status != 204:
        lines.append(f"content-length: {len(content)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


class Connection:
    """One connection that is kept alive; opened when first needed, and again once it was lost."""

    def __init__(self, port):
        self.port = port
        self.streams = None

    async def request(self, method, target, fields=None, content=b"", timeout_secs=30):
        """The final answer to one request, which is never sent a second time.

        Raises `Unsent` or `Lost`.
        """
        if self.streams is None:
            try:
                self.streams = await asyncio.open_connection("127.0.0.1", self.port, limit=MAX_HEAD_BYTES)
            except OSError as error:
                raise Unsent(str(error)) from error
        fields = {"host": f"127.0.0.1:{self.port}", **(fields or {})}
        try:
            async with asyncio.timeout(timeout_secs):
                return await self._exchange(method, request_bytes(method, target, fields, content))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            self.close()
            raise Lost(f"{method} {target}: {error!r}") from error
        except asyncio.CancelledError:
            self.close()
            raise

    async def _exchange(self, method, request):
        reader, writer = self.streams
        writer.write(request)
        await writer.drain()
        while True:
            answer = await read_message(reader, has_content=method != "HEAD")
            if answer is None:
                raise ConnectionResetError("closed without an answer")
            if answer.status >= 200:
                break
        if answer.fields.get("connection", "").lower() == "close":
            self.close()
        return answer

    def close(self):
        if self.streams is not None:
            self.streams[1].transport.abort()
            self.streams = None


async def ask(port, method, target, fields=None, content=b"", timeout_secs=30):
    """One request on a connection of its own."""
    connection = Connection(port)
    try:
        return await connection.request(method, target, fields, content, timeout_secs)
    finally:
        connection.close()
