#!/usr/bin/env python3
"""Records the tapes of this folder from real runs: `record.py OBSERVER PYTHON OLD_PYTHON [CASE…]`, as root.

PYTHON is an environment with what tests/apps/requirements.txt names, and for `http2` tests/apps/http2.txt, OLD_PYTHON one
with gunicorn 20.1.0. Everything runs in namespaces of its own, so that a tape names no machine; what the observer saw of
other processes is left out of it.
"""
import base64
import json
import os
import pathlib
import signal
import socket
import ssl
import struct
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
APPS = HERE.parent / "apps"
PORT = 8000
UNIX = "/srv/socket"
FORKED, OPENED, RECEIVED, SENT, CLOSED, SIGNALLED, PROGRAM = 1, 6, 7, 8, 9, 10, 11
MOVED_BYTES = 64


def gunicorn(*args, app="wsgi_app:app", python="python", more=None):
    command = [f"/opt/{python}/bin/python", "-m", "gunicorn", *args, app]
    environ = {"PATH": "/usr/bin:/bin", "SW_AGENT_NAME": "golden", "PYTHONDONTWRITEBYTECODE": "1", **(more or {})}
    child = subprocess.Popen(command, cwd="/srv/apps", env=environ, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    where = next((word for word in args if "unix:" in word), None)
    connect.encrypted = "--certfile" in args
    for _ in range(200):
        try:
            ask("GET", "/plain/ready", "Connection: close", unix=where)
            return child
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"gunicorn does not listen: {command}")


def connect(unix=None):
    if unix:
        s = socket.socket(socket.AF_UNIX)
        s.connect(UNIX)
    else:
        s = socket.create_connection(("127.0.0.1", PORT))
    s.settimeout(10)
    if connect.encrypted:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        s = context.wrap_socket(s)
    return s


def head(method, path, *headers):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: golden:8000", *headers, "", ""]).encode()


def read(s, wanted):
    """Reads until `wanted` stands in what was read, or the server closes."""
    seen = b""
    while wanted not in seen:
        more = s.recv(65536)
        if not more:
            break
        seen += more
    return seen


def ask(method, path, *headers, body=b"", unix=None):
    """One request on a connection of its own."""
    s = connect(unix)
    s.sendall(head(method, path, *headers) + body)
    while s.recv(65536):
        pass
    s.close()


def close(s):
    s.close()
    time.sleep(0.05)


BIND = ("--bind", f"127.0.0.1:{PORT}")


def sw8():
    """What a caller says of itself."""
    part = lambda text: base64.b64encode(text.encode()).decode()
    return "-".join(["1", part("trace"), part("segment"), "3", *map(part, ("front", "front-1", "/up", "golden:8000"))])


def sync():
    """Sync worker: a connection per request; 200, 404, 500, HEAD, a body, an inbound sw8 header and a wrong one."""
    child = gunicorn("--workers", "1", *BIND)
    ask("GET", "/plain/1")
    ask("GET", "/missing/2?secret=1")
    ask("GET", "/fail/3")
    ask("HEAD", "/plain/4")
    ask("POST", "/echo/5", "Content-Length: 5", body=b"hello")
    ask("GET", "/plain/6", f"sw8: {sw8()}")
    ask("GET", "/plain/7", "sw8: nonsense")
    ask("GET", "/empty/8")
    time.sleep(2.5)  # two samples
    return child


