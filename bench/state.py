"""`python -m bench.state`: what conversations that are kept here cost, with SQLite as a gateway keeps them by default.

One conversation of fifty turns with an agent's tools, continued by `previous_response_id`; beside it the same turns
with nothing kept, and a late turn over HTTP (the whole conversation sent) and over a WebSocket. Times are medians, from
the request to the end of the answer. Exit code 1: something broke and the figures do not count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from bench.bodies import agent_turn
from bench.children import GATEWAY, UPSTREAM, Broken, started
from bench.loop import run

Json = dict[str, Any]
EDGE = 10  # turns at the beginning and at the end that are compared


def _item(text: str) -> Json:
    return {"type": "message", "role": "user", "content": text}


class Conversation:
    """Turns against one gateway, in order; `seconds` is how long each took."""

    def __init__(self, session: aiohttp.ClientSession, url: str, base: Json) -> None:
        self._session = session
        self._url = f"{url}/v1/responses"
        self._base = base
        self.seconds: list[float] = []

    async def turn(self, body: Json) -> Json:
        begun = time.perf_counter()
        async with self._session.post(self._url, data=orjson.dumps({**self._base, **body})) as answer:
            raw = await answer.read()
        self.seconds.append(time.perf_counter() - begun)
        whole: Json = orjson.loads(raw)
        if answer.status != 200:
            raise Broken(f"a turn was answered with {answer.status}: {raw[:300]!r}")
        return whole


async def _kept(conversation: Conversation, turns: int) -> None:
    previous: Json = {}
    for number in range(turns):
        whole = await conversation.turn({"input": [_item(f"turn {number} " + "word " * 400)], **previous})
        if whole["store"] is not True:
            raise Broken("an answer was not kept")
        previous = {"previous_response_id": whole["id"]}


async def _sent_again(conversation: Conversation, base: Json, turns: int) -> int:
    """Nothing is kept, so each turn sends all that came before; the bytes of the last request."""
    history: list[Json] = []
    for number in range(turns):
        history.append(_item(f"turn {number} " + "word " * 400))
        whole = await conversation.turn({"input": history, "store": False})
        history += whole["output"]
    return len(orjson.dumps({**base, "input": history}))


async def _over_a_socket(session: aiohttp.ClientSession, url: str, base: Json, turns: int) -> tuple[int, float]:
    """The bytes of the last message, and the median of a turn."""
    seconds: list[float] = []
    size = 0
    previous: Json = {}
    async with session.ws_connect(f"{url}/v1/responses", max_msg_size=0) as socket:
        for number in range(turns):
            items = [_item(f"turn {number} " + "word " * 400)]
            message = orjson.dumps({"type": "response.create", **base, "store": False, "input": items, **previous})
            begun, size = time.perf_counter(), len(message)
            await socket.send_str(message.decode())
            while (event := orjson.loads((await socket.receive(30)).data))["type"] != "response.completed":
                if event["type"] in ("error", "response.failed"):
                    raise Broken(f"a turn over the socket failed: {event}")
            seconds.append(time.perf_counter() - begun)
            previous = {"previous_response_id": event["response"]["id"]}
    return size, statistics.median(seconds[-EDGE:])


async def measured(turns: int) -> list[tuple[str, str]]:
    """Rows of a title and its figure."""
    tools = orjson.loads(agent_turn("answer"))["tools"]
    base: Json = {"model": "answer", "tools": tools, "stream": False}
    with tempfile.TemporaryDirectory(prefix="dragoman-bench-") as folder:
        path = Path(folder) / "answers.db"
        async with started("upstream", UPSTREAM) as upstream, aiohttp.ClientSession() as session:
            command = [*GATEWAY, "serve", "--backend", f"{upstream.url}/v1", "--host", "127.0.0.1", "--port", "0"]
            async with started("gateway", command, {"DRAGOMAN_STORE__URL": f"sqlite:{path}"}) as gateway:
                kept = Conversation(session, gateway.url, base)
                await _kept(kept, turns)
                again = Conversation(session, gateway.url, base)
                sent = await _sent_again(again, base, turns)
                plain = Conversation(session, gateway.url, {**base, "store": False})
                for number in range(EDGE * 2):
                    await plain.turn({"input": [_item(f"turn {number} " + "word " * 400)]})
                size, socket = await _over_a_socket(session, gateway.url, base, turns)
            disk = _bytes_in(Path(folder))
    return [
        ("a turn of which nothing is kept, and nothing came before", _ms(plain.seconds)),
        (f"kept and continued, the first {EDGE} turns", _ms(kept.seconds[:EDGE])),
        (f"kept and continued, the last {EDGE} of {turns}", _ms(kept.seconds[-EDGE:])),
        (f"everything sent again, the first {EDGE} turns", _ms(again.seconds[:EDGE])),
        (
            f"everything sent again, the last {EDGE} of {turns}",
            f"{_ms(again.seconds[-EDGE:])}, {sent / 1e3:.0f} kB",
        ),
        (f"over a WebSocket, the last {EDGE} of {turns}", f"{socket * 1e3:.1f} ms, {size / 1e3:.0f} kB"),
        (f"on disk after {turns} turns", f"{disk / 1e6:.2f} MB"),
    ]


def _bytes_in(folder: Path) -> int:
    return sum(each.stat().st_size for each in folder.iterdir())


def _ms(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:.1f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--turns", type=int, default=50)
    options = parser.parse_args()
    try:
        rows = run(measured(options.turns))
    except Broken as error:
        print(f"bench.state: {error}", file=sys.stderr)
        return 1
    for title, figure in rows:
        print(f"{title:<56} {figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
