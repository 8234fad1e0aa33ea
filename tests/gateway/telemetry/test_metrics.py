"""What is counted of a call, and that counting is cheap and bounded."""

from __future__ import annotations

import asyncio
import platform
import random
import re
from bisect import bisect_left
from functools import partial

import pytest
from prometheus_client import Counter, Gauge, Histogram

from dragoman.backends.base import Sink
from dragoman.gateway import __version__
from dragoman.gateway.keys.secrets import Grant, Secrets
from dragoman.gateway.telemetry.metrics import GAPS, MOST_CLIENTS, MOST_MODELS, Metrics
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


@pytest.mark.parametrize("stream", [True, False])
async def test_a_call_like_one_before_looks_no_series_up(stream: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []
    look_up = Counter.labels

    def counting(metric: Counter, *labels: str) -> Counter:
        looked_up.append(metric._name)
        return look_up(metric, *labels)

    async def call() -> list[str]:
        looked_up.clear()
        async with it.session.post(
            it.url + PATHS["responses"], json=asking("responses", "hi", stream=stream)
        ) as answer:
            await answer.read()
        await until(lambda: not it.gateway.handler.calls)
        return list(looked_up)

    async with served(*(Script(text_stream("a", counts=usage(11, 7))) for _ in range(3))) as it:
        it.server.on("GET", "/v1/models", model_list("m"))
        for kind in (Counter, Gauge, Histogram):
            monkeypatch.setattr(kind, "labels", counting)
        assert "dragoman_requests" in await call()
        assert await call() == ["dragoman_prompt_prefixes"]  # the first prompt that has one before it
        assert await call() == []


KEYS = Secrets(
    ("sk-ann", "sk-bob", "sk-nameless"),
    grants={"sk-ann": Grant("ann"), "sk-bob": Grant("bob", models=("m",)), "sk-nameless": Grant(rpm=1000)},
)


async def test_requests_and_tokens_are_counted_by_the_name_of_the_key_and_by_model() -> None:
    async with served(*[Script(text_stream("a", counts=usage(11, 7)))] * 4, secrets=KEYS) as it:
        it.server.on("GET", "/v1/models", model_list("m", "second"))
        for key, model in (("ann", "m"), ("ann", "second"), ("bob", "m"), ("bob", "second"), ("nameless", "m")):
            body, headers = asking("responses", "hi", model), {"x-api-key": f"sk-{key}"}
            async with it.session.post(it.url + PATHS["responses"], json=body, headers=headers) as answer:
                assert answer.status == (403 if (key, model) == ("bob", "second") else 200)
        counted = {
            (client, model, outcome): it.metric(
                "dragoman_client_requests_total", client=client, model=model, outcome=outcome
            )
            for client in ("ann", "bob", "other")
            for model in ("m", "second", "other")
            for outcome in ("completed", "refused")
        }
        assert {labels for labels, count in counted.items() if count} == {
            ("ann", "m", "completed"),
            ("ann", "second", "completed"),
            ("bob", "m", "completed"),
            ("bob", "other", "refused"),
            ("other", "m", "completed"),
        }
        tokens = partial(it.metric, "dragoman_client_tokens_total", client="ann")
        assert [tokens(model="m", direction=way) for way in ("input", "output", "cached")] == [11, 7, 0]
        assert it.metric("dragoman_client_tokens_total", direction="input") == 44
        assert it.metric("dragoman_requests_total", backend="gpu", model="second", outcome="completed") == 1
        assert it.metric("dragoman_requests_total", backend="", model="other", status="403") == 1
        assert b"nameless" not in it.gateway.metrics.render()


async def test_a_listed_model_is_a_label_also_where_its_server_fails_and_an_invented_one_is_not() -> None:
    async with served(Script(b"no", status=500)) as it:
        it.server.on("GET", "/v1/models", model_list("m", "second"))
        for name in ("m", "invented"):
            async with it.session.post(it.url + PATHS["responses"], json=asking("responses", "hi", name)) as answer:
                assert answer.status >= 400
        assert it.metric("dragoman_requests_total", backend="gpu", model="m", outcome="failed") == 1
        assert it.metric("dragoman_requests_total", backend="", model="other", status="404") == 1
        assert it.metric("dragoman_requests_total", backend="", model="") == 0
        async with it.session.post(it.url + PATHS["responses"], data=b"{") as answer:
            assert answer.status == 400
        assert it.metric("dragoman_requests_total", backend="", model="", status="400") == 1


def test_names_of_keys_cannot_fill_the_memory_either() -> None:
    metrics = Metrics()
    for number in range(MOST_CLIENTS * 2):
        metrics.client_request(f"key {number}" if number % 2 else f"key-{number}", "m", "completed")
    series = [line for line in metrics.render().decode().splitlines() if line.startswith("dragoman_client_requests_t")]
    assert len(series) <= MOST_CLIENTS + 1
    assert any('client="other"' in line for line in series)


def test_the_build_and_the_process_are_described() -> None:
    text = Metrics().render().decode()
    assert f'dragoman_build_info{{python="{platform.python_version()}",version="{__version__}"}} 1.0' in text
    for name in ("cpu_seconds_total", "open_fds", "resident_memory_bytes", "start_time_seconds"):
        assert re.search(rf"(?m)^process_{name} [0-9.e+]+$", text)


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
