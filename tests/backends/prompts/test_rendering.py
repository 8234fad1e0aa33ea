"""Settings of rendering: wrong ones are refused in one line, and everything that renders reads the same ones."""

from typing import Any

import pytest

from dragoman.backends.prompts.rendering import Rendering, checked
from dragoman.translators.errors import GatewayError, Kind


@pytest.mark.parametrize(
    ("given", "param", "words"),
    [
        ({"markup": "klingon"}, "markup", "setting markup: unknown markup klingon; known are hermes"),
        ({"system_messages": "shout"}, "system_messages", "'leading', 'keep', 'hoist' or 'user'"),
        ({"force_tool": "native"}, "force_tool", "setting force_tool: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(given: dict[str, Any], param: str, words: str) -> None:
    with pytest.raises(GatewayError, match=words) as caught:
        checked(Rendering, given)
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, param)
    assert "\n" not in caught.value.message


def test_switches_for_the_template_are_those_of_the_body() -> None:
    assert Rendering().template_kwargs == {}
    assert Rendering(extra_body={"chat_template_kwargs": None}).template_kwargs == {}
    assert Rendering(extra_body={"chat_template_kwargs": {"a": 1}, "b": 2}).template_kwargs == {"a": 1}
