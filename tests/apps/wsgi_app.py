"""A plain WSGI application: /<action>/<request id>, one function per action."""
import tempfile
import time

import served


def reply(start, status, body, headers=()):
    """Answers with a body of known length."""
    start(status, [("X-Worker", served.who()), ("Content-Length", str(len(body))), *headers])
    return [body]


def plain(environ, start):
    return reply(start, "200 OK", served.who().encode() + b"\n")


def echo(environ, start):
    return reply(start, "200 OK", environ["wsgi.input"].read())


def early(environ, start):
    return reply(start, "413 Too Large", b"not read\n")


def stream(environ, start):
    start("200 OK", [("X-Worker", served.who())])
    return (piece for piece in served.pieces(environ["QUERY_STRING"]))


def drip(environ, start):
    """Pieces with 150 ms before each."""
    start("200 OK", [("X-Worker", served.who())])

    def pieces():
        for piece in served.pieces(environ["QUERY_STRING"]):
            time.sleep(0.15)
            yield piece

    return pieces()


def empty(environ, start):
    start("204 No Content", [("X-Worker", served.who())])
    return []


def same(environ, start):
    start("304 Not Modified", [("X-Worker", served.who()), ("ETag", '"same"')])
    return []


def missing(environ, start):
    return reply(start, "404 Not Found", b"missing\n")


def fail(environ, start):
    return reply(start, "500 Internal Server Error", b"failed\n")


def broken(environ, start):
    raise RuntimeError("on purpose")


def slow(environ, start):
    time.sleep(served.number(environ["QUERY_STRING"], "ms", 20) / 1000)
    return plain(environ, start)


def peer(environ, start):
    """Who gunicorn says that the client is."""
    return reply(start, "200 OK", f"{environ.get('REMOTE_ADDR')}:{environ.get('REMOTE_PORT')}".encode())


def large(environ, start):
    return reply(start, "200 OK", served.body(environ["QUERY_STRING"]))


def sendfile(environ, start):
    file = tempfile.TemporaryFile()
    file.write(served.body(environ["QUERY_STRING"]))
    size = file.tell()
    file.seek(0)
    start("200 OK", [("X-Worker", served.who()), ("Content-Length", str(size))])
    return environ["wsgi.file_wrapper"](file)


def leave(environ, start):
    served.leave()


ACTIONS = {
    action.__name__: action
    for action in (
        plain, echo, early, stream, drip, empty, same, missing, fail, broken, slow, peer, large, sendfile, leave
    )
}


def app(environ, start):
    """Serves one request."""
    served.count()
    body = ACTIONS.get(environ["PATH_INFO"].split("/")[1], missing)(environ, start)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else body
