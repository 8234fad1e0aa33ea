"""The family of a model's calls, from its own files; and that somebody is told where nothing says which it is."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from dragoman.backends.registry import Options, open_backend
from dragoman.backends.triton.backend import Triton
from dragoman.backends.triton.model_files import ModelFiles, loader
from dragoman.backends.triton.settings import prompt_settings
from dragoman.translators.ir import Message, Note, Request, Text, Tool

TOOLS = "{% for t in tools or [] %}{{ t | tojson }}{% endfor %}"
ASKED = Request(
    id="r", model="m", messages=(Message("user", (Text("Hi."),)),), tools=(Tool("add", "", {"type": "object"}),)
)


def turns(call: str) -> str:
    """A template that prints tools, and calls as `call` does."""
    return (
        TOOLS
        + "{% for m in messages %}<{{ m.role }}>{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
        + call
        + "{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )


UNHEARD_OF = turns("<<{{ c.function.name }}: {{ c.function.arguments }}>>")
PYTHONIC = turns("[{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}={{ v }}{% endfor %})]")
ARRAY = turns('[{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments | tojson }}}]')


def folder(at: Path, template: str) -> Path:
    word_level = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}
    (at / "tokenizer.json").write_text(json.dumps({"model": word_level}), encoding="utf-8")
    (at / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}), encoding="utf-8")
    return at


def files(at: Path, template: str, family: str | None = None) -> ModelFiles:
    return loader(folder(at, template), family, "m", prompt_settings({}))()


@pytest.mark.parametrize(
    ("template", "family", "unread"),
    [
        (UNHEARD_OF, "plain", True),
        (PYTHONIC, "pythonic", False),
        (ARRAY, "xlam", False),
        (turns("<tool_call>{{ c.function | tojson }}</tool_call>"), "hermes", False),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "plain", False),  # it takes no tools
    ],
)
def test_the_family_comes_from_the_template(tmp_path: Path, template: str, family: str, unread: bool) -> None:
    found = files(tmp_path, template)
    assert (found.family, found.unread) == (family, unread)


def test_a_family_that_was_named_is_known(tmp_path: Path) -> None:
    found = files(tmp_path, UNHEARD_OF, "plain")
    assert (found.family, found.unread) == ("plain", False)


@pytest.mark.parametrize(("template", "told"), [(UNHEARD_OF, True), (PYTHONIC, False)])
async def test_calls_that_nobody_reads_are_told(
    tmp_path: Path, template: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    backend = open_backend(f"triton+http://host/m?tokenizer={folder(tmp_path, template)}", Options())
    assert isinstance(backend, Triton)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            prepared = await backend.prepare(ASKED)
            assert (Note("tool", "markup:unknown") in prepared.notes) is told
    assert caplog.text.count("set `markup`") == told
