"""httpx as a client of HTTP/2: URL of the server, number of requests to be under way at a time."""
import asyncio
import sys

import httpx


async def main():
    url, count = sys.argv[1], int(sys.argv[2])
    plain = url.startswith("http:")  # it knows then what the server speaks
    async with httpx.AsyncClient(http1=not plain, http2=True, verify=False, timeout=60) as client:
        first = await client.get(f"{url}/plain/httpx", params={"n": "1"})  # or each would open a connection
        asked = [client.post(f"{url}/echo/httpx", content=b"x" * (n * 1_000)) for n in range(count)]
        answers = await asyncio.gather(*asked)
    sizes = [len(answer.content) for answer in answers]
    assert sizes == [n * 1_000 for n in range(count)], sizes
    print({answer.http_version for answer in [first, *answers]}, {answer.status_code for answer in [first, *answers]})


asyncio.run(main())
