"""The model's own files: templates and tokenizers of real families, as the Triton backend uses them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dragoman.backends.triton.model_files import ModelFiles, loader
from dragoman.backends.triton.settings import prompt_settings
from dragoman.translators.ir import Message, Text
from dragoman.translators.parts import Parts
from tests.conftest import RealComponent
from tests.real.triton.asking import WEATHER, request

pytestmark = pytest.mark.real

HELLO = (Message("user", (Text("Hello."),)),)
THINKER = (
    "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.content }}{% endfor %}<|im_start|>assistant\n<think>\n"
)


def read(folder: Path, family: str | None = None) -> ModelFiles:
    return loader(folder, family, "any", prompt_settings({}))()


@pytest.fixture
def thinker(tokenizer_folder: Path, tmp_path: Path) -> ModelFiles:
    """A model whose template always opens the thought."""
    (tmp_path / "tokenizer.json").symlink_to(tokenizer_folder / "tokenizer.json")
    told = {"chat_template": THINKER, "eos_token": "<|im_end|>", "bos_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    return read(tmp_path)


async def test_a_bos_is_written_once(real_component: RealComponent) -> None:
    files = read(real_component("chat-tokenizers") / "tokenizer-llama3_1" / "models")
    prompt = await files.prompt(request({}, messages=HELLO), guided=False)
    bos = "<|begin_of_text|>"
    assert prompt.text.count(bos) == 1
    assert files.tokenizer.encode(prompt.text).count(files.tokenizer.encode(bos)[0]) == 1
    # a server that adds special tokens gets the text without
    sent = files.without_second_bos(prompt.text)
    assert bos not in sent
    assert list(prompt.ids) == files.tokenizer.encode(sent, add_special_tokens=True)


async def test_a_tokenizer_that_adds_nothing_needs_nothing_taken_away(tokenizer_folder: Path) -> None:
    assert read(tokenizer_folder).without_second_bos("<|im_start|>user") == "<|im_start|>user"


async def test_the_family_is_found_or_given(real_component: RealComponent) -> None:
    folder = real_component("chat-tokenizers")
    names = ("qwen3", "llama3_1", "deepseek_v3")
    found = {name: read(folder / f"tokenizer-{name}" / "models").family for name in names}
    assert found == {
        "qwen3": "hermes",
        "llama3_1": "plain",
        "deepseek_v3": "deepseek",
    }  # whose template has no tools here
    assert read(folder / "tokenizer-qwen3" / "models", "plain").family == "plain"


async def test_replicas_share_what_was_read(tokenizer_folder: Path) -> None:
    assert read(tokenizer_folder).tokenizer is read(tokenizer_folder).tokenizer


async def test_under_a_constraint_an_opened_thought_is_closed(thinker: ModelFiles) -> None:
    free = await thinker.prompt(request({}, messages=HELLO), guided=False)
    bound = await thinker.prompt(request({}, messages=HELLO), guided=True)
    assert free.text.endswith("<think>")
    assert bound.text == free.text + "\n</think>\n\n"
    assert list(bound.ids) == thinker.tokenizer.encode(bound.text)


async def test_an_opened_thought_is_reasoning(thinker: ModelFiles) -> None:
    asked = request({}, messages=HELLO)
    parts = Parts.of(asked)
    markup = thinker.answer_format(asked, await thinker.prompt(asked, guided=False)).markup(parts)
    markup.feed("Hm.</think>Yes.")
    markup.finish()
    assert [event.kind for event in parts.take() if hasattr(event, "kind")] == ["reasoning", "text"]


async def test_a_template_without_tools_is_said(thinker: ModelFiles) -> None:
    assert not thinker.shows_tools
    notes = thinker.prompts.notes(request({}, messages=HELLO, tools=(WEATHER,)))
    assert [note.name for note in notes] == ["auto:unsupported"]
