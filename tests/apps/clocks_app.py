"""The plain WSGI application, and how long its collector and its interpreter's lock took by its own clocks."""
import gc
import json
import threading
import time

import served
import wsgi_app
from wsgi_app import app

_pauses = [{"seconds": 0.0, "longest": 0.0} for _ in range(3)]
_since = [0.0]


def timed(phase, info):
    """Adds up how long the collector takes."""
    now = time.perf_counter()
    if phase == "start":
        _since[0] = now
        return
    pause = _pauses[info["generation"]]
    pause["seconds"] += now - _since[0]
    pause["longest"] = max(pause["longest"], now - _since[0])


gc.callbacks.append(timed)


class Node:
    """Garbage once it is alone: it holds itself."""

    def __init__(self):
        self.own = self


def answer(start, value):
    return wsgi_app.reply(start, "200 OK", json.dumps(value).encode())


def collect(environ, start):
    """Has the collector run; from then on it does not by itself."""
    gc.disable()
    for pause in _pauses:
        pause["longest"] = 0.0
    kept = [[] for _ in range(100_000)]
    gc.collect()
    for generation, rounds in ((0, 8), (1, 5), (2, 3)):
        for _ in range(rounds):
            nodes = [Node() for _ in range(20_000 * (generation + 1))]
            del nodes
            gc.collect(generation)
    del kept
    runs = [generation["collections"] for generation in gc.get_stats()]
    return answer(start, [{**pause, "runs": runs[number]} for number, pause in enumerate(_pauses)])


def scheduled():
    """Now, and the running thread's seconds on a processor and on the way to one."""
    with open("/proc/thread-self/schedstat") as file:
        ran, delayed, _ = file.read().split()
    return time.perf_counter(), int(ran) / 1e9, int(delayed) / 1e9


def spent(act, threads):
    """Seconds that threads slept at least and at most, while each does the same: whoever wakes may have to wait for a
    processor, which nobody sees from inside."""
    slept = []

    def run():
        begin = scheduled()
        act()
        wall, ran, delayed = (now - then for now, then in zip(scheduled(), begin))
        slept.append((wall - ran - delayed, wall - ran))

    all_of_them = [threading.Thread(target=run) for _ in range(threads)]
    for thread in all_of_them:
        thread.start()
    for thread in all_of_them:
        thread.join()
    return [sum(one) for one in zip(*slept)]


def contend(environ, start):
    """Threads that all want to run."""
    end = time.monotonic() + served.number(environ["QUERY_STRING"], "ms", 1000) / 1000

    def spin():
        while time.monotonic() < end:
            sum(range(1000))

    return answer(start, spent(spin, 3))


def idle(environ, start):
    """Threads that wait, but not for the interpreter's lock."""
    seconds = served.number(environ["QUERY_STRING"], "ms", 1000) / 1000
    never, lock = threading.Event(), threading.Lock()
    lock.acquire()
    waits = iter((lambda: never.wait(seconds), lambda: lock.acquire(timeout=seconds), lambda: time.sleep(seconds)))
    return answer(start, spent(lambda: next(waits)(), 3))


wsgi_app.ACTIONS.update(collect=collect, contend=contend, idle=idle)
