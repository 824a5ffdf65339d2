"""What the cases of the corpus serve: /<action>/<request id>. What an action forks says so, for the driver to read."""
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

HELD = []


def child():
    """Says that this process was forked by the application, and waits to be ended."""
    os.write(2, b"corpus: child %d\n" % os.getpid())
    time.sleep(600)


def fork():
    if os.fork() == 0:
        child()
        os._exit(0)


def daemon():
    pid = os.fork()
    if pid == 0:
        os.setsid()
        fork()
        os._exit(0)
    os.waitpid(pid, 0)


def pool():
    for _ in range(3):
        process = multiprocessing.get_context("fork").Process(target=child, daemon=True)
        process.start()
        HELD.append(process)


def spawned(method):
    made = multiprocessing.get_context(method).Pool(2)
    made.map(abs, [1, 2])
    HELD.append(made)


def popen(**options):
    HELD.append(subprocess.Popen(["sleep", "600"], **options))


def prepare():
    os.write(2, b"corpus: preparing\n")
    time.sleep(0.3)


def eat():
    while True:
        HELD.append(bytearray(os.urandom(1 << 20)))


def keep():
    HELD.append(bytearray(b"x") * (80 << 20))


ACTIONS = {
    "plain": lambda: None,
    "slow": lambda: time.sleep(3),
    "hang": lambda: time.sleep(600),
    "spin": lambda: sum(range(10**13)),  # in C, where no signal handler of Python runs
    "fork": fork,
    "daemon": daemon,
    "pool": pool,
    "spawn": lambda: spawned("spawn"),
    "forkserver": lambda: spawned("forkserver"),
    "popen": popen,
    "preexec": lambda: popen(preexec_fn=prepare),
    "posix_spawn": lambda: os.posix_spawnp("sleep", ["sleep", "600"], os.environ),
    "system": lambda: os.system("sleep 600 & sleep 600 &"),
    "exit7": lambda: os._exit(7),
    "exit5": lambda: sys.exit(5),
    "segv": lambda: ctypes.string_at(0),
    "abort": os.abort,
    "term": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "eat": eat,
    "keep": keep,
    "thread": lambda: threading.Thread(target=fork).start(),
}


def app(environ, start):
    """WSGI."""
    ACTIONS[environ["PATH_INFO"].split("/")[1]]()
    start("200 OK", [("X-Worker", str(os.getpid())), ("Content-Length", "3")])
    return [b"ok\n"]


async def asgi(scope, receive, send):
    """ASGI; an action blocks the loop."""
    if scope["type"] != "http":
        return
    ACTIONS[scope["path"].split("/")[1]]()
    headers = [(b"x-worker", b"%d" % os.getpid()), (b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"ok\n"})


def factory(global_config, **settings):
    """For Paste."""
    return app
