"""An origin whose answers are the same bytes each time, each sent once the gateway waits for it."""

import email.utils
import socket
import threading

KIB = b"x" * 1024

FRESH = b'Cache-Control: max-age=86400\r\nETag: "one"\r\n'
NOT_STORED = b"Cache-Control: no-store\r\n"


class Origin:
    """Answers on a port of its own, a thread for each connection."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        # Called before each answer.
        self.before = lambda: None
        self.requests = 0
        # As long at all times, and near enough for ages of some minutes.
        self.date = email.utils.formatdate(usegmt=True).encode()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    def serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = b""
        while True:
            while (end := end_of_message(received)) is None:
                more = connection.recv(65536)
                if not more:
                    return
                received += more
            head, received = received[:end], received[end:]
            self.requests += 1
            self.before()
            connection.sendall(self.answer(head))

    def answer(self, head):
        """What a request gets."""
        target = head.split(b" ", 2)[1]
        extra = FRESH if target.startswith(b"/fresh/") else NOT_STORED
        return (
            b"HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n%s\r\n%s"
            % (self.date, len(KIB), extra, KIB)
        )


def end_of_message(received):
    """Where the first message ends that has arrived whole; its body has a Content-Length, or there is none."""
    head, blank, _ = received.partition(b"\r\n\r\n")
    if not blank:
        return None
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        if name.lower() == b"transfer-encoding":
            raise ValueError(f"a length was expected: {head}")
    end = len(head) + len(blank) + length
    return end if len(received) >= end else None
