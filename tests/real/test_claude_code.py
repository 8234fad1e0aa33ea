"""Claude Code at work: the README's environment, the gateway as a process, and a scripted model.

The scripted model is a list of functions of the upstream request: each looks at what the gateway made of Claude Code's
request and answers as a chat server would. What Claude Code then does is real: it runs the commands, sends its results
in the order in which they were done, searches, compacts. How it takes failures is in `test_claude_code_failures.py`.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from itertools import pairwise

import aiohttp
import pytest

from tests.pdfs import compressed, scanned
from tests.real.claude import EACH_CLAUDE_CODE, Claude, command
from tests.real.scripted_model import calls, function_names, results, says
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer, call_delta, chunk, sse, text_stream, usage

pytestmark = pytest.mark.real

BASH = ("--allowedTools", "Bash")
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def bodies(server: ScriptedServer) -> list[Json]:
    return [seen.body for seen in server.chats if seen.body is not None]


def thinks(thought: str, *pieces: str, calling: tuple[str, Json] | None = None) -> Script:
    """Reasoning, then text or a call."""
    if calling is None:
        return Script(text_stream(*pieces, reasoning=[thought[:5], thought[5:]]))
    name, arguments = calling
    made = call_delta(0, name, json.dumps(arguments), f"call_{thought[:5].strip()}")
    thinking = [chunk({"role": "assistant"}), chunk({"reasoning_content": thought})]
    return Script(sse(*thinking, chunk(made), chunk({}, "tool_calls"), chunk(None, usage=usage())))


def said(asked: Json) -> list[Json]:
    return [message for message in asked["messages"] if message["role"] == "assistant"]


# --------------------------------------------------------------------------------------------------------- plain turns


@EACH_CLAUDE_CODE
async def test_the_readme_s_environment_and_command_print_an_answer(claude: Claude) -> None:
    async with ScriptedServer(says("Hello ", "from upstream.")) as server:
        async with serving("--backend", server.url) as url:
            program, flag, prompt = command()
            assert (program, flag) == ("claude", "-p")
            turn = await claude.ask(url, prompt)
        (asked,) = bodies(server)
    assert (turn.status, turn.answer, turn.last["stop_reason"]) == (0, "Hello from upstream.", "end_turn")
    assert turn.told("api_retry") == []
    assert turn.usage["input_tokens"] == usage()["prompt_tokens"]
    assert turn.usage["output_tokens"] == usage()["completion_tokens"]
    assert asked["model"] == "m"
    assert asked["reasoning_effort"] == "high"
    assert {"Bash", "Read", "Edit", "Write"} <= set(function_names(asked))


async def test_a_system_message_stays_where_claude_code_puts_it(claude: Claude) -> None:
    """After the first prompt, and again after it on every later turn: hoisted it would change the prefix."""
    async with ScriptedServer(default=says("ok")) as server, serving("--backend", server.url) as url:
        await claude.ask(url, "One.")
        await claude.go_on(url, "Two.")
        first, second = bodies(server)
    assert [message["role"] for message in first["messages"]] == ["system", "user", "system"]
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert [message["role"] for message in second["messages"][3:]] == ["assistant", "user"]
    assert second["tools"] == first["tools"]


async def test_two_conversations_begin_with_the_same_bytes(claude: Claude) -> None:
    """Claude Code's attribution differs between them and stands in front; the prompt must not hold it."""
    async with ScriptedServer(default=says("ok")) as server, serving("--backend", server.url) as url:
        await claude.ask(url, "Say one.")
        await claude.ask(url, "Say two.")
        raw = [seen.raw for seen in server.chats]
        first, second = bodies(server)
    assert all(b"x-anthropic-billing-header" not in body and b"cache_control" not in body for body in raw)
    assert first["messages"][0] == second["messages"][0]
    assert len(first["messages"][0]["content"]) > 3000
    assert first["tools"] == second["tools"]
    assert first["messages"][1] != second["messages"][1]


# --------------------------------------------------------------------------------------------------------------- tools


