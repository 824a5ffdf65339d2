"""Runs in a guest whose clock counts instructions: what a request costs gunicorn alone, and with each attach variant.

Arguments: how many rounds, and how many requests each has. Results are lines that start with `@`, as the driver's:
`@ up <kernel>`, `@ round <json>` for each measurement, `@ fail <what> <why>`, `@ end`.
"""

import json
import os
import socket
import sys
import traceback

import drive

NOBODY = "nobody"
SIDES = [("alone", None), *(
    (f"{variant}{suffix}", [variant, service])
    for variant in ("fentry", "kprobe", "tracepoint")
    for suffix, service in (("", "cost-*"), (", not watched", NOBODY))
)]
WARM_UP = 20
PATIENCE_SECONDS = 5


class Served:
    """A gunicorn with one worker, and a client with one connection at a time."""

    def __init__(self, number, name, framework, keeps, *options):
        self.name, self.keeps, self.service = name, keeps, f"cost-{number}"
        self.address = ("127.0.0.1", drive.PORT + number)
        self.process = drive.Process(self.service, [
            drive.GUNICORN, "bench_app:app", "--workers", "1", "--bind", "%s:%d" % self.address, *options,
        ], SW_AGENT_NAME=self.service, BENCH_FRAMEWORK=framework)
        drive.wait(drive.READY_SECONDS, f"{name}: a first answer", self.answers)
        master = self.process.child.pid
        with open(f"/proc/{master}/task/{master}/children") as children:
            self.pids = [master, *map(int, children.read().split())]

    def answers(self):
        if self.process.ended():
            raise drive.Failed(f"{self.name} ended: {self.process.output(1)[-600:]}")
        try:
            self.ask(1)
        except ConnectionError:
            return False
        return True

    def ask(self, count):
        """Sends so many requests, one after the other."""
        said = "keep-alive" if self.keeps else "close"
        request = f"GET /plain/1 HTTP/1.1\r\nHost: localhost\r\nConnection: {said}\r\n\r\n".encode()
        connection = None
        for _ in range(count):
            connection = connection or socket.create_connection(self.address)
            connection.sendall(request)
            answer = b""
            while not answer.endswith(b"\r\n\r\nplain\n"):
                part = connection.recv(65536)
                if not part:
                    raise ConnectionError(f"{self.name}: no whole answer: {answer[-300:]}")
                answer += part
            if not self.keeps:
                connection.recv(1)  # the end
                connection.close()
                connection = None
        if connection:
            connection.close()


def cpu_ns(pids):
    """CPU time of all threads of these processes."""
    total = 0
    for pid in pids:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat") as file:
                total += int(file.read().split()[0])
    return total


def observe(variant, service):
    """An observer that prints to a file in memory."""
    observer = drive.Process("sw-observe", [
        drive.OBSERVER, "--target", f"gunicorn:service={service}", "--print=json", "--attach", variant,
    ])
    try:
        drive.wait(drive.READY_SECONDS, "sw-observe ready", lambda: observer.ended() or '"ready"' in observer.output())
        if service != NOBODY:
            drive.wait(drive.READY_SECONDS, "masters and workers", lambda: drive.count(observer, "instance") >= 4)
    except drive.Failed:
        drive.note_end(observer)
        observer.discard()
        raise
    return observer


def reported(observer, served):
    """How many of its requests the observer has printed."""
    lines = [line for line in observer.output().splitlines() if f'"{served.service}"' in line]
    return len(drive.compare.of_kind(drive.compare.parse("\n".join(lines))[0], "segment"))


def measure(served, observer, watched, requests):
    """CPU time of both in ns, and how many requests are missing. What the observer does for the last report is part of it."""
    def settle(count):
        try:
            drive.wait(PATIENCE_SECONDS, "reports", lambda: not watched or reported(observer, served) >= count)
        except drive.Failed:
            pass  # what is missing is told
        return count - reported(observer, served) if watched else 0

    served.ask(WARM_UP)
    settle(WARM_UP)
    own = [observer.child.pid] if observer else []
    gunicorn_before, own_before = cpu_ns(served.pids), cpu_ns(own)
    served.ask(requests)
    missing = settle(WARM_UP + requests)
    return cpu_ns(served.pids) - gunicorn_before, cpu_ns(own) - own_before, missing


def play(side, watching, all_served, requests):
    """All that is served under one observer, or none."""
    observer = observe(*watching) if watching else None
    try:
        for served in all_served:
            watched = watching is not None and watching[1] != NOBODY
            gunicorn, own, missing = measure(served, observer, watched, requests)
            drive.say("round", json.dumps({
                "case": served.name, "side": side, "requests": requests, "gunicorn_us": gunicorn / requests / 1000,
                "observer_us": own / requests / 1000, "lost": missing,
            }))
        if observer:
            observer.stop()
    finally:
        if observer:
            observer.discard()


def main(rounds, requests):
    drive.say("up", os.uname().release)
    all_served = []
    try:
        all_served.append(Served(0, "Flask, sync, new connections", "flask", False))
        all_served.append(Served(1, "FastAPI, uvicorn (uvloop), keep-alive", "fastapi", True,
                                 "--worker-class", "uvicorn.workers.UvicornWorker"))
        for number in range(rounds):
            first = number % len(SIDES)  # another one begins each time
            for side, watching in SIDES[first:] + SIDES[:first]:
                play(side, watching, all_served, requests)
    except drive.Failed as failed:
        drive.say("fail", "cost", " | ".join(str(failed).splitlines()))
    except Exception:  # told, and the machine ends all the same
        drive.say("fail", "cost", " | ".join(traceback.format_exc().splitlines()[-5:]))
    for served in all_served:
        served.process.discard()
    drive.say("end")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
