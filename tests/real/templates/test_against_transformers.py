"""Real models' templates, rendered byte for byte as transformers renders them.

The table of `ways` says where we put a conversation otherwise, and why; then too, the bytes are those of transformers.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import datetime
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.prompts.template import ChatTemplate
from dragoman.backends.prompts.tokenizer_config import chat_templates
from dragoman.backends.triton.model_files import family_of
from dragoman.translators.errors import GatewayError
from tests.conftest import RealComponent
from tests.real.templates.conversations import CONVERSATIONS, TOOLS, as_authors_expect
from tests.real.templates.ways import WAYS, Case, Way

Json = dict[str, Any]
Render = Callable[[list[tuple[str, Case]]], list[Json]]

DAY = datetime(2026, 11, 26)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


@pytest.fixture(scope="module")
def templates(real_component: RealComponent) -> dict[str, str]:
    """The text of each by its name."""
    found = {file.stem: file.read_text() for file in sorted(real_component("chat-templates").glob("*.jinja"))}
    assert len(found) == 70
    carried = {file.stem: file.read_text() for file in sorted(real_component("vllm-templates").glob("*.jinja"))}
    assert len(carried) == 35
    found |= carried
    for folder in sorted(real_component("chat-tokenizers").glob("tokenizer-*")):
        config = json.loads((folder / "models" / "tokenizer_config.json").read_text())
        found |= {f"{folder.name} {name}": source for name, source in chat_templates(config).items()}
    return found


@pytest.fixture(scope="module")
def transformers(real_component: RealComponent) -> Render:
    interpreter = real_component("transformers")

    def render(cases: list[tuple[str, Case]]) -> list[Json]:
        told = [
            {"template": source, "tokens": TOKENS, "messages": case.messages, "tools": case.tools, "nulls": case.nulls}
            for source, case in cases
        ]
        driver = Path(__file__).with_name("transformers_driver.py")
        done = subprocess.run(
            [interpreter, driver, DAY.isoformat()], input=json.dumps(told), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        rendered: list[Json] = json.loads(done.stdout)
        return rendered

    return render


def expected(name: str, conversation: str, without: Way | None = None) -> Case:
    """The conversation as transformers gets it for a template."""
    messages, with_tools = CONVERSATIONS[conversation]
    case = Case(as_authors_expect(messages), TOOLS if with_tools else None)
    return reduce(lambda case, way: case if way is without else way(case), WAYS.get(name, ()), case)


def ours(template: ChatTemplate, conversation: str) -> Json:
    messages, with_tools = CONVERSATIONS[conversation]
    field = template.thought_field or "reasoning_content"
    messages = [
        {field if name == "reasoning_content" else name: value for name, value in message.items()}
        for message in messages
    ]
    try:
        return {"text": template.render(messages, TOOLS if with_tools else None, strftime_now=DAY.strftime)}
    except GatewayError as error:
        return {"error": error.message}


def same(got: Json, wanted: Json) -> bool:
    return got["text"] == wanted.get("text") if "text" in got else "error" in wanted


def test_each_prompt_is_the_one_that_transformers_makes(templates: dict[str, str], transformers: Render) -> None:
    cases = [(name, conversation) for name in templates for conversation in CONVERSATIONS]
    wanted = transformers([(templates[name], expected(name, conversation)) for name, conversation in cases])
    read = {name: ChatTemplate(source, tokens=TOKENS) for name, source in templates.items()}
    differing = {
        f"{name}: {conversation}": (got, want)
        for (name, conversation), want in zip(cases, wanted, strict=True)
        if not same(got := ours(read[name], conversation), want)
    }
    assert not differing


def test_no_row_of_the_table_is_needless(templates: dict[str, str], transformers: Render) -> None:
    """Without any one of its ways, a template's prompts would differ."""
    assert WAYS.keys() <= templates.keys()
    rows = [(name, way, conversation) for name, ways in WAYS.items() for way in ways for conversation in CONVERSATIONS]
    wanted = transformers([(templates[name], expected(name, conversation, way)) for name, way, conversation in rows])
    read = {name: ChatTemplate(templates[name], tokens=TOKENS) for name in WAYS}
    needed = {
        (name, way)
        for (name, way, conversation), want in zip(rows, wanted, strict=True)
        if not same(ours(read[name], conversation), want)
    }
    needless = {f"{name}: {way}" for name, way, _ in rows if (name, way) not in needed}
    assert not needless


def test_each_template_that_takes_tools_is_of_a_family_that_is_read(templates: dict[str, str]) -> None:
    read = {name: ChatTemplate(source, tokens=TOKENS) for name, source in templates.items()}
    unread = {name for name, template in read.items() if template.takes_tools and family_of(template) is None}
    assert not unread


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("tool_chat_template_gemma3_pythonic", "pythonic"),
        ("tool_chat_template_granite_20b_fc", "granite"),
        ("tool_chat_template_hunyuan_a13b", "hunyuan"),
        ("tool_chat_template_internlm2_tool", "internlm2"),
        ("tool_chat_template_llama4_json", "pythonic"),
        ("tool_chat_template_toolace", "pythonic"),
        ("tool_chat_template_xlam_llama", "xlam"),
        ("tool_chat_template_xlam_qwen", "xlam"),
        ("CohereForAI-c4ai-command-r-plus-tool_use", "command_r"),
        ("LFM2.5-Instruct", "lfm2"),
    ],
)
def test_the_family_of_a_real_template(name: str, family: str, templates: dict[str, str]) -> None:
    assert family_of(ChatTemplate(templates[name], tokens=TOKENS)) == family
