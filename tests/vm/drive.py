"""Runs in a guest: observes a real gunicorn under each attach variant and says what came of it.

Results are lines that start with `@`: `@ up <kernel>`, `@ pass <case>`, `@ fail <case> <why>`,
`@ note <case> <text>`, `@ variants <json>`, `@ end`. The case `late` starts the observer after gunicorn, with the
variants it chooses by itself; every other case is the name of a variant and starts the observer first.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import classes
import compare
import lives

OBSERVER = os.environ.get("OBSERVER", "/vm/sw-observe")
GUNICORN = os.environ["GUNICORN"]
FOLDER = os.path.dirname(os.path.abspath(__file__))
PORT = int(os.environ.get("PORT", "8000"))
READY_SECONDS = 120  # loading probes in an emulated machine is slow
STOP_SECONDS = 60
KINDS = ("plain", "missing", "body", "stream", "chunked", "head", "empty", "large")
SEALED = ("plain", "body", "stream", "large")  # over TLS: an emulated machine takes long for a handshake
CERTIFICATE = os.environ.get("CERTIFICATE", f"{FOLDER}/certificate.pem")  # with its key
ROUNDS = 4
MAX_REQUESTS = 9  # of 32 requests: at least one worker is recycled
LOG_LINES = 12


class Failed(Exception):
    """A case that cannot go on."""


def say(*words):
    print("@", *words, flush=True)


def wait(seconds, what, condition):
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} s")
        time.sleep(0.1)
    return value


class Process:
    """A child whose output goes to files, and which does not outlive its case."""

    def __init__(self, name, command, **environment):
        self.name = name
        self.paths = [f"/tmp/{name}.{os.getpid()}.{stream}" for stream in ("out", "err")]
        with open(self.paths[0], "wb") as out, open(self.paths[1], "wb") as err:
            self.child = subprocess.Popen(
                command, cwd=FOLDER, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env={**os.environ, **environment},
            )

    def output(self, stream=0):
        with open(self.paths[stream], errors="replace") as file:
            return file.read()

    def ended(self):
        return self.child.poll() is not None

    def stop(self):
        """The exit status after TERM."""
        if self.ended():
            raise Failed(f"{self.name} ended by itself with {self.child.returncode}")
        self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} does not stop on TERM within {STOP_SECONDS} s") from None

    def discard(self):
        if not self.ended():
            self.child.kill()
            self.child.wait()


def start_observer(variant):
    forced = ["--attach", variant] if variant else []
    observer = Process("sw-observe", [
        OBSERVER, "--target", "gunicorn", "--print=json", *forced,
    ])
    try:
        wait(READY_SECONDS, "sw-observe ready", lambda: observer.ended() or '"ready"' in observer.output())
        if observer.ended():
            raise Failed(f"sw-observe ended with {observer.child.returncode} before it was ready")
    except Failed:
        note_end(observer)
        observer.discard()
        raise
    return observer


def start_gunicorn(name, number, workers, *options, app="app:app", **environment):
    return Process(name, [
        GUNICORN, app, "--workers", str(workers), "--bind", f"127.0.0.1:{PORT + number}", *options,
    ], SW_AGENT_NAME=name, **environment)


class Stage:
    """The gunicorns of one case. Requests to the first and to `kept` are compared one by one, and some to `sealed`, over TLS."""

    def __init__(self, started):
        self.started, self.truth, self.threads, self.troubles = started, lives.Truth(), [], []
        self.web = self.life("web", 0, 2, "--max-requests", str(MAX_REQUESTS))
        self.many = self.life("many", 1, 2, "--timeout", str(lives.TIMEOUT))
        self.upgrade = self.life("upgrade", 2, 1)
        self.sealed = self.life("sealed", 4, 1, "--certfile", CERTIFICATE, "--keyfile", CERTIFICATE)
        self.sealed.is_sealed = True
        self.kept = {
            name: self.life(name, 10 + number, 1, "--keep-alive", classes.IDLE_SECONDS, *options, app=app)
            for number, (name, (app, *options)) in enumerate(classes.CLASSES.items())
        }
        self.connections, self.child = {}, None

    def life(self, name, number, workers, *options, **environment):
        process = start_gunicorn(name, number, workers, *options, **environment)
        self.started.append(process)
        return lives.Life(self.truth, process, PORT + number, workers)

    def settle(self):
        for life in (self.web, self.many, self.upgrade, self.sealed, *self.kept.values()):
            life.settle()

    def connect(self):
        """One connection to each of `kept`, on which something was asked."""
        for name, life in self.kept.items():
            self.connections[name] = classes.Connection(life.port)
            self.connections[name].ask(["plain"])

    def begin(self):
        """Lets the others live and die beside the requests."""
        broken = self.life("broken", 3, 1, BROKEN="1")
        for act in (
            lambda: lives.many_ends(self.many, self.child),
            lambda: lives.upgraded(self.upgrade),
            lambda: lives.broken(broken),
        ):
            self.threads.append(threading.Thread(target=self.perform, args=[act]))
            self.threads[-1].start()

    def perform(self, act):
        try:
            act()
        except Exception:  # what else is known of the case is told all the same
            self.troubles.append(" | ".join(traceback.format_exc().splitlines()[-3:]))

    def recycled(self):
        """Waits until the workers that had served enough are gone and followed."""
        said = "Autorestarting worker"
        tired = {int(line.split("] [")[1]) for line in self.web.log().splitlines() if said in line}
        for pid in tired:
            self.truth.end(pid, "recycle")
        self.web.settle(without=tired)

    def serve_kept(self):
        """Service to what was asked of it over its connection."""
        asked = {name: classes.serve(connection) for name, connection in self.connections.items()}
        for life in self.kept.values():
            life.stop()
        return asked

    def end(self):
        for thread in self.threads:
            thread.join()
        return self.troubles


def ask(kind, number, life):
    """Sends one request on a connection of its own; returns what the client knows of it."""
    path = f"/{kind}/{number}"
    connection = life.connection()
    headers = {"Connection": "close"}
    method = {"body": "POST", "large": "POST", "chunked": "POST", "head": "HEAD"}.get(kind, "GET")
    body = {"body": b"x" * 3000, "large": b"y" * 300_000, "chunked": iter([b"a" * 700, b"b" * 9000])}.get(kind)
    if kind == "chunked":
        headers["Transfer-Encoding"] = "chunked"
    connection.request(method, path, body=body, headers=headers, encode_chunked=kind == "chunked")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return {
        "path": path, "method": method, "status": answer.status, "scheme": "https" if life.is_sealed else "http",
        "worker": int(answer.headers["X-Worker"]), "master": int(answer.headers["X-Master"]),
    }


def count(observer, kind):
    return len(compare.of_kind(compare.parse(observer.output())[0], kind))


def note_end(observer):
    for stream in (1, 0):
        for line in observer.output(stream).splitlines()[-LOG_LINES:]:
            say("note", observer.name, line[:6000])


def run(case):
    """Observes the lives of some gunicorns; returns the differences between the two accounts."""
    late = case == "late"
    started, stage = [], None
    try:
        if not late:
            started.append(observer := start_observer(case))
        stage = Stage(started)
        stage.settle()
        stage.connect()
        if late:
            for connection in stage.connections.values():
                connection.asked.clear()  # nobody was there to see it
            stage.child = stage.many.fork()
            started.append(observer := start_observer(None))
            wait(READY_SECONDS, "instances of running gunicorns", lambda: count(observer, "instance") >= 20)
        asked = stage.serve_kept()  # before the others' ends, some of which are a matter of seconds
        stage.begin()
        requests = [ask(kind, number * len(KINDS) + index, stage.web)
                    for number in range(ROUNDS) for index, kind in enumerate(KINDS)]
        secrets = [ask(kind, number, stage.sealed) for number, kind in enumerate(SEALED)]
        problems = []
        if len({request["worker"] for request in requests}) < 3:
            problems.append("no worker was recycled")
        stage.recycled()
        stage.web.stop()
        stage.sealed.stop()
        asked |= {"web": requests, "sealed": secrets}
        problems += stage.end()
        try:
            gone = len(stage.truth.roles)
            wait(20, "all segments and ends", lambda: count(observer, "segment") >= sum(map(len, asked.values()))
                 and observer.output().count('"role":null') >= gone)
        except Failed:
            pass  # the comparison names the missing ones
        if status := observer.stop():
            problems.append(f"sw-observe ended with {status} on TERM")
        if "panicked" in observer.output(1):
            problems.append("sw-observe panicked")
        for service, requests in asked.items():
            problems += compare.differences(requests, observer.output(), os.uname().nodename, service)
        problems += compare.lives(stage.truth, observer.output())
        if late:
            say("variants", json.dumps(compare.variants(observer.output()), sort_keys=True))
        elif case not in compare.variants(observer.output()).values():
            problems.append(f"no probe is attached as {case}")
        if problems:
            note_end(observer)
        return problems
    finally:
        for process in reversed(started):
            process.discard()
        if stage:
            lives.bury(stage.truth)


def main(cases):
    compare.check_this_file()
    say("up", os.uname().release)
    for case in cases:
        begin = time.monotonic()
        try:
            problems = run(case)
        except Failed as failed:
            problems = [str(failed)]
        except Exception:  # a case must not take the others with it
            problems = [" | ".join(traceback.format_exc().splitlines()[-3:])]
        for problem in problems[:10]:
            say("fail", case, problem)
        if not problems:
            say("pass", case, f"{time.monotonic() - begin:.0f}s")
    say("end")


if __name__ == "__main__":
    main(sys.argv[1:])
