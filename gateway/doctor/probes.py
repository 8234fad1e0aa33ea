"""The probes: each asks the backend for one thing that agents need, and judges what came."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import time
from dataclasses import replace

import orjson

from dragoman.backends.markup.proof import TOOLS, Proof, prove
from dragoman.gateway.calls.call import Call
from dragoman.gateway.doctor.finding import Finding, Verdict
from dragoman.gateway.doctor.probe_stream import ProbeStream
from dragoman.gateway.doctor.road import Road
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.fold import Fold
from dragoman.translators.ir import JsonSchema, Message, Request, Role, Sampling, Text, ToolCall
from dragoman.translators.json_text import is_object

LIMIT = 120.0  # seconds for one probe
TOKENS = 1024  # of an answer: models that think first need some hundreds before they call a tool
CODEX_PROMPT = 4600  # tokens of Codex's first prompt: instructions, tools and environment, measured with 0.169.0
READ_AT_LEAST = 0.8  # share of a prompt's words that must be read as tokens; with fewer, the server has cut it
ENDS_WITHIN = 1.0
WORDS = "time year people way day man thing woman life child world school state family student group country problem"

WEATHER = TOOLS[0]
NO_TOOLS = "start the server with its tool parser, or serve a model that was trained to call tools"
LIMITED = f"{TOKENS} tokens were allowed: look for a limit of the server's own, or a model that does not come to an end"
WRONG_PARSER = "the server's tool parser does not fit the model: set `markup`, or its parser"
# A call that was left in the text: a model family's marks, or the tool's name followed by its arguments.
LEAKED = re.compile(
    r"<tool_call|\[TOOL_CALLS\]|<\|python_tag\||<function=|<[|\uff5c]tool|to=functions\."
    r"|get_weather[\"'\s:,>]{0,20}((arguments|parameters)\W{0,5})?[({]"
)
NUMBER = JsonSchema(
    "number", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, strict=True
)

TOOL_CALL = "tool call"


class Probes:
    """The probes of one model on one backend. `text` comes first: others read its answer."""

    def __init__(self, road: Road, model: str) -> None:
        self._road = road
        self._model = model
        self._plain: ProbeStream | None = None

    def _request(self, *messages: tuple[Role, str]) -> Request:
        return Request(
            id=secrets.token_hex(16),
            model=self._model,
            messages=tuple(Message(role, (Text(text),)) for role, text in messages),
            max_tokens=TOKENS,
            sampling=Sampling(temperature=0.0),
        )

    async def _ask(self, request: Request) -> ProbeStream | GatewayError:
        """The answer, or why there is none."""
        answer = ProbeStream()
        call = self._road.call(request, answer)
        try:
            async with asyncio.timeout(LIMIT):
                await self._road.walk(call)
            answer.notes += call.notes
        except GatewayError as error:
            return error
        except TimeoutError:
            return GatewayError(Kind.TIMEOUT, f"no answer within {LIMIT:g} s")
        return answer

    async def text(self) -> Finding:
        began = time.monotonic()
        answer = await self._ask(self._request(("user", "Say hello.")))
        if isinstance(answer, GatewayError):
            return Finding("FAIL", "text", answer.message)
        self._plain = answer
        if answer.cut and (answer.text.strip() or answer.thoughts):
            return Finding("weak", "text", f"no end within {TOKENS} tokens", LIMITED)
        if not answer.text.strip():
            return Finding("FAIL", "text", "an empty answer", "the server's reasoning or tool parser may eat the text")
        return Finding("ok", "text", f"first token after {(answer.first or began) - began:.2f} s")

    async def usage(self) -> Finding:
        usage = self._plain.usage if self._plain else None
        if usage is None:
            advice = "clients compact by it: let the server send usage in streams"
            return Finding("weak", "usage", "none in the stream", advice)
        cached = "unknown" if usage.cached is None else str(usage.cached)
        return Finding("ok", "usage", f"{usage.input} in, {usage.output} out, cached {cached}")

    async def counting(self) -> Finding:
        counted = await self._road.count(self._request(("user", "Say hello.")))
        usage = self._plain.usage if self._plain else None
        if counted is None:
            return Finding("weak", "counting", "not possible", "overflows are seen by the server only: set `tokenize`")
        if usage is not None and counted != usage.input:
            return Finding("weak", "counting", f"{counted} counted, {usage.input} measured")
        return Finding("ok", "counting", f"{counted} tokens, as measured" if usage else f"{counted} tokens")

    async def late_system(self) -> Finding:
        turns: tuple[tuple[Role, str], ...] = (
            ("system", "Answer in one word."),
            ("user", "Say hello."),
            ("assistant", "Hello."),
            ("system", "From now on, answer in French."),
            ("user", "Say good morning."),
        )
        answer = await self._ask(self._request(*turns))
        if isinstance(answer, GatewayError):
            return Finding("FAIL", "late system message", answer.message, "set `system_messages: user`")
        return Finding("ok", "late system message", "accepted")

    async def tool(self) -> Finding:
        asked = self._request(("user", "What is the weather in Paris? Call the tool get_weather to find out."))
        answer = await self._ask(replace(asked, tools=(WEATHER,)))
        if isinstance(answer, GatewayError):
            return Finding("FAIL", TOOL_CALL, answer.message, NO_TOOLS)
        if any(note.name == "auto:unsupported" for note in answer.notes):
            return Finding("FAIL", TOOL_CALL, "this model's template has no tools: only forced calls", NO_TOOLS)
        if (fault := _fault(TOOL_CALL, answer)) is not None:
            return fault
        if answer.calls:
            return Finding("ok", TOOL_CALL, _shown(answer.calls[0]))
        if (proof := await self._proof()) is not None and proof.family is not None:
            advice = f"set `markup: {proof.family}`, which has read two calls out of the text; or `markup: probe`"
            return Finding("FAIL", TOOL_CALL, f"none, it stands in the text as {proof.family} writes it", advice)
        if LEAKED.search(answer.text):
            return Finding("FAIL", TOOL_CALL, "none, it stands in the text", WRONG_PARSER)
        return Finding("FAIL", TOOL_CALL, "none, the model answered in text", NO_TOOLS)

    async def _proof(self) -> Proof | None:
        """Whose markup it is that stands in the text; None where the server did not answer."""

        async def ask(request: Request) -> Fold:
            answer = await self._ask(replace(request, id=secrets.token_hex(16)))
            if isinstance(answer, GatewayError):
                raise answer
            return answer.fold

        try:
            return await prove(ask, self._model)
        except GatewayError:
            return None

    async def forced_tool(self) -> Finding:
        asked = self._request(("user", "What is the weather in Paris?"))
        answer = await self._ask(replace(asked, tools=(WEATHER,), tool_choice="required"))
        if isinstance(answer, GatewayError):
            advice = "set `force_tool: schema`, or `prompt` without guided decoding"
            return Finding("weak", "forced tool", answer.message, advice)
        if not answer.calls:
            return Finding("weak", "forced tool", "ignored", "set `force_tool: schema`, or `prompt`")
        unenforced = any(note.kind == "unenforced" for note in answer.notes)
        called = Finding("ok", "forced tool", _shown(answer.calls[0]) + (", by prompt only" if unenforced else ""))
        return _fault("forced tool", answer) or called

    async def two_tools(self) -> Finding:
        asked = self._request(("user", "What is the weather in Paris and in Rome? Call get_weather for both at once."))
        answer = await self._ask(replace(asked, tools=(WEATHER,)))
        probe = "two calls at once"
        if isinstance(answer, GatewayError):
            return Finding("weak", probe, answer.message)
        called = Finding("ok" if len(answer.calls) > 1 else "weak", probe, f"{len(answer.calls)} calls")
        return (_fault(probe, answer) if answer.calls else None) or called

    async def schema(self) -> Finding:
        answer = await self._ask(replace(self._request(("user", "Which number comes after 41?")), format=NUMBER))
        if isinstance(answer, GatewayError):
            return Finding("weak", "JSON schema", answer.message, "set `json_schema: prompt`")
        try:
            fits = isinstance(json.loads(answer.text)["n"], int)
        except (ValueError, TypeError, KeyError):
            fits = False
        if not fits:
            return Finding("weak", "JSON schema", "not kept", "set `json_schema: prompt`")
        return Finding("ok", "JSON schema", "kept")

    async def reasoning(self) -> Finding:
        if self._plain and self._plain.thoughts:
            return Finding("ok", "reasoning", "told apart from the answer")
        if self._plain and "<think>" in self._plain.text:
            advice = "start the server with its reasoning parser, or set `markup`"
            return Finding("weak", "reasoning", "<think> in the text", advice)
        return Finding("ok", "reasoning", "none seen")

    async def first_prompt(self) -> Finding:
        """Whether a prompt as long as Codex's first one is accepted; for servers that report no window. A server that
        silently cuts prompts is found out by the number of tokens that it reports."""
        words = itertools.islice(itertools.cycle(WORDS.split()), CODEX_PROMPT)
        answer = await self._ask(replace(self._request(("user", " ".join(words))), max_tokens=16))
        probe, advice = "Codex's first prompt", "serve the model with a larger context window"
        if isinstance(answer, GatewayError):
            refused = answer.kind is Kind.OVERFLOW
            return Finding("FAIL" if refused else "weak", probe, answer.message, advice if refused else "")
        read, plain = answer.usage, self._plain.usage if self._plain else None
        if read is None or plain is None:
            return Finding("ok", probe, f"about {CODEX_PROMPT} tokens are taken")
        if read.input >= READ_AT_LEAST * CODEX_PROMPT:
            return Finding("ok", probe, f"{read.input} tokens are taken")
        if read.input <= 2 * plain.input:  # it reports about the same for every prompt
            return Finding("weak", probe, f"taken; that it has {read.input} tokens, as the server says, is not true")
        return Finding("FAIL", probe, f"of about {CODEX_PROMPT} tokens the server has read {read.input}", advice)

    async def ending(self) -> Finding:
        """How long the backend goes on working after the client has left in the middle of an answer."""
        request = replace(self._request(("user", "Count from 1 to 500, with commas.")), max_tokens=TOKENS)
        answer, loop = ProbeStream(), asyncio.get_running_loop()
        calls: list[Call] = []
        task = asyncio.create_task(self._walk(request, answer, calls))
        begun = asyncio.create_task(answer.begun.wait())
        try:
            await asyncio.wait((task, begun), timeout=LIMIT, return_when="FIRST_COMPLETED")
            if not task.done() and not begun.done():
                return Finding("weak", "client leaves", f"no first token within {LIMIT:g} s")
            left = loop.time()
            calls[0].end(left)
            await asyncio.wait((task,), timeout=4 * ENDS_WITHIN)
            if task.done() and not task.cancelled():
                task.result()  # raises what broke it
        except GatewayError as error:
            return Finding("weak", "client leaves", error.message)
        finally:
            begun.cancel()
            task.cancel()
        taken = loop.time() - left
        limits = self._road.backend.traits.unstoppable
        verdict: Verdict = "ok" if taken <= ENDS_WITHIN and not limits else "weak"
        return Finding(verdict, "client leaves", f"let go after {taken * 1000:.0f} ms", limits)

    async def _walk(self, request: Request, answer: ProbeStream, calls: list[Call]) -> None:
        calls.append(self._road.call(request, answer))
        await self._road.walk(calls[0])


def _fault(probe: str, answer: ProbeStream) -> Finding | None:
    """What is wrong with an answer that should hold calls. An answer that holds none but ended by itself is not
    faulty: what that means is for the probe to say."""
    if answer.cut:
        made = _shown(answer.calls[0]) if answer.calls else "no call"
        return Finding("FAIL", probe, f"{made}, in an answer that a limit ended", LIMITED)
    for call in answer.calls:
        if call.name != WEATHER.name:
            return Finding("FAIL", probe, f"a tool that was not offered: {_shown(call)}", WRONG_PARSER)
        if not is_object(call.arguments):
            return Finding("FAIL", probe, f"arguments that are no JSON object: {_shown(call)}", WRONG_PARSER)
        if not orjson.loads(call.arguments):
            return Finding("FAIL", probe, f"arguments that were lost: {_shown(call)}", WRONG_PARSER)
    return None


def _shown(call: ToolCall) -> str:
    return f"{call.name}({call.arguments if len(call.arguments) <= 60 else call.arguments[:57] + '...'})"
