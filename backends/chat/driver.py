"""aiohttp's client as the driver of a reader: connections, reads and back-pressure, and nothing about an answer."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import aiohttp

from dragoman.backends.base import Flow
from dragoman.backends.chat.answer import AnswerReader
from dragoman.backends.json_body import abort
from dragoman.backends.watch import Watch
from dragoman.translators.errors import GatewayError


async def drive(reader: AnswerReader, opened: AbstractAsyncContextManager[aiohttp.ClientResponse]) -> None:
    """Reads the body of the response that `opened` gives into the reader, and raises what is wrong with the answer."""
    try:
        async with Watch(reader) as watch, opened as response:
            reader.head(response.content_type)
            content = response.content
            while data := await content.readany():
                flow = reader.received(data)
                if flow is Flow.ENOUGH:
                    break
                if flow is Flow.WAIT:
                    await watch.writable()
                if reader.deadline < watch.due:
                    watch.follow()
            else:
                reader.ended()
    except TimeoutError:
        if not reader.over:
            reader.late()
    except (aiohttp.ClientError, ConnectionError):
        reader.lost()
    except GatewayError:
        if not reader.over:  # else the receiver left while the server refused
            raise
    finally:
        reader.close()
    reader.check()


async def settle(response: aiohttp.ClientResponse) -> None:
    """Read to its end: back into the pool. Otherwise the connection is aborted, at once and for good."""
    if response.content.is_eof():
        response.release()
        return
    if abort(response):
        await asyncio.sleep(0)  # the socket is closed in the loop's next turn
