"""`dragoman doctor` against scripted servers: one that can do everything, one that fails agents in every way."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest

from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.settings import resolve
from dragoman.gateway.cli import main
from dragoman.gateway.config import Config
from dragoman.gateway.doctor import CODEX_PROMPT, Finding, Road, examine, examine_all
from dragoman.gateway.keys.secrets import Secrets
from tests.backends.markup.writers import WRITINGS
from tests.scripted import Json, Script, ScriptedServer, call_delta, chunk, model_list, sse, text_stream, usage

PARIS, ROME = '{"city":"Paris"}', '{"city":"Rome"}'


def able(body: dict[str, Any]) -> Script:
    words = body["messages"][-1]["content"]
    if "500" in words:
        return Script(text_stream(*[f"{number}, " for number in range(500)]), split="frames", gap=0.05)
    if body.get("response_format"):
        return Script(text_stream('{"n": 42}'))
    if body.get("tools"):
        calls = [call_delta(0, "get_weather", PARIS, "c1")]
        calls += [call_delta(1, "get_weather", ROME, "c2")] if "Rome" in words else []
        return Script(sse(*map(chunk, calls), chunk({}, "tool_calls")))
    return Script(text_stream("Hello.", reasoning=["They greet."]))


def poor(body: dict[str, Any]) -> Script:
    if [message["role"] for message in body["messages"][1:]].count("system"):
        return Script.json({"error": {"message": "System message must be at the beginning."}}, 400)
    if body.get("tool_choice") == "required":
        return Script.json({"error": {"message": "tool_choice='required' is not supported for this model."}}, 400)
    if body.get("tools"):
        return Script(without_usage('<tool_call>{"name": "get_weather"}</tool_call>'))
    return Script(without_usage("<think>They greet.</think>Hello."))


def without_usage(text: str) -> bytes:
    return sse(chunk({"role": "assistant"}), chunk({"content": text}), chunk({}, "stop"))


async def examined(
    play: Callable[[dict[str, Any]], Script], preset: str, settings: Json | None = None, **extra: object
) -> dict[str, Finding]:
    async with ScriptedServer(default=play) as server:
        server.on("GET", "/v1/models", model_list("m", **extra))
        server.on("POST", "/tokenize", Script.json({"count": 11}))
        road = Road(ChatCompletions(server.url, settings=resolve(preset, settings)))
        await road.start()
        try:
            return {finding.probe: finding async for finding in examine(road, None)}
        finally:
            await road.close()


async def test_a_server_that_can_do_everything() -> None:
    found = await examined(able, "vllm", max_model_len=32768)
    assert {finding.verdict for finding in found.values()} == {"ok"}, [str(finding) for finding in found.values()]
    assert found["models"].result == "m; context window 32768"
    assert found["two calls at once"].result == "2 calls"
    assert found["tool call"].result == f"get_weather({PARIS})"
    assert found["client leaves"].result.startswith("let go after ")


async def test_a_server_that_fails_agents_and_what_would_help() -> None:
    found = await examined(poor, "generic")
    advice = {probe: finding.advice for probe, finding in found.items() if finding.verdict != "ok"}
    assert "`window`" in advice["models"]
    assert "usage" in advice["usage"]
    assert "`tokenize`" in advice["counting"]
    assert advice["late system message"] == "set `system_messages: user`"
    assert "`markup`" in advice["tool call"]
    assert "`force_tool: schema`" in advice["forced tool"]
    assert advice["JSON schema"] == "set `json_schema: prompt`"
    assert "`markup`" in advice["reasoning"]
    assert found["late system message"].verdict == "FAIL"


def unparsed(body: dict[str, Any]) -> Script:
    """A server without a tool parser, whose model writes as Qwen3-Coder does."""
    words = body["messages"][-1]["content"]
    if not body.get("tools"):
        return able(body)
    call = ("set_alarm", {"hour": 7, "label": "Train"}) if "alarm" in words else ("get_weather", {"city": "Paris"})
    calls = [call, ("get_weather", {"city": "Rome"})] if "Rome" in words else [call]
    return Script(text_stream(WRITINGS["qwen3_coder"].write(*calls)))


async def test_the_family_whose_calls_stand_in_the_text_is_proven_and_named() -> None:
    found = (await examined(unparsed, "vllm", max_model_len=32768))["tool call"]
    assert found.verdict == "FAIL"
    assert found.result == "none, it stands in the text as qwen3_coder writes it"
    assert found.advice == "set `markup: qwen3_coder`, which has read two calls out of the text; or `markup: probe`"


@pytest.mark.parametrize("markup", ["qwen3_coder", "probe"])
async def test_with_the_family_set_or_probed_for_the_calls_are_read(markup: str) -> None:
    found = await examined(unparsed, "vllm", {"markup": markup}, max_model_len=32768)
    assert found["tool call"].result == 'get_weather({"city": "Paris"})'
    assert found["two calls at once"].result == "2 calls"


async def test_an_answer_that_breaks_off_says_nothing_about_clients_that_leave() -> None:
    def play(body: dict[str, Any]) -> Script:
        return (
            Script.json({"error": {"message": "broken"}}, 500)
            if "500" in body["messages"][-1]["content"]
            else able(body)
        )

    found = (await examined(play, "vllm"))["client leaves"]
    assert found.verdict == "weak"
    assert not found.result.startswith("let go after ")


async def test_a_server_that_answers_nothing_is_not_examined_further() -> None:
    found = await examined(lambda body: Script.json({"error": "down"}, 500), "generic")
    assert found["text"].verdict == "FAIL"
    assert list(found)[-1] == "text"


# ---------------------------------------------------------------------------------------------------------- the verdict

SERVES = "verdict: it can serve agents"
FAILS = "verdict: agents will fail here, because of"
Play = Callable[[Json], Script]


WINDOW = model_list("m", max_model_len=32_768)


async def judged(
    play: Play, capsys: pytest.CaptureFixture[str], settings: Json | None = None, listed: Script = WINDOW
) -> str:
    """What `dragoman doctor` prints from its verdict on; its status must say the same."""
    async with ScriptedServer(default=play) as server:
        server.on("GET", "/v1/models", listed)
        backend = {"url": server.url, "name": "gpu", **(settings or {})}
        status = await examine_all(Config(backends=[backend]), Secrets())
    _, verdict, rest = capsys.readouterr().out.partition("verdict: ")
    told = (verdict + rest).strip()
    assert status == (0 if told == SERVES else 1)
    return told


def calling(*chunks: Json, when: Callable[[Json], bool] = lambda body: True) -> Play:
    """An able server that answers with these chunks where tools are offered and `when` holds."""

    def play(body: Json) -> Script:
        return Script(sse(*chunks)) if body.get("tools") and when(body) else able(body)

    return play


def with_arguments(text: str, finish: str = "tool_calls") -> tuple[Json, Json]:
    return chunk(call_delta(0, "get_weather", text, "c1")), chunk({}, finish)


async def test_an_able_server_can_serve_agents(capsys: pytest.CaptureFixture[str]) -> None:
    assert await judged(able, capsys) == SERVES


@pytest.mark.parametrize("text", ["It is sunny in Paris.", "I would call get_weather for you.", ""])
async def test_without_a_call_agents_fail(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = await judged(calling(chunk({"content": text}), chunk({}, "stop")), capsys)
    assert told.startswith(f"{FAILS}\n  gpu: tool call: none, the model answered in text → start the server with its")


def is_forced(body: Json) -> bool:
    return body.get("tool_choice") == "required"


async def test_a_forced_call_is_not_enough(capsys: pytest.CaptureFixture[str]) -> None:
    """Agents offer tools; hardly ever do they force one."""
    offered = calling(chunk({"content": "Sunny."}), chunk({}, "stop"), when=lambda body: not is_forced(body))
    assert "gpu: tool call: none" in await judged(offered, capsys)
    unable = await judged(able, capsys, {"settings": {"tools": "forced_only", "force_tool": "schema"}})
    assert "gpu: tool call: this model's template has no tools" in unable


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>',
        'Let me look.<tool_call>\n{"name": "get_weather"',
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}]',
        '{"name": "get_weather", "parameters": {"city": "Paris"}}',
        'Sure:get_weather{"city": "Paris"}',
        'get_weather(city="Paris")',
        "<function=get_weather><parameter=city>Paris</parameter></function>",
        "<|channel|>commentary to=functions.get_weather <|message|>{}",
    ],
)
async def test_a_call_that_stands_in_the_text_is_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = await judged(calling(chunk({"content": text}), chunk({}, "stop")), capsys)
    assert "gpu: tool call: none, it stands in the text → the server's tool parser does not fit the model" in told


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("Paris", "arguments that are no JSON object: get_weather(Paris)"),
        ('{"city": "Paris"', "arguments that are no JSON object"),
        ("{'city': 'Paris'}", "arguments that are no JSON object"),
        ('{"city": NaN}', "arguments that are no JSON object"),
        ('["Paris"]', 'arguments that are no JSON object: get_weather(["Paris"])'),
        ('"Paris"', "arguments that are no JSON object"),
        ("42", "arguments that are no JSON object"),
        ("null", "arguments that were lost: get_weather({})"),
        (json.dumps(PARIS), "arguments that are no JSON object"),
        ("", "arguments that were lost: get_weather({})"),
    ],
)
async def test_arguments_that_no_agent_could_use_are_a_reason(
    arguments: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = await judged(calling(*with_arguments(arguments)), capsys)
    assert f"gpu: tool call: {reason}" in told
    assert "→" in told.splitlines()[1]


@pytest.mark.parametrize(
    ("probe", "when"),
    [("forced tool", is_forced), ("two calls at once", lambda body: "Rome" in str(body["messages"]))],
)
async def test_broken_arguments_in_any_probe_are_a_reason(
    probe: str, when: Callable[[Json], bool], capsys: pytest.CaptureFixture[str]
) -> None:
    told = await judged(calling(*with_arguments("[1]"), when=when), capsys)
    assert told.startswith(f"{FAILS}\n  gpu: {probe}: arguments that are no JSON object: get_weather([1])")


async def test_a_call_glued_to_its_name_is_of_no_tool_that_was_offered(capsys: pytest.CaptureFixture[str]) -> None:
    glued = calling(chunk(call_delta(0, f"get_weather{PARIS}", "", "c1")), chunk({}, "tool_calls"))
    assert "gpu: tool call: a tool that was not offered" in await judged(glued, capsys)


@pytest.mark.parametrize(
    ("chunks", "made"),
    [
        (with_arguments('{"city":"Par', "length"), 'get_weather({"city":"Par)'),
        (with_arguments(PARIS, "length"), f"get_weather({PARIS})"),
        ((chunk({"content": "I think"}), chunk({}, "length")), "no call"),
        ((chunk({"reasoning_content": "I think"}), chunk({}, "length")), "no call"),
        ((chunk({}, "content_filter"),), "no call"),
    ],
)
async def test_an_answer_that_a_limit_ends_is_none_for_an_agent(
    chunks: tuple[Json, ...], made: str, capsys: pytest.CaptureFixture[str]
) -> None:
    told = await judged(calling(*chunks), capsys)
    assert f"gpu: tool call: {made}, in an answer that a limit ended → 1024 tokens were allowed" in told


async def test_a_model_that_thinks_for_long_about_a_greeting_is_examined_further() -> None:
    def play(body: Json) -> Script:
        return able(body) if body.get("tools") else Script(text_stream(reasoning=["Hm."], finish="length"))

    found = await examined(play, "vllm", max_model_len=32768)
    assert (found["text"].verdict, found["text"].result) == ("weak", "no end within 1024 tokens")
    assert found["tool call"].verdict == "ok"


# ----------------------------------------------------------------------------------------------------------- the window


@pytest.mark.parametrize("field", ["max_model_len", "context_length"])
async def test_a_window_below_codex_s_first_prompt_is_a_reason(field: str, capsys: pytest.CaptureFixture[str]) -> None:
    for window in (2048, CODEX_PROMPT - 1):
        told = await judged(able, capsys, listed=model_list("m", **{field: window}))
        assert told.startswith(
            f"{FAILS}\n  gpu: models: m; context window {window} → Codex's first prompt alone has 4600"
        )
    assert await judged(able, capsys, listed=model_list("m", **{field: CODEX_PROMPT})) == SERVES


async def test_the_configured_window_is_believed_before_the_server_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert await judged(able, capsys, {"window": 32_768}, model_list("m", max_model_len=2048)) == SERVES
    assert "context window 2048" in await judged(able, capsys, {"window": 2048})


async def test_of_several_models_the_window_of_the_one_that_is_asked_counts(capsys: pytest.CaptureFixture[str]) -> None:
    models = Script.json({"data": [{"id": "large", "max_model_len": 32_768}, {"id": "small", "max_model_len": 2048}]})
    for model, verdict in (("large", SERVES), ("small", FAILS)):
        told = await judged(able, capsys, {"model": model}, models)
        assert told.splitlines()[0] == verdict


def unknown_window(first_prompt: Script) -> Play:
    return lambda body: first_prompt if len(str(body["messages"])) > 10_000 else able(body)


TOO_LONG = {"error": {"message": "This model's maximum context length is 2048 tokens. However, you requested 4616."}}


@pytest.mark.parametrize(
    ("first_prompt", "verdict", "told"),
    [
        (Script(text_stream("ok", counts=usage(4620))), "ok", "4620 tokens are taken"),
        (Script(sse(chunk({"content": "ok"}), chunk({}, "stop"))), "ok", "about 4600 tokens are taken"),
        (Script.json(TOO_LONG, 400), "FAIL", "context window of 2048 tokens"),
        (Script(text_stream("ok", counts=usage(2048))), "FAIL", "of about 4600 tokens the server has read 2048"),
        (Script(text_stream("ok")), "weak", "taken; that it has 11 tokens, as the server says, is not true"),
        (Script.json({"error": {"message": "oops"}}, 500), "weak", "failed"),
    ],
)
async def test_a_window_that_no_server_reports_is_probed(
    first_prompt: Script, verdict: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = await examined(unknown_window(first_prompt), "generic")
    assert found["models"].result == "m; context window unknown"
    probe = found["Codex's first prompt"]
    assert (probe.verdict, told in probe.result) == (verdict, True), probe
    printed = await judged(unknown_window(first_prompt), capsys, listed=model_list("m"))
    assert printed.splitlines()[0] == (FAILS if verdict == "FAIL" else SERVES)


# ---------------------------------------------------------------------------------------------------------- the command


@pytest.mark.parametrize(("play", "status"), [(able, 0), (poor, 1)])
async def test_the_command_ends_with_the_verdict_as_its_status(play: Play, status: int) -> None:
    async with ScriptedServer(default=play) as server:
        command = (sys.executable, "-m", "dragoman.gateway.cli", "doctor", "--backend", server.url)
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await child.communicate()
    assert child.returncode == status
    assert (SERVES if status == 0 else FAILS) in output.decode()


async def test_every_backend_must_be_able(capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=able) as good, ScriptedServer(default=poor) as bad:
        for urls, status in (((good.url, good.url), 0), ((good.url, bad.url), 1)):
            backends = [{"url": url, "name": name} for url, name in zip(urls, ("a", "b"), strict=True)]
            assert await examine_all(Config(backends=backends), Secrets()) == status
    reasons = capsys.readouterr().out.rpartition(FAILS)[2].split("\n")[1:-1]
    assert reasons
    assert all(reason.startswith("  b: ") for reason in reasons)


async def test_nobody_there_is_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert await examine_all(Config(backends=[{"url": "http://127.0.0.1:9/v1", "name": "gpu"}]), Secrets()) == 1
    assert f"{FAILS}\n  gpu: health: down cannot be reached" in capsys.readouterr().out


def test_the_help_says_what_the_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 where each backend can serve agents; 1 where agents will fail" in told
    assert "2 where the configuration is wrong" in told
    assert f"{CODEX_PROMPT:,} tokens" in told


@pytest.mark.parametrize("verdict", ["ok", "weak", "FAIL"])
def test_a_finding_is_a_line_and_its_advice_another(verdict: Any) -> None:
    lines = str(Finding(verdict, "usage", "none", "do this")).splitlines()
    assert lines[0].split() == [verdict, "usage", "none"]
    assert lines[1].strip() == "→ do this"
    assert json.dumps(lines)
