"""What an answer of a Triton model says of its tokens, with a server that counts and one that counts nonsense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from dragoman.backends.markup import open_markup
from dragoman.backends.triton.answer import COUNTED, MORE_IDS, AnswerDecoder, AnswerFormat
from dragoman.backends.triton.client import Metadata
from dragoman.backends.triton.profiles import Form, Profile, PromptRequest
from dragoman.translators.errors import GatewayError
from dragoman.translators.ir import Finished, Sampling, Usage
from dragoman.translators.parts import Parts
from tests.recording import ask

PROMPT = [1, 2, 3, 4, 5]
ODD: list[Any] = [-1, 2**63, 1e300, float("nan"), 11.5, "many", None, True, [7]]


class Letters:
    """A token is a character."""

    def feed(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))

    def finish(self) -> str:
        return ""


def usage(*responses: dict[str, Any], form: Form = "ensemble") -> Usage | None:
    model = Metadata("m", {"text_input": "BYTES", "exclude_input_in_output": "BOOL"}, {}, batched=False)
    profile = Profile(form, model, decoupled=True, cumulative=False, stopper=None, guided=False, models=("m",))
    format = AnswerFormat(Letters, lambda parts: open_markup("plain", parts, prompt="", request=ask()), count=len)
    answer = AnswerDecoder(profile, PromptRequest("hello", PROMPT, 100, Sampling()), Parts.of(ask()), format)
    events = answer.feed([{name: _tensor(value) for name, value in each.items()} for each in responses])
    events += answer.finish()
    assert isinstance(events[-1], Finished)
    return events[-1].usage


def _tensor(value: Any) -> list[Any]:
    return value if isinstance(value, list) and len(value) > 1 else [value]


def test_the_server_s_own_counts_are_reported() -> None:
    counted = {"text_output": "abc", "num_input_tokens": 7, "num_output_tokens": 2}
    assert usage(counted, counted) == Usage(7, 4)
    assert usage({**counted, "num_input_tokens": 7.0, "num_output_tokens": "2"}) == Usage(7, 2)


def test_where_the_server_counts_nothing_the_tokenizer_does() -> None:
    assert usage({"text_output": "abc"}, {"text_output": "de"}) == Usage(5, 5)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_where_it_counts_nonsense_the_tokenizer_does_too(odd: Any) -> None:
    good = {"text_output": "abc", "num_input_tokens": 7, "num_output_tokens": 2}
    assert usage({**good, "num_input_tokens": odd}) == Usage(5, 2)
    assert usage({**good, "num_output_tokens": odd}, good) == Usage(7, 6)
    assert usage(good, {**good, "num_output_tokens": odd}, good) == Usage(7, 9)


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_odd_length_of_the_ids_is_no_length(odd: Any) -> None:
    assert usage({"output_ids": [104, 105, 106], "sequence_length": 2}, form="tensorrt_llm") == Usage(5, 2)
    assert usage({"output_ids": [104, 105, 106], "sequence_length": odd}, form="tensorrt_llm") == Usage(5, 3)


def decoder(*, by_ids: bool, max_tokens: int = 100) -> AnswerDecoder:
    model = Metadata("m", {"input_ids" if by_ids else "text_input": "INT32"}, {}, batched=False)
    form: Form = "tensorrt_llm" if by_ids else "ensemble"
    profile = Profile(form, model, decoupled=True, cumulative=False, stopper=None, guided=False, models=("m",))
    format = AnswerFormat(Letters, lambda parts: open_markup("plain", parts, prompt="", request=ask()), count=len)
    return AnswerDecoder(profile, PromptRequest("hello", PROMPT, max_tokens, Sampling()), Parts.of(ask()), format)


def test_a_very_long_text_is_counted_as_it_comes() -> None:
    answer = decoder(by_ids=False)
    for _ in range(50):
        answer.feed([{"text_output": ["x" * 10_000]}])
        assert len(answer._raw.getvalue()) <= COUNTED + 10_000
    assert answer.usage() == Usage(5, 500_000)


def test_more_tokens_than_were_asked_for_are_not_decoded() -> None:
    answer = decoder(by_ids=True)
    assert answer.feed([{"output_ids": [65] * (100 + MORE_IDS)}])
    with pytest.raises(GatewayError, match="more tokens"):
        answer.feed([{"output_ids": [65]}])
