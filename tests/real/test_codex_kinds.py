"""Codex CLI changes its requests with what it knows about a model: a search for tools, scripts in place of tools, a
history that it compacts, images, a WebSocket that it would like better. Each kind through the gateway, to the end.
"""

from __future__ import annotations

import base64
import json

import pytest

from tests.real.codex import EACH_CODEX, Codex, catalogue, configuration, full_configuration
from tests.real.mcp_server import mcp_server
from tests.real.raw_responses import FAILED, bye, streamed
from tests.real.scripted_model import calls, function_names, results, says
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer, call_delta, call_stream, chunk, sse, text_stream, usage

pytestmark = pytest.mark.real

FREELY = "--dangerously-bypass-approvals-and-sandbox"
RED_DOT = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAEElEQVR4nGP4z8AARAwQCgAf7gP9i18U1AAAAABJRU5ErkJggg=="
# What a model of the newest kind gets in place of tools: one that runs scripts, declared in an item of the input.
SCRIPTS = {"use_responses_lite": True, "tool_mode": "code_mode_only"}


HALF_SCRIPT = 'await tools.exec_command({cmd: "touch made.txt"});\n'


def messages(asked: Json | None) -> list[Json]:
    assert asked is not None
    found: list[Json] = asked["messages"]
    return found


async def test_a_tool_that_was_searched_for_can_be_called(codex: Codex) -> None:
    """Codex never adds what a search has found to its list of tools: only the history holds it."""

    def search(asked: Json) -> Script:
        assert not [name for name in function_names(asked) if name.endswith("add")]
        return calls(("tool_search", {"query": "add numbers", "limit": 3}))

    def use(asked: Json) -> Script:
        (name,) = [name for name in function_names(asked) if name.endswith("add")]
        return calls((name, {"a": 40, "b": 2}))

    server = ScriptedServer(search, use, lambda asked: says(results(asked)[-1]))
    async with server, serving("--backend", server.url) as url:
        codex.configure(full_configuration(url) + mcp_server(codex))
        await catalogue(codex, supports_search_tool=True)
        turn = await codex.exec("Add.", FREELY)
        first, second, third = (messages(seen.body) for seen in server.chats)
    assert (turn.status, turn.complaints) == (0, [])
    assert "the sum is 42" in turn.answers[0]
    assert second[: len(first)] == first
    assert third[: len(second)] == second


@pytest.mark.parametrize("name", ["spawn_agent", "multi_agent_v1.spawn_agent"])
async def test_a_sub_agent_is_started_whichever_way_the_model_writes_its_namespace(codex: Codex, name: str) -> None:
    """Offered as `multi_agent_v1__spawn_agent`; without its namespace Codex answers "unsupported call"."""

    def answer(asked: Json) -> Script:
        if "You are the helper." in str(asked["messages"][-1]["content"]):
            return says("The helper says 42.")
        told = results(asked)
        if not told:
            assert name not in function_names(asked)
            return calls((name, {"message": "You are the helper."}))
        if len(told) == 1:
            return calls(("wait_agent", {"targets": [json.loads(told[0])["agent_id"]], "timeout_ms": 60_000}))
        return says(f"told: {told[-1]}")

    async with ScriptedServer(default=answer) as server, serving("--backend", server.url) as url:
        codex.configure(full_configuration(url))
        await catalogue(codex)
        turn = await codex.exec("Delegate.", FREELY)
    assert (turn.status, turn.complaints) == (0, [])
    assert "The helper says 42." in turn.answers[-1]
    assert {item["tool"]: item["status"] for item in turn.items("collab_tool_call")} == {
        "spawn_agent": "completed",
        "wait": "completed",
    }


def run_script(script: str) -> tuple[str, Json]:
    return "functions__exec", {"input": script}


@EACH_CODEX
async def test_a_model_that_only_writes_scripts_runs_one(codex: Codex) -> None:
    command = 'echo \\"quoted\\" > made.txt; cat made.txt'
    script = f'const made = await tools.exec_command({{cmd: "{command}"}});\ntext(made.output);\n'
    server = ScriptedServer(calls(run_script(script)), lambda asked: says(results(asked)[-1]))
    async with server, serving("--backend", server.url) as url:
        codex.configure(full_configuration(url))
        await catalogue(codex, **SCRIPTS)
        turn = await codex.exec("Make it.", FREELY)
        asked = server.chats[0].body
    assert asked is not None
    assert "functions__exec" in function_names(asked)
    assert (turn.status, turn.complaints) == (0, [])
    assert (codex.work / "made.txt").read_text(encoding="utf-8") == "quoted\n"
    assert "quoted" in turn.answers[0]


