"""The doctor against scripted servers that differ from an able one in one thing: what it finds, what it makes of that
for each client, and that the settings which it proposes are enough. Each is examined, its settings are written into a
file, and the file is examined again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from dragoman.gateway.config import Config
from tests.gateway.doctor import servers
from tests.gateway.doctor.asked import ask, backend, mended
from tests.gateway.doctor.servers import Play, able, refuses
from tests.scripted import Json, Script, ScriptedServer, call_delta, chunk, model_list, sse, text_stream

WINDOW = model_list("m", max_model_len=32_768)
NO_COUNT = {"counting": "weak"}
ALL, NONE = ("works", "works", "works"), ("does not", "does not", "does not")
SETTINGS = ("works with settings", "works with settings")


def has(field: str) -> Any:
    return lambda body: field in body


def later_system(body: Json) -> bool:
    return "system" in [message["role"] for message in body["messages"][1:]]


def turns_in_a_row(body: Json) -> bool:
    roles = [message["role"] for message in body["messages"]]
    return any(later == "user" and before in ("user", "tool") for before, later in pairwise(roles))


def extra(field: str) -> Play:
    """pydantic's refusal, as a server with `extra = "forbid"` gives it."""
    fault = {"type": "extra_forbidden", "loc": ["body", field], "msg": "Extra inputs are not permitted"}
    return lambda body: Script.json({"detail": [fault]}, 422) if field in body else able(body)


def no_tools(body: Json) -> Script:
    return able({name: value for name, value in body.items() if name != "tools"})


@dataclass(frozen=True)
class Case:
    """`bad`: the findings that are not ok, besides that nothing counts; `left`: those that stay with the settings
    written. `clients`: Codex, Claude Code, a plain SDK, before; `after`: with the settings."""

    name: str
    play: Play
    bad: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    clients: tuple[str, str, str] = ALL
    after: tuple[str, str, str] = ALL
    left: tuple[str, ...] = ()
    listed: Script = WINDOW
    deep: bool = False
    says: str = ""


