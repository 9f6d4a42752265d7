"""Searches the data directory, byte by byte, for the credentials of a queued write: while it is queued, after kill -9,
after delivery, and after another kill -9. Without a key file such a write must be refused and leave nothing."""

import base64
import hashlib
import json
import pathlib
import secrets

from .gateway import LIVE_STATES, Failed, Gateway
from .origin import Origin
from .report import Report

CONFIG = """
[upstreams.origin]
url = "{origin}"

[[routes]]
name = "orders"
match = {{ path = "/**" }}
upstream = "origin"
write = {{ mode = "on-failure" }}

[queue]
recovery_spread = "0s"
{queue}
"""


def add_arguments(_):
    """None."""


async def run(options):
    report = Report("secrets")
    origin = await Origin.start(options.directory)
    try:
        for drill in (with_a_key, without_a_key):
            directory = options.directory / drill.__name__
            directory.mkdir()
            await drill(options.binary, directory, origin, report)
    finally:
        await origin.stop()
    return report


async def with_a_key(binary, directory, origin, report):
    key_file = directory / "queue.key"
    key_file.touch(mode=0o600)
    key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    config = f'key_file = "{key_file}"\nsensitive_headers = ["x-api-key"]'
    gateway = Gateway(binary, directory, CONFIG.format(origin=origin.url, queue=config))
    search = Search(gateway, report)
    try:
        await origin.mode("refuse")
        await gateway.start()
        answer = await gateway.send("POST", "/orders", search.fields(), b"{}")
        if answer.status != 202:
            raise Failed(f"with a key file: {answer.status} {answer.content[:300]}")
        await search.nothing("while queued", marker_is_there=True)
        await search.nothing_in_views(answer.json()["id"])
        gateway.kill()
        await search.nothing("after kill -9", marker_is_there=True)
        await gateway.start()
        await search.nothing("after a restart", marker_is_there=True)
        await origin.mode("ok")
        await gateway.drained(within_secs=90)
        [delivered] = origin.executions()
        report.row("credentials arrived at the origin", delivered["credentials"] == search.digest())
        report.must(delivered["credentials"] == search.digest(), "the origin got other credentials than the client sent")
        await search.nothing("after delivery")
        gateway.kill()
        await search.nothing("after delivery and kill -9")
    finally:
        gateway.kill()


async def without_a_key(binary, directory, origin, report):
    gateway = Gateway(binary, directory, CONFIG.format(origin=origin.url, queue=""))
    search = Search(gateway, report)
    try:
        await origin.mode("refuse")
        await gateway.start()
        for name in ("authorization", "cookie"):
            fields = {"x-number": 2, name: search.fields()[name]}
            answer = await gateway.send("POST", "/orders", fields, b"{}")
            report.row(f"without a key file, {name}", f"{answer.status} {answer.reason()}")
            refused = (answer.status, answer.reason()) == (503, "credential-not-storable")
            report.must(refused, f"{name} without a key file: {answer.status} {answer.content[:300]}")
        stored = await gateway.items(f"{LIVE_STATES},parked,dead,done,cancelled")
        report.must(not stored, f"refused, and stored: {stored}")
        gateway.kill()
        await search.nothing("refused without a key file")
    finally:
        gateway.kill()


class Search:
    """Secrets of one write, and the search for them in all that the gateway leaves behind."""

    def __init__(self, gateway, report):
        self.gateway, self.report = gateway, report
        self.secrets = {name: secrets.token_hex(24) for name in ("authorization", "cookie", "x-api-key")}
        # Not secret, stored in the clear: it shows that the search would find something.
        self.marker = secrets.token_hex(24)

    def fields(self):
        return {
            "content-type": "application/json",
            "authorization": f"Bearer {self.secrets['authorization']}",
            "cookie": f"session={self.secrets['cookie']}",
            "x-api-key": self.secrets["x-api-key"],
            "x-marker": self.marker,
            "x-number": 1,
        }

    def digest(self):
        """As the origin logs it."""
        sent = "\n".join(self.fields()[name] for name in ("authorization", "cookie", "x-api-key"))
        return hashlib.sha256(sent.encode()).hexdigest()

    async def nothing(self, when, marker_is_there=False):
        files = self.files()
        for name, secret in self.secrets.items():
            found = [file for file, content in files.items() if any(form in content for form in forms(secret))]
            self.report.must(not found, f"{when}: the secret of {name} is in {found}")
        marked = [file for file, content in files.items() if self.marker.encode() in content]
        self.report.row(when, f"{sum(map(len, files.values()))} bytes in {len(files)} files, marker in {marked}")
        if marker_is_there:
            self.report.must(marked, f"{when}: the search does not even find what is stored in the clear")

    def files(self):
        """Everything the gateway wrote: its data directory and its log."""
        beside = [self.gateway.directory / "gateway.log"]
        found = [*pathlib.Path(self.gateway.data).rglob("*"), *beside]
        return {file.name: file.read_bytes() for file in found if file.is_file()}

    async def nothing_in_views(self, identity):
        pages = [await self.gateway.api("GET", path) for path in ("queue/items", f"queue/items/{identity}", "audit")]
        shown = json.dumps([page.content.decode(errors="replace") for page in pages]).encode()
        for name, secret in self.secrets.items():
            self.report.must(not any(form in shown for form in forms(secret)), f"the API shows the secret of {name}")


def forms(secret):
    """The secret in the encodings in which it might be kept: as it is, in hex, and in base64 at each of the three places
    where it may begin in a group (without the characters that its neighbours change)."""
    plain = secret.encode()
    yield plain
    yield plain.hex().encode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + plain)
        yield encoded[4 if before else 0 : -4]
