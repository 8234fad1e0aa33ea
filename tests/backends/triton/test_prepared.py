"""The prompt of a call is made once, whatever is asked of it; a fake client stands for the server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dragoman.backends.prompts.prompt import Prompt, Rendered
from dragoman.backends.prompts.tokenizer import Tokenizer
from dragoman.backends.triton.backend import Triton
from dragoman.backends.triton.prepared import PreparedPrompt
from dragoman.gateway.config import Config
from dragoman.gateway.keys.secrets import Secrets
from dragoman.gateway.serve.app import build
from dragoman.translators.constraints.forced import JsonAnswer
from dragoman.translators.ir import JsonSchema, Request, Sampling
from tests.recording import Recorder, ask
from tests.serving_gateway import PATHS, Serving, asking, listening
from tests.triton_fakes import WINDOW, Engine, serving

PERSON = JsonSchema("person", {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]})


@dataclass
class Made:
    """The prompts that were rendered and the texts that were made into ids."""

    rendered: list[str] = field(default_factory=list)
    encoded: list[str] = field(default_factory=list)

    def once(self, *words: str) -> bool:
        """As many prompts as words, in each of them one."""
        assert self.rendered == self.encoded
        return len(self.rendered) == len(words) and all(w in text for w, text in zip(words, self.rendered, strict=True))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    it = Made()
    build, encode = Prompt.build, Tokenizer.encode

    def built(self: Prompt, request: Request, **options: Any) -> Rendered:
        rendered = build(self, request, **options)
        it.rendered.append(rendered.text)
        return rendered

    def encoded(self: Tokenizer, text: str, add_special_tokens: bool = False) -> list[int]:
        it.encoded.append(text)
        return encode(self, text, add_special_tokens)

    monkeypatch.setattr(Prompt, "build", built)
    monkeypatch.setattr(Tokenizer, "encode", encoded)
    return it


# -------------------------------------------------------------------------------------------------- through the gateway


@contextlib.asynccontextmanager
async def gateway(engine: Engine, **settings: Any) -> AsyncIterator[Serving]:
    async with listening(build(Config(**settings), [serving(engine)], Secrets(()))) as it:
        yield it


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("protocol", PATHS)
async def test_a_turn_s_prompt_is_made_once(protocol: str, stream: bool, made: Made) -> None:
    engine = Engine(["Hi!"])
    body = asking(protocol, "the question", stream=stream)
    async with gateway(engine) as it, it.session.post(it.url + PATHS[protocol], json=body) as answer:
        assert answer.status == 200
        text = await answer.text()
        assert all(f'"{letter}"' in text for letter in "Hi!") if stream else '"Hi!"' in text
    assert made.once("the question")
    assert list(engine.calls[0].inputs["input_ids"].values) == [*map(ord, made.rendered[0])]


async def test_it_is_made_once_though_the_window_sets_the_limit(made: Made) -> None:
    engine = Engine(["Hi!"])
    body = asking("messages", "the question", stream=True) | {"max_tokens": 100_000}
    async with gateway(engine) as it, it.session.post(it.url + PATHS["messages"], json=body) as answer:
        assert answer.status == 200
        await answer.read()
    assert made.once("the question")
    assert engine.limits == [WINDOW - len(made.rendered[0])]


async def test_a_count_makes_it_once(made: Made) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "the question"}]}
    async with gateway(Engine([])) as it, it.session.post(it.url + "/v1/messages/count_tokens", json=body) as answer:
        assert (await answer.json())["input_tokens"] == len(made.rendered[0])
    assert made.once("the question")


async def test_a_prompt_that_does_not_fit_is_made_once_and_not_asked(made: Made) -> None:
    engine = Engine([])
    body = asking("messages", "x" * WINDOW)
    async with gateway(engine) as it, it.session.post(it.url + PATHS["messages"], json=body) as answer:
        assert answer.status == 400
    assert made.once("xxx")
    assert not engine.calls


# ---------------------------------------------------------------------------------------------------------- the backend


@contextlib.asynccontextmanager
async def backend(*answers: str) -> AsyncIterator[tuple[Triton, Engine]]:
    engine = Engine([*answers])
    it = serving(engine)
    await it.start()
    yield it, engine
    await it.close()


async def test_a_second_attempt_has_a_prompt_of_its_own(made: Made) -> None:
    async with backend("old", '{"age": 3}') as (it, engine):
        prepared, sink = await it.prepare(ask("the question", format=PERSON)), Recorder()
        assert await it.count(prepared) == prepared.tokens == len(made.rendered[0])
        prepared.limit(70)
        await it.stream(prepared, sink)
    assert sink.text == '{"age": 3}'
    assert made.once("the question", "Try again.")
    assert "Try again." not in made.rendered[0]
    assert engine.limits == [70, 70]


@pytest.mark.parametrize("request_", [ask(), ask(format=PERSON), ask(max_tokens=9000)])
async def test_a_limit_changes_request_and_plan_alike(request_: Request, made: Made) -> None:
    """It is as if the client had asked for so many tokens."""
    async with backend() as (it, _):
        limited, asked = await it.prepare(request_), await it.prepare(replace(request_, max_tokens=70))
    limited.limit(900)
    limited.limit(70)
    assert limited == asked
    assert limited.asked is (limited.request if limited.plan is None else limited.plan.request)
    assert isinstance(limited.plan, JsonAnswer) is (request_.format is not None)


async def test_before_the_server_was_reached_a_prompt_is_made_for_the_worst_and_holds(made: Made) -> None:
    engine = Engine(["Hi!"])
    it, sink = serving(engine), Recorder()
    prepared = await it.prepare(ask("the question", sampling=Sampling(top_k=5)))
    assert isinstance(prepared, PreparedPrompt)
    assert prepared.profile is None
    await it.stream(prepared, sink)
    await it.close()
    assert sink.text == "Hi!"
    assert made.once("the question")
