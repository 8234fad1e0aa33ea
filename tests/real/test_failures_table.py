"""docs/failures.md: what each client does with our answer to each failure, measured and compared with the page.

Every failure is played once to every client: a scripted server fails in its way, the gateway answers in the client's
protocol, and the real client does what it does. The table between the marks of the page is what came out; where it
differs, `make golden ARGS=tests/real/test_failures_table.py` rewrites it and the diff is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.conftest import RealComponent
from tests.real.claude import CLAUDE_CODE_VERSIONS, Claude
from tests.real.codex import CODEX_VERSIONS, Codex, configuration
from tests.real.components import ROOT
from tests.real.program import run
from tests.real.scripted_model import says
from tests.real.serving import serving, until_page
from tests.scripted import Json, Play, Script, ScriptedServer, call_delta, chunk, sse, text_stream

pytestmark = pytest.mark.real

PAGE = ROOT / "docs" / "failures.md"
DRIVER = Path(__file__).with_name("sdk_failures_driver.py")
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
SECONDS = 120.0
AT_ONCE = 2
LONGEST = 110  # characters of a message that the page shows
PROMPT = "Say hello."
PRELUDE = "We have talked before."
SUMMARY = "A summary of what was said."
TOO_LONG = "This model's maximum context length is 32768 tokens. However, your request has 40000 input tokens."
OVERFLOW = {"object": "error", "message": TOO_LONG, "type": "BadRequestError", "param": None, "code": 400}
FULL = {"message": "Too many requests, please try again later.", "type": "rate_limit_error", "code": 429}
WRONG = {"message": "temperature must be at most 2", "type": "BadRequestError", "param": "temperature", "code": 400}
ANSWER = text_stream("Hello", " there.")
HALF_CALL = call_delta(0, "exec_command", '{"cmd": "touch ra', "call_0")
TEXT = chunk({"content": "Well, "})


@dataclass(frozen=True, slots=True)
class Failure:
    """`lasting` fails every time, an overflow until the conversation was compacted; the others fail once. `down` has
    nobody listening for a second."""

    name: str
    script: Script
    lasting: bool = False
    down: bool = False

    @property
    def overflow(self) -> bool:
        return self.name.startswith("overflow")


FAILURES = (
    Failure("overflow, before the answer", Script.json(OVERFLOW, 400), lasting=True),
    Failure("overflow, as the stream's first event", Script(sse({"error": OVERFLOW})), lasting=True),
    Failure("overflow, behind text", Script(sse(TEXT, {"error": OVERFLOW})), lasting=True),
    Failure("full, before the answer", Script.json({"error": FULL}, 429, {"retry-after": "1"})),
    Failure("full, behind text", Script(sse(TEXT, {"error": FULL}))),
    Failure("bad request", Script.json({"error": WRONG}, 400), lasting=True),
    Failure("server error, before the answer", Script.json({"error": "CUDA error"}, 500)),
    Failure("nobody listens, for a second", Script(), down=True),
    Failure("cut before the answer", Script(ANSWER, cut_at=0, reset=True)),
    Failure("cut in the text", Script(sse(TEXT, done=False), unterminated=True)),
    Failure("cut in a call", Script(sse(chunk(HALF_CALL), done=False), unterminated=True)),
    Failure("the answer's tokens are used up", Script(text_stream("Well, ", finish="length"))),
)


def playing(failure: Failure) -> Play:
    """The server: fails as the case says, and else answers in one sentence."""
    failed = False

    def play(asked: Json) -> Script:
        nonlocal failed
        if wants_summary(asked):
            return says(f"<summary>{SUMMARY}</summary>")
        if is_prelude(asked) or SUMMARY in str(asked["messages"]):
            return says("Hello", " there.")
        if failure.down or (failed and not failure.lasting):
            return says("Hello", " there.")
        failed = True
        return failure.script

    return play


def wants_summary(asked: Json) -> bool:
    return "CRITICAL: Respond with TEXT ONLY" in str(asked["messages"][-1]["content"])


def is_prelude(asked: Json) -> bool:
    """Whether this is a turn before the one that is measured."""
    return PROMPT not in str(asked["messages"]) and not wants_summary(asked)


# ------------------------------------------------------------------------------------------------------------- clients


def quoted(text: str) -> str:
    """A message without what changes from run to run."""
    text = re.sub(r",? (?:url|request id|cf-ray): \S+", "", " ".join(text.split()))
    return f"“{text if len(text) <= LONGEST else text[: LONGEST - 1] + '…'}”"


Ask = Callable[[str, Failure], Coroutine[Any, Any, str]]


def codex_cli(program: Path, home: Path) -> Ask:
    async def ask(url: str, failure: Failure) -> str:
        codex = Codex(program, home)
        codex.configure(configuration(url))
        turn = await codex.exec(PROMPT, within=SECONDS)
        if turn.status == 0:
            return f"answers {quoted(' / '.join(turn.answers))}"
        return f"ends: {quoted(turn.complaints[-1])}"

    return ask


def claude_code(program: Path, home: Path) -> Ask:
    async def ask(url: str, failure: Failure) -> str:
        claude = Claude(program, home)
        if failure.overflow:  # there must be something to compact
            await claude.ask(url, PRELUDE)
            await claude.go_on(url, PRELUDE)
        turn = await (claude.go_on if failure.overflow else claude.ask)(url, PROMPT, within=SECONDS)
        compacts = "compacts, " if turn.told("compact_boundary") else ""
        return compacts + (f"answers {quoted(turn.answer)}" if turn.status == 0 else f"ends: {quoted(turn.answer)}")

    return ask


def sdk(interface: str, python: Path) -> Ask:
    async def ask(url: str, failure: Failure) -> str:
        status, output, errors = await run((str(python), str(DRIVER), interface, url), ROOT, {}, SECONDS)
        assert status == 0, errors.decode()
        told: Json = json.loads(output)
        if "text" in told:
            return f"answers {quoted(told['text'])}"
        return f"raises `{told['raised']}`" if "raised" in told else f"ends with `{told['last']}`"

    return ask


BODIES: dict[str, Json] = {
    "responses": {"input": PROMPT},
    "messages": {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 32_000},
    "chat/completions": {"messages": [{"role": "user", "content": PROMPT}]},
}


def wire(path: str) -> Ask:
    """Our own answer to a streamed request: the status and what the body says, or the end of the stream."""

    async def ask(url: str, failure: Failure) -> str:
        body = BODIES[path] | {"model": "any", "stream": True}
        async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/{path}", json=body) as answer:
            text = await answer.text()
            if answer.status != 200:
                error = json.loads(text)["error"]
                wait = answer.headers.get("retry-after")
                again = f", again in {wait} s" if wait else ""
                return f"{answer.status} `{error.get('code') or error['type']}`{again}: {quoted(error['message'])}"
        return stream_end(text)

    return ask


def stream_end(text: str) -> str:
    events = [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]
    last = events[-1]
    if last.get("type") in ("response.failed", "response.incomplete"):
        told = last["response"]
        error = told["error"] or {"code": told["incomplete_details"]["reason"], "message": ""}
    elif "error" in last:
        error = {"code": last["error"].get("code") or last["error"]["type"], **last["error"]}
    else:
        reasons = [event["delta"].get("stop_reason") for event in events if event.get("type") == "message_delta"]
        reasons += [choice["finish_reason"] for event in events for choice in event.get("choices", ())]
        return f"`{[reason for reason in reasons if reason][-1]}`"
    name = f"event `{last.get('type') or 'error'}`, `{error['code']}`"
    return f"{name}: {quoted(error['message'])}" if error["message"] else name


# ----------------------------------------------------------------------------------------------------------- measuring


async def measure(failure: Failure, ask: Ask, retries: bool) -> str:
    """What one client does with one failure, and with how many requests to the server."""
    if failure.down:
        return await measure_down(failure, ask, retries)
    async with ScriptedServer(default=playing(failure)) as server, serving("--backend", server.url) as url:
        told = await ask(url, failure)
    count = len([seen for seen in server.chats if seen.body and not is_prelude(seen.body)])
    return told if count == 1 or not retries else f"{count} requests, {told}"


async def measure_down(failure: Failure, ask: Ask, retries: bool) -> str:
    """The server goes when the gateway has started, and comes back while a client asks again."""
    async with contextlib.AsyncExitStack() as stack:
        async with ScriptedServer() as gone:
            url = await stack.enter_async_context(serving("--backend", gone.url))
        if not retries:
            return await ask(url, failure)
        asking = asyncio.create_task(ask(url, failure))
        await until_page(f"{url}/metrics", 'status="503"')  # it has been refused once
        async with ScriptedServer(default=playing(failure), port=gone.port) as server:
            told = await asking
    return f"asks again, {told}" if server.chats else told


Table = tuple[str, tuple[tuple[str, Callable[[Path], Ask], bool], ...]]


def tables(real_component: RealComponent) -> tuple[Table, ...]:
    """The columns of each table: a title, who is asked, and whether it tries again by itself."""
    openai, anthropic = real_component("sdk-openai-3"), real_component("sdk-anthropic-2")
    codex, claude = real_component(CODEX_VERSIONS[-1]), real_component(CLAUDE_CODE_VERSIONS[-1])
    ours = "our answer"
    return (
        (
            "Responses",
            (
                (ours, lambda _: wire("responses"), False),
                ("Codex CLI", lambda home: codex_cli(codex, home), True),
                ("openai SDK", lambda _: sdk("responses", openai), True),
            ),
        ),
        (
            "Messages",
            (
                (ours, lambda _: wire("messages"), False),
                ("Claude Code", lambda home: claude_code(claude, home), True),
                ("anthropic SDK", lambda _: sdk("messages", anthropic), True),
            ),
        ),
        (
            "Chat completions",
            (
                (ours, lambda _: wire("chat/completions"), False),
                ("openai SDK", lambda _: sdk("chat", openai), True),
            ),
        ),
    )


async def fill(table: Table, home: Path) -> str:
    """A table of the page, every cell of it measured."""
    title, columns = table
    turns = asyncio.Semaphore(AT_ONCE)

    async def cell(failure: Failure, column: tuple[str, Callable[[Path], Ask], bool]) -> str:
        name, open_client, retries = column
        async with turns:
            folder = home / f"{FAILURES.index(failure)}-{name.replace(' ', '-')}"
            return await measure(failure, open_client(folder), retries)

    rows = [[f"**{title}**", *(name for name, _, _ in columns)], ["---"] * (len(columns) + 1)]
    for failure in FAILURES:
        async with asyncio.TaskGroup() as group:
            cells = [group.create_task(cell(failure, column)) for column in columns]
        rows.append([failure.name, *(task.result() for task in cells)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


async def test_the_page_says_what_clients_do(
    real_component: RealComponent, tmp_path: Path, rewrite_golden: bool
) -> None:
    filled = [await fill(table, tmp_path / table[0]) for table in tables(real_component)]
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    written, mark, after = rest.partition(END)
    assert mark, f"{PAGE.name} has lost its marks"
    measured = "\n\n".join(["", *filled, ""])
    if rewrite_golden:
        await asyncio.to_thread(PAGE.write_text, before + BEGIN + measured + END + after, encoding="utf-8")
        return
    assert written.strip().split("\n") == measured.strip().split("\n")
