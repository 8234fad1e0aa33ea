"""Probes of answers in text: that one comes, its usage, the count of its prompt, roles, reasoning, formats."""

from __future__ import annotations

import json
from dataclasses import replace

from dragoman.gateway.doctor.asking import TOKENS, Asker
from dragoman.gateway.doctor.finding import Finding
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import JsonSchema, Role

TEXT, USAGE, COUNTING, SYSTEM = "text", "usage", "counting", "late system message"
REASONING, SCHEMA = "reasoning", "JSON schema"
TWICE = "refused, and taken in another order: calls are asked twice"
LIMITED = f"{TOKENS} tokens were allowed: look for a limit of the server's own, or a model that does not come to an end"
NUMBER = JsonSchema(
    "number", {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, strict=True
)


async def text(asker: Asker) -> Finding:
    """The first probe: others read its answer."""
    answer = await asker.ask(asker.request(("user", "Say hello.")))
    if isinstance(answer, GatewayError):
        return Finding("FAIL", TEXT, asker.reason(answer), _where(answer))
    asker.plain = answer
    if answer.cut and (answer.text.strip() or answer.thoughts):
        return Finding("weak", TEXT, f"no end within {TOKENS} tokens", LIMITED)
    if not answer.text.strip():
        return Finding("FAIL", TEXT, "an empty answer", "the server's reasoning or tool parser may eat the text")
    return Finding("ok", TEXT, f"first token after {asker.seconds:.2f} s")


def _where(error: GatewayError) -> str:
    if "credentials" in error.message:
        return "the key is missing or wrong: export DRAGOMAN_BACKEND_API_KEY=…  (or `api_key_file` of the backend)"
    if "no chat completions" in error.message:
        return "it lists models and has no POST …/chat/completions below that address: it may serve embeddings alone"
    match error.kind:
        case Kind.BACKEND_DOWN | Kind.TIMEOUT:
            return "the server's log says whether the request arrived"
        case Kind.ASLEEP:
            return "wait until the model is loaded, or set `wake: wake` where it sleeps"
        case Kind.BUSY:
            return "the server is full: ask again when it has room"
        case Kind.BACKEND_FAILED:
            return "the server itself fails: read its log"
        case _:
            return ""


async def usage(asker: Asker) -> Finding:
    measured = asker.plain.usage if asker.plain else None
    if measured is None:
        return Finding("weak", USAGE, "none in the stream", "clients compact by it: let the server send it in streams")
    cached = "unknown" if measured.cached is None else str(measured.cached)
    return Finding("ok", USAGE, f"{measured.input} in, {measured.output} out, cached {cached}")


async def counting(asker: Asker) -> Finding:
    counted = await asker.road.count(asker.request(("user", "Say hello.")))
    measured = asker.plain.usage if asker.plain else None
    if counted is None:
        advice = "only the server finds overflows: set `tokenizer` to a folder with the model's tokenizer"
        return Finding("weak", COUNTING, "not possible", advice)
    if measured is not None and counted != measured.input:
        return Finding("weak", COUNTING, f"{counted} counted, {measured.input} measured")
    return Finding("ok", COUNTING, f"{counted} tokens, as measured" if measured else f"{counted} tokens")


async def late_system(asker: Asker) -> Finding:
    turns: tuple[tuple[Role, str], ...] = (
        ("system", "Answer in one word."),
        ("user", "Say hello."),
        ("assistant", "Hello."),
        ("system", "From now on, answer in French."),
        ("user", "Say good morning."),
    )
    answer = await asker.ask(asker.request(*turns))
    if isinstance(answer, GatewayError):
        return Finding("FAIL", SYSTEM, asker.reason(answer), "set `system_messages: user`")
    if answer.in_turns:
        return Finding("weak", SYSTEM, TWICE, "set `system_messages: user`")
    return Finding("ok", SYSTEM, "accepted")


async def reasoning(asker: Asker) -> Finding:
    """Asks again where another backend than this one answered first."""
    if asker.plain is None:
        await text(asker)
    if asker.plain and asker.plain.thoughts:
        return Finding("ok", REASONING, "comes apart from the answer")
    if asker.plain and "<think>" in asker.plain.text:
        advice = "start the server with its reasoning parser, or set `markup`"
        return Finding("weak", REASONING, "<think> in the text", advice)
    return Finding("ok", REASONING, "none seen")


async def schema(asker: Asker) -> Finding:
    asked = replace(asker.request(("user", "Which number comes after 41?")), format=NUMBER)
    answer = await asker.ask(asked)
    advice = "set `json_schema: prompt`"
    if isinstance(answer, GatewayError):
        return Finding("weak", SCHEMA, asker.reason(answer), advice)
    try:
        fits = isinstance(json.loads(answer.text)["n"], int)
    except (ValueError, TypeError, KeyError):
        fits = False
    return Finding("ok", SCHEMA, "kept") if fits else Finding("weak", SCHEMA, "not kept", advice)
