"""Asks another server over TLS while it answers: sessions that ask, beside those that serve, on one thread."""

import asyncio
import os
import ssl
import urllib.parse

TRUSTING = ssl.create_default_context()
TRUSTING.check_hostname = False
TRUSTING.verify_mode = ssl.CERT_NONE


async def ask(port, path):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=TRUSTING)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: inner\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.split(b"\r\n", 1)[0]


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    query = urllib.parse.parse_qs(scope["query_string"].decode())
    body = await ask(int(query["port"][0]), query["path"][0])
    headers = [(b"content-length", str(len(body)).encode()), (b"x-worker", str(os.getpid()).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
