"""What a request says about thinking, in a template's own switches."""

from __future__ import annotations

from typing import Any

import pytest

from dragoman.backends.prompts.switches import switches
from dragoman.backends.prompts.template import ChatTemplate
from dragoman.translators.ir import Thinking


@pytest.mark.parametrize(
    ("thinking", "variables", "values"),
    [
        (Thinking(), ["enable_thinking"], {}),
        (Thinking(effort="high"), [], {}),
        (Thinking(effort="high"), ["enable_thinking"], {"enable_thinking": True}),
        (Thinking(effort="none"), ["thinking", "messages"], {"thinking": False}),
        (Thinking(budget=100), ["enable_thinking"], {"enable_thinking": True}),
        (Thinking(effort="max"), ["reasoning_effort"], {"reasoning_effort": "high"}),
        (Thinking(effort="none"), ["thinking_mode"], {"thinking_mode": "disabled"}),
        (
            Thinking(effort="low"),
            ["thinking_mode", "skip_thinking"],
            {"thinking_mode": "enabled", "skip_thinking": False},
        ),
        (Thinking(effort="none"), ["thinking_budget"], {"thinking_budget": 0}),
        (Thinking(effort="low", budget=512), ["thinking_budget"], {"thinking_budget": 512}),
        (Thinking(effort="low"), ["thinking_budget"], {}),
    ],
)
def test_effort_reaches_the_switches_that_there_are(
    thinking: Thinking, variables: list[str], values: dict[str, Any]
) -> None:
    assert switches(thinking, variables) == values


def test_a_switch_is_a_variable_from_outside_and_not_a_word() -> None:
    template = ChatTemplate("{% set thinking = 1 %}{% for m in messages %}{{ m.enable_thinking }}{% endfor %}")
    assert not template.thinks
    assert ChatTemplate("{% if not thinking is defined %}{% set thinking = true %}{% endif %}{{ thinking }}").thinks
