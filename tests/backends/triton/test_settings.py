"""Every setting either changes what a Triton backend does or is refused at start."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.chat.settings import Settings
from dragoman.backends.prompts.prompt import Prompt
from dragoman.backends.prompts.rendering import Rendering
from dragoman.backends.prompts.template import ChatTemplate
from dragoman.backends.registry import Options, open_backend
from dragoman.backends.triton.model_files import loader
from dragoman.backends.triton.settings import OBEYED, prompt_settings
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Message, Reasoning, Request, Text, Tool, ToolCall, ToolReference, ToolResult

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.reasoning }}{{ m.content }}{% endfor %}"
    "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}{{ greeting }}"
)
SUB = Tool("sub", "", {"type": "object"}, deferred=True)
CONVERSATION = Request(
    id="r",
    model="m",
    messages=(
        Message("developer", (Text("Be brief."),)),
        Message("user", (Text("Hi."),)),
        Message("assistant", (Reasoning("Hm."), ToolCall("c", "add", "{}"))),
        Message("tool", (ToolResult("c", (Text("3"),)),)),
        Message("user", (Text("And?"),)),
        Message("system", (Text("Be kind."), ToolReference("There is sub.", SUB))),
    ),
    tools=(Tool("add", "", {"type": "object"}, strict=True), SUB),
)
# A value of each that is obeyed, other than its default.
VALUES: dict[str, Any] = {
    "developer_role": True,
    "system_messages": "user",
    "turns": "alternate",
    "reasoning_field": "thinking",
    "strict_tools": True,
    "deferred_tools": "in_place",
    "extra_body": {"chat_template_kwargs": {"greeting": "Hello."}},
    "markup": "llama3",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    word_level = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": word_level}), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}), encoding="utf-8")
    return tmp_path


class Letters:
    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [ord(letter) for letter in text]


def prompt(settings: Rendering) -> str:
    return Prompt(settings, ChatTemplate(TEMPLATE), Letters()).text(CONVERSATION, strftime_now=str)


def refusal(folder: Path, **settings: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        open_backend(f"triton+grpc://host:8001/m?tokenizer={folder}", Options(settings=settings))
    assert caught.value.kind is Kind.INVALID
    assert "\n" not in caught.value.message
    return caught.value


@pytest.mark.parametrize("name", sorted(Settings.model_fields.keys() - OBEYED.keys()))
def test_a_setting_of_chat_servers_alone_is_refused_even_with_its_default(name: str, folder: Path) -> None:
    error = refusal(folder, **{name: Settings.model_fields[name].default})
    assert error.message.startswith(f"setting {name}: has no meaning for a Triton backend")
    assert error.param == name


def test_every_setting_that_is_obeyed_is_one_of_rendering() -> None:
    assert OBEYED.keys() == VALUES.keys()
    assert OBEYED.keys() <= Rendering.model_fields.keys()


@pytest.mark.parametrize("name", sorted(OBEYED.keys() - {"markup"}))
def test_a_setting_that_is_obeyed_changes_the_prompt(name: str) -> None:
    assert prompt(prompt_settings({name: VALUES[name]})) != prompt(prompt_settings({}))


def test_the_family_of_the_setting_reads_the_answer(folder: Path) -> None:
    open_backend(f"triton+http://host/m?tokenizer={folder}&markup=llama3", Options(settings={"markup": "llama3"}))
    settings = prompt_settings({"markup": VALUES["markup"]})
    assert loader(folder, settings.markup, "m", settings)().family == "llama3"


def test_a_url_and_a_setting_that_name_two_families_are_refused(folder: Path) -> None:
    with pytest.raises(GatewayError, match="setting markup: the backend's URL says hermes"):
        open_backend(f"triton+http://host/m?tokenizer={folder}&markup=hermes", Options(settings={"markup": "llama3"}))


@pytest.mark.parametrize(
    ("settings", "param", "said"),
    [
        ({"extra_body": {"n": 1}}, "extra_body.n", "has no meaning for a Triton backend"),
        ({"extra_body": {"chat_template_kwargs": [1]}}, "extra_body.chat_template_kwargs", "names and values"),
        ({"reasoning_field": None}, "reasoning_field", "wherever the template has a place"),
        ({"markup": "klingon"}, "markup", "unknown markup klingon"),
        ({"sistem_messages": "keep"}, "sistem_messages", "those that have are developer_role, system_messages"),
    ],
)
def test_a_value_that_cannot_be_obeyed_is_refused(
    settings: dict[str, Any], param: str, said: str, folder: Path
) -> None:
    error = refusal(folder, **settings)
    assert error.param == param
    assert error.message.startswith(f"setting {param}: ")
    assert said in error.message


def test_images_are_never_shown_and_tools_not_where_none_may_be_called() -> None:
    assert not prompt_settings({}).images
    shown = Prompt(prompt_settings({}), ChatTemplate(TEMPLATE), Letters())
    assert "add" not in shown.text(replace(CONVERSATION, tool_choice="none"), strftime_now=str).rpartition(">")[2]
