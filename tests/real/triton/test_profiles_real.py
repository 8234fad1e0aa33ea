"""Every profile of TensorRT-LLM on a real Triton server, over both transports: what an answer is and how it ends."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.base import Flow
from dragoman.backends.reader import Timeouts
from dragoman.backends.triton.backend import Triton as TritonBackend
from dragoman.translators.constraints.parallel import FirstCallOnly
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Reasoning, Request, Sampling, StopReason, Text, ToolCall
from tests.event_grammar import check
from tests.real.triton.asking import CALL, WEATHER, opened, request, url
from tests.real.triton.conftest import Keeper
from tests.real.triton.server import Triton
from tests.recording import Recorder, answered, counted
from tests.waiting import until

pytestmark = pytest.mark.real

# name, query: what is served and how
FORMS = {
    "ids": ("tensorrt_llm", {}),
    "ensemble": ("ensemble", {}),
    "ensemble_text": ("ensemble", {"via": "text"}),
    "bls": ("tensorrt_llm_bls", {}),
    "bls_whole_text": ("tensorrt_llm_bls_whole_text", {}),
    "llmapi": ("llmapi", {}),
    "ids_not_decoupled": ("tensorrt_llm_whole", {}),
    "llmapi_not_decoupled": ("llmapi_whole", {}),
}
STREAMED = [form for form in FORMS if "not_decoupled" not in form]
BREAKS_CHARACTERS = {"ensemble_text", "bls"}


@dataclass(frozen=True)
class Served:
    """A backend, and how to open it again with other times."""

    backend: TritonBackend
    form: str
    url: str


@pytest.fixture(params=["grpc", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=list(FORMS))
async def served(
    request: pytest.FixtureRequest, transport: str, triton: Triton, tokenizer_folder: Path
) -> AsyncIterator[Served]:
    model, query = FORMS[request.param]
    address = url(triton, transport, model, tokenizer_folder, **query)
    async with opened(address) as backend:
        yield Served(backend, request.param, address)


streamed = pytest.mark.parametrize("served", STREAMED, indirect=True)


async def ask(backend: TritonBackend, asked: Request) -> Recorder:
    sink = Recorder()
    await answered(backend, asked, sink)
    check(sink.events)
    return sink


async def refused(backend: TritonBackend, asked: Request) -> tuple[GatewayError, Recorder]:
    sink = Recorder()
    with pytest.raises(GatewayError) as caught:
        await answered(backend, asked, sink)
    check(sink.events, ended=False)
    return caught.value, sink


async def test_text_with_usage(served: Served, triton: Triton) -> None:
    asked = request({"say": "Well met, traveller. How are you?", "delay": 0.02})
    sink = await ask(served.backend, asked)
    assert sink.parts == [Text("Well met, traveller. How are you?")]
    usage = sink.finished.usage
    assert usage is not None
    assert usage.output == len(["Well", " met", ",", " traveller", ".", " How", " are", " you", "?"])
    assert usage.input == await counted(served.backend, asked)
    assert sink.finished.reason is StopReason.STOP
    if served.form in STREAMED:
        assert len(sink.feeds) > 3


async def test_a_full_budget_is_length(served: Served) -> None:
    sink = await ask(served.backend, request({"say": "one two three four five six"}, max_tokens=3))
    assert sink.parts == [Text("one two three")]
    assert sink.finished.reason is StopReason.LENGTH


async def test_a_tool_call_between_texts(served: Served) -> None:
    script = {"say": f"I will look. {CALL % 'Oslo'}<|im_end|>"}
    sink = await ask(served.backend, request(script, tools=(WEATHER,)))
    text, call = sink.parts
    assert isinstance(text, Text)
    assert text.text.strip() == "I will look."
    assert isinstance(call, ToolCall)
    assert (call.name, call.arguments) == ("get_weather", '{"city": "Oslo"}')
    assert sink.finished.reason is StopReason.STOP


@streamed
async def test_the_first_of_two_calls_ends_the_work(served: Served, triton: Triton) -> None:
    script = {"say": f"{CALL % 'Oslo'}\n{CALL % 'Rome'}" + " and more" * 50, "delay": 0.01}
    stage = FirstCallOnly()
    sink = FirstOnly(stage)
    asked = request(script, tools=(WEATHER,), parallel_tool_calls=False)
    await answered(served.backend, asked, sink)
    check(sink.events)
    (call,) = sink.parts
    assert isinstance(call, ToolCall)
    assert call.arguments == '{"city": "Oslo"}'
    assert sink.finished.reason is StopReason.STOP
    assert sink.finished.usage is not None
    assert sink.finished.usage.output > 20


class FirstOnly(Recorder):
    def __init__(self, stage: FirstCallOnly) -> None:
        super().__init__()
        self._stage = stage

    def feed(self, events: Any) -> Flow:
        flow = super().feed(self._stage.feed(events))
        return Flow.ENOUGH if self._stage.enough else flow


async def test_reasoning_is_a_part_of_its_own(served: Served) -> None:
    sink = await ask(served.backend, request({"say": "<think>\nHm, two.\n</think>\n\nIt is 2."}))
    thought, text = sink.parts
    assert isinstance(thought, Reasoning)
    assert isinstance(text, Text)
    assert thought.text.strip() == "Hm, two."
    assert text.text.strip() == "It is 2."


async def test_a_stop_string_over_a_token_boundary(served: Served) -> None:
    asked = request(
        {"say": "Count: one two three. And then more is said."}, sampling=Sampling(stop=("three. And", "unheard"))
    )
    sink = await ask(served.backend, asked)
    assert sink.text == "Count: one two "
    assert sink.finished.stop_sequence == "three. And"
    assert sink.finished.reason is StopReason.STOP


async def test_a_character_split_over_tokens(served: Served) -> None:
    sink = await ask(served.backend, request({"say": "A 🦜 and a 🫠."}))
    if served.form in BREAKS_CHARACTERS:  # the server decodes each token alone: nothing can mend that
        assert "\ufffd" in sink.text
        assert sink.text.startswith("A ")
    else:
        assert sink.text == "A 🦜 and a 🫠."


async def test_an_overflow_has_its_numbers(served: Served) -> None:
    words = "Prompt length (9351) exceeds maximum input length (8192). Set log level to info"
    error, sink = await refused(served.backend, request({"say": "never", "fail_after": 0, "error": words}))
    assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, 9351, 8192)
    assert not sink.touched


async def test_an_error_before_the_first_token(served: Served) -> None:
    error, sink = await refused(served.backend, request({"say": "never", "fail_after": 0}))
    assert error.kind is Kind.BACKEND_FAILED
    assert "/opt/engine" not in error.message
    assert "Traceback" not in error.message
    assert "File" not in error.message
    assert not sink.touched


@streamed
async def test_an_error_in_mid_stream(served: Served, keeper: Keeper) -> None:
    keeper.hung = keeper.hung or served.form.startswith("bls")
    async with opened(served.url, Timeouts(connect=2.0, first=5.0, between=1.0)) as backend:
        script = {"say": "one two three four", "fail_after": 3, "delay": 0.05}
        error, sink = await refused(backend, request(script))
    # A BLS model of this version loses its engine's error and waits for ever: the limit between responses ends it.
    assert error.kind is (Kind.TIMEOUT if served.form.startswith("bls") else Kind.BACKEND_FAILED)
    assert "Traceback" not in error.message
    assert "/opt/engine" not in error.message
    assert sink.text.startswith("one")


@streamed
async def test_an_empty_stream_is_a_failure(served: Served) -> None:
    error, _ = await refused(served.backend, request({"empty": True}))
    assert error.kind is Kind.BACKEND_FAILED


async def test_a_hang_ends_with_the_limit_between_responses(served: Served, triton: Triton) -> None:
    times = Timeouts(connect=2.0, first=1.0, between=0.4)
    # models that are not decoupled, and BLS models, do not see that nobody waits any more
    script = {"say": "one two three", "hang_after": 2, "hang_for": 2.0}
    async with opened(served.url, times) as backend:
        error, sink = await refused(backend, request(script))
    assert error.kind is Kind.TIMEOUT
    if served.form in STREAMED:
        assert sink.text.startswith("one")


@streamed
async def test_a_client_that_leaves_stops_the_model(
    served: Served, triton: Triton, caplog: pytest.LogCaptureFixture
) -> None:
    sink = Recorder()
    # what nothing stops keeps its instance busy, so it is shorter
    asked = request({"say": "word " * (30 if served.form.startswith("bls") else 200), "delay": 0.05})
    task = asyncio.create_task(answered(served.backend, asked, sink))
    await sink.until(lambda: sink.touched)
    left = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if served.form.startswith("bls"):
        assert "BLS" in served.backend.traits.unstoppable  # nothing can stop it, and that is said
        return
    assert served.backend.traits.unstoppable == ""
    (seen,) = await until(lambda: mine(triton, asked, "cancelled"))
    assert seen["at"] - left < 5  # of ten that it would take
    assert not caplog.records  # the stop request's reply is an error by design


def mine(triton: Triton, asked: Request, event: str) -> list[dict[str, Any]]:
    return [fact for fact in triton.facts(event=event) if fact["id"].startswith(asked.id)]


async def test_health_models_and_cancellation(served: Served) -> None:
    health = await served.backend.health()
    assert health.state == "ready", health
    (model,) = await served.backend.models()
    assert model.id == FORMS[served.form][0]
    stoppable = served.form in STREAMED and not served.form.startswith("bls")
    assert bool(served.backend.traits.unstoppable) is not stoppable
