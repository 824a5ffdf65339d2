"""Runs in a guest: every worker class that keeps connections, and requests over kept connections: one after the other,
one that comes in pieces, several at once."""

import http.client
import io
import socket
import time

WSGI, ASGI = "app:app", "asgi_app:app"
# The application and the options of each.
CLASSES = {
    "gthread": (WSGI, "--worker-class", "gthread", "--threads", "2"),
    "gevent": (WSGI, "--worker-class", "gevent"),
    "tornado": (WSGI, "--worker-class", "tornado"),
    "uvicorn": (ASGI, "--worker-class", "uvicorn.workers.UvicornWorker"),
    "asgi": (ASGI, "--worker-class", "asgi"),
}
IDLE_SECONDS = "120"  # longer than an emulated machine takes from one request to the next
KINDS = ("plain", "missing", "body", "stream", "chunked", "head", "empty", "large")
METHODS = {"body": "POST", "large": "POST", "chunked": "POST", "head": "HEAD"}
BODIES = {"body": b"x" * 3000, "large": b"y" * 300_000}
PIECES = (1, 9, 40)


class Kept(io.BufferedReader):
    """What a connection says; a response that has ended leaves it open for the next."""

    def close(self):
        pass


class Connection:
    """A connection that stays, and what was asked on it."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.reader, self.asked = Kept(socket.SocketIO(self.socket, "rb")), []

    def makefile(self, _mode):
        return self.reader

    def ask(self, kinds, pieces=()):
        """Sends requests in one write, or cut at these places, and then reads the answers."""
        requests = [(kind, f"/{kind}/{len(self.asked) + number}") for number, kind in enumerate(kinds)]
        rest = b"".join(written(kind, path) for kind, path in requests)
        for cut, before in zip(pieces, (0, *pieces)):
            self.socket.sendall(rest[: cut - before])
            rest = rest[cut - before :]
            time.sleep(0.05)
        self.socket.sendall(rest)
        for kind, path in requests:
            self.asked.append(self.answer(METHODS.get(kind, "GET"), path))

    def answer(self, method, path):
        """What the client knows of a request."""
        answer = http.client.HTTPResponse(self, method=method)
        answer.begin()
        answer.read()
        return {
            "path": path, "method": method, "status": answer.status, "scheme": "http",
            "worker": int(answer.headers["X-Worker"]), "master": int(answer.headers["X-Master"]),
        }


def written(kind, path):
    """The bytes of a request."""
    head = f"{METHODS.get(kind, 'GET')} {path} HTTP/1.1\r\nHost: localhost\r\n"
    if kind == "chunked":
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b"a" * 700, b"b" * 9000, b""))
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + chunks
    body = BODIES.get(kind, b"")
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def serve(connection):
    """Has a worker class serve all requests; returns what was asked, with what was asked before."""
    for kind in KINDS:  # a whole one first: who came late knows a request by its first line
        connection.ask([kind])
    connection.ask(["plain"], PIECES)
    connection.ask(["plain", "missing", "body", "empty", "plain"])
    connection.socket.close()
    return connection.asked
