"""A Tornado application with the actions that every test application has."""
import asyncio

from tornado.web import Application
from tornado.web import RequestHandler

import served


class Action(RequestHandler):
    """Serves /<action>/<request id>."""

    def prepare(self):
        served.count()

    def set_default_headers(self):
        self.set_header("X-Worker", served.who())

    def compute_etag(self):
        return None  # no 304 of Tornado's own

    async def answer(self, action):
        await getattr(self, f"do_{action}", self.do_missing)()

    get = head = post = put = delete = answer

    async def do_plain(self):
        self.write(served.who() + "\n")

    async def do_echo(self):
        self.write(self.request.body)

    async def do_early(self):
        self.set_status(413)
        self.write("not read\n")

    async def do_stream(self):
        for part in served.pieces(self.request.query):
            self.write(part)
            await self.flush()

    async def do_empty(self):
        self.set_status(204)

    async def do_same(self):
        self.set_status(304)

    async def do_missing(self):
        self.set_status(404)
        self.write("missing\n")

    async def do_fail(self):
        self.set_status(500)
        self.write("failed\n")

    async def do_broken(self):
        raise RuntimeError("on purpose")

    async def do_slow(self):
        await asyncio.sleep(served.number(self.request.query, "ms", 20) / 1000)
        await self.do_plain()

    async def do_large(self):
        self.write(served.body(self.request.query))

    async def do_leave(self):
        served.leave()


app = Application([(r"/([a-z]+)/[^/]*", Action)])
