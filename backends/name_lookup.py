"""The addresses of the names of servers, each asked for once at a time and in a thread of its own.

Where the DNS server of a name does not answer, the system's resolver holds a thread for up to a minute, however soon
whoever asked has given up. An event loop has few threads for that (uvloop lets two names wait at once), so that one
such name would keep those of all other servers from being looked up. Here it holds one thread, and no other's: who
asks for it again waits for the answer to the first question.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Sequence
from functools import partial

from aiohappyeyeballs.types import AddrInfoType
from aiohttp.abc import AbstractResolver, ResolveResult

Addresses = Sequence[AddrInfoType]
Question = tuple[asyncio.AbstractEventLoop, str, int, int, int]

_asked: dict[Question, asyncio.Future[Addresses]] = {}  # those without an answer yet
_NUMERIC = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
_AS_NUMBERS = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV


async def addresses(host: str, port: int, *, family: int = socket.AF_UNSPEC, flags: int = 0) -> Addresses:
    """As `socket.getaddrinfo` gives them for streams; raises what that raises: OSError or UnicodeError."""
    loop = asyncio.get_running_loop()
    question = (loop, host, port, family, flags)
    answer = _asked.get(question)
    if answer is None:
        answer = _asked[question] = loop.create_future()
        answer.add_done_callback(partial(_forget, question))
        threading.Thread(target=_ask, args=(question, answer), name=f"addresses of {host}", daemon=True).start()
    return await asyncio.shield(answer)


def _ask(question: Question, answer: asyncio.Future[Addresses]) -> None:
    loop, host, port, family, flags = question
    found: Addresses | Exception
    try:
        found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=flags)
    except Exception as error:
        found = error
    with contextlib.suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(_tell, answer, found)


def _tell(answer: asyncio.Future[Addresses], found: Addresses | Exception) -> None:
    if isinstance(found, Exception):
        answer.set_exception(found)
    else:
        answer.set_result(found)


def _forget(question: Question, answer: asyncio.Future[Addresses]) -> None:
    del _asked[question]
    answer.exception()  # perhaps nobody waits for it any longer


class Resolver(AbstractResolver):
    """For sessions of aiohttp."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await addresses(host, port, family=family, flags=socket.AI_ADDRCONFIG)
        return [
            ResolveResult(
                hostname=host,
                host=socket.getnameinfo(address, _AS_NUMBERS)[0],  # with the scope of an IPv6 address
                port=port,
                family=kind,
                proto=protocol,
                flags=_NUMERIC,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """There is nothing to be closed."""