@EACH_CLAUDE_CODE
async def test_a_command_runs_and_its_output_comes_back(claude: Claude) -> None:
    def answer(asked: Json) -> Script:
        return says("It printed: ", *results(asked))

    ask = calls(("Bash", {"command": "echo $((6*7))"}), text="I will compute it.")
    async with ScriptedServer(ask, answer) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Compute.", *BASH)
        first, second = bodies(server)
    assert (turn.status, turn.answer) == (0, "It printed: 42")
    # one turn of the assistant, text and call together, after an unchanged beginning
    assert second["messages"][: len(first["messages"])] == first["messages"]
    asked, told = second["messages"][len(first["messages"]) :]
    assert (asked["role"], asked["content"]) == ("assistant", "I will compute it.")
    assert asked["tool_calls"][0]["id"] == told["tool_call_id"] == "call_0"
    assert json.loads(asked["tool_calls"][0]["function"]["arguments"]) == {"command": "echo $((6*7))"}


async def test_results_of_two_calls_reach_the_model_in_the_order_of_the_calls(claude: Claude) -> None:
    """The second call is done first, and that is the order in which Claude Code sends them."""
    (claude.work / "slow").write_text("slow", encoding="utf-8")
    (claude.work / "fast").write_text("fast", encoding="utf-8")
    slow, fast = {"command": "sleep 3; cat slow"}, {"command": "cat fast"}
    both = calls(("Bash", slow), ("Bash", fast))
    async with ScriptedServer(both, says("done")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Both.", *BASH)
        _, history = bodies(server)
    assert (turn.status, turn.answer) == (0, "done")
    assert [result["tool_use_id"] for result in turn.results()] == ["call_1", "call_0"]
    assert [call["id"] for call in said(history)[-1]["tool_calls"]] == ["call_0", "call_1"]
    assert [message["tool_call_id"] for message in history["messages"][-2:]] == ["call_0", "call_1"]
    assert results(history) == ["slow", "fast"]


async def test_a_failed_command_is_reported_as_an_error(claude: Claude) -> None:
    ask = calls(("Bash", {"command": "echo wrong >&2; exit 3"}))
    async with ScriptedServer(ask, says("sorry")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Fail.", *BASH)
        _, history = bodies(server)
    assert (turn.status, turn.answer) == (0, "sorry")
    assert turn.results()[0]["is_error"] is True
    (told,) = results(history)
    assert "wrong" in told
    assert "rror" in told


@EACH_CLAUDE_CODE
async def test_a_web_search_says_that_it_is_unavailable(claude: Claude) -> None:
    """Claude Code asks the model itself, offering nothing but a tool that only Anthropic's servers can run, and shows
    any text as what was found. So the model is not asked."""

    def answer(asked: Json) -> Script:
        assert asked.get("tools"), "the search itself reached the model"
        return says(f"told: {results(asked)[0]}") if results(asked) else calls(("WebSearch", {"query": "dragoman"}))

    async with ScriptedServer(default=answer) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Search.", "--allowedTools", "WebSearch")
        later = await claude.go_on(url, "And now?", "--allowedTools", "WebSearch")
        asked = bodies(server)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as page:
            metrics = await page.text()
    assert (turn.status, later.status) == (0, 0)
    assert 'told: Web search results for query: "dragoman"' in turn.answer
    assert "Web search error: unavailable" in turn.answer
    assert len(asked) == 3
    assert "web_search" in metrics


async def test_an_answer_after_a_schema(claude: Claude) -> None:
    """`--json-schema` is a tool that Claude Code offers, and whose input it checks itself."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}

    def answer(asked: Json) -> Script:
        assert "StructuredOutput" in function_names(asked)
        return says("done") if results(asked) else calls(("StructuredOutput", {"ok": True}))

    async with ScriptedServer(default=answer) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Is it?", "--json-schema", json.dumps(schema))
        (tool,) = [
            tool["function"] for tool in bodies(server)[0]["tools"] if tool["function"]["name"] == "StructuredOutput"
        ]
    assert (turn.status, turn.last["structured_output"]) == (0, {"ok": True})
    assert tool["parameters"]["properties"] == schema["properties"]


async def test_an_image_that_a_tool_reads_is_shown_to_the_model(claude: Claude) -> None:
    """A tool message holds text alone with most servers, so the image follows in a message of the user."""
    (claude.work / "dot.png").write_bytes(base64.b64decode(DOT))
    look = calls(("Read", {"file_path": str(claude.work / "dot.png")}))
    async with ScriptedServer(look, says("A dot.")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Look.", "--allowedTools", "Read")
        _, history = bodies(server)
    assert (turn.status, turn.answer) == (0, "A dot.")
    told, shown = history["messages"][-2:]
    assert (told["role"], shown["role"]) == ("tool", "user")
    (image,) = [part for part in shown["content"] if part["type"] == "image_url"]
    assert image["image_url"]["url"].startswith("data:image/")
    assert "base64" not in str(told)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (compressed("Revenue grew.", "Costs fell."), "[PDF document, 2 pages]\n[Page 1]\nRevenue grew.\n[Page 2]"),
        (scanned(), "[PDF document left out: this gateway cannot read it]"),
    ],
    ids=["text", "scanned"],
)
async def test_a_pdf_that_a_tool_reads_is_text_or_a_note_in_every_turn(claude: Claude, data: bytes, text: str) -> None:
    """It stays in the history, so every later request has it too."""
    (claude.work / "report.pdf").write_bytes(data)

    def answer(asked: Json) -> Script:
        return says("Read.") if results(asked) else calls(("Read", {"file_path": str(claude.work / "report.pdf")}))

    async with ScriptedServer(default=answer) as server, serving("--backend", server.url) as url:
        first = await claude.ask(url, "Read the report.", "--allowedTools", "Read")
        later = await claude.go_on(url, "And now?", "--allowedTools", "Read")
        asked = bodies(server)
    assert [(turn.status, turn.answer) for turn in (first, later)] == [(0, "Read.")] * 2
    assert text in "\n".join(str(message["content"]) for message in asked[-1]["messages"])
    assert "JVBERi0" not in str(asked)
    for before, after in pairwise(asked):
        assert after["messages"][: len(before["messages"])] == before["messages"]


@pytest.mark.parametrize(("name", "data"), [("report.pdf", scanned()), ("broken.pdf", scanned()[:400])])
async def test_where_a_pdf_is_refused_claude_code_removes_it_and_goes_on(
    claude: Claude, name: str, data: bytes
) -> None:
    """`policy.unreadable: reject` words it so. A resumed session has nothing in the document's place, so its prompt is
    another from there on; without `reject`, it stays the same."""
    (claude.work / name).write_bytes(data)

    def answer(asked: Json) -> Script:
        return says("Read.") if results(asked) else calls(("Read", {"file_path": str(claude.work / name)}))

    refusing = {"policy__unreadable": "reject"}
    async with ScriptedServer(default=answer) as server, serving("--backend", server.url, **refusing) as url:
        first = await claude.ask(url, "Read the report.", "--allowedTools", "Read")
        later = await claude.go_on(url, "And now?", "--allowedTools", "Read")
        asked = bodies(server)
    assert [(turn.status, turn.answer) for turn in (first, later)] == [(0, "Read.")] * 2
    assert "Document removed" in results(asked[1])[0]
    assert "JVBERi0" not in str(asked)
    assert len(asked) == 3


async def test_partial_messages_and_what_a_model_thinks_are_shown_at_the_first_try(claude: Claude) -> None:
    """With them, Claude Code asks for thoughts in a way that only its vendor's newest models know."""
    async with ScriptedServer(thinks("Hm, well.", "Hel", "lo.")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Say hello.", "--include-partial-messages")
        assert len(server.chats) == 1
    deltas = [
        event["event"]["delta"]
        for event in turn.events
        if event["type"] == "stream_event" and event["event"]["type"] == "content_block_delta"
    ]
    assert (turn.status, turn.answer) == (0, "Hello.")
    assert "".join(delta.get("thinking", "") for delta in deltas) == "Hm, well."
    assert "".join(delta.get("text", "") for delta in deltas) == "Hello."


@EACH_CLAUDE_CODE
async def test_a_sub_agent_does_its_work_and_reports(claude: Claude) -> None:
    """Its requests are of the same kind, with fewer tools and a conversation of their own. 2.1.332 lets it run beside
    the conversation, and says what came out when it has."""

    def answer(asked: Json) -> Script:
        if any("You are the sub-agent." in str(message["content"]) for message in asked["messages"]):
            return says("The sub-agent says 42.")
        if results(asked):
            return says("told: 42" if "The sub-agent says 42." in str(asked["messages"]) else "It works on it.")
        (name,) = {"Task", "Agent"} & set(function_names(asked))
        job = {"description": "Compute", "prompt": "You are the sub-agent.", "subagent_type": "general-purpose"}
        return calls((name, job))

    async with ScriptedServer(default=answer) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Delegate.", "--allowedTools", "Task", "Agent")
        asked = bodies(server)
    assert turn.status == 0
    assert turn.answer == "told: 42"
    offered = [len(body["tools"]) for body in asked]
    assert sorted(offered)[0] < sorted(offered)[1] == max(offered)  # one request was the sub-agent's


# ------------------------------------------------------------------------------------------------------------ thinking


async def test_what_the_model_thought_goes_back_to_it_on_every_turn(claude: Claude) -> None:
    plays = (
        thinks("First I compute.", calling=("Bash", {"command": "echo 42"})),
        thinks("Now I tell.", "It is 42."),
        thinks("Asked again.", "Still 42."),
        says("Bye."),
    )
    async with ScriptedServer(*plays) as server:
        async with serving("--backend", server.url, "--preset", "vllm") as url:
            turn = await claude.ask(url, "Compute.", *BASH)
            await claude.go_on(url, "Sure?", *BASH)
            await claude.go_on(url, "Really?", *BASH)
        asked = bodies(server)
    blocks = [block for event in turn.events if event["type"] == "assistant" for block in event["message"]["content"]]
    thinking = [block for block in blocks if block["type"] == "thinking"]
    assert [block["thinking"] for block in thinking] == ["First I compute.", "Now I tell."]
    assert all(block["signature"].startswith("dragoman1.") for block in thinking)
    thoughts = ["First I compute.", "Now I tell.", "Asked again."]
    for turns, body in enumerate(asked):
        assert [message["reasoning"] for message in said(body)] == thoughts[:turns]
    for before, after in pairwise(asked):
        assert after["messages"][: len(before["messages"])] == before["messages"]


async def test_a_server_that_takes_no_reasoning_gets_none(claude: Claude) -> None:
    async with ScriptedServer(thinks("Hm, well.", "Yes."), says("Bye.")) as server:
        async with serving("--backend", server.url) as url:
            await claude.ask(url, "So?")
            await claude.go_on(url, "Sure?")
        _, second = bodies(server)
    assert [set(message) for message in said(second)] == [{"role", "content"}]


# -------------------------------------------------------------------------------------------------------------- counts


def _counting(tokens: int) -> Script:
    return Script.json({"count": tokens, "max_model_len": 200_000, "tokens": []})


async def test_context_is_counted_by_the_server_s_own_tokenizer(claude: Claude) -> None:
    """`/context` asks for about fifteen counts at once."""
    async with ScriptedServer(default=says("ok")) as server:
        server.on("POST", "/tokenize", _counting(1234))
        async with serving("--backend", server.url, "--preset", "vllm") as url:
            await claude.ask(url, "One.")
            turn = await claude.go_on(url, "/context")
        counted = [seen for seen in server.requests if seen.path == "/tokenize"]
    assert turn.status == 0
    assert len(counted) > 5


async def _gaps(url: str, counts: int) -> list[float]:
    """Seconds between the pieces of a stream beside which so many prompts are counted at once."""
    loop, arrived = asyncio.get_running_loop(), []
    message = {"model": "any", "max_tokens": 100, "messages": [{"role": "user", "content": "x" * 20_000}]}

    async def count(session: aiohttp.ClientSession) -> int:
        async with session.post(f"{url}/v1/messages/count_tokens?beta=true", json=message) as answer:
            told = await answer.json()
            assert answer.status == 200, told
            return int(told["input_tokens"])

    async with aiohttp.ClientSession() as session:
        async with session.post(f"{url}/v1/messages", json=message | {"stream": True}) as stream:
            tasks: Sequence[asyncio.Task[int]] = ()
            async for line in stream.content:
                if b'"text_delta"' in line:
                    arrived.append(loop.time())
                    tasks = tasks or [asyncio.create_task(count(session)) for _ in range(counts)]
        assert await asyncio.gather(*tasks) == [1234] * counts
    return [after - before for before, after in pairwise(arrived)]


async def test_fifteen_counts_at_once_do_not_delay_a_stream() -> None:
    """Each count takes the server a while; the stream beside them keeps its own pace."""
    slow = Script(_counting(1234).body, headers={"content-type": "application/json"}, head_delay=0.2)
    steady = Script(text_stream(*(f"piece {index} " for index in range(40))), split="frames", gap=0.025)
    async with ScriptedServer(default=steady) as server:
        server.on("POST", "/tokenize", slow)
        async with serving("--backend", server.url, "--preset", "vllm") as url:
            gaps = await _gaps(url, 15)
        counted = [seen for seen in server.requests if seen.path == "/tokenize"]
    assert len(counted) >= 15
    assert len(gaps) == 39
    # one after another, the counts would take three seconds
    assert sorted(gaps)[len(gaps) // 2] < 0.2
    assert max(gaps) < 2
