"""`dragoman doctor`: asks a backend for what agents need, and says what came.

Each probe is an ordinary request through the very code that serves clients, so what is found is what clients will
meet: text and usage, late system messages, tool calls (offered, forced, two at once), a JSON schema, reasoning, the
window, token counting, and an end that comes at once when nobody listens any more. A finding names the setting that
would help. It judges the server with the settings given and changes nothing.

The verdict is that agents can be served only where an offered tool was called with arguments that are a JSON object,
in an answer that ended by itself, and where Codex's first prompt fits. A window that nobody tells is tried out with a
prompt of that length. What only makes agents miss something is `weak` and leaves the verdict as it is.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import orjson

from dragoman.backends.base import Backend, ModelInfo
from dragoman.gateway.config import Config
from dragoman.gateway.factory import open_servers
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.telemetry.logs import Redactor
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    Event,
    JsonSchema,
    Message,
    Note,
    Reasoning,
    Request,
    Role,
    Sampling,
    StopReason,
    Text,
    Tool,
    ToolCall,
    Usage,
)
from dragoman.translators.json_text import is_object
from dragoman.translators.parts import Fold

LIMIT = 120.0  # seconds for one probe
TOKENS = 1024  # of an answer: models that think first need some hundreds before they call a tool
CODEX_PROMPT = 4600  # tokens of Codex's first prompt: instructions, tools and environment, measured with 0.169.0
CODEX_ROOM = 16_384  # a window below this leaves an agent little beside its first prompt
READ_AT_LEAST = 0.8  # of a prompt's words must be read as tokens; fewer say that the server cut it
ENDS_WITHIN = 1.0
WORDS = "time year people way day man thing woman life child world school state family student group country problem"

WEATHER = Tool(
    "get_weather",
    "Tells the weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
NO_TOOLS = "start the server with its tool parser, or serve a model that was trained to call tools"
LIMITED = f"{TOKENS} tokens were allowed: look for a limit of the server's own, or a model that does not come to an end"
WRONG_PARSER = "the server's tool parser does not fit the model: set `markup`, or its parser"
# A call that was left in the text: a family's marks, or the tool's name with its arguments after it.
LEAKED = re.compile(
    r"<tool_call|\[TOOL_CALLS\]|<\|python_tag\||<function=|<[|\uff5c]tool|to=functions\."
    r"|get_weather[\"'\s:,>]{0,20}((arguments|parameters)\W{0,5})?[({]"
)
NUMBER = JsonSchema(
    "number", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, strict=True
)

TOOL_CALL = "tool call"

Verdict = Literal["ok", "weak", "FAIL"]


@dataclass(frozen=True, slots=True)
class Finding:
    """`weak` works, but an agent will miss something; `advice` is what would help."""

    verdict: Verdict
    probe: str
    told: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.verdict:<5} {self.probe:<22} {self.told}"
        return f"{line}\n{'':<29}→ {self.advice}" if self.advice else line


class _Heard:
    """A sink that keeps the answer and the time of its first event."""

    def __init__(self) -> None:
        self.fold = Fold()
        self.notes: list[Note] = []
        self.first: float | None = None
        self.begun = asyncio.Event()

    @property
    def touched(self) -> bool:
        return self.first is not None

    @property
    def full(self) -> bool:
        return False

    def feed(self, events: Sequence[Event]) -> bool:
        self.first = self.first or time.monotonic()
        self.begun.set()
        self.fold.feed(events)
        return True

    async def drained(self) -> None:
        """Nothing is ever written."""

    def note(self, note: Note) -> None:
        self.notes.append(note)

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.fold.parts if isinstance(part, Text))

    @property
    def calls(self) -> list[ToolCall]:
        return [part for part in self.fold.parts if isinstance(part, ToolCall)]

    @property
    def thoughts(self) -> bool:
        return any(isinstance(part, Reasoning) for part in self.fold.parts)

    @property
    def cut(self) -> bool:
        """Whether something else than the model ended the answer."""
        return self.fold.finished is None or self.fold.finished.reason is not StopReason.STOP

    @property
    def usage(self) -> Usage | None:
        return self.fold.finished.usage if self.fold.finished is not None else None


async def examine_all(config: Config, keys: Secrets) -> int:
    """Examines every backend of the configuration; 0 when each can serve, else 1."""
    redact = Redactor(keys.all())  # a server may echo the key that it was sent
    reasons: list[str] = []
    for given, backend in zip(config.named_backends, open_servers(config, keys), strict=True):
        print(f"backend {backend.name}", flush=True)
        found: list[Finding] = []
        try:
            await backend.start()
            async for finding in examine(backend, given.model or config.model, given.window):
                print(redact(str(finding)), flush=True)
                found.append(finding)
        except (GatewayError, RuntimeError, OSError) as error:
            found.append(Finding("FAIL", "next probe" if found else "start", " ".join(str(error).split())))
            print(redact(str(found[-1])), flush=True)
        finally:
            await backend.close()
        reasons += [f"  {backend.name}: {reason}" for reason in against(found)]
    verdict = "agents will fail here, because of" if reasons else "it can serve agents"
    print(redact("\n".join([f"verdict: {verdict}", *reasons])))
    return 1 if reasons else 0


def against(found: Sequence[Finding]) -> list[str]:
    """Why agents cannot be served. That no tool call was obtained is a reason too, however it came about."""
    reasons = [
        f"{each.probe}: {each.told}" + (f" → {each.advice}" if each.advice else "")
        for each in found
        if each.verdict == "FAIL"
    ]
    if not reasons and not any(each.probe == TOOL_CALL and each.verdict == "ok" for each in found):
        reasons.append(f"{TOOL_CALL}: none was obtained")
    return reasons


async def examine(backend: Backend, model: str | None, window: int | None = None) -> AsyncIterator[Finding]:
    """The findings as they are made; ends early where nothing else can be found out. `window` is the configured one,
    which is believed before what the server tells."""
    health = await backend.health()
    yield Finding("ok" if health.state == "ready" else "FAIL", "health", f"{health.state} {health.detail}".strip())
    listed = await _models(backend)
    asked = model or (listed[0].id if listed else "default")
    window = window or _listed_window(listed, asked)
    yield _window(listed, window)
    patient = Patient(backend, asked)
    text = await patient.text()
    yield text
    if text.verdict == "FAIL":
        return
    for probe in (
        patient.usage,
        patient.counting,
        patient.late_system,
        patient.tool,
        patient.forced_tool,
        patient.two_tools,
        patient.schema,
        patient.reasoning,
        *([patient.first_prompt] if window is None else []),
        patient.ending,
    ):
        yield await probe()


async def _models(backend: Backend) -> list[ModelInfo]:
    try:
        return await backend.models()
    except GatewayError:
        return []


def _listed_window(listed: Sequence[ModelInfo], asked: str) -> int | None:
    """A server with one model answers to every name."""
    named = listed if len(listed) == 1 else [model for model in listed if model.id == asked]
    return named[0].window if named else None


def _window(listed: Sequence[ModelInfo], window: int | None) -> Finding:
    told = ", ".join(model.id for model in listed[:3]) + (", …" if len(listed) > 3 else "") if listed else "no list"
    if window is not None:
        told += f"; context window {window}"
        if window < CODEX_PROMPT:
            advice = f"Codex's first prompt alone has {CODEX_PROMPT} tokens: serve the model with a larger window"
            return Finding("FAIL", "models", told, advice)
    if not listed:
        return Finding("weak", "models", told, "name the model: --model NAME, or `model` of the backend")
    if window is None:
        told += "; context window unknown"
        return Finding("weak", "models", told, "the server tells no context window: set `window` of the backend")
    if window < CODEX_ROOM:
        return Finding("weak", "models", told, f"Codex's first prompt takes {CODEX_PROMPT} of it: a larger one helps")
    return Finding("ok", "models", told)


class Patient:
    """One model of one backend under examination."""

    def __init__(self, backend: Backend, model: str) -> None:
        self._backend = backend
        self._model = model
        self._plain: _Heard | None = None

    # ---------------------------------------------------------------------------------------------------------- asking

    def _request(self, *messages: tuple[Role, str]) -> Request:
        return Request(
            id=secrets.token_hex(16),
            model=self._model,
            messages=tuple(Message(role, (Text(text),)) for role, text in messages),
            max_tokens=TOKENS,
            sampling=Sampling(temperature=0.0),
        )

    async def _ask(self, request: Request) -> _Heard | GatewayError:
        """The answer, or why there is none."""
        heard = _Heard()
        try:
            heard.notes += self._backend.prepare(request)
            async with asyncio.timeout(LIMIT):
                await self._backend.stream(request, heard)
        except GatewayError as error:
            return error
        except TimeoutError:
            return GatewayError(Kind.TIMEOUT, f"no answer within {LIMIT:g} s")
        return heard

    # ---------------------------------------------------------------------------------------------------------- probes

    async def text(self) -> Finding:
        began = time.monotonic()
        heard = await self._ask(self._request(("user", "Say hello.")))
        if isinstance(heard, GatewayError):
            return Finding("FAIL", "text", heard.message)
        self._plain = heard
        if heard.cut and (heard.text.strip() or heard.thoughts):
            return Finding("weak", "text", f"no end within {TOKENS} tokens", LIMITED)
        if not heard.text.strip():
            return Finding("FAIL", "text", "an empty answer", "the server's reasoning or tool parser may eat the text")
        return Finding("ok", "text", f"first token after {(heard.first or began) - began:.2f} s")

    async def usage(self) -> Finding:
        usage = self._plain.usage if self._plain else None
        if usage is None:
            advice = "clients compact by it: let the server send usage in streams"
            return Finding("weak", "usage", "none in the stream", advice)
        cached = "unknown" if usage.cached is None else str(usage.cached)
        return Finding("ok", "usage", f"{usage.input} in, {usage.output} out, cached {cached}")

    async def counting(self) -> Finding:
        counted = await self._backend.count_tokens(self._request(("user", "Say hello.")))
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
        heard = await self._ask(self._request(*turns))
        if isinstance(heard, GatewayError):
            return Finding("FAIL", "late system message", heard.message, "set `system_messages: user`")
        return Finding("ok", "late system message", "accepted")

    async def tool(self) -> Finding:
        asked = self._request(("user", "What is the weather in Paris? Call the tool get_weather to find out."))
        heard = await self._ask(replace(asked, tools=(WEATHER,)))
        if isinstance(heard, GatewayError):
            return Finding("FAIL", TOOL_CALL, heard.message, NO_TOOLS)
        if any(note.name == "auto:unsupported" for note in heard.notes):
            return Finding("FAIL", TOOL_CALL, "this model's template has no tools: only forced calls", NO_TOOLS)
        if (fault := _fault(TOOL_CALL, heard)) is not None:
            return fault
        if heard.calls:
            return Finding("ok", TOOL_CALL, _shown(heard.calls[0]))
        if LEAKED.search(heard.text):
            return Finding("FAIL", TOOL_CALL, "none, it stands in the text", WRONG_PARSER)
        return Finding("FAIL", TOOL_CALL, "none, the model answered in text", NO_TOOLS)

    async def forced_tool(self) -> Finding:
        asked = self._request(("user", "What is the weather in Paris?"))
        heard = await self._ask(replace(asked, tools=(WEATHER,), tool_choice="required"))
        if isinstance(heard, GatewayError):
            advice = "set `force_tool: schema`, or `prompt` without guided decoding"
            return Finding("weak", "forced tool", heard.message, advice)
        if not heard.calls:
            return Finding("weak", "forced tool", "ignored", "set `force_tool: schema`, or `prompt`")
        unenforced = any(note.kind == "unenforced" for note in heard.notes)
        called = Finding("ok", "forced tool", _shown(heard.calls[0]) + (", by prompt only" if unenforced else ""))
        return _fault("forced tool", heard) or called

    async def two_tools(self) -> Finding:
        asked = self._request(("user", "What is the weather in Paris and in Rome? Call get_weather for both at once."))
        heard = await self._ask(replace(asked, tools=(WEATHER,)))
        probe = "two calls at once"
        if isinstance(heard, GatewayError):
            return Finding("weak", probe, heard.message)
        called = Finding("ok" if len(heard.calls) > 1 else "weak", probe, f"{len(heard.calls)} calls")
        return (_fault(probe, heard) if heard.calls else None) or called

    async def schema(self) -> Finding:
        heard = await self._ask(replace(self._request(("user", "Which number comes after 41?")), format=NUMBER))
        if isinstance(heard, GatewayError):
            return Finding("weak", "JSON schema", heard.message, "set `json_schema: prompt`")
        try:
            fits = isinstance(json.loads(heard.text)["n"], int)
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
        """Whether a prompt of the length of Codex's first one is taken, where nobody tells the window. A server that
        cuts prompts in silence is found out by the tokens that it says it has read."""
        words = itertools.islice(itertools.cycle(WORDS.split()), CODEX_PROMPT)
        heard = await self._ask(replace(self._request(("user", " ".join(words))), max_tokens=16))
        probe, advice = "Codex's first prompt", "serve the model with a larger context window"
        if isinstance(heard, GatewayError):
            refused = heard.kind is Kind.OVERFLOW
            return Finding("FAIL" if refused else "weak", probe, heard.message, advice if refused else "")
        read, plain = heard.usage, self._plain.usage if self._plain else None
        if read is None or plain is None:
            return Finding("ok", probe, f"about {CODEX_PROMPT} tokens are taken")
        if read.input >= READ_AT_LEAST * CODEX_PROMPT:
            return Finding("ok", probe, f"{read.input} tokens are taken")
        if read.input <= 2 * plain.input:  # it says much the same of every prompt
            return Finding("weak", probe, f"taken; that it has {read.input} tokens, as the server says, is not true")
        return Finding("FAIL", probe, f"of about {CODEX_PROMPT} tokens the server has read {read.input}", advice)

    async def ending(self) -> Finding:
        """How long the backend takes to let go when the client leaves in the middle of an answer."""
        request = replace(self._request(("user", "Count from 1 to 500, with commas.")), max_tokens=TOKENS)
        heard = _Heard()
        task = asyncio.create_task(self._backend.stream(request, heard))
        try:
            async with asyncio.timeout(LIMIT):
                await asyncio.wait(
                    (task, begun := asyncio.create_task(heard.begun.wait())), return_when="FIRST_COMPLETED"
                )
            begun.cancel()
            left = time.monotonic()
            task.cancel()
            await asyncio.wait((task,), timeout=4 * ENDS_WITHIN)
        except TimeoutError:
            task.cancel()
            return Finding("weak", "client leaves", f"no first token within {LIMIT:g} s")
        taken = time.monotonic() - left
        limits = getattr(self._backend, "cancellation", "")
        verdict: Verdict = "ok" if taken <= ENDS_WITHIN and not limits else "weak"
        return Finding(verdict, "client leaves", f"let go after {taken * 1000:.0f} ms", limits)


def _fault(probe: str, heard: _Heard) -> Finding | None:
    """What an agent could not live with in an answer that should hold calls; nothing is wrong with one without any
    that ended by itself."""
    if heard.cut:
        made = _shown(heard.calls[0]) if heard.calls else "no call"
        return Finding("FAIL", probe, f"{made}, in an answer that a limit ended", LIMITED)
    for call in heard.calls:
        if call.name != WEATHER.name:
            return Finding("FAIL", probe, f"a tool that was not offered: {_shown(call)}", WRONG_PARSER)
        if not is_object(call.arguments):
            return Finding("FAIL", probe, f"arguments that are no JSON object: {_shown(call)}", WRONG_PARSER)
        if not orjson.loads(call.arguments):
            return Finding("FAIL", probe, f"arguments that were lost: {_shown(call)}", WRONG_PARSER)
    return None


def _shown(call: ToolCall) -> str:
    return f"{call.name}({call.arguments if len(call.arguments) <= 60 else call.arguments[:57] + '...'})"
