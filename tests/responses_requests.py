"""Requests of the Responses API in short form, for the tests that read them."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Message, Part
from dragoman.translators.protocol import Context, Json, Policy, Turn
from dragoman.translators.responses import PROTOCOL

PNG = "data:image/png;base64,iVBORw0KGgo="


def sealed(text: str) -> str | None:
    """Stands for the gateway's key: what it sealed begins with `ours:`."""
    return text.removeprefix("ours:") if text.startswith("ours:") else None


def parse(policy: Policy | None = None, headers: dict[str, str] | None = None, **body: Any) -> Turn:
    context = Context(id="0" * 24, clock=lambda: 1, headers=headers or {}, policy=policy or Policy(), open=sealed)
    return PROTOCOL.parse({"model": "m", "input": "hi", **body}, context)


def refused(policy: Policy | None = None, **body: Any) -> GatewayError:
    """The error for a request that is the client's to change."""
    with pytest.raises(GatewayError) as caught:
        parse(policy, **body)
    assert caught.value.kind in (Kind.INVALID, Kind.UNSUPPORTED)
    assert PROTOCOL.error(caught.value, "r").status == 400
    return caught.value


def messages(*items: Any, **body: Any) -> list[Message]:
    return list(parse(input=list(items), **body).request.messages)


def parts(*items: Any) -> list[Part]:
    """The parts of the first message."""
    return list(messages(*items)[0].parts)


def user(content: Any = "x") -> Json:
    return {"type": "message", "role": "user", "content": content}