def rules():
    """Flask with the agent's variables: a path, a suffix and a method that are left out, parameters, a foreign trace."""
    variables = {
        "SW_AGENT_TRACE_IGNORE_PATH": "/echo/*",
        "SW_PLUGIN_HTTP_IGNORE_METHOD": "put",
        "SW_PLUGIN_FLASK_COLLECT_HTTP_PARAMS": "true",
    }
    child = gunicorn("--workers", "1", *BIND, app="flask_app:app", more=variables)
    ask("POST", "/echo/1", "Content-Length: 0")
    ask("GET", "/plain/2.js")
    ask("PUT", "/plain/3", "Content-Length: 0")
    ask("GET", "/plain/4?q=a+b&token=s3cret&q=c")
    ask("GET", "/plain/5", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
    return child


def gthread():
    """Gthread worker: keep-alive, then three pipelined requests in one packet, then bytes that are not HTTP."""
    child = gunicorn("--workers", "1", "--worker-class", "gthread", "--threads", "2", *BIND)
    s = connect()
    for n in range(3):
        s.sendall(head("GET", f"/plain/{n}"))
        read(s, b"\r\n\r\n")
    s.sendall(b"".join(head("GET", f"/missing/p{n}") for n in range(3)))
    for _ in range(3):
        time.sleep(0.2)
    read(s, b"missing")
    close(s)
    s = connect()
    s.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 garbage\r\n\r\n")
    read(s, b"\r\n\r\n")
    close(s)
    return child


def uvicorn():
    """Uvicorn worker (asyncio, h11): chunked request and chunked response, and 100-continue."""
    worker = ("--worker-class", "uvicorn.workers.UvicornH11Worker")
    child = gunicorn("--workers", "1", *worker, *BIND, app="fastapi_app:app")
    s = connect()
    s.sendall(head("POST", "/echo/1", "Transfer-Encoding: chunked"))
    for piece in (b"5\r\nhello\r\n", b"6\r\n world\r\n", b"0\r\n\r\n"):
        time.sleep(0.05)
        s.sendall(piece)
    read(s, b"hello world")
    s.sendall(head("GET", "/stream/2?n=3&size=50"))
    read(s, b"0\r\n\r\n")
    s.sendall(head("POST", "/echo/3", "Content-Length: 4", "Expect: 100-continue"))
    read(s, b"100 Continue\r\n\r\n")
    s.sendall(b"body")
    read(s, b"body")
    close(s)
    return child


def http2():
    """Gthread worker: HTTP/2 by a client that knows, then by one that asks over HTTP/1; several streams, one cut off."""
    worker = ("--worker-class", "gthread", "--threads", "2", "--http-protocols", "h2,h1", "--http2-cleartext", "both")
    child = gunicorn("--workers", "1", *worker, *BIND)
    request = lambda method, path, query="", headers=(), body=0, reset=False: {
        "method": method, "path": path, "query": query, "headers": headers, "body": body, "reset": reset}
    asked = [
        request("GET", "/plain/1", "?secret=1"),
        request("POST", "/echo/2", body=32),
        request("GET", "/missing/3"),
        request("GET", "/plain/4", headers=[["sw8", sw8()]]),
        request("POST", "/echo/5", body=3_200, reset=True),
        request("HEAD", "/plain/6"),
    ]
    for how in ("prior", "upgrade"):
        client = ["/opt/python/bin/python", "/srv/apps/http2_client.py", "127.0.0.1", str(PORT), how]
        subprocess.run(client, input=json.dumps([asked]), text=True, check=True, stdout=subprocess.DEVNULL)
    return child


def tls():
    """Gthread worker that decrypts itself: two requests on a connection, then one cut off."""
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=golden", "-days", "2"]
    subprocess.run([*make, "-keyout", "/srv/key", "-out", "/srv/certificate"], check=True, stderr=subprocess.DEVNULL)
    worker = ("--worker-class", "gthread", "--threads", "2", "--certfile", "/srv/certificate", "--keyfile", "/srv/key")
    child = gunicorn("--workers", "1", *worker, *BIND)
    s = connect()
    s.sendall(head("GET", "/plain/1"))
    read(s, b"\r\n\r\n")
    s.sendall(head("POST", "/echo/2", "Content-Length: 5") + b"hello")
    read(s, b"hello")
    close(s)
    s = connect()
    s.sendall(head("POST", "/echo/3", "Content-Length: 5") + b"he")
    time.sleep(0.3)
    close(s)
    return child


def late():
    """Observer started after gunicorn, in the middle of a kept connection."""
    child, s = late.begun
    s.sendall(head("GET", "/missing/after"))
    read(s, b"missing")
    close(s)
    ask("GET", "/plain/new", "Connection: close")
    return child


def late_before():
    child = gunicorn("--workers", "2", "--worker-class", "gthread", "--keep-alive", "60", *BIND)
    s = connect()
    s.sendall(head("GET", "/missing/before"))
    read(s, b"missing")
    late.begun = child, s


def recycled():
    """Two requests per worker (`--max-requests 2`): workers go and come."""
    child = gunicorn("--workers", "1", "--max-requests", "2", *BIND)
    for n in range(4):
        ask("GET", f"/plain/{n}")
        time.sleep(0.7)
    return child


def killed():
    """A worker killed by SIGKILL in the middle of a request; its successor serves the next one."""
    child = gunicorn("--workers", "1", *BIND)
    ask("GET", "/plain/1")
    s = connect()
    s.sendall(head("GET", "/slow/2?ms=5000"))
    time.sleep(0.5)
    worker = int(pathlib.Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0])
    os.kill(worker, signal.SIGKILL)
    time.sleep(1.5)
    close(s)
    ask("GET", "/plain/3")
    return child


