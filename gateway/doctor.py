"""`dragoman doctor`: asks a backend for what agents need, and says what came.

Each probe is an ordinary request through the very code that serves clients, so what is found is what clients will
meet: text and usage, late system messages, tool calls (offered, forced, two at once), a JSON schema, reasoning, the
window, token counting, and an end that comes at once when nobody listens any more. A finding names the setting that
would help. It judges the server with the settings given and changes nothing; models that answer badly are told as
such, not as broken servers.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from backends.base import Backend, ModelInfo
from gateway.config import Config
from gateway.opening import open_servers
from gateway.secrets import Secrets
from translators.errors import GatewayError
from translators.ir import Event, JsonSchema, Message, Note, Reasoning, Request, Role, Sampling, Text, Tool, ToolCall
from translators.parts import Fold

LIMIT = 120.0  # seconds for one probe
TOKENS = 256
ENDS_WITHIN = 1.0

WEATHER = Tool(
    "get_weather",
    "Tells the weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
NUMBER = JsonSchema(
    "number", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, strict=True
)

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


async def examine_all(config: Config, keys: Secrets) -> int:
    """Examines every backend of the configuration; 0 when each can serve."""
    can_serve = True
    for backend in open_servers(config, keys):
        print(f"backend {backend.name}", flush=True)
        try:
            await backend.start()
            async for finding in examine(backend, config.model):
                print(finding, flush=True)
                can_serve = can_serve and finding.verdict != "FAIL"
        except (GatewayError, RuntimeError, OSError) as error:
            print(Finding("FAIL", "start", " ".join(str(error).split())))
            can_serve = False
        finally:
            await backend.close()
    print("verdict: it can serve agents" if can_serve else "verdict: agents will fail here, see above")
    return 0 if can_serve else 1


async def examine(backend: Backend, model: str | None) -> AsyncIterator[Finding]:
    """The findings as they are made; ends early where nothing else can be found out."""
    health = await backend.health()
    yield Finding("ok" if health.state == "ready" else "FAIL", "health", f"{health.state} {health.detail}".strip())
    listed = await _models(backend)
    yield _window(listed)
    patient = Patient(backend, model or (listed[0].id if listed else "default"))
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
        patient.ending,
    ):
        yield await probe()


async def _models(backend: Backend) -> list[ModelInfo]:
    try:
        return await backend.models()
    except GatewayError:
        return []


def _window(listed: list[ModelInfo]) -> Finding:
    if not listed:
        return Finding("weak", "models", "no list", "name the model: --model NAME, or `model` of the backend")
    names = ", ".join(model.id for model in listed[:3]) + (", …" if len(listed) > 3 else "")
    if listed[0].window is None:
        return Finding("weak", "models", names, "the server tells no context window: set `window` of the backend")
    return Finding("ok", "models", f"{names}; context window {listed[0].window}")


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

    async def _ask(self, request: Request) -> _Heard | str:
        """The answer, or why there is none."""
        heard = _Heard()
        try:
            heard.notes += self._backend.prepare(request)
            async with asyncio.timeout(LIMIT):
                await self._backend.stream(request, heard)
        except GatewayError as error:
            return error.message
        except TimeoutError:
            return f"no answer within {LIMIT:g} s"
        return heard

    # ---------------------------------------------------------------------------------------------------------- probes

    async def text(self) -> Finding:
        began = time.monotonic()
        heard = await self._ask(self._request(("user", "Say hello.")))
        if isinstance(heard, str):
            return Finding("FAIL", "text", heard)
        self._plain = heard
        if not heard.text.strip():
            return Finding("FAIL", "text", "an empty answer", "the server's reasoning or tool parser may eat the text")
        return Finding("ok", "text", f"first token after {(heard.first or began) - began:.2f} s")

    async def usage(self) -> Finding:
        usage = self._plain.fold.finished.usage if self._plain and self._plain.fold.finished else None
        if usage is None:
            advice = "clients compact by it: let the server send usage in streams"
            return Finding("weak", "usage", "none in the stream", advice)
        cached = "unknown" if usage.cached is None else str(usage.cached)
        return Finding("ok", "usage", f"{usage.input} in, {usage.output} out, cached {cached}")

    async def counting(self) -> Finding:
        counted = await self._backend.count_tokens(self._request(("user", "Say hello.")))
        usage = self._plain.fold.finished.usage if self._plain and self._plain.fold.finished else None
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
        if isinstance(heard, str):
            return Finding("FAIL", "late system message", heard, "set `system_messages: user`")
        return Finding("ok", "late system message", "accepted")

    async def tool(self) -> Finding:
        asked = self._request(("user", "What is the weather in Paris? Call the tool get_weather to find out."))
        heard = await self._ask(replace(asked, tools=(WEATHER,)))
        if isinstance(heard, str):
            return Finding("FAIL", "tool call", heard)
        if any(note.name == "auto:unsupported" for note in heard.notes):
            return Finding("weak", "tool call", "this model's template has no tools: only forced calls")
        if not heard.calls:
            leaked = any(mark in heard.text for mark in ("<tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "<function="))
            advice = "the server's tool parser does not fit the model: set `markup`, or its parser" if leaked else ""
            return Finding(
                "weak", "tool call", "markup in the text" if leaked else "the model answered in text", advice
            )
        return Finding("ok", "tool call", _shown(heard.calls[0]))

    async def forced_tool(self) -> Finding:
        asked = self._request(("user", "What is the weather in Paris?"))
        heard = await self._ask(replace(asked, tools=(WEATHER,), tool_choice="required"))
        if isinstance(heard, str):
            return Finding(
                "weak", "forced tool", heard, "set `force_tool: schema`, or `prompt` without guided decoding"
            )
        if not heard.calls:
            return Finding("weak", "forced tool", "ignored", "set `force_tool: schema`, or `prompt`")
        unenforced = any(note.kind == "unenforced" for note in heard.notes)
        return Finding("ok", "forced tool", _shown(heard.calls[0]) + (", by prompt only" if unenforced else ""))

    async def two_tools(self) -> Finding:
        asked = self._request(("user", "What is the weather in Paris and in Rome? Call get_weather for both at once."))
        heard = await self._ask(replace(asked, tools=(WEATHER,)))
        if isinstance(heard, str):
            return Finding("weak", "two calls at once", heard)
        return Finding("ok" if len(heard.calls) > 1 else "weak", "two calls at once", f"{len(heard.calls)} calls")

    async def schema(self) -> Finding:
        heard = await self._ask(replace(self._request(("user", "Which number comes after 41?")), format=NUMBER))
        if isinstance(heard, str):
            return Finding("weak", "JSON schema", heard, "set `json_schema: prompt`")
        try:
            fits = isinstance(json.loads(heard.text)["n"], int)
        except (ValueError, TypeError, KeyError):
            fits = False
        if not fits:
            return Finding("weak", "JSON schema", "not kept", "set `json_schema: prompt`")
        return Finding("ok", "JSON schema", "kept")

    async def reasoning(self) -> Finding:
        parts = self._plain.fold.parts if self._plain else []
        if any(isinstance(part, Reasoning) for part in parts):
            return Finding("ok", "reasoning", "told apart from the answer")
        if self._plain and "<think>" in self._plain.text:
            advice = "start the server with its reasoning parser, or set `markup`"
            return Finding("weak", "reasoning", "<think> in the text", advice)
        return Finding("ok", "reasoning", "none seen")

    async def ending(self) -> Finding:
        """How long the backend takes to let go when the client leaves in the middle of an answer."""
        request = replace(self._request(("user", "Count from 1 to 500, with commas.")), max_tokens=4 * TOKENS)
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


def _shown(call: ToolCall) -> str:
    return f"{call.name}({call.arguments if len(call.arguments) <= 60 else call.arguments[:57] + '...'})"
