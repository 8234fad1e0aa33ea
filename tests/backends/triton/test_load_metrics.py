"""A Triton server's load from its metrics."""

import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dragoman.backends.triton.load_metrics import LoadMetrics, read

ENGINE = """# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="max",version="1"} 512
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 4
nv_trt_llm_request_metrics{model="other",request_type="active",version="1"} 100
nv_inference_pending_request_count{model="tensorrt_llm",version="1"} 9
"""


def test_the_engine_s_own_figures_count_first() -> None:
    assert read(ENGINE, ["tensorrt_llm"]) == 7.0


def test_without_them_the_queue_counts() -> None:
    text = 'nv_inference_pending_request_count{model="tensorrt_llm",version="1"} 9\n'
    assert read(text, ["tensorrt_llm"]) == 9.0
    assert read(text, ["another"]) is None
    assert read("", ["tensorrt_llm"]) is None


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-1", "many", "1e999"])
def test_a_figure_that_is_no_count_is_left_out(value: str) -> None:
    assert read(ENGINE.replace('version="1"} 3', f'version="1"}} {value}'), ["tensorrt_llm"]) == 4.0


def test_samples_that_never_end_are_read_in_linear_time() -> None:
    begun = time.process_time()
    assert read("nv_trt_llm_request_metrics{\n" * 40_000, ["m"]) is None
    assert read("nv_trt_llm_request_metrics{" * 40_000, ["m"]) is None
    assert time.process_time() - begun < 2


async def test_a_measurement_is_used_until_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def metrics(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(text=ENGINE)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    async with TestServer(app) as server:
        meter = LoadMetrics(str(server.make_url("/metrics")))
        assert meter.load is None
        await meter.measure(["tensorrt_llm"])
        await meter.measure(["tensorrt_llm"])
        assert [meter.load, asked] == [7.0, 1]
        monkeypatch.setattr("dragoman.backends.triton.load_metrics.STALE", -1.0)
        assert meter.load is None
        await meter.close()


async def test_a_server_without_metrics_is_left_alone_for_a_while() -> None:
    meter = LoadMetrics("http://127.0.0.1:9/metrics")
    await meter.measure(["m"])
    await meter.measure(["m"])
    assert meter.load is None
    await meter.close()
