"""The servers of one scenario: started together, killed together."""

import contextlib

from .servers import Origin


class Stage:
    """The origin, and whatever of `kinds` is installed, in front of it."""

    def __init__(self, directory, kinds):
        self.directory = directory
        self.missing = [kind.title for kind in kinds if not kind.is_installed()]
        self.kinds = [kind for kind in kinds if kind.is_installed()]
        self.origin = Origin(directory / "origin")
        self.servers = []

    def add(self, kind, **changes):
        """One more server; its files have a directory of their own."""
        server = kind(self.directory / f"server-{len(self.servers)}", self.origin, **changes)
        self.servers.append(server)
        return server

    def start(self):
        self.origin.start()
        for kind in self.kinds:
            self.add(kind)
        for server in self.servers:
            if server.process is None:
                server.start()

    def kill(self):
        for server in [*self.servers, self.origin]:
            server.kill()


@contextlib.contextmanager
def stage(directory, *kinds):
    """A stage that is cleared whatever happens."""
    made = Stage(directory, kinds)
    try:
        made.start()
        yield made
    finally:
        made.kill()
