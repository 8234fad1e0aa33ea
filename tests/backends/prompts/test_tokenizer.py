"""Tokenizers: ids of the real ones, and text out of ids one by one without half characters or lost spaces."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Model

from dragoman.backends.model_folder import encode, read_tokenizer
from dragoman.backends.prompts.tokenizer import Tokenizer
from dragoman.translators.errors import GatewayError
from tests.conftest import RealComponent

FAMILIES = ("qwen3", "llama3_1", "deepseek_v3")
TEXT = 'Grüße 👩‍👩‍👧‍👦, 中文 — naïve\n\n    indented  twice\t"x" 🙂🇩🇪 ½'


@pytest.fixture(scope="module", params=FAMILIES)
def real(request: pytest.FixtureRequest, real_component: RealComponent) -> Tokenizer:
    return read_tokenizer(real_component("chat-tokenizers") / f"tokenizer-{request.param}" / "models")


def sentencepiece() -> Tokenizer:
    """A tokenizer of the Llama 2 form: words begin with ▁, unknown bytes stand as <0x..>."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁Hello", "▁world", "!", "▁▁"]
    model = models.Unigram([(piece, -float(index)) for index, piece in enumerate(pieces)], 0, byte_fallback=True)
    tokenizer = Model(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    return Tokenizer(tokenizer, [2])


def streamed(tokenizer: Tokenizer, ids: list[int], size: int = 1, **options: Any) -> list[str]:
    decoder = tokenizer.decode_stream(**options)
    return [*(decoder.feed(ids[at : at + size]) for at in range(0, len(ids), size)), decoder.finish()]


@pytest.mark.real
def test_real_tokenizers_give_their_text_back_piece_by_piece(real: Tokenizer) -> None:
    ids = real.encode(TEXT)
    for size in (1, 2, 3, len(ids)):
        pieces = streamed(real, ids, size)
        assert "".join(pieces) == TEXT
        assert not any("\ufffd" in piece for piece in pieces)
    assert real.count(TEXT) == len(ids)


def special_ids(tokenizer: Tokenizer) -> set[int]:
    added = tokenizer._tokenizer.get_added_tokens_decoder()
    return {int(id) for id, token in added.items() if token.special}


@pytest.mark.real
def test_no_token_is_added_and_the_end_is_known(real: Tokenizer) -> None:
    special = special_ids(real)
    assert not set(real.encode("Hi")) & special
    assert real.eos_ids
    assert set(real.eos_ids) <= special
    ends = [*real.encode("Hi"), real.eos_ids[0]]
    assert "".join(streamed(real, ends, skip_special_tokens=True)) == "Hi"
    assert "".join(streamed(real, ends)) == "Hi" + real.decode(real.eos_ids[:1])


@pytest.mark.real
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=40), size=st.integers(1, 5))
def test_any_text_any_cutting(real: Tokenizer, text: str, size: int) -> None:
    ids = real.encode(text)
    whole = real.decode(ids)
    assert "".join(streamed(real, ids, size)) == whole.rstrip("\ufffd")


@pytest.mark.real
async def test_long_texts_are_encoded_elsewhere(real: Tokenizer) -> None:
    assert await encode(real, TEXT * 2000) == real.encode(TEXT * 2000)


@pytest.mark.real
def test_decoding_costs_what_the_answer_is_long(real: Tokenizer) -> None:
    def cost(count: int) -> float:
        ids = real.encode("word " * count)
        start = time.process_time()
        streamed(real, ids)
        return time.process_time() - start

    assert cost(16_000) < 12 * max(cost(4_000), 0.01)


def test_spaces_of_sentencepiece_stay() -> None:
    tokenizer = sentencepiece()
    ids = tokenizer.encode("Hello world!")
    assert streamed(tokenizer, ids) == ["Hello", " world", "!", ""]
    world = ids[1:]
    assert "".join(streamed(tokenizer, world, prompt_ids=ids[:1])) == " world!"
    assert "".join(streamed(tokenizer, [ids[0], 1, *world], skip_special_tokens=True)) == "Hello world!"


def test_bytes_wait_for_their_character_and_broken_ones_do_not_wait_for_ever() -> None:
    tokenizer = sentencepiece()
    octets = {octet: 3 + octet for octet in range(256)}
    assert streamed(tokenizer, [octets[octet] for octet in "🙂".encode()]) == ["", "", "", "🙂", ""]
    pieces = streamed(tokenizer, [octets[0xF0]] * 40)
    assert "".join(pieces).startswith("\ufffd")
    assert max(map(len, pieces)) <= 8


def test_half_a_character_at_the_end_is_none() -> None:
    tokenizer = sentencepiece()
    ids = [*tokenizer.encode("Hello"), 3 + 0xF0, 3 + 0x9F]
    assert streamed(tokenizer, ids) == ["Hello", "", "", ""]


def test_ends_come_from_every_file(tmp_path: Path) -> None:
    sentencepiece()._tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 2]}), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "<s>"}}), encoding="utf-8")
    assert read_tokenizer(tmp_path).eos_ids == (7, 2, 1)


def test_truncation_in_the_file_is_not_obeyed(tmp_path: Path) -> None:
    model = sentencepiece()._tokenizer
    model.enable_truncation(2)
    model.save(str(tmp_path / "tokenizer.json"))
    assert read_tokenizer(tmp_path).count("Hello world!!!!") == 6


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(GatewayError, match=r"no tokenizer\.json"):
        read_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(GatewayError, match="cannot be read"):
        read_tokenizer(tmp_path)
