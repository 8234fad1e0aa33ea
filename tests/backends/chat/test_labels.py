"""Answers whose content type says something else than what they are."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Literal

import pytest

from dragoman.backends.chat.backend import ChatCompletions
from dragoman.translators.errors import GatewayError, Kind
from tests.recording import Recorder, ask
from tests.scripted import Script, ScriptedServer, text_stream

WHOLE = Script.json(
    {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
)
LABELS = ["application/json", "text/event-stream", "text/plain", "application/octet-stream"]


async def answered(script: Script) -> Recorder:
    async with ScriptedServer(script) as server:
        backend, sink = ChatCompletions(server.url), Recorder()
        try:
            await backend.stream(await backend.prepare(ask()), sink)
        finally:
            await backend.close()
    return sink


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("split", ["given", "bytes"])
async def test_a_whole_answer_under_any_label(label: str, split: Literal["given", "bytes"]) -> None:
    sink = await answered(replace(WHOLE, headers={"content-type": label}, split=split))
    assert sink.text == "Hello"
    assert sink.finished.usage is not None


@pytest.mark.parametrize("label", LABELS)
async def test_a_stream_under_any_label(label: str) -> None:
    sink = await answered(Script(text_stream("Hel", "lo"), headers={"content-type": label}))
    assert sink.text == "Hello"


@pytest.mark.parametrize("label", LABELS)
async def test_an_error_under_any_label_keeps_its_meaning(label: str) -> None:
    said = json.dumps({"error": {"message": "maximum context length is 9 tokens", "code": 400}}).encode()
    with pytest.raises(GatewayError) as caught:
        await answered(Script(b"\n" + said, headers={"content-type": label}))
    assert caught.value.kind is Kind.OVERFLOW
