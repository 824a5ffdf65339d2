"""Gunicorns whose workers end in every way that a guest can show, and the truth about them, told by gunicorn's logs."""

import ctypes
import http.client
import os
import signal
import ssl
import threading
import time

PATIENCE = 180  # an emulated machine is slow, one beside a busy other slower
TIMEOUT = 8  # an emulated machine takes seconds to run out of memory
GROUP = "/sys/fs/cgroup/eater"
GROUP_BYTES = 120 << 20


class Truth:
    """What was done: the roles of every process in order, and the cause of every end."""

    def __init__(self):
        self.roles, self.causes, self.upgrades, self.lock = {}, {}, [], threading.Lock()

    def role(self, pid, *roles):
        with self.lock:
            self.roles[pid] = list(roles)

    def end(self, pid, cause):
        with self.lock:
            self.causes.setdefault(pid, cause)


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {PATIENCE} s")
        time.sleep(0.05)
    return value


def numbers(log, mark):
    """The numbers behind a mark in a log, in order."""
    return [int(line.split(mark)[1].split()[0].rstrip(")")) for line in log.splitlines() if mark in line]


def living(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def bury(truth):
    """Ends what a case that failed has left; an app child keeps its gunicorn's port."""
    for pid in filter(living, truth.roles):
        os.kill(pid, signal.SIGKILL)


class Life:
    """One gunicorn of the guest."""

    def __init__(self, truth, process, port, workers):
        self.truth, self.process, self.port, self.count = truth, process, port, workers
        self.is_sealed = False
        self.master = process.child.pid
        truth.role(self.master, "master")

    def log(self):
        return self.process.output(1)

    def ready(self):
        """The living workers that have loaded the application, oldest first; each is a worker of the truth."""
        found = numbers(self.log(), "worker ready: ")
        for pid in found:
            if pid not in self.truth.roles:
                self.truth.role(pid, "worker")
        return [pid for pid in found if living(pid)]

    def settle(self, count=None, without=()):
        """Waits for so many ready workers, none of them one of these; time enough for a first heartbeat."""
        def settled():
            ready = self.ready()
            return ready if len(ready) == (count or self.count) and not set(ready) & set(without) else None
        ready = until(f"{count or self.count} workers on port {self.port}", settled)
        time.sleep(0.3)
        return ready

    def connection(self):
        """A new one, with TLS where that is spoken, whoever the server says it is."""
        if self.is_sealed:
            anybody = ssl._create_unverified_context()
            return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=PATIENCE, context=anybody)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def ask(self, path):
        """The worker that answered and what; nothing when it died of the request."""
        connection = self.connection()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return int(answer.headers.get("X-Worker", 0)), answer.read().decode()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def fork(self):
        """A child of a worker that stays."""
        self.settle()
        worker, child = self.ask("/fork/1")
        self.truth.role(int(child), "app-child")
        return int(child)

    def dies(self, path, cause):
        """A request that its worker does not survive."""
        before = self.settle()
        self.ask(path)
        gone = until(f"the end by {path}", lambda: [pid for pid in before if not living(pid)])
        self.truth.end(gone[0], cause)
        self.settle(without=gone)

    def kill(self):
        victim = self.settle()[0]
        os.kill(victim, signal.SIGKILL)
        self.truth.end(victim, "killed")
        self.settle(without=[victim])

    def scale(self):
        oldest = self.settle()[0]
        os.kill(self.master, signal.SIGTTIN)
        self.settle(self.count + 1)
        os.kill(self.master, signal.SIGTTOU)
        self.truth.end(oldest, "scale-down")
        self.settle(without=[oldest])

    def reload(self):
        old = self.settle()
        os.kill(self.master, signal.SIGHUP)
        for pid in old:
            self.truth.end(pid, "reload")
        self.settle(without=old)

    def upgrade(self):
        """USR2, then the old master is asked to end: the new one takes its place."""
        old = self.settle()
        os.kill(self.master, signal.SIGUSR2)
        self.settle(2 * self.count)
        fresh = numbers(self.log().replace("(", ""), f":{self.port} ")[-1]
        self.truth.role(fresh, "upgrade-master", "master")
        self.truth.upgrades.append("promoted")
        self.stop(old)
        self.master = fresh
        time.sleep(2)

    def stop(self, workers=None):
        """TERM, and what it means for master and workers."""
        for pid in [self.master, *(workers or self.settle())]:
            self.truth.end(pid, "shutdown")
        os.kill(self.master, signal.SIGTERM)
        until(f"the end of {self.master}", lambda: self.process.child.poll() is not None and not living(self.master))


def limit(life):
    """Puts a gunicorn into a group with little memory; says whether this kernel has such groups."""
    try:
        with open("/sys/fs/cgroup/cgroup.subtree_control", "w") as file:
            file.write("+memory")
        os.makedirs(GROUP, exist_ok=True)
        with open(f"{GROUP}/memory.max", "w") as file:
            file.write(str(GROUP_BYTES))
        for pid in [life.master, *life.settle()]:
            with open(f"{GROUP}/cgroup.procs", "w") as file:
                file.write(str(pid))
        return True
    except OSError:
        return False


def many_ends(life, child):
    """One gunicorn through everything but an upgrade."""
    child = child or life.fork()
    life.kill()
    life.dies("/crash/1", "crash")
    life.dies("/hang/1", "timeout")
    if limit(life):
        life.dies("/eat/1", "oom")
    life.scale()
    life.reload()
    os.kill(child, signal.SIGKILL)
    life.stop()


def upgraded(life):
    life.upgrade()
    life.stop()


def broken(life):
    """Its application cannot be loaded."""
    until("the end of a gunicorn that cannot boot", life.process.ended)
    life.truth.end(life.master, "boot-failure")
    for pid in numbers(life.log(), "Booting worker with pid: "):
        life.truth.role(pid, "worker")
        life.truth.end(pid, "boot-failure")


def crash():
    """Reads address 0."""
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)
