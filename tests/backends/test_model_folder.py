"""Counting with the model's own files, for chat servers that have no endpoint for it."""

from __future__ import annotations

import builtins
import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.settings import resolve
from dragoman.backends.model_folder import INSTALL, PromptCounter, read
from dragoman.gateway.calls.context_window import fit
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Message, Named, Reasoning, Text, Tool, ToolChoice
from tests.recording import ask, counted

WORDS = ("user", ":", "one", "two", "three", "assistant", "tool", "add")
TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}"
    "{% for t in tools or [] %}tool {{ t.function.name }} {% endfor %}assistant :"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="user"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_bytes(orjson.dumps({"chat_template": TEMPLATE}))
    return tmp_path


def counting(folder: Path, **settings: Any) -> ChatCompletions:
    return ChatCompletions("http://127.0.0.1:9/v1", settings=resolve("sglang", {"tokenizer": str(folder)} | settings))


async def test_the_rendered_prompt_is_counted_without_asking_the_server(folder: Path) -> None:
    backend = counting(folder)
    assert await counted(backend, ask("one two three")) == len(["user", ":", "one", "two", "three", "assistant", ":"])
    assert await counted(backend, ask("one")) == 5
    await backend.close()


@pytest.mark.parametrize(
    ("settings", "choice", "shown"),
    [
        ({}, "auto", 2),
        ({}, "none", 0),
        ({"tool_choice_none": "send"}, "none", 2),
        ({}, Named("add"), 2),
        ({"force_tool": "required"}, Named("add"), 1),
        ({"force_tool": "required"}, "required", 2),
        ({"tools": "forced_only"}, "auto", 0),
        ({"tools": "forced_only"}, "required", 2),
        ({"tools": "forced_only", "tool_choice_none": "send"}, "none", 0),
    ],
)
async def test_the_tools_that_are_sent_are_counted(
    settings: dict[str, Any], choice: ToolChoice, shown: int, folder: Path
) -> None:
    tools = tuple(Tool(name, "", {"type": "object"}) for name in ("add", "two"))
    backend = counting(folder, **settings)
    size = await backend.count(await backend.prepare(ask("one", tools=tools, tool_choice=choice)))
    assert size == 5 + shown * len(["tool", "name"])


@pytest.mark.parametrize(("field", "size"), [("reasoning", 8), (None, 7)])
async def test_thoughts_are_counted_where_the_server_is_sent_them(field: str | None, size: int, folder: Path) -> None:
    """Whatever the server calls them, they stand in the prompt where the template has them."""
    template = "{% for m in messages %}{{ m.role }} : {{ m.thinking or '' }} {{ m.content }} {% endfor %}"
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps({"chat_template": template}))
    backend = counting(folder, reasoning_field=field)
    thought = Message("assistant", (Reasoning("three"), Text("two")))
    asked = ask("one")
    prepared = await backend.prepare(replace(asked, messages=(*asked.messages, thought)))
    assert await backend.count(prepared) == size - 1
    await backend.close()


def test_what_a_template_fails_on_is_logged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    template = "{% for m in messages %}{% if m.tool_calls %}{{ raise_exception('No calls!') }}{% endif %}{% endfor %}"
    (folder / "tokenizer_config.json").write_bytes(orjson.dumps({"chat_template": template}))
    read(folder)
    (line,) = caplog.messages
    assert line.startswith(f"the chat template in {folder} fails on an earlier call: ")
    assert "No calls!" in line


async def test_a_long_prompt_is_refused_with_its_true_size(folder: Path) -> None:
    backend = counting(folder)
    prepared = await backend.prepare(ask("one " * 600))
    with pytest.raises(GatewayError) as caught:
        await fit(backend, prepared, 512)
    assert (caught.value.kind, caught.value.tokens) == (Kind.OVERFLOW, 604)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match="there is no folder"):
        counting(tmp_path / "nothing")


@pytest.mark.parametrize(("name", "said"), [("loop", "symbolic links"), ("x" * 300, "too long"), ("a\0b", "no folder")])
def test_a_folder_that_cannot_be_read_is_named_with_the_reason(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(GatewayError, match=f"setting tokenizer: .*{said}"):
        counting(tmp_path / name)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja", "tokenizer.json"])
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    file: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that belongs to another user."""
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    real_text, real_open = Path.read_text, Path.open

    def read_text(path: Path, *args: Any, **named: Any) -> str:
        if path.name == file:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_text(path, *args, **named)

    def open_file(path: Path, *args: Any, **named: Any) -> Any:
        if path.name == file:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real_open(path, *args, **named)

    monkeypatch.setattr(Path, "read_text", read_text)
    monkeypatch.setattr(Path, "open", open_file)
    with pytest.raises(GatewayError, match=rf"{file} cannot be read: Permission denied"):
        read(folder)


def test_a_template_that_is_not_text_is_named(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(GatewayError, match=r"chat_template\.jinja is not UTF-8 text"):
        read(folder)


def test_a_missing_extra_is_named_with_what_installs_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] in ("jinja2", "tokenizers"):
            raise ImportError(name)
        return real(name, *rest, **named)

    for name in ("dragoman.backends.prompts.template", "dragoman.backends.prompts.tokenizer"):
        monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(GatewayError) as caught:
        PromptCounter(folder, resolve())
    assert INSTALL in caught.value.message
