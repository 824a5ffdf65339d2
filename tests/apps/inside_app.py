"""The plain WSGI application, and what its interpreter says of itself, to compare with what is seen from outside."""
import gc
import json
import os
import sys
import threading
import time

import served
import wsgi_app
from wsgi_app import app

try:
    from _testcapi import with_tp_del  # the only way left to garbage that cannot be collected
except ImportError:
    with_tp_del = None

_paused = {"since": 0.0, "seconds": 0.0}


def timed(phase, info):
    """Adds up how long the collector takes."""
    if phase == "start":
        _paused["since"] = time.perf_counter()
    else:
        _paused["seconds"] += time.perf_counter() - _paused["since"]


gc.callbacks.append(timed)


class Node:
    """Garbage once it is alone: it holds itself."""

    def __init__(self):
        self.own = self


def garbage(generation, count):
    """Has the collector find so many objects in a generation."""
    for _ in range(count):
        Node()
    gc.collect(generation)


def uncollectable():
    """Has the collector find something that it must not free."""
    if with_tp_del is not None:
        node = with_tp_del(type("Node", (), {"__tp_del__": lambda self: None}))()
        node.own = node
        del node
        gc.collect(1)


def truth():
    """What the interpreter knows of itself, as JSON; it stays true, since the collector does not run by itself any more."""
    gc.disable()
    for generation, count in ((0, 7), (0, 5), (1, 40), (0, 3), (2, 100)):
        garbage(generation, count)
    uncollectable()
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return json.dumps({
        "version": sys.version.split()[0],
        "stats": gc.get_stats(),
        "states": len(sys._current_frames()),
        "active": threading.active_count(),
        "tasks": len(os.listdir("/proc/self/task")),
        "resident": resident,
        "cpu": time.process_time(),
        "paused": _paused["seconds"],
    })


def collections():
    """How often the collector ran for the youngest generation."""
    return gc.get_stats()[0]["collections"]


def mark():
    """Makes that number one that tells processes apart."""
    for _ in range(os.getpid() % 40 * 100):
        gc.collect(0)
    return collections()


def inside(environ, start):
    return wsgi_app.reply(start, "200 OK", truth().encode())


def threads(environ, start):
    """Starts threads that stay."""
    for _ in range(3):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    return wsgi_app.plain(environ, start)


def spin(environ, start):
    """Keeps the lock and the collector busy."""
    end = time.monotonic() + served.number(environ["QUERY_STRING"], "ms", 1000) / 1000
    kept = [[] for _ in range(50_000)]
    while time.monotonic() < end:
        gc.collect()
    return wsgi_app.plain(environ, start)


wsgi_app.ACTIONS.update(inside=inside, threads=threads, spin=spin)
