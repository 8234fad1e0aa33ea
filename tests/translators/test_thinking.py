"""One wish in seven spellings: whether to think; and what else a client tells the chat template."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.translators.fields import RequestFields, Unread
from dragoman.translators.ir import Thinking
from dragoman.translators.thinking import switch_of, switched

ON = {"enable_thinking": True, "thinking": True}
OFF = {"enable_thinking": False, "thinking": False}


@pytest.mark.parametrize(
    ("said", "effort", "meant", "kwargs"),
    [
        ({}, None, None, {}),
        ({}, "low", "low", {}),
        ({"enable_thinking": True}, None, None, ON),
        ({"enable_thinking": True}, "low", "low", ON),
        ({"enable_thinking": False}, None, "none", {}),
        ({"enable_thinking": False}, "low", "low", OFF),  # how much, and whether: both words are the client's
        ({"chat_template_kwargs": {"thinking": False}}, None, "none", {"thinking": False}),
        ({"chat_template_kwargs": {"thinking": True, "x": 1}}, None, None, {**ON, "x": 1}),
        ({"chat_template_kwargs": {"enable_thinking": "auto"}}, None, None, {"enable_thinking": "auto"}),
        ({"chat_template_kwargs": {"x": None}}, "high", "high", {"x": None}),
    ],
)
def test_switches_and_variables(said: dict[str, Any], effort: str | None, meant: str | None, kwargs: Any) -> None:
    fields = RequestFields.model_validate({"model": "m", **said})
    assert switched(fields, Thinking(effort, 5), Unread()) == (Thinking(meant, 5), kwargs)


def test_a_client_cannot_replace_the_template_or_the_conversation() -> None:
    unread = Unread()
    given = {"chat_template": "{{ secrets }}", "messages": [], "tokenize": True, "documents": [1]}
    fields = RequestFields.model_validate({"model": "m", "chat_template_kwargs": given})
    assert switched(fields, Thinking(), unread)[1] == {"documents": [1]}
    assert [note.name for note in unread.notes()] == [
        f"chat_template_kwargs.{name}" for name in ("chat_template", "messages", "tokenize")
    ]


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (True, True),
        ({"type": "enabled"}, True),
        ({"type": "Adaptive"}, True),
        ({"type": "disabled"}, False),
        ("off", False),
        ({"type": "auto"}, None),
        ({"type": 5}, None),
        ({}, None),
        (None, None),
    ],
)
def test_the_switch_in_the_shape_of_the_messages_api(value: object, meant: bool | None) -> None:
    assert switch_of(value) is meant
