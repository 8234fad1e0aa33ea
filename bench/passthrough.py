"""The unit of measure: an HTTP proxy of aiohttp's server and client that hands bytes on and looks at none.

`python -m bench.passthrough URL` sends every POST to URL/chat/completions and prints "ready on http://HOST:PORT". It
runs on asyncio's own event loop and is written as plainly as such a proxy can be: whatever a gateway built on aiohttp
costs beyond this is the price of its work.
"""

from __future__ import annotations

import asyncio
import sys

import aiohttp
from aiohttp import web

from bench.loop import serve_until_stopped


def build(upstream: str, session: aiohttp.ClientSession) -> web.Application:
    async def hand_on(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        async with session.post(f"{upstream}/chat/completions", data=body, headers=headers) as answer:
            kind = answer.headers.get("content-type", "")
            if answer.content_length is not None:
                whole = await answer.read()
                return web.Response(status=answer.status, body=whole, headers={"content-type": kind})
            response = web.StreamResponse(status=answer.status, headers={"content-type": kind})
            await response.prepare(request)
            async for piece in answer.content.iter_any():
                await response.write(piece)
            await response.write_eof()
            return response

    application = web.Application(client_max_size=64 * 1024 * 1024)
    application.router.add_post("/{path:.*}", hand_on)
    return application


async def main(upstream: str) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        runner = web.AppRunner(build(upstream, session), access_log=None, handler_cancellation=True)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
        await site.start()
        await serve_until_stopped(runner.addresses[0][1])
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