CASES = (
    Case("able", able),
    Case("the kind of server is known", able, {"server": "weak"}, {"preset": "sglang"},
         listed=model_list("m", max_model_len=32_768, owned_by="sglang")),
    Case("nothing reads the calls but vLLM's flag is missing", servers.tools_need_a_flag, {"tool call": "FAIL"},
         {"settings.extra_body": {"tool_choice": "none"}, "settings.markup": "hermes"}, (*SETTINGS, "works"),
         says="enable-auto-tool-choice"),
    Case("the parser loses arguments", servers.broken_parser, {"tool call": "FAIL"},
         {"settings.extra_body": {"tool_choice": "none"}, "settings.markup": "hermes"}, (*SETTINGS, "works"),
         says="arguments that were lost"),
    Case("tools are ignored", no_tools, {"tool call": "FAIL", "forced tool": "weak", "two calls at once": "weak"},
         {"settings.force_tool": "schema"}, ("does not", "does not", "works"), ("does not", "does not", "works"),
         ("tool call", "two calls at once"), says="the model answered in text"),
    Case("broken arguments", servers.with_tools(chunk(call_delta(0, "get_weather", "Paris", "c1")), chunk({}, "stop")),
         {"tool call": "FAIL", "forced tool": "FAIL", "two calls at once": "FAIL"}, {"settings.force_tool": "schema"},
         ("does not", "does not", "works"), ("does not", "does not", "works"),
         ("tool call", "two calls at once"), says="no JSON object: get_weather(Paris)"),
    Case("a tool that nobody offered", servers.with_tools(chunk(call_delta(0, "other", "{}", "c")), chunk({}, "stop")),
         {"tool call": "FAIL", "forced tool": "FAIL", "two calls at once": "FAIL"}, {"settings.force_tool": "schema"},
         ("does not", "does not", "works"), ("does not", "does not", "works"),
         ("tool call", "two calls at once"), says="a tool that was not offered: other({})"),
    Case("a small window", able, {"context window": "FAIL"}, {}, ("does not", "does not", "works"),
         ("does not", "does not", "works"), ("context window",), model_list("m", max_model_len=2048), says="2048"),
    Case("a window for Codex alone", able, {"context window": "weak"}, {}, ("works", "does not", "works"),
         ("works", "does not", "works"), ("context window",), model_list("m", max_model_len=16_384),
         says="Claude Code's first prompt has 19500"),
    Case("a lying window", servers.window_of(2048), {"context window": "weak", "long prompt": "FAIL"},
         {"window": 2048}, ("does not", "does not", "works"), ("does not", "does not", "works"),
         ("context window",), says="context window of 2048 tokens"),
    Case("a lying window above 5,000 tokens", servers.window_of(8000), {"context window": "weak",
         "window in truth": "weak"}, {"window": 8000}, ("works", "does not", "works"), ("works", "does not", "works"),
         ("context window",), deep=True, says="8000 tokens, not 32768"),
    Case("a true window", servers.window_of(32_768), {}, deep=True),
    Case("prompts are cut in silence", servers.cuts_at(2048), {"context window": "weak", "long prompt": "FAIL"},
         {"window": 2048}, ("does not", "does not", "works"), ("does not", "does not", "works"), ("context window",),
         says="of about 5000 tokens the server has read 2048"),
    Case("longer prompts are cut in silence", servers.cuts_at(9000), {"context window": "weak",
         "window in truth": "weak"}, {"window": 9000}, ("works", "does not", "works"), ("works", "does not", "works"),
         ("context window",), deep=True),
    Case("an unknown window", able, {"context window": "weak"}, left=("context window",), listed=model_list("m")),
    Case("an unknown window, refused without numbers", servers.window_of(20_000, "prompt is too long"),
         {"context window": "weak"}, {"window": 19_920}, listed=model_list("m"), deep=True),
    Case("no stream", servers.whole, {"stream": "weak"}, left=("stream",), says="does not stream"),
    Case("a buffered stream", servers.buffered, {"stream": "weak"}, left=("stream",), says="40 pieces came at once"),
    Case("usage that is not to be asked for", servers.without_usage, {"usage": "weak"}, {"settings.usage": "always"}),
    Case("thoughts in the text", servers.thinks_in_text, {"reasoning": "weak"}, {"settings.markup": "plain"}),
    Case("max_tokens is refused", refuses("Unsupported parameter: max_tokens", has("max_tokens")), {"text": "FAIL"},
         {"settings.max_tokens_field": "max_completion_tokens"}, (*SETTINGS, "works with settings")),
    Case("something is refused without a name", refuses("Bad Request", has("temperature")), {"text": "FAIL"},
         {"settings.parameters": sorted(servers.COMMON - {"temperature"})}, (*SETTINGS, "works with settings")),
    Case("stream_options is refused", extra("stream_options"), {"parameters": "weak"}, {"settings.usage": "always"},
         says="refuses stream_options"),
    Case("seed is refused", extra("seed"), {"parameters": "weak"},
         {"settings.parameters": sorted(servers.COMMON - {"seed"})}),
    Case("an effort is refused", extra("reasoning_effort"), {"parameters": "weak"}, {"settings.thinking": "none"}),
    Case("an error as 200", servers.Errors200("stream_options"), {"text": "FAIL"}, {"settings.usage": "always"},
         (*SETTINGS, "works with settings"), says="Unknown parameter: stream_options"),
    Case("a later system message is refused", refuses("System message must be at the beginning.", later_system),
         {"late system message": "weak"}, {"settings.system_messages": "user"}, says="asked twice"),
    Case("a later system message is refused in words of its own", refuses("No system message here.", later_system),
         {"late system message": "FAIL"}, {"settings.system_messages": "user"}, (*SETTINGS, "works")),
    Case("turns in a row are refused", refuses("conversation roles must alternate", turns_in_a_row),
         {"turns of agents": "weak"}, {"settings.turns": "alternate"}, says="asked twice"),
    Case("turns in a row are refused in words of their own", refuses("Not in this order.", turns_in_a_row),
         {"turns of agents": "FAIL"}, {"settings.turns": "alternate"}, (*SETTINGS, "works")),
    Case("a forced tool is refused", refuses("'required' is not supported.",
         lambda body: body.get("tool_choice") == "required"), {"forced tool": "weak"},
         {"settings.force_tool": "schema"},
         says="is not supported"),
    Case("many faults at once", servers.many_faults, {"text": "FAIL", "late system message": "FAIL",
         "tool call": "FAIL", "parameters": "weak"}, {"settings.max_tokens_field": "max_completion_tokens",
         "settings.system_messages": "user", "settings.markup": "qwen3_coder",
         "settings.parameters": sorted(servers.COMMON - {"seed"})}, (*SETTINGS, "works with settings")),
    Case("the server fails", refuses("CUDA out of memory", lambda body: True, 500), {"text": "FAIL"}, {}, NONE, NONE,
         ("text",), says="status 500): CUDA out of memory"),
    Case("an empty answer", lambda body: Script(sse(chunk({}, "stop"))), {"text": "FAIL"}, {}, NONE, NONE, ("text",)),
    Case("a key is wanted for answers alone", refuses("No API key", lambda body: True, 401), {"text": "FAIL"}, {}, NONE,
         NONE, ("text",), says="refused the gateway's credentials"),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_is_found_and_what_mends_it(case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=case.play) as server:
        server.on("GET", "/v1/models", case.listed)
        config = backend(server.url)
        told = await ask(capsys, config, deep=case.deep)
        again = await mended(capsys, config, tmp_path / "gateway.yaml", deep=case.deep)
    assert told.bad == {**({} if case.after == NONE else NO_COUNT), **case.bad}
    assert told.settings == {
        key if key == "model" else f"backends.0.{key}": value for key, value in case.settings.items()
    }
    assert tuple(told.clients.values()) == case.clients
    assert case.says in str(told.findings)
    assert told.status == (0 if "works" in case.clients[:2] else 1)
    assert tuple(again.clients.values()) == case.after
    assert not again.settings, "a second run proposes more"
    assert set(again.bad) - NO_COUNT.keys() == set(case.left)
    assert again.status == (0 if "works" in case.after[:2] else 1)


FAMILIES = ("hermes", "jamba", "qwen3_coder", "deepseek", "mistral", "glm", "minimax_m2", "pythonic", "kimi_k2")


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_family_whose_calls_stand_in_the_text_is_proven(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with ScriptedServer(default=servers.unparsed(family)) as server:
        server.on("GET", "/v1/models", WINDOW)
        config = backend(server.url)
        told = await ask(capsys, config)
        again = await mended(capsys, config, tmp_path / "gateway.yaml")
    assert told.settings == {"backends.0.settings.markup": family}
    assert told.findings["tool call"]["verdict"] == "FAIL"
    assert told.findings["tool call"]["tried"].startswith("get_weather(")
    assert (told.status, again.status, again.bad) == (1, 0, NO_COUNT)
    assert again.findings["two calls at once"]["result"] == "2 calls"


async def test_a_family_that_was_set_wrongly_is_corrected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=servers.unparsed("qwen3_coder")) as server:
        server.on("GET", "/v1/models", WINDOW)
        again = await mended(capsys, backend(server.url, {"markup": "mistral"}), tmp_path / "gateway.yaml")
    assert (again.status, again.bad) == (0, NO_COUNT)


async def test_a_wrong_preset_is_corrected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=able) as server:
        server.on("GET", "/v1/models", model_list("m", max_model_len=32_768, owned_by="vllm"))
        server.on("GET", "/version", Script.json({"version": "0.11.2"}))
        server.on("POST", "/tokenize", Script.json({"count": servers.PLAIN}))
        config = backend(server.url, preset="llama.cpp")
        told = await ask(capsys, config)
        again = await mended(capsys, config, tmp_path / "gateway.yaml")
    assert told.findings["server"]["result"] == "vLLM 0.11.2; the preset is llama.cpp"
    assert told.settings == {"backends.0.preset": "vllm"}
    assert again.findings["server"]["result"] == "vLLM 0.11.2; preset vllm"
    assert again.bad == {}


