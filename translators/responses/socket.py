"""The Responses API over a WebSocket: each text message asks for one response, each event is one text message.

Lanes (`stream_id`) are echoed and served one after another. Of `response.steer` only a refusal is served, as the event
that brings what could not be said back to the client: an `error` would be taken for one of the next response.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dragoman.translators.errors import invalid
from dragoman.translators.openai.errors import OVERLOADED
from dragoman.translators.openai.refusals import wrong_type
from dragoman.translators.protocol import Json

RETRY_AFTER = "retry-after"
_OF_HTTP = ("stream", "stream_options", "background")  # these have no meaning here, and OpenAI ignores them too
_LANE = re.compile(r"[A-Za-z0-9_.-]{1,256}")
# A connection has no retries of the transport, so clients go by the code: Codex gives up at the first of these, and
# openai-agents asks again after a `server_error` that has none.
_PASSING = frozenset({OVERLOADED, "server_error", "service_unavailable"})


def request(message: Json) -> Json:
    """The body of the call that a message asks for; raises `GatewayError` where it asks for none."""
    kind = message.get("type")
    if kind == "response.steer":
        raise invalid("A running response cannot be steered here.", "type", "steering_not_supported")
    if kind != "response.create":
        raise invalid("Expected a message of type 'response.create'.", "type", "invalid_value")
    if message.get("stream_id") is not None and lane(message) is None:
        words = "Invalid 'stream_id': expected 1 to 256 letters, digits, underscores, hyphens and periods."
        raise invalid(words, "stream_id", "invalid_stream_id")
    if not isinstance(generate := message.get("generate"), bool | None):
        raise wrong_type("generate", "a boolean", generate)
    left_out = ("type", "stream_id", "generate", *_OF_HTTP)
    body = {name: value for name, value in message.items() if name not in left_out}
    if generate is False:  # the server's cache is to be filled, and nothing said
        given = body.get("prompt_cache_options")
        if given is None or isinstance(given, dict):  # else it is refused
            body["prompt_cache_options"] = {**(given or {}), "prewarm": True}
    return {**body, "stream": True}


def lane(message: Json) -> str | None:
    named = message.get("stream_id")
    return named if isinstance(named, str) and _LANE.fullmatch(named) else None


def error(status: int, body: Json, headers: Mapping[str, str], message: Json) -> Json:
    """A refusal before the response has begun; the connection stays open. `message` is what was refused, where it could
    be read and asked for no response. Of the headers, Codex obeys `retry-after` here too."""
    if message.get("type") == "response.steer":
        told = {name: body["error"][name] for name in ("type", "code", "message")}
        steer = {name: message[name] for name in ("previous_response_id", "input") if name in message}
        return {"type": "response.steer.failed", "sequence_number": 0, "error": told, "steer": steer}
    refusal = body["error"]
    if status in (502, 503) and refusal["code"] in _PASSING:
        refusal = {**refusal, "code": None}
    wait = {"headers": {RETRY_AFTER: headers[RETRY_AFTER]}} if RETRY_AFTER in headers else {}
    return {"type": "error", "status": status, "error": refusal, **wait}
