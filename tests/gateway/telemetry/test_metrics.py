"""What is counted of a call, and that counting is cheap and bounded."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left

import pytest

from dragoman.backends.base import Sink
from dragoman.gateway.telemetry.metrics import GAPS, MOST_MODELS, Metrics
from dragoman.translators.ir import Request
from tests.gateway.calls.test_client_kind import AGENTS
from tests.gateway_fakes import FakeBackend, hello, post_bytes, running
from tests.scripted import Script, model_list, text_stream, usage
from tests.serving_gateway import PATHS, asking, served
from tests.waiting import until


def test_gaps_counted_at_once_are_the_same_as_one_by_one() -> None:
    seconds = [random.Random(4).expovariate(10) for _ in range(200)] + [*GAPS, 100.0, 0.0]
    at_once, one_by_one = Metrics(), Metrics()
    counts = [0] * (len(GAPS) + 1)
    for each in seconds:
        counts[bisect_left(GAPS, each)] += 1
        one_by_one.gap.labels("r", "m", "b").observe(each)
    at_once.series("r", "codex", "b", "m").gaps(counts, sum(seconds))

    def lines(metrics: Metrics) -> list[str]:
        text = metrics.render().decode()
        return [line for line in text.splitlines() if line.startswith("dragoman_token_gap_seconds_b")]

    assert lines(at_once) == lines(one_by_one)
    value = {"route": "r", "model": "m", "backend": "b"}
    sums = [each.registry.get_sample_value("dragoman_token_gap_seconds_sum", value) for each in (at_once, one_by_one)]
    assert sums[0] == pytest.approx(sums[1])


def test_models_cannot_fill_the_memory() -> None:
    metrics = Metrics()
    for number in range(MOST_MODELS * 2):
        metrics.series("r", "codex", "b", f"model-{number}").usage(None)
    metrics.series("r", "codex", "b", "no model's name\n")
    assert len(metrics._series) == MOST_MODELS + 1


@pytest.mark.parametrize("kind", ["codex", "claude-code", "other"])
@pytest.mark.parametrize("protocol", PATHS)
async def test_an_answer_is_counted_by_route_client_and_model(protocol: str, kind: str) -> None:
    script = Script(text_stream("a", "b", "c", counts=usage(11, 7, cached=4)), split="frames", gap=0.01)
    async with served(script) as it:
        it.server.on("GET", "/v1/models", model_list("Qwen/Qwen3-32B"))
        body = asking(protocol, "hi", stream=True)
        async with it.session.post(it.url + PATHS[protocol], json=body, headers=AGENTS[kind]) as answer:
            await answer.read()
        labels = {"route": protocol, "client_kind": kind, "model": "Qwen/Qwen3-32B", "backend": "gpu"}
        tokens = {way: it.metric("dragoman_tokens_total", direction=way, **labels) for way in ("input", "output")}
        assert tokens == {"input": 11, "output": 7}
        assert it.metric("dragoman_tokens_total", direction="cached", **labels) == 4
        assert it.metric("dragoman_time_to_first_event_seconds_count", **labels) == 1
        gap = {"route": protocol, "model": "Qwen/Qwen3-32B", "backend": "gpu"}
        assert (it.metric("dragoman_token_gap_seconds_count", **gap) or 0) >= 2
        assert (it.metric("dragoman_token_gap_seconds_sum", **gap) or 0) >= 0.02
        assert it.metric("dragoman_overhead_seconds_count", route=protocol) == 1
        counted = {"route": protocol, "client_kind": kind, "status": "200", "outcome": "completed"}
        assert it.metric("dragoman_requests_total", **counted) == 1


async def test_a_name_that_no_server_has_answered_for_is_no_label() -> None:
    async with served(Script(b"no", status=404)) as it:  # no list of models: the name goes on as it is
        async with it.session.post(it.url + PATHS["responses"], json=asking("responses", "hi", "invented")) as answer:
            assert answer.status >= 400
        assert b"invented" not in it.gateway.metrics.render()


async def test_empty_and_reasoning_only_answers_are_counted() -> None:
    async with served(Script(text_stream("")), Script(text_stream("", reasoning="hm"))) as it:
        for _ in range(2):
            async with it.session.post(it.url + PATHS["responses"], json=asking("responses", "hi")) as answer:
                await answer.read()
        for oddity in ("empty", "reasoning_only"):
            assert it.metric("dragoman_odd_answers_total", route="responses", backend="gpu", oddity=oddity) == 1


async def test_a_stream_given_up_is_timed_and_estimated_by_the_mean_of_others() -> None:
    async def long(request: Request, sink: Sink) -> None:
        await asyncio.sleep(0.4)
        await hello(request, sink)

    backend = FakeBackend(long)
    async with running(backend) as served:
        async with served.post({"model": "m", "input": "x", "stream": True}) as answer:
            await answer.read()
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(post_bytes({"model": "m", "input": "x", "stream": True}))
        await until(lambda: backend.running == 1)
        writer.transport.abort()
        await until(lambda: backend.cancelled == 1)
        await until(lambda: not served.gateway.handler.calls)
        assert served.metric("dragoman_streams_freed_total", backend="fake") == 1
        assert served.metric("dragoman_disconnect_to_cancel_seconds_count", backend="fake") == 1
        assert served.metric("dragoman_disconnect_to_cancel_seconds_sum", backend="fake") < 5
        assert 0 < served.metric("dragoman_freed_stream_seconds_estimate_total", backend="fake") <= 0.5


async def test_an_answer_that_was_whole_when_its_client_left_frees_nothing() -> None:
    async with running() as served:
        async with served.post({"model": "m", "input": "x"}) as answer:
            await answer.read()
        assert served.metric("dragoman_streams_freed_total", backend="fake") == 0