async def test_a_server_that_counts_is_asked_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=able) as server:
        server.on("GET", "/v1/models", WINDOW)
        server.on("POST", "/_internal/tokenize", Script.json({"count": servers.PLAIN}))
        told = await ask(capsys, backend(server.url))
    assert told.settings == {"backends.0.settings.tokenize": "trtllm-serve"}


# ----------------------------------------------------------------------------------------------------------- the models


def knows(*names: str) -> Play:
    return refuses("model not found", lambda body: body["model"] not in names, 404, code="model_not_found")


SEVERAL = Script.json(
    {"data": [{"id": "large-chat", "max_model_len": 32_768}, {"id": "small-chat", "max_model_len": 2048}]}
)


async def test_of_several_models_the_one_that_was_asked_for_is_judged(capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=knows("large-chat", "small-chat")) as server:
        server.on("GET", "/v1/models", SEVERAL)
        for model, status in (("large-chat", 0), ("small-chat", 1)):
            told = await ask(capsys, Config(backends=[{"url": server.url}], model=model), model=model)
            assert [each["name"] for each in told.document["backends"][0]["models"]] == [model]
            assert told.status == status


async def test_without_a_name_it_says_that_clients_must_give_one(capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=knows("large-chat", "small-chat")) as server:
        server.on("GET", "/v1/models", SEVERAL)
        told = await ask(capsys, backend(server.url))
    assert told.findings["models"]["verdict"] == "weak"
    assert told.findings["models"]["result"] == "large-chat, small-chat; judged is large-chat"


