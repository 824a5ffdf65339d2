"""A WSGI application for sync workers that answers on the client's socket by other means than the worker's own fd."""
import array
import os
import socket

import served
import wsgi_app


class Done(BrokenPipeError):
    """Tells a sync worker that the response is out; it takes it for a client that left and only closes."""

    def __init__(self):
        super().__init__(32, "answered elsewhere")


def response():
    """A whole response. X-Worker is the process that read the request."""
    body = b"elsewhere\n"
    head = f"HTTP/1.1 200 OK\r\nX-Worker: {served.who()}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body


def client(environ):
    return environ["gunicorn.socket"].fileno()


def dup(environ, start):
    """The whole response goes through a duplicate."""
    copy = os.dup(client(environ))
    os.write(copy, response())
    os.close(copy)
    raise Done()


def half(environ, start):
    """The response's head and half its body go through the worker's fd, the rest through a duplicate."""
    start("200 OK", [("X-Worker", served.who()), ("Content-Length", "20")])
    copy = os.dup(client(environ))

    def parts():
        yield b"a" * 10
        os.write(copy, b"b" * 10)
        os.close(copy)

    return parts()


def fork(environ, start):
    """A forked child answers on the inherited socket; the worker waits for it."""
    whole = response()
    child = os.fork()
    if child == 0:
        os.write(client(environ), whole)
        os._exit(0)
    os.waitpid(child, 0)
    raise Done()


def passed(environ, start):
    """A child that has closed what it inherited receives the socket in a message (SCM_RIGHTS) and answers."""
    ours, theirs = socket.socketpair()
    fd = array.array("i", [client(environ)])
    child = os.fork()
    if child == 0:
        os.close(client(environ))
        message, control, _, _ = theirs.recvmsg(1024, socket.CMSG_SPACE(4))
        received = array.array("i", control[0][2])[0]
        os.write(received, message)
        theirs.send(b"done")
        os._exit(0)
    ours.sendmsg([response()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fd)])
    ours.recv(4)
    ours.close()
    theirs.close()
    os.waitpid(child, 0)
    raise Done()


def gathered(environ, start):
    """The response leaves in three buffers with one sendmsg."""
    whole = response()
    environ["gunicorn.socket"].sendmsg([whole[:10], whole[10:50], whole[50:]])
    raise Done()


def writev(environ, start):
    """The response leaves in three buffers with one writev."""
    whole = response()
    os.writev(client(environ), [whole[:10], whole[10:50], whole[50:]])
    raise Done()


def spliced(environ, start):
    """The response's body goes through a pipe into the socket."""
    whole = response()
    head = whole.index(b"\r\n\r\n") + 4
    os.write(client(environ), whole[:head])
    output, into = os.pipe()
    os.write(into, whole[head:])
    os.splice(output, client(environ), len(whole) - head)
    os.close(output)
    os.close(into)
    raise Done()


def reused(environ, start):
    """Before the answer, the number of the client's fd is given to a file and back."""
    keep = os.dup(client(environ))
    other = os.open("/dev/null", os.O_WRONLY)
    os.dup2(other, client(environ))
    os.write(client(environ), b"HTTP/1.1 500 Wrong\r\n\r\n")
    os.dup2(keep, client(environ))
    os.close(keep)
    os.close(other)
    os.write(client(environ), response())
    raise Done()


OWN = {action.__name__: action for action in (dup, half, fork, passed, gathered, writev, spliced, reused)}


def app(environ, start):
    """Serves one request; what is not about sockets is the plain application's."""
    action = OWN.get(environ["PATH_INFO"].split("/")[1])
    if action is None:
        return wsgi_app.app(environ, start)
    served.count()
    return action(environ, start)
