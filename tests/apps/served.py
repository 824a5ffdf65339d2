"""What every test application shares: who answered, and how many requests each process counted itself."""
import os
import time
from urllib.parse import parse_qs

COUNTS = os.environ.get("LIVE_COUNTS")
_files = {}


def count():
    """Adds one byte to this process's file in LIVE_COUNTS; the file's size is the count, a crash included."""
    if COUNTS is None:
        return
    pid = os.getpid()
    if pid not in _files:
        _files[pid] = os.open(f"{COUNTS}/{pid}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(_files[pid], b".")


def who():
    """The value of X-Worker: the process that answers."""
    return str(os.getpid())


def number(query, name, default):
    """A number from the query string."""
    return int(parse_qs(query).get(name, [default])[0])


def leave():
    """Ends the process in the middle of a request, after the observer had time to see the request's first bytes."""
    time.sleep(0.05)
    os._exit(7)


def pieces(query):
    """The pieces of a streamed body: `n` of them, `size` bytes each."""
    size = number(query, "size", 100)
    return [bytes([97 + i % 26]) * size for i in range(number(query, "n", 5))]


def body(query):
    """A body of `kib` KiB."""
    return b"0123456789abcdef" * (64 * number(query, "kib", 64))