async def test_a_mistyped_name_is_corrected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=knows("large-chat", "small-chat")) as server:
        server.on("GET", "/v1/models", SEVERAL)
        config = backend(server.url, model="large-caht")
        told = await ask(capsys, config)
        again = await mended(capsys, config, tmp_path / "gateway.yaml")
    assert told.findings["model name"]["verdict"] == "FAIL"
    assert told.settings == {"backends.0.model": "large-chat"}
    assert (told.status, again.status) == (1, 0)


async def test_a_name_that_nothing_resembles_is_reported_with_those_that_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with ScriptedServer(default=knows("large-chat", "small-chat")) as server:
        server.on("GET", "/v1/models", SEVERAL)
        told = await ask(capsys, backend(server.url, model="gpt-9"))
    assert told.findings["text"]["advice"] == "the server lists large-chat, small-chat"
    assert told.clients == dict(zip(("Codex", "Claude Code", "plain SDK"), NONE, strict=True))


def table(url: str) -> Config:
    return Config(
        backends=[{"url": url, "name": "gpu"}],
        models=[
            {"name": "big", "upstream": "large-chat", "aliases": ["opus"]},
            {"prefixes": ["claude-"], "upstream": "small-caht", "window": 30_000},
        ],
    )


async def test_the_models_of_the_table_are_judged_and_corrected_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=knows("large-chat", "small-chat")) as server:
        server.on("GET", "/v1/models", SEVERAL)
        file.write_text(
            f"backends:\n  - url: {server.url}  # the machine below the desk\n    name: gpu\n"
            "models:\n  - {name: big, upstream: large-chat, aliases: [opus]}\n"
            "  - prefixes: [claude-]\n    upstream: small-caht   # the quick one\n    window: 30000\n"
        )
        told = await ask(capsys, table(server.url), write=file, source=file)
        one = await ask(capsys, table(server.url), model="opus")
        other = await ask(capsys, table(server.url), model="claude-haiku")
    assert [each["name"] for each in told.document["backends"][0]["models"]] == ["large-chat", "small-caht"]
    assert [each["name"] for each in one.document["backends"][0]["models"]] == ["large-chat"]
    assert [each["name"] for each in other.document["backends"][0]["models"]] == ["small-caht"]
    assert "upstream: small-chat   # the quick one" in file.read_text()
    assert "# the machine below the desk" in file.read_text()
    assert told.status == 0


async def test_models_of_one_server_that_need_different_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """What the first one needs stays; the other is reported as it is."""

    def play(body: Json) -> Script:
        return servers.unparsed("hermes" if body["model"] == "a" else "mistral")(body)

    async with ScriptedServer(default=play) as server:
        server.on("GET", "/v1/models", model_list("a", "b", max_model_len=32_768))
        config = Config(backends=[{"url": server.url}], models=[{"name": "a"}, {"name": "b"}])
        told = await ask(capsys, config)
    first, second = told.document["backends"][0]["models"]
    assert told.settings == {"backends.0.settings.markup": "hermes"}
    assert {each["outcome"] for each in first["clients"]} == {"works with settings", "works"}
    assert "does not" in {each["outcome"] for each in second["clients"]}
    assert told.status == 1


# ----------------------------------------------------------------------------------------------------------- the status


async def test_every_backend_must_serve(capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=able) as good, ScriptedServer(default=no_tools) as bad:
        for server in (good, bad):
            server.on("GET", "/v1/models", WINDOW)
        for urls, status in (((good.url, good.url), 0), ((good.url, bad.url), 1)):
            backends = [{"url": url, "name": name} for url, name in zip(urls, ("a", "b"), strict=True)]
            told = await ask(capsys, Config(backends=backends))
            assert told.status == status
    assert told.document["unserved"] == ["b: m: Codex does not work: tool call: none, the model answered in text"]


@pytest.mark.parametrize(("client", "status"), [("codex", 0), ("claude", 1), ("sdk", 0)])
async def test_the_status_may_be_about_one_client(client: str, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedServer(default=able) as server:
        server.on("GET", "/v1/models", model_list("m", max_model_len=16_384))
        told = await ask(capsys, backend(server.url), clients=[client])
    assert told.status == status


async def test_a_model_that_thinks_for_long_about_a_greeting_is_examined_further(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def play(body: Json) -> Script:
        greeting = not body.get("tools") and len(str(body)) < 1000
        return Script(text_stream(reasoning=["Hm."], finish="length")) if greeting else able(body)

    async with ScriptedServer(default=play) as server:
        server.on("GET", "/v1/models", WINDOW)
        told = await ask(capsys, backend(server.url))
    assert told.findings["text"]["result"] == "no end within 1024 tokens"
    assert told.findings["tool call"]["verdict"] == "ok"
