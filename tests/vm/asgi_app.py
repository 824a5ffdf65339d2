"""The application of the worker classes of ASGI in a guest: it answers as `app.py` does."""

import os

from app import BLOCK


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"].removeprefix("lifespan.")
            await send({"type": f"lifespan.{kind}.complete"})
            if kind == "shutdown":
                return
    received, more = 0, True
    while more:
        part = await receive()
        received, more = received + len(part.get("body", b"")), part.get("more_body", False)
    status, headers, parts = answer(scope["path"].split("/")[1], received)
    who = [(b"x-worker", b"%d" % os.getpid()), (b"x-master", b"%d" % os.getppid())]
    await send({"type": "http.response.start", "status": status, "headers": headers + who})
    for part in parts:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


def answer(kind, received):
    """Status, headers and body."""
    if kind == "missing":
        return 404, [(b"content-length", b"0")], []
    if kind == "empty":
        return 204, [], []
    if kind == "stream":  # no length: chunks
        return 200, [(b"content-type", b"text/plain")], [BLOCK] * 16
    body = b"%d bytes\n" % received
    return 200, [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))], [body]
