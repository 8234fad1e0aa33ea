"""Short forms of chat completions requests, and what they are read to."""

from typing import Any

import pytest

from dragoman.translators.chat_completions import PROTOCOL
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Message, Request
from dragoman.translators.protocol import Context, Json, Turn

USER: Json = {"role": "user", "content": "Hello"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="


def parse(context: Context | None = None, **fields: Any) -> Turn:
    body = {"model": "m", "messages": [USER]} | fields
    return PROTOCOL.parse(body, context or Context(id="0" * 24, clock=lambda: 0))


def request(**fields: Any) -> Request:
    return parse(**fields).request


def notes(**fields: Any) -> list[str]:
    return [f"{note.kind}:{note.name}" for note in parse(**fields).notes]


def refused(context: Context | None = None, **fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        parse(context, **fields)
    assert caught.value.kind in (Kind.INVALID, Kind.UNSUPPORTED)
    return caught.value


def function(name: str, **fields: Any) -> Json:
    return {"type": "function", "function": {"name": name, **fields}}


def custom(name: str, **fields: Any) -> Json:
    return {"type": "custom", "custom": {"name": name, **fields}}


def call(id: str, name: str, arguments: str = "{}") -> Json:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(id: str, content: Any = "done") -> Json:
    return {"role": "tool", "tool_call_id": id, "content": content}


def said(*messages: Json) -> tuple[Message, ...]:
    return request(messages=list(messages)).messages
