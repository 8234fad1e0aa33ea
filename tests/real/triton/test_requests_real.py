"""What reaches a model on a real Triton server, and what the server reports beside its answers."""

import asyncio
import functools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dragoman.backends.reader import Timeouts
from dragoman.backends.triton.backend import Triton as TritonBackend
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import (
    JsonSchema,
    Message,
    Named,
    Note,
    Reasoning,
    Request,
    Sampling,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
)
from tests.event_grammar import check
from tests.real.triton.asking import CALL, WEATHER, opened, request, url
from tests.real.triton.server import Triton
from tests.recording import Recorder, answered, counted
from tests.waiting import until

pytestmark = pytest.mark.real

CITY = JsonSchema("city", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})


@pytest.fixture(params=["grpc", "http"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def ask(backend: TritonBackend, asked: Request) -> Recorder:
    sink = Recorder()
    prepared = await backend.prepare(asked)
    sink.notes += prepared.notes
    await backend.stream(prepared, sink)
    check(sink.events)
    return sink


def begun(triton: Triton, asked: Request) -> dict[str, Any]:
    """The first thing that the engine saw of this request."""
    return next(fact for fact in triton.facts(event="begin") if fact["id"].startswith(asked.id))


async def test_the_engine_gets_what_was_asked(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    sampling = Sampling(temperature=0.5, top_k=7, repetition_penalty=1.25, seed=-1, min_tokens=2, min_p=0.1)
    asked = request({"say": "Yes."}, sampling=sampling, max_tokens=77)
    async with opened(url(triton, transport, "tensorrt_llm", tokenizer_folder)) as backend:
        sink = await ask(backend, asked)
        tokens = await counted(backend, asked)
    fact = begun(triton, asked)
    assert fact["limit"] == 77
    assert fact["n"] == tokens
    given = fact["given"]
    assert given["temperature"] == [0.5]
    assert given["runtime_top_k"] == [7]
    assert given["repetition_penalty"] == [1.25]
    assert given["seed"] == [2**64 - 1]
    assert given["min_tokens"] == [2]
    assert given["streaming"] == [True]
    assert given["end_id"] == [151645]  # <|im_end|>
    assert fact["prompt"].endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert Note("field", "min_p") in sink.notes
    assert "runtime_top_p" not in given


async def test_a_temperature_of_zero_is_greedy(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    asked = request({"say": "Yes."}, sampling=Sampling(temperature=0))
    async with opened(url(triton, transport, "ensemble", tokenizer_folder)) as backend:
        await ask(backend, asked)
    given = begun(triton, asked)["given"]
    assert given["runtime_top_k"] == [1]
    assert "temperature" not in given


async def test_the_end_token_ends_the_answer(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    for model, via in (("tensorrt_llm", "ids"), ("ensemble", "text"), ("tensorrt_llm_bls", "ids")):
        asked = request({"say": "Done.", "eos": "<|im_end|>"})
        async with opened(url(triton, transport, model, tokenizer_folder, via=via)) as backend:
            sink = await ask(backend, asked)
        assert sink.parts == [Text("Done.")]
        assert sink.finished.usage is not None
        assert sink.finished.usage.output == 3


async def test_a_schema_constrains_the_engine(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    for model, via in (("tensorrt_llm", "ids"), ("ensemble", "text"), ("tensorrt_llm_bls", "ids")):
        asked = request({"say": '{"city": "Oslo"}'}, format=CITY)
        async with opened(url(triton, transport, model, tokenizer_folder, via=via)) as backend:
            sink = await ask(backend, asked)
        given = next(fact for fact in reversed(triton.facts(event="begin")))["given"]
        assert given["guided_decoding_guide_type"] == ["json_schema"]
        assert json.loads(given["guided_decoding_guide"][0]) == CITY.schema
        assert sink.text == '{"city": "Oslo"}'
        assert not [note for note in sink.notes if note.kind == "unenforced"]


async def test_thinking_is_off_under_a_constraint(triton: Triton, tokenizer_folder: Path) -> None:
    asked = request({"say": "{}"}, format=CITY, thinking=Thinking(effort="high"))
    async with opened(url(triton, "grpc", "tensorrt_llm", tokenizer_folder)) as backend:
        await ask(backend, asked)
    assert begun(triton, asked)["prompt"].endswith("<think>\n\n</think>\n\n")


async def test_effort_none_turns_thinking_off(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    asked = request({"say": "Quick."}, thinking=Thinking(effort="none"))
    async with opened(url(triton, transport, "llmapi", tokenizer_folder)) as backend:
        await ask(backend, asked)
    assert begun(triton, asked)["prompt"].endswith("<think>\n\n</think>\n\n")


async def test_a_forced_tool_is_decoded_under_a_grammar_of_the_models_markup(
    triton: Triton, tokenizer_folder: Path, transport: str
) -> None:
    said = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    asked = request({"say": said}, tools=(WEATHER,), tool_choice=Named("get_weather"))
    async with opened(url(triton, transport, "ensemble", tokenizer_folder)) as backend:
        sink = await ask(backend, asked)
    (call,) = sink.parts
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments) == {"city": "Oslo"}
    given, prompt = begun(triton, asked)["given"], begun(triton, asked)["prompt"]
    assert given["guided_decoding_guide_type"] == ["ebnf_grammar"]
    assert '"<tool_call>\\n{\\"name\\": \\"get_weather\\", ' in given["guided_decoding_guide"][0]
    assert "<tools>" in prompt  # as for every other turn, so that the prefix cache holds
    assert not [note for note in sink.notes if note.kind == "unenforced"]


async def test_a_forced_tool_of_a_bls_model_is_decoded_under_a_schema(
    triton: Triton, tokenizer_folder: Path, transport: str
) -> None:
    said = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
    asked = request({"say": said}, tools=(WEATHER,), tool_choice=Named("get_weather"))
    async with opened(url(triton, transport, "tensorrt_llm_bls", tokenizer_folder)) as backend:
        sink = await ask(backend, asked)
    (call,) = sink.parts
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments) == {"city": "Oslo"}
    given = next(fact for fact in reversed(triton.facts(event="begin")))["given"]
    guide = json.loads(given["guided_decoding_guide"][0])
    assert guide["properties"]["name"] == {"const": "get_weather"}
    assert not [note for note in sink.notes if note.kind == "unenforced"]


async def test_llmapi_is_asked_twice_and_says_that_nothing_was_enforced(
    triton: Triton, tokenizer_folder: Path, transport: str
) -> None:
    asked = request({"say": "I will not."}, tools=(WEATHER,), tool_choice="required")
    async with opened(url(triton, transport, "llmapi", tokenizer_folder)) as backend:
        sink = await ask(backend, asked)
    assert Note("unenforced", "tool_choice") in sink.notes
    runs = [fact for fact in triton.facts(event="begin") if fact["id"].startswith(asked.id)]
    assert len(runs) == 2
    assert len({run["id"] for run in runs}) == 2
    assert "I will not." in runs[1]["prompt"]
    assert sink.finished.usage is not None
    assert sink.finished.usage.output == 2 * 4


async def test_llmapi_validates_a_schema(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    asked = request({"say": '```json\n{"city": "Oslo"}\n```'}, format=CITY)
    async with opened(url(triton, transport, "llmapi_whole", tokenizer_folder)) as backend:
        sink = await ask(backend, asked)
    assert json.loads(sink.text) == {"city": "Oslo"}
    assert Note("unenforced", "format") in sink.notes


async def test_the_token_limit_is_always_sent(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    asked = request({"say": "Yes."}, max_tokens=None)
    for model in ("tensorrt_llm", "llmapi"):
        async with opened(url(triton, transport, model, tokenizer_folder)) as backend:
            await ask(backend, asked)
        assert triton.facts(event="begin")[-1]["limit"] == 4096
        async with opened(url(triton, transport, model, tokenizer_folder, window="5000")) as backend:
            await ask(backend, asked)
            tokens = await counted(backend, asked)
            (told,) = await backend.models()
        assert tokens is not None
        assert triton.facts(event="begin")[-1]["limit"] == 5000 - tokens
        assert told.window == 5000


async def test_a_prompt_beyond_the_window_is_refused_here(triton: Triton, tokenizer_folder: Path) -> None:
    asked = request({"say": "x " * 2000})
    async with opened(url(triton, "grpc", "tensorrt_llm", tokenizer_folder, window="1500")) as backend:
        with pytest.raises(GatewayError) as caught:
            await answered(backend, asked, Recorder())
    assert caught.value.kind is Kind.OVERFLOW
    assert caught.value.limit == 1500
    assert caught.value.tokens is not None
    assert caught.value.tokens > 1500


async def test_a_limit_that_leaves_no_room_is_lowered_once(
    triton: Triton, tokenizer_folder: Path, transport: str
) -> None:
    for model, via in (("tensorrt_llm", "ids"), ("ensemble", "text"), ("llmapi", "ids")):
        asked = request({"say": "Yes.", "window": 700}, max_tokens=4000)
        async with opened(url(triton, transport, model, tokenizer_folder, via=via)) as backend:
            sink = await ask(backend, asked)
            tokens = await counted(backend, asked)
        assert sink.text == "Yes."
        assert tokens is not None
        assert Note("repair", "max_tokens") in sink.notes
        limits = [fact["limit"] for fact in triton.facts(event="begin") if fact["id"].startswith(asked.id)]
        assert limits == [4000, 700 - tokens]


async def test_a_format_beside_tools_leaves_room_for_calls(triton: Triton, tokenizer_folder: Path) -> None:
    asked = request({"say": CALL % "Oslo"}, tools=(WEATHER,), format=CITY)
    async with opened(url(triton, "grpc", "tensorrt_llm", tokenizer_folder)) as backend:
        sink = await ask(backend, asked)
    assert isinstance(sink.parts[0], ToolCall)
    assert "guided_decoding_guide_type" not in begun(triton, asked)["given"]
    assert Note("unenforced", "format") in sink.notes


async def test_a_conversation_with_results_and_thoughts(triton: Triton, tokenizer_folder: Path) -> None:
    first = request({"turns": [{"say": CALL % "Oslo"}, {"say": "It rains."}]}, tools=(WEATHER,))
    async with opened(url(triton, "grpc", "ensemble", tokenizer_folder)) as backend:
        (call,) = (await ask(backend, first)).parts
        assert isinstance(call, ToolCall)
        turn = Message("assistant", (Reasoning("I must look."), call))
        result = Message("tool", (ToolResult(call.id, (Text("rain"),)),))
        second = replace(first, id=first.id + "_2", messages=(*first.messages, turn, result))
        assert (await ask(backend, second)).text == "It rains."
    prompts = [begun(triton, asked)["prompt"] for asked in (first, second)]
    assert prompts[1].startswith(prompts[0])  # the prefix cache keeps working
    assert "<tool_response>\nrain\n</tool_response>" in prompts[1]


async def test_an_unloaded_model_is_asleep(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    async with opened(url(triton, transport, "llmapi_whole", tokenizer_folder)) as backend:
        assert (await backend.health()).state == "ready"
        await asyncio.to_thread(triton.unload, "llmapi_whole")
        try:
            states = await _settled(backend)
            assert states == "asleep"
            with pytest.raises(GatewayError) as caught:
                await answered(backend, request({"say": "Hm"}), Recorder())
            assert caught.value.kind is Kind.ASLEEP
        finally:
            await backend.wake()
        assert (await backend.health()).state == "ready"
        assert (await ask(backend, request({"say": "Back."}))).text == "Back."


async def _settled(backend: TritonBackend) -> str:
    for _ in range(50):
        if (health := await backend.health()).state != "ready":
            return health.state
        await asyncio.sleep(0.05)
    return "ready"


async def test_a_model_that_is_not_there(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    async with opened(url(triton, transport, "nothing", tokenizer_folder)) as backend:
        assert (await backend.health()).state == "down"
        with pytest.raises(GatewayError) as caught:
            await answered(backend, request({"say": "Hm"}), Recorder())
    assert caught.value.kind is Kind.MODEL_NOT_FOUND


async def test_a_model_of_another_kind_is_refused(triton: Triton, tokenizer_folder: Path) -> None:
    async with opened(url(triton, "grpc", "preprocessing", tokenizer_folder)) as backend:
        with pytest.raises(GatewayError) as caught:
            await answered(backend, request({"say": "Hm"}), Recorder())
    assert caught.value.kind is Kind.UNSUPPORTED


async def test_a_server_that_is_not_there(tokenizer_folder: Path, transport: str) -> None:
    times = Timeouts(connect=0.5, first=5.0, between=5.0)
    address = f"triton+{transport}://127.0.0.1:9/tensorrt_llm?tokenizer={tokenizer_folder}&metrics="
    async with opened(address, times) as backend:
        assert (await backend.health()).state == "down"
        with pytest.raises(GatewayError) as caught:
            await answered(backend, request({"say": "Hm"}), Recorder())
    assert caught.value.kind is Kind.BACKEND_DOWN


async def test_load_is_read_from_the_metrics(triton: Triton, tokenizer_folder: Path) -> None:
    async with opened(url(triton, "grpc", "llmapi", tokenizer_folder)) as backend:
        assert backend.traits.load is None
        await backend.health()
        assert backend.traits.load == 0.0


async def test_many_streams_at_once(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    async with opened(url(triton, transport, "ensemble", tokenizer_folder)) as backend:
        said = [f"This is answer number {n} 🦜." for n in range(24)]
        sinks = await asyncio.gather(*(ask(backend, request({"say": text, "delay": 0.005})) for text in said))
    assert [sink.text for sink in sinks] == said


async def test_no_work_continues_for_clients_that_left(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    for model, via in (("ensemble", "ids"), ("ensemble", "text"), ("llmapi", "ids")):
        asked = [request({"say": "word " * 400, "delay": 0.02}) for _ in range(16)]
        async with opened(url(triton, transport, model, tokenizer_folder, via=via)) as backend:
            tasks = [asyncio.create_task(answered(backend, each, Recorder())) for each in asked]
            for number, task in enumerate(tasks):  # some before the server has them, some in the middle
                await asyncio.sleep(0.01 * (number % 4))
                task.cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in done)
        await until(functools.partial(all_ended, triton, asked))


def all_ended(triton: Triton, asked: list[Request]) -> bool:
    mine = [fact for fact in triton.facts() if fact["id"].startswith(tuple(each.id + "." for each in asked))]
    begun, ended = ({fact["id"] for fact in mine if fact["event"] == event} for event in ("begin", "end"))
    return begun == ended


async def test_a_full_receiver_holds_the_stream(triton: Triton, tokenizer_folder: Path, transport: str) -> None:
    sink = Recorder()
    sink.held = True
    async with opened(url(triton, transport, "tensorrt_llm", tokenizer_folder)) as backend:
        task = asyncio.create_task(answered(backend, request({"say": "one two three"}), sink))
        await until(lambda: sink.waits)
        sink.release()
        await task
    assert sink.text == "one two three"
