"""The plain WSGI application with actions that fork, allocate and die, and with imports that fail."""
import ctypes
import os
import signal
import sys
import time

import served
import wsgi_app
from wsgi_app import app  # noqa: F401 (what gunicorn serves)

CHILD_SECONDS = 60  # an app child that nobody ends
_eaten = []


def crash():
    """Reads address 0, as a broken extension does."""
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


def fork(environ, start):
    """Forks a child that stays; the answer is its pid."""
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(CHILD_SECONDS)
        os._exit(0)
    return wsgi_app.reply(start, "200 OK", str(child).encode())


def storm(environ, start):
    """Forks `n` children, `hz` a second, each gone at once; the answer is how many seconds that took."""
    count = served.number(environ["QUERY_STRING"], "n", 100)
    pause = 1 / served.number(environ["QUERY_STRING"], "hz", 200)
    begin = time.monotonic()
    for number in range(count):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        time.sleep(max(0, begin + (number + 1) * pause - time.monotonic()))
    return wsgi_app.reply(start, "200 OK", b"%.1f" % (time.monotonic() - begin))


def eat(environ, start):
    """Keeps `mib` MiB more."""
    for _ in range(served.number(environ["QUERY_STRING"], "mib", 1)):
        _eaten.append(b"\xff" * (1 << 20))
    return wsgi_app.plain(environ, start)


def segv(environ, start):
    crash()


wsgi_app.ACTIONS.update(fork=fork, storm=storm, eat=eat, segv=segv)

IMPORT = os.environ.get("WILD_IMPORT")
if IMPORT == "segv":
    crash()
if IMPORT == "exit":
    sys.exit(1)
if IMPORT == "raise":
    raise RuntimeError("on purpose")