@pytest.mark.parametrize("ending", ["cut", "length"])
async def test_half_a_script_is_not_run(codex: Codex, ending: str) -> None:
    """Cut between two statements, half a script is a whole one: nothing but the missing end of the item keeps Codex
    from running it."""
    name, arguments = run_script(HALF_SCRIPT)
    half = json.dumps(arguments).removesuffix('"}')
    chunks = [chunk(call_delta(0, name, "", "call_0")), chunk(call_delta(0, arguments=half))]
    cut = Script(sse(*chunks, done=False), unterminated=True)
    full = Script(sse(*chunks, chunk({}, "length")))
    server = ScriptedServer(cut if ending == "cut" else full, says("Once more."))
    async with server, serving("--backend", server.url) as url:
        codex.configure(full_configuration(url))
        await catalogue(codex, **SCRIPTS)
        turn = await codex.exec("Make it.", FREELY)
    assert list(codex.work.iterdir()) == []
    assert turn.status == (0 if ending == "cut" else 1)


async def test_the_same_half_would_be_run_if_its_item_were_done(codex: Codex) -> None:
    """The counter-proof, with raw events: neither the status of the item nor the failure after it holds it back."""
    call = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_1", "name": "exec", "input": HALF_SCRIPT}
    answers = [streamed({**call, "status": "incomplete"}, done=True) + FAILED, bye()]
    async with ScriptedServer() as server:
        server.on("POST", "/v1/responses", lambda _: Script(answers.pop(0).encode()))
        codex.configure(full_configuration(server.root))
        await catalogue(codex, **SCRIPTS)
        await codex.exec("Make it.", FREELY)
    assert (codex.work / "made.txt").exists()


@EACH_CODEX
async def test_a_long_history_is_compacted(codex: Codex) -> None:
    """Codex goes by the usage that it was told. It then asks for a summary with an empty list of tools and a choice
    among them, which servers refuse, so neither goes upstream."""
    long = call_stream(("exec_command", json.dumps({"cmd": "echo a"})), counts=usage(31_000, 50))
    async with ScriptedServer(Script(long), says("SUMMARY"), says("Done.")) as server:
        async with serving("--backend", server.url) as url:
            codex.configure("model_auto_compact_token_limit = 20000\n" + full_configuration(url))
            await catalogue(codex)
            turn = await codex.exec("Work.", FREELY)
        first, compaction, after = [seen.body for seen in server.chats]
    assert (turn.status, turn.answers, turn.complaints) == (0, ["Done."], [])
    assert compaction is not None
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(compaction)
    assert messages(compaction)[: len(messages(first))] == messages(first)
    assert not [message for message in messages(after) if message["role"] in ("assistant", "tool")]
    assert "SUMMARY" in str(messages(after)[-1])


async def test_an_image_that_a_tool_returns_is_seen_by_the_model(codex: Codex) -> None:
    picture = codex.home / "dot.png"
    picture.write_bytes(base64.b64decode(RED_DOT))
    ask = calls(("view_image", {"path": str(picture)}))
    async with ScriptedServer(ask, says("Red.")) as server, serving("--backend", server.url) as url:
        codex.configure(configuration(url))
        turn = await codex.exec("Look.")
        seen = messages(server.chats[1].body)
    assert (turn.status, turn.answers) == (0, ["Red."])
    (told,) = [message for message in seen if message["role"] == "tool"]
    assert told["content"]
    assert seen[-1]["role"] == "user"
    (image,) = [part for part in seen[-1]["content"] if part["type"] == "image_url"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,iVBORw0KGgo")


async def test_an_image_that_the_model_cannot_see_ends_neither_the_turn_nor_the_session(codex: Codex) -> None:
    """Codex offers `view_image` with every model, and what it returned comes back with each later turn."""
    picture = codex.home / "dot.png"
    picture.write_bytes(base64.b64decode(RED_DOT))

    def answer(asked: Json) -> Script:
        if "image_url" in str(asked["messages"]):
            return Script.json({"object": "error", "message": "m is not a multimodal model", "code": 400}, 400)
        return says("I cannot see it.") if results(asked) else calls(("view_image", {"path": str(picture)}))

    async with ScriptedServer(default=answer) as server, serving("--backend", server.url) as url:
        codex.configure(configuration(url))
        first = await codex.exec("Look.")
        second = await codex.exec("And now?", "resume", first.events[0]["thread_id"])
        asked = server.chats[-1].body
    assert [(turn.status, turn.answers) for turn in (first, second)] == [(0, ["I cannot see it."])] * 2
    assert asked is not None
    assert results(asked) == ["[Image left out: this model does not see images]"]


async def test_over_a_websocket_codex_sends_what_is_new_and_the_server_gets_the_whole_conversation(
    codex: Codex,
) -> None:
    shell = Script(call_stream(("exec_command", json.dumps({"cmd": "echo over the socket"}))))
    model = (Script(text_stream("x")), shell, says("Done."))
    async with ScriptedServer(*model, default=says("Done.")) as server, serving("--backend", server.url) as url:
        codex.configure(configuration(url) + "supports_websockets = true\n")
        turn = await codex.exec("Run it.")
        asked = [seen.body for seen in server.chats if seen.body is not None]
    assert (turn.status, turn.answers) == (0, ["Done."])
    warm, first, second = asked
    assert warm["max_tokens"] == 1
    (rules,) = warm["messages"]  # and what Codex says next is merged into the same leading message
    assert first["messages"][0]["content"].startswith(rules["content"])
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert "over the socket" in second["messages"][-1]["content"]
