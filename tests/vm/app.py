"""The application that gunicorn serves in a guest; every answer names the worker that gave it."""

import os
import time

import lives

if "BROKEN" in os.environ:
    raise RuntimeError("on purpose")

BLOCK = b"0123456789abcdef" * 64


def fork():
    """A child that stays until it is killed."""
    child = os.fork()
    if child == 0:
        time.sleep(3600)
        os._exit(0)
    return child


def app(environ, start_response):
    kind = environ["PATH_INFO"].split("/")[1]
    who = [("X-Worker", str(os.getpid())), ("X-Master", str(os.getppid()))]
    received = 0
    while part := environ["wsgi.input"].read(65536):
        received += len(part)
    if kind == "missing":
        start_response("404 Not Found", [("Content-Length", "0"), *who])
        return []
    if kind == "empty":
        start_response("204 No Content", who)
        return []
    if kind == "stream":  # no length: gunicorn answers in chunks
        start_response("200 OK", [("Content-Type", "text/plain"), *who])
        return (BLOCK for _ in range(16))
    if kind == "crash":
        lives.crash()
    if kind == "hang":
        time.sleep(3600)
    if kind == "eat":
        received = len(b"x" * (1 << 30))
    answer = b"%d" % fork() if kind == "fork" else b"%d bytes\n" % received
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer))), *who])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer]  # tornado sends what it is given
