"""The demo's front: an asynchronous application that asks the provider for every answer."""

import os

import httpx
from fastapi import FastAPI

PROVIDER = os.environ["DEMO_PROVIDER"]

app = FastAPI()


@app.get("/orders/{number}")
async def order(number: int):
    async with httpx.AsyncClient(base_url=PROVIDER) as provider:
        answer = await provider.get(f"/stock/{number % 7}")
    return {"order": number, "worker": os.getpid(), "stock": answer.json()}
