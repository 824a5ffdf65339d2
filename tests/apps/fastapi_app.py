"""A FastAPI application with the actions that every test application has."""
import asyncio
import time

from fastapi import FastAPI
from fastapi import Request
from fastapi import Response
from fastapi.responses import StreamingResponse

import served

api = FastAPI()


def route(function):
    """Serves a function at /<its name>/<request id> for every method the tests use."""
    methods = ["GET", "HEAD", "POST", "PUT", "DELETE"]
    api.api_route(f"/{function.__name__}/{{_id}}", methods=methods)(function)
    return function


@route
async def plain(_id: str):
    return Response(served.who() + "\n")


@route
async def echo(_id: str, request: Request):
    return Response(await request.body())


@route
async def early(_id: str):
    return Response("not read\n", 413)


@route
async def stream(_id: str, request: Request):
    async def parts():
        for part in served.pieces(request.url.query):
            yield part

    return StreamingResponse(parts())


@route
async def empty(_id: str):
    return Response(status_code=204)


@route
async def same(_id: str):
    return Response(status_code=304)


@route
async def fail(_id: str):
    return Response("failed\n", 500)


@route
async def broken(_id: str):
    raise RuntimeError("on purpose")


@route
async def slow(_id: str, request: Request):
    await asyncio.sleep(served.number(request.url.query, "ms", 20) / 1000)
    return await plain(_id)


@route
async def block(_id: str, request: Request):
    """Keeps the loop from coming round."""
    time.sleep(served.number(request.url.query, "ms", 20) / 1000)
    return await plain(_id)


@route
async def large(_id: str, request: Request):
    return Response(served.body(request.url.query))


@route
async def leave(_id: str):
    served.leave()


async def app(scope, receive, send):
    """The application with a count and the header that names the worker around it."""
    if scope["type"] != "http":
        await api(scope, receive, send)
        return
    served.count()

    async def named(message):
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), (b"x-worker", served.who().encode())]
        await send(message)

    await api(scope, receive, named)