def workers(master):
    return [int(pid) for pid in pathlib.Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def reloaded(**options):
    child = gunicorn("--workers", "2", *BIND, **options)
    child.send_signal(signal.SIGHUP)
    time.sleep(2)
    ask("GET", "/plain/after")
    return child


def reload_27():
    """HUP on 27.0.1: new workers, then one TERM for each old one."""
    return reloaded()


def reload_20():
    """HUP on 20.1.0: TERM again and again, so that old workers may end by the signal."""
    return reloaded(python="old")


def upgraded():
    child = gunicorn("--workers", "1", *BIND)
    child.send_signal(signal.SIGUSR2)
    time.sleep(1.5)
    (new,) = [pid for pid in workers(child.pid) if workers(pid)]
    return child, new


def promoted():
    """USR2, then TERM for the old master: the new one goes on alone."""
    child, new = upgraded()
    child.terminate()
    child.wait()
    time.sleep(0.5)
    ask("GET", "/plain/after")
    os.kill(new, signal.SIGTERM)
    time.sleep(1)
    return child


def rolled_back():
    """USR2, then TERM for the new master: the old one goes on."""
    child, new = upgraded()
    os.kill(new, signal.SIGTERM)
    time.sleep(1)
    ask("GET", "/plain/after")
    return child


def hung(kind, action, app="corpus_app:app"):
    """A request that nobody answers, until the arbiter ends its worker."""
    child = gunicorn("--workers", "1", "--timeout", "2", "--worker-class", kind, *BIND, app=app)
    s = connect()
    s.sendall(head("GET", f"/{action}/1"))
    time.sleep(5)
    close(s)
    return child


def timeout_sync():
    """A sync worker that sleeps and lets nothing end that: aborted, then killed."""
    return hung("sync", "hang")


def timeout_gthread():
    """A gthread worker that keeps the interpreter's lock in C: aborted, then killed."""
    return hung("gthread", "spin")


def timeout_gevent():
    """A gevent worker that does not yield: aborted, then killed."""
    return hung("gevent", "spin")


def timeout_tornado():
    """A tornado worker that is stopped: aborted, then killed."""
    child = gunicorn("--workers", "1", "--timeout", "2", "--worker-class", "tornado", *BIND)
    time.sleep(2.5)  # the first beat comes after a second; who never beat is not timed out
    os.kill(workers(child.pid)[0], signal.SIGSTOP)
    time.sleep(5)
    return child


def timeout_asgi():
    """A native asgi worker whose loop is blocked: aborted, then killed."""
    return hung("asgi", "hang", "corpus_app:asgi")


def timeout_uvicorn():
    """A uvicorn worker whose loop is blocked: aborted, and ended by that."""
    return hung("uvicorn.workers.UvicornWorker", "hang", "corpus_app:asgi")


def oom():
    """A control group runs out of memory while another process in it allocates: the kernel takes the worker."""
    group = pathlib.Path("/sys/fs/cgroup/memory/golden")
    group.mkdir(exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(str(160 << 20))
    child = gunicorn("--workers", "1", *BIND)
    (worker,) = workers(child.pid)
    (group / "cgroup.procs").write_text(str(worker))
    pathlib.Path(f"/proc/{worker}/oom_score_adj").write_text("1000")
    eats = "held = [bytes([n % 251 + 1]) * (1 << 20) for n in range(250)]"
    join = lambda: (group / "cgroup.procs").write_text(str(os.getpid()))
    subprocess.run([sys.executable, "-c", eats], preexec_fn=join, check=False)
    time.sleep(1)
    ask("GET", "/plain/after")
    return child


def unix():
    """A Unix socket: no ports, no addresses."""
    child = gunicorn("--workers", "1", "--bind", f"unix:{UNIX}")
    ask("GET", "/plain/1", unix=True)
    ask("GET", "/fail/2", unix=True)
    return child


def saturated():
    """Both sync workers sleep and the accept queue (`--backlog 2`) is full; then they wake and serve what waited."""
    child = gunicorn("--workers", "2", "--backlog", "2", "--timeout", "60", *BIND)
    clients = []
    for path in ("/slow/1?ms=7000", "/slow/2?ms=7000", "/plain/3", "/plain/4", "/plain/5"):
        s = connect()
        s.sendall(head("GET", path))
        clients.append(s)
        time.sleep(0.3)
    for s in clients:
        read(s, b"never")
        s.close()
    time.sleep(7)
    return child


CASES = [
    sync, rules, gthread, uvicorn, http2, tls, late, recycled, killed, unix, reload_20, reload_27, promoted, rolled_back,
    timeout_sync, timeout_gthread, timeout_gevent, timeout_tornado, timeout_asgi, timeout_uvicorn, oom, saturated,
]


def record(case, observer):
    """Runs one case under the observer and leaves its tape."""
    before = globals().get(case.__name__ + "_before")
    if before:
        before()
    raw = pathlib.Path("/srv/raw.tape")
    period = "1" if case is sync else "0"
    command = [observer, "record", str(raw), "--print=json", "--meter-period", period, "--log-level", "error"]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if '"ready"' not in watcher.stdout.readline():
        raise SystemExit("the observer did not get ready")
    try:
        child = case()
        time.sleep(0.3)
        child.terminate()
        child.wait()
        time.sleep(0.5)
    finally:
        watcher.terminate()
        watcher.communicate()
    tape = HERE / f"{case.__name__}.tape"
    tape.write_text("".join(json.dumps(line, separators=(",", ":")) + "\n" for line in own(raw, child.pid)))
    print(f"{tape.name}: {tape.stat().st_size} bytes")


def own(raw, master):
    """The lines of a tape that are about one gunicorn."""
    pids, connections = {master}, set()
    lines = [json.loads(line) for line in raw.read_text().splitlines()]
    for line in lines:
        for holder in line.get("found", {}).get("holders", []):
            if holder["facts"]["parent"] in pids:
                pids.add(holder["facts"]["key"]["pid"])
    yield lines[0]
    for line in lines[1:]:
        (kind, value), = line.items()
        if kind == "record":
            value = own_record(base64.b64decode(value), pids, connections)
            if value is None:
                continue
            value = base64.b64encode(value).decode()
        elif kind == "found":
            value["holders"] = [held for held in value["holders"] if held["facts"]["key"]["pid"] in pids]
            for held in value["holders"]:
                held["facts"]["cgroup"] = "/"
        elif kind == "facts" and value["key"]["pid"] not in pids or kind == "gone" and value not in pids:
            continue
        elif kind == "facts":
            value["cgroup"] = "/"  # the recording machine's
        elif kind == "imports" and value["process"]["pid"] not in pids:
            continue
        elif kind == "samples":
            value["processes"] = [sample for sample in value["processes"] if sample["key"]["pid"] in pids]
            value["queues"] = own_queues(value["queues"], pids)
        elif kind == "queues":
            value["queues"] = own_queues(value["queues"], pids)
        yield {kind: value}


def own_queues(queues, pids):
    """What is said of these processes."""
    whose = {"listeners": "holder", "unread": "process", "overflows": "process"}
    return {part: [row for row in queues[part] if row[key]["pid"] in pids] for part, key in whose.items()}


def own_record(record, pids, connections):
    """The record without what lies behind its payload; `None` when it is another's."""
    _, tgid, _, kind, _, length = struct.unpack_from("<QIIHHI", record)
    if kind in (OPENED, RECEIVED, SENT, CLOSED):
        connection = record[24:40]
        if kind != CLOSED and tgid in pids:
            connections.add(connection)
        mine = connection in connections
        return (record[: MOVED_BYTES + length] if kind in (RECEIVED, SENT) else record) if mine else None
    if kind == SIGNALLED:
        return record if struct.unpack_from("<I", record, 24)[0] in pids else None
    if tgid not in pids or kind == PROGRAM:
        return None
    if kind == FORKED:
        pids.add(struct.unpack_from("<I", record, 24)[0])
    return record


def main():
    """Enters the namespaces first, then records."""
    if os.environ.get("GOLDEN_INSIDE") is None:
        os.environ["GOLDEN_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--uts", "--net", "--mount", sys.executable, *sys.argv])
    observer, python, old, *names = sys.argv[1:]
    socket.sethostname("golden")
    for command in (
        "ip link set lo up",
        "mount -t tmpfs tmpfs /srv",
        "mkdir /srv/apps /srv/python",
        f"mount --bind {APPS} /srv/apps",
        "mount -t tmpfs tmpfs /opt",
        "mkdir /opt/python /opt/old",
        f"mount --bind {python} /opt/python",
        f"mount --bind {old} /opt/old",
    ):
        subprocess.run(command.split(), check=True)
    for case in CASES:
        if not names or case.__name__ in names:
            record(case, observer)


if __name__ == "__main__":
    main()
