"""An engine's own `/v1/responses` beside the gateway over that very engine: llama.cpp's server with the local model.

The gateway runs with what `dragoman doctor --write` made of that server. The model is small and has no template for
tools, so only what the two do with a request is compared, not how well it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp

from bench.children import GATEWAY, started
from tests.real.comparison.answers import Answer, ask
from tests.real.comparison.cases import (
    HISTORY,
    LEAVES_THE_PROMPT,
    LEAVES_THE_TEXT,
    PATCH_TOOL,
    PICTURES,
    TOOLS,
    Case,
    Judge,
    function,
    is_cut_short,
    made,
    names_its_items,
    names_what_is_left_out,
    overflows,
    parsed,
)
from tests.real.comparison.measure import LEFT_WITHIN, Row, read_deltas
from tests.real.components import COMPONENTS, ROOT
from tests.scripted import Json, Script, Seen
from tests.waiting import until

MODEL = "small"
SERVER = ROOT / "backends" / "local" / "server.py"
WINDOW, SLOTS = 4096, 2
DOCTOR_SECONDS = 300.0
COLOUR = {
    "type": "object",
    "properties": {"colour": {"type": "string", "enum": ["red", "blue"]}},
    "required": ["colour"],
    "additionalProperties": False,
}
SHORT = {"max_output_tokens": 16}


def answers(answer: Answer, _: Sequence[Seen]) -> str | None:
    return None if answer.outcome in ("completed", "incomplete") else answer.said()


def is_a_colour(answer: Answer, _: Sequence[Seen]) -> str | None:
    return None if parsed(answer.text) in ({"colour": "red"}, {"colour": "blue"}) else "text that is not of the schema"


def calls_the_weather(answer: Answer, _: Sequence[Seen]) -> str | None:
    right = [name for name, given in made(answer) if isinstance(given, dict)] == ["get_weather"]
    return None if right else f"{answer.outcome}, no such call"


def calls_the_patch(answer: Answer, _: Sequence[Seen]) -> str | None:
    found = any(item.get("type") == "custom_tool_call" for item in answer.items)
    return None if found else f"{answer.outcome}, no such call"


def _case(name: str, right: str, judge: Judge, **asks: object) -> Case:
    return Case(name, "", right, Script(), judge, dict(asks))


WEATHER = function("get_weather", "city")
CASES = (
    _case(
        "ids of the events",
        "each delta names an item that was announced; each event has its number",
        names_its_items,
        input="Say hello.",
    ),
    _case(
        "the budget is used up",
        "incomplete, `max_output_tokens`",
        is_cut_short("max_output_tokens"),
        input="Tell me a long story.",
        **SHORT,
    ),
    _case("the window overflows", "the code `context_length_exceeded`", overflows, input="word " * 6000),
    _case(
        "reasoning sealed by others",
        "an answer: the history of an agent is read",
        answers,
        **TOOLS,
        input=HISTORY,
        **SHORT,
    ),
    _case(
        "a tool that nobody serves",
        "refused by name, or named in a header",
        names_what_is_left_out,
        input="hi",
        tools=[WEATHER, PICTURES],
        **SHORT,
    ),
    _case(
        "`text.format` with a JSON schema",
        "JSON of that schema",
        is_a_colour,
        input="Name a colour.",
        max_output_tokens=64,
        text={"format": {"type": "json_schema", "name": "colour", "strict": True, "schema": COLOUR}},
    ),
    _case(
        "`tool_choice: required`",
        "a call",
        calls_the_weather,
        input="What is the weather in Paris?",
        max_output_tokens=200,
        tools=[WEATHER],
        tool_choice="required",
    ),
    _case(
        "a forced custom tool (Codex's `apply_patch`)",
        "a `custom_tool_call`",
        calls_the_patch,
        input="Patch it.",
        max_output_tokens=200,
        tools=[{"type": "custom", "name": "apply_patch", "description": PATCH_TOOL["description"]}],
        tool_choice={"type": "custom", "name": "apply_patch"},
    ),
)
LEAVING = (LEAVES_THE_TEXT, LEAVES_THE_PROMPT)


async def measured(folder: Path) -> dict[str, Row]:
    """The rows of both, by their titles."""
    # a connection for each request: llama.cpp closes one after a stream, although its head promises to keep it
    connector = aiohttp.TCPConnector(force_close=True)
    async with engine() as url, aiohttp.ClientSession(connector=connector, read_bufsize=2**20) as session:
        config = await settled(url, folder)
        serve = [*GATEWAY, "serve", "--config", str(config), "--host", "127.0.0.1", "--port", "0"]
        async with started("dragoman", serve, {"HOME": str(folder)}) as gateway:
            return {
                "dragoman": await _row(session, gateway.url, url),
                f"llama.cpp {version()}": await _row(session, url, url),
            }


def version() -> str:
    """llama.cpp's own build number, which is the last part of the version of its Python package."""
    return f"b{importlib.metadata.version('xllamacpp').rpartition('.')[2]}"


@contextlib.asynccontextmanager
async def engine() -> AsyncIterator[str]:
    """The address of llama.cpp's server. It ends with its standard input."""
    words = ["--model", str(COMPONENTS["local-model"].path), "--name", MODEL, "--threads", "2"]
    words += ["--context", str(WINDOW), "--slots", str(SLOTS)]
    pipe, nowhere = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    child = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), *words, stdin=pipe, stdout=pipe, stderr=nowhere
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        yield str(json.loads(await child.stdout.readline())["ready"])
    finally:
        child.stdin.close()
        await child.wait()


async def settled(url: str, folder: Path) -> Path:
    """The configuration that the doctor writes for that server; its verdict on the small model does not matter here."""
    path = folder / "gateway.yaml"
    words = [*GATEWAY, "doctor", "--backend", f"{url}/v1", "--write", str(path)]
    child = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    await asyncio.wait_for(child.wait(), DOCTOR_SECONDS)
    assert path.exists()
    return path


async def _row(session: aiohttp.ClientSession, url: str, engine: str) -> Row:
    row: Row = {}
    for case in CASES:
        answer = await ask(session, f"{url}/v1/responses", {}, {"model": MODEL, "stream": True, **case.asks})
        row[case.name] = case.judge(answer, ())
    row[LEAVES_THE_TEXT] = await _left(session, url, engine, 1, "Count to a thousand.")
    row[LEAVES_THE_PROMPT] = await _left(session, url, engine, 0, "word " * 3500)
    return row


async def _left(session: aiohttp.ClientSession, url: str, engine: str, after: int, prompt: str) -> str | None:
    """Leaves an answer, or its prompt; llama.cpp itself says whether it still works."""
    request: Json = {"model": MODEL, "input": prompt, "stream": True}
    async with aiohttp.ClientSession() as leaver:
        reading = asyncio.create_task(read_deltas(leaver, f"{url}/v1/responses", {}, request, after))
        await until(lambda: _busy(session, engine))
        if after:
            await reading
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    for _ in range(LEFT_WITHIN):
        await asyncio.sleep(1.0)  # to be asked more often keeps llama.cpp from noticing
        if not await _busy(session, engine):
            return None
    return "the server goes on"


async def _busy(session: aiohttp.ClientSession, engine: str) -> bool:
    async with session.get(f"{engine}/slots") as answer:
        return any(slot["is_processing"] for slot in await answer.json())
