"""How long a worker's collector runs, by its own clock; the application tells it and the driver compares."""

import gc
import json
import time

import compare

RUNS = 3
OBJECTS = 20_000
ATTEMPTS = 3  # between the probe and a callback the process may have to wait for a processor
PERIOD_SECONDS = 1
paused = {"since": 0.0, "seconds": 0.0}


def timed(phase, info):
    if phase == "start":
        paused["since"] = time.perf_counter()
    elif info["generation"] == 2:
        paused["seconds"] += time.perf_counter() - paused["since"]


def collect():
    """Milliseconds of all runs of the oldest generation, and how many there were. From now on none runs by itself."""
    gc.disable()
    if timed not in gc.callbacks:
        gc.callbacks.append(timed)
    for _ in range(RUNS):
        kept = [[] for _ in range(OBJECTS)]
        gc.collect()
        del kept
    return json.dumps([paused["seconds"] * 1e3, gc.get_stats()[2]["collections"]])


def batches(observer, name):
    lines = compare.parse(observer.output())[0]
    return [line["meters"] for line in compare.of_kind(lines, "meters") if line.get("instance") == name]


def problems(life, observer, name, wait):
    """Sentences, one for each way in which the observer's account differs from the worker's."""
    def last(what, condition):
        return wait(60, what, lambda: next((one for one in batches(observer, name) if condition(one)), None))

    found = []
    last("a timed collector", lambda meters: "instance_gunicorn_gc_pause{generation=2}" in meters)

    def told():
        milliseconds, runs = json.loads(life.ask("/collect/1")[1])
        meters = last("all runs", lambda meters: meters["instance_gunicorn_gc_collections{generation=2}"] == runs)
        return milliseconds, meters["instance_gunicorn_gc_pause{generation=2}"]

    before = told()
    for _ in range(ATTEMPTS):
        after = told()
        is_so, seen = (now - then for then, now in zip(before, after))
        if abs(seen - is_so) < 0.2 * is_so + 2 * RUNS:
            break
        before = after
    else:
        found.append(f"{RUNS} runs of the collector took {is_so} ms, reported {seen}")
    return found
