"""A worker class whose loop is `flood_server.c`: gunicorn's processes, and no Python for a request."""

import ctypes
import os

from gunicorn.workers.base import Worker


class FloodWorker(Worker):
    def run(self):
        serve = ctypes.CDLL(os.environ["FLOOD_SERVER"]).serve
        [listener] = self.sockets
        listener.setblocking(False)
        while self.alive and self.ppid == os.getppid():
            self.notify()
            serve(listener.fileno())
