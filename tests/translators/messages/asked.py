"""Short forms of Messages requests, and what they are read to."""

from typing import Any

import pytest

from dragoman.translators.errors import GatewayError
from dragoman.translators.messages import PROTOCOL
from dragoman.translators.protocol import Context, Json, Policy, Turn
from tests.grammar.messages import check_error

PNG: Json = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
LS: Json = {"name": "ls", "description": "Lists.", "input_schema": {"type": "object", "properties": {}}}
SEARCH: Json = {"type": "web_search_20250305", "name": "w"}
REJECTING = Policy(hosted_tools="reject")


def context(**fields: Any) -> Context:
    return Context(**{"id": "0" * 24, "clock": lambda: 0, **fields})


def user(content: Any) -> Json:
    return {"role": "user", "content": content}


def assistant(*blocks: Json) -> Json:
    return {"role": "assistant", "content": [*blocks]}


def text(value: str, **more: Any) -> Json:
    return {"type": "text", "text": value, **more}


def image(**source: Any) -> Json:
    return {"type": "image", "source": source}


def use(id: str, name: str = "ls", **arguments: Any) -> Json:
    return {"type": "tool_use", "id": id, "name": name, "input": arguments}


def result(id: str, content: Any = "ok", **more: Any) -> Json:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def body(*messages: Json, **fields: Any) -> Json:
    return {"model": "m", "max_tokens": 100, "messages": list(messages) or [user("Hello")], **fields}


def parse(*messages: Json, under: Context | None = None, **fields: Any) -> Turn:
    return PROTOCOL.parse(body(*messages, **fields), under or context())


def refusal(*messages: Json, under: Context | None = None, **fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as refused:
        parse(*messages, under=under, **fields)
    error = refused.value
    reply = PROTOCOL.error(error, "req_1")
    check_error(reply.status, reply.body)
    assert reply.status == 400
    assert error.param is not None
    assert reply.body["error"]["message"].startswith(error.param)
    return error
