"""An application of the framework that FRAMEWORK names, at `app`; `create()` makes one that has no name."""
import os

import served


def headers():
    return [("Content-Type", "text/plain"), ("X-Worker", served.who())]


def perhaps_fail(path):
    """Ends a request by an exception that nobody handles, where its path says so."""
    if "/raise/" in f"/{path}":
        raise RuntimeError("on purpose")


def bare():
    def application(environ, start):
        start("200 OK", headers())
        return [b"bare\n"]

    return application


def django():
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpResponse
    from django.urls import re_path

    def view(request):
        perhaps_fail(request.path)
        return HttpResponse("django\n", headers=dict(headers()))

    class Urls:
        urlpatterns = [re_path("", view)]

    settings.configure(ROOT_URLCONF=Urls, ALLOWED_HOSTS=["*"], SECRET_KEY="test")
    return get_wsgi_application()


def flask():
    import requests  # what it calls others with does not matter
    from flask import Flask
    made = Flask("shop")

    @made.route("/<path:path>")
    def view(path):
        perhaps_fail(path)
        return f"flask and {requests.__name__}\n", headers()

    return made


def wrapped():
    """A Flask inside of something that is none."""
    inner = flask()

    class Wrapped:
        def __call__(self, environ, start):
            return inner(environ, start)

    return Wrapped()


def lazy():
    """A Flask that is not there before the first request."""
    made = {}

    def application(environ, start):
        if not made:
            made["flask"] = flask()
        return made["flask"](environ, start)

    return application


def fastapi():
    from fastapi import FastAPI
    from fastapi import WebSocket
    from fastapi.responses import PlainTextResponse
    made = FastAPI()

    @made.get("/{path:path}")
    def view(path: str):
        perhaps_fail(path)
        return PlainTextResponse("fastapi\n", headers=dict(headers()))

    @made.websocket("/socket")
    async def echo(socket: WebSocket):
        await socket.accept()
        await socket.send_text("hello")  # in the handshake's write, or just behind it
        async for message in socket.iter_bytes():
            await socket.send_bytes(message)

    return made


def quart():
    from quart import Quart
    made = Quart("shop")

    @made.route("/<path:path>")
    async def view(path):
        return "quart\n", headers()

    return made


def tornado():
    from tornado.web import Application
    from tornado.web import RequestHandler

    class View(RequestHandler):
        def get(self):
            perhaps_fail(self.request.path)
            self.set_header("X-Worker", served.who())
            self.write("tornado\n")

    return Application([(r"/.*", View)])


def sanic():
    from sanic import Sanic
    from sanic.response import text
    made = Sanic("shop")

    @made.get("/<path:path>")
    async def view(request, path):
        return text("sanic\n", headers=dict(headers()))

    return made


def aiohttp():
    from aiohttp import web
    made = web.Application()

    async def view(request):
        return web.Response(text="aiohttp\n", headers={"X-Worker": served.who()})

    made.router.add_get("/{path:.*}", view)
    return made


def client():
    """Calls others with frameworks that serve too."""
    import aiohttp
    import requests
    import tornado.httpclient
    assert aiohttp and requests and tornado
    return bare()


def pyramid():
    from pyramid.config import Configurator
    from pyramid.response import Response

    def view(request):
        perhaps_fail(request.path)
        return Response(b"pyramid\n", headerlist=headers())

    with Configurator() as config:
        config.add_route("all", "/*path")
        config.add_view(view, route_name="all")
        return config.make_wsgi_app()


def falcon():
    import falcon as library

    def view(request, response, path=None):
        perhaps_fail(request.path)
        response.text = "falcon\n"
        response.set_headers(headers())

    made = getattr(library, "API", library.App)()  # the agent changes the old one only
    made.add_sink(view)
    return made


def bottle():
    from bottle import Bottle
    from bottle import response
    made = Bottle()

    @made.route("/<path:path>")
    def view(path):
        perhaps_fail(path)
        for name, value in headers():
            response.set_header(name, value)
        return "bottle\n"

    return made


def create():
    return globals()[os.environ["FRAMEWORK"]]()


if "WITH_AGENT" in os.environ:  # its plugins change frameworks before those are used
    from skywalking import agent
    agent.start()

if "NAMELESS" not in os.environ:
    app = create()
