"""Codex CLI at work: the README's configuration, the gateway as a process, and a scripted model.

The scripted model is a list of functions of the upstream request: each looks at what the gateway made of Codex's
request and answers as a chat server would. What Codex then does is real: it runs the command, edits the file, starts
the MCP server. How it takes failures is in `test_codex_failures.py`.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import tomllib
from pathlib import Path

import aiohttp
import pytest

from bench.soak.tally import counted
from tests.real.codex import (
    ADDRESS,
    EACH_CODEX,
    EXAMPLES,
    KEY,
    Codex,
    catalogue,
    configuration,
    full_configuration,
    readme_block,
)
from tests.real.mcp_server import mcp_server
from tests.real.scripted_model import calls, function_names, results, says
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer, call_stream, usage

pytestmark = pytest.mark.real

# ------------------------------------------------------------------------------------------------------- configuration


def test_the_longer_configuration_says_what_the_readme_says() -> None:
    short, long = tomllib.loads(readme_block("toml")), tomllib.loads(full_configuration(ADDRESS))
    assert {key: long.get(key) for key in short} == short


@pytest.mark.parametrize("key", [None, KEY])
async def test_the_longer_configuration_works_when_it_is_copied_as_its_first_line_says(
    codex: Codex, key: str | None
) -> None:
    first, *_ = (EXAMPLES / "config.toml").read_text(encoding="utf-8").splitlines()
    (codex.home / ".codex").rmdir()
    installed = shlex.quote(str(Path(sys.executable).parent))  # where `dragoman` is
    await codex.run("sh", "-c", f"PATH={installed}:$PATH; {first.partition(':  ')[2]}")
    copied = (codex.home / ".codex" / "config.toml").read_text(encoding="utf-8")
    assert copied == (EXAMPLES / "config.toml").read_text(encoding="utf-8")
    keys = {"api_keys": key} if key else {}
    async with ScriptedServer(says("Hello.")) as server, serving("--backend", server.url, **keys) as url:
        codex.configure(copied.replace(ADDRESS, url))  # nothing but the port is another
        if key:
            codex.take_up("env_key")
            codex.variables["OPENAI_API_KEY"] = key
        turn = await codex.exec("Say hello.")
    assert (turn.status, turn.answers, turn.complaints) == (0, ["Hello."], [])
    assert "rror" not in turn.errors
    assert len(server.chats) == 1


async def test_with_the_window_in_its_configuration_codex_compacts_in_time(codex: Codex) -> None:
    full = Script(call_stream(("exec_command", json.dumps({"cmd": "echo a"})), counts=usage(31_000, 50)))
    async with ScriptedServer(full, says("SUMMARY"), says("Done.")) as server, serving("--backend", server.url) as url:
        codex.configure(full_configuration(url))
        codex.take_up("model_context_window")
        turn = await codex.exec("Work.")
        asked = [seen.body or {} for seen in server.chats]
    assert (turn.status, turn.answers, turn.complaints) == (0, ["Done."], [])
    assert ["tools" in each for each in asked] == [True, False, True]
    assert "SUMMARY" in str(asked[-1]["messages"])


@EACH_CODEX
async def test_the_readme_s_configuration_and_command_print_an_answer(codex: Codex) -> None:
    async with ScriptedServer(says("Hello ", "from upstream.")) as server:
        async with serving("--backend", server.url) as url:
            codex.configure(configuration(url))
            program, verb, *flags, prompt = shlex.split(readme_block("sh"))
            assert (program, verb) == ("codex", "exec")
            turn = await codex.exec(prompt, *flags)
            async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as metrics:
                requests = counted(await metrics.text())
        assert (turn.status, turn.answers, turn.complaints) == (0, ["Hello from upstream."], [])
        # it closes its connection when it has read the terminal event
        assert {key: count for key, count in requests.items() if key[0] == "responses"} == {
            ("responses", 200, "completed"): 1
        }
        assert turn.usage["input_tokens"] == usage()["prompt_tokens"]
        assert turn.usage["output_tokens"] == usage()["completion_tokens"]
        (asked,) = [seen.body for seen in server.chats]
    assert asked is not None
    roles = [message["role"] for message in asked["messages"]]
    assert roles[0] == "system"
    assert "Codex" in str(asked["messages"][0]["content"])
    assert asked["messages"][-1] == {"role": "user", "content": prompt}
    assert asked["model"] == "m"
    assert "exec_command" in function_names(asked)


async def test_the_catalogue_keeps_codex_s_own_prompt_and_offers_the_patch_tool(codex: Codex) -> None:
    """Codex refuses an entry without instructions, and an empty text there is no way around it: seen with 0.169.0,
    the base prompt is then missing from the request altogether."""
    async with ScriptedServer(default=says("ok")) as server, serving("--backend", server.url) as url:
        codex.configure(full_configuration(url))
        await catalogue(codex)
        turn = await codex.exec("Say hello.")
        assert (turn.status, turn.complaints) == (0, [])
        asked = server.chats[-1].body
        assert asked is not None
        assert "apply_patch" in function_names(asked)
        assert "web_search" not in str(function_names(asked))
        (lender,) = json.loads((codex.home / ".codex" / "dragoman-models.json").read_text("utf-8"))["models"]
        assert len(lender["base_instructions"]) > 10_000
        assert lender["base_instructions"][:2000] in str(asked["messages"][0]["content"])


async def test_with_the_longer_configuration_codex_asks_nobody_but_the_gateway(codex: Codex) -> None:
    asked: list[bytes] = []

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    ask = calls(("exec_command", {"cmd": "sleep 1.5"}))  # whatever starts beside the turn has the time to
    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with proxy, ScriptedServer(ask, says("ok")) as server, serving("--backend", server.url) as url:
        codex.proxy = f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}"
        codex.configure(full_configuration(url))
        await catalogue(codex)
        turn = await codex.exec("Wait.")
    assert (turn.status, turn.answers) == (0, ["ok"])
    assert asked == []


# --------------------------------------------------------------------------------------------------------------- tools


async def test_a_command_runs_and_its_output_comes_back(codex: Codex) -> None:
    def answer(asked: Json) -> Script:
        (output,) = results(asked)
        return says("It printed: ", "42." if "\n42\n" in output else output)

    ask = calls(("exec_command", {"cmd": "echo $((6*7))"}), text="I will compute it.")
    async with ScriptedServer(ask, answer) as server, serving("--backend", server.url) as url:
        codex.configure(configuration(url))
        turn = await codex.exec("Compute.")
        first, second = [seen.body for seen in server.chats]
    assert (turn.status, turn.complaints) == (0, [])
    assert turn.answers == ["I will compute it.", "It printed: 42."]
    (command,) = turn.items("command_execution")
    assert (command["exit_code"], command["aggregated_output"]) == (0, "42\n")
    assert first is not None
    assert second is not None
    # one turn of the assistant, text and call together, after an unchanged beginning
    assert second["messages"][: len(first["messages"])] == first["messages"]
    said, told = second["messages"][len(first["messages"]) :]
    assert (said["role"], said["content"]) == ("assistant", "I will compute it.")
    assert said["tool_calls"][0]["id"] == told["tool_call_id"] == "call_0"


@EACH_CODEX
async def test_apply_patch_as_a_custom_tool_edits_a_file(codex: Codex) -> None:
    """The model writes JSON, Codex gets raw text with quotes, a backslash and an umlaut, and patches the file."""
    patch = (
        "*** Begin Patch\n*** Update File: greeting.py\n@@\n-print('hello')\n"
        '+print("gr\u00fc\u00df dich\\n")\n*** End Patch\n'
    )
    ask = calls(("apply_patch", {"input": patch}))
    async with ScriptedServer(ask, lambda asked: says(f"told: {results(asked)[0]}")) as server:
        async with serving("--backend", server.url) as url:
            codex.configure(full_configuration(url))
            await catalogue(codex)
            (codex.work / "greeting.py").write_text("print('hello')\n", encoding="utf-8")
            turn = await codex.exec("Edit it.", sandbox="workspace-write")
        history = server.chats[1].body
    assert (turn.status, turn.complaints) == (0, [])
    assert (codex.work / "greeting.py").read_text(encoding="utf-8") == 'print("gr\u00fc\u00df dich\\n")\n'
    assert turn.items("file_change")[0]["changes"][0]["kind"] == "update"
    assert "Success. Updated the following files:" in turn.answers[0]
    assert history is not None
    # what the model wrote comes back to it as it wrote it
    (call,) = history["messages"][-2]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"input": patch}


@EACH_CODEX
async def test_a_tool_of_an_mcp_server_is_called_in_its_namespace(codex: Codex) -> None:
    def ask(asked: Json) -> Script:
        (name,) = [name for name in function_names(asked) if name.endswith("add")]
        return calls((name, {"a": 40, "b": 2}))

    server = ScriptedServer(ask, lambda asked: says(results(asked)[0]))
    async with server, serving("--backend", server.url) as url:
        codex.configure(configuration(url) + mcp_server(codex))
        turn = await codex.exec("Add.", "--dangerously-bypass-approvals-and-sandbox")
    assert (turn.status, turn.complaints) == (0, [])
    (made,) = turn.items("mcp_tool_call")
    assert (made["server"], made["tool"], made["status"]) == ("demo", "add", "completed")
    assert "the sum is 42" in turn.answers[0]


def two_commands(asked: Json, wait: str = "") -> Script:
    (name,) = [name for name in function_names(asked) if name.endswith("exec_command")]
    first = {"cmd": f"{wait}echo slow >> ran.txt; echo slow"}
    return calls((name, first), (name, {"cmd": "echo fast >> ran.txt; echo fast"}))


def slow_and_fast(asked: Json) -> Script:
    """The first command waits for the second, which shows that they run together, but not for ever."""
    return two_commands(asked, "for _ in $(seq 100); do grep -qs fast ran.txt && break; sleep 0.05; done; ")


async def test_two_calls_of_one_answer_run_together_and_return_in_their_order(codex: Codex) -> None:
    async with ScriptedServer(slow_and_fast, says("done")) as server, serving("--backend", server.url) as url:
        codex.configure(configuration(url))
        turn = await codex.exec("Both.", sandbox="workspace-write")
        history = server.chats[1].body
    assert (turn.status, turn.answers) == (0, ["done"])
    assert (codex.work / "ran.txt").read_text(encoding="utf-8") == "fast\nslow\n"
    assert history is not None
    said = next(message for message in history["messages"] if message.get("tool_calls"))
    assert [call["id"] for call in said["tool_calls"]] == ["call_0", "call_1"]
    assert [message["tool_call_id"] for message in history["messages"][-2:]] == ["call_0", "call_1"]
    slow, fast = results(history)
    assert "slow" in slow
    assert "fast" in fast


async def test_where_codex_wants_one_call_at_a_time_it_gets_the_first(codex: Codex) -> None:
    """A model of the newest kind: no list of tools but an item with them, and `parallel_tool_calls` false."""
    async with ScriptedServer(two_commands, says("done")) as server, serving("--backend", server.url) as url:
        codex.configure(full_configuration(url))
        await catalogue(codex, use_responses_lite=True)
        turn = await codex.exec("Both.", sandbox="workspace-write")
        asked, history = [seen.body for seen in server.chats]
    assert (turn.status, turn.answers, turn.complaints) == (0, ["done"], [])
    assert (codex.work / "ran.txt").read_text(encoding="utf-8") == "slow\n"
    assert asked is not None
    assert history is not None
    assert "functions__exec_command" in function_names(asked)
    assert len(results(history)) == 1


async def test_an_answer_after_a_schema(codex: Codex) -> None:
    """`--output-schema` is `text.format`: beside Codex's tools it reaches the model in words, and the answer is held to
    it."""
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    (codex.home / "schema.json").write_text(json.dumps(schema), encoding="utf-8")
    async with ScriptedServer(says('{"ok":', " true}")) as server:
        async with serving("--backend", server.url, "--preset", "vllm") as url:
            codex.configure(configuration(url))
            turn = await codex.exec("Is it?", "--output-schema", str(codex.home / "schema.json"))
        asked = server.chats[0].body
    assert (turn.status, turn.answers) == (0, ['{"ok": true}'])
    assert asked is not None
    assert "response_format" not in asked
    assert function_names(asked)
    assert json.loads(asked["messages"][0]["content"].rpartition("\n")[2]) == schema
