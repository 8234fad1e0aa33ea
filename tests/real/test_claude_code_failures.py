"""How Claude Code takes what goes wrong: overflows that it compacts away, cut streams, a full server, half calls.

All of it goes through the gateway. What is measured here stands in docs/failures.md as a table.
"""

from __future__ import annotations

import json

import pytest

from tests.real.claude import CLAUDE_CODE_VERSIONS, EACH_CLAUDE_CODE, Claude, Turn
from tests.real.scripted_model import says
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer, call_delta, chunk, model_list, sse, text_stream

pytestmark = pytest.mark.real

WINDOW = 32768
VLLM = "This model's maximum context length is 32768 tokens. However, your request has 40000 input tokens."
TRTLLM = "The sum of prompt length (40000.0), query length (0) should not exceed max_num_tokens (32768)"
ANSWER = text_stream("Hello", " there.")
CUT = Script(ANSWER, split="frames", cut_at=ANSWER.index(b" there."))
SUMMARY = "They greeted each other twice."
SUMMARISED = says(f"<summary>{SUMMARY}</summary>")  # without the words around it, 2.1.332 asks once more
BASH = ("--allowedTools", "Bash")
OLDER = pytest.mark.parametrize("claude", CLAUDE_CODE_VERSIONS[:1], indirect=True)


def overflow(words: str) -> Json:
    return {"object": "error", "message": words, "type": "BadRequestError", "param": None, "code": 400}


def bodies(server: ScriptedServer) -> list[Json]:
    return [seen.body for seen in server.chats if seen.body is not None]


def wants_summary(asked: Json) -> bool:
    return "CRITICAL: Respond with TEXT ONLY" in str(asked["messages"][-1]["content"])


def compacted(turn: Turn) -> bool:
    return bool(turn.told("compact_boundary"))


# ----------------------------------------------------------------------------------------------------------- overflows


@pytest.mark.parametrize(
    "failing",
    [
        Script.json(overflow(VLLM), 400),
        Script.json(overflow(TRTLLM), 400),
        Script(sse({"error": overflow(VLLM)})),
    ],
    ids=["vllm", "trtllm-serve", "first-event"],
)
async def test_an_overflow_in_the_server_s_own_words_is_compacted_away(claude: Claude, failing: Script) -> None:
    def answer(asked: Json) -> Script:
        if wants_summary(asked):
            return SUMMARISED
        if SUMMARY in str(asked["messages"]):
            return says("Where were we?")
        return failing if len(asked["messages"]) > 6 else says("Hello.")

    async with ScriptedServer(default=answer) as server, serving("--backend", server.url) as url:
        await claude.ask(url, "Greet me.")
        await claude.go_on(url, "Once more.")
        turn = await claude.go_on(url, "And a third time.")
        asked = bodies(server)
    assert (turn.status, turn.answer) == (0, "Where were we?")
    assert compacted(turn)
    assert [wants_summary(body) for body in asked] == [False, False, False, True, False]
    assert len(asked[4]["messages"]) < len(asked[2]["messages"])


@EACH_CLAUDE_CODE
async def test_an_overflow_that_the_gateway_finds_by_counting_never_reaches_the_model(claude: Claude) -> None:
    def count(asked: Json) -> Script:
        return Script.json({"count": 60_000 if len(asked["messages"]) > 6 else 20_000})

    def answer(asked: Json) -> Script:
        return SUMMARISED if wants_summary(asked) else says("Where were we?")

    async with ScriptedServer(default=answer) as server:
        server.on("GET", "/v1/models", model_list("m", max_model_len=WINDOW))
        server.on("POST", "/tokenize", count)
        async with serving("--backend", server.url, "--preset", "vllm") as url:
            await claude.ask(url, "One.")
            await claude.go_on(url, "Two.")
            turn = await claude.go_on(url, "Three.")
        asked = bodies(server)
    assert (turn.status, turn.answer) == (0, "Where were we?")
    assert compacted(turn)
    assert [len(body["messages"]) for body in asked[:3]] == [3, 5, 5]
    assert len(asked) == 4
    assert SUMMARY in str(asked[-1]["messages"])


async def test_a_single_exchange_that_overflows_is_reported_with_its_numbers(claude: Claude) -> None:
    """There is nothing to compact then, and Claude Code says so."""
    failing = Script.json(overflow(VLLM), 400)
    async with ScriptedServer(default=failing) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Say hello.")
        assert len(server.chats) == 1
    assert (turn.status, turn.last["api_error_status"]) == (1, 400)
    assert turn.answer.startswith("Prompt is too long")
    assert "40000 tokens (limit 32768)" in turn.answer


async def test_an_overflow_after_text_is_tried_again_and_then_compacted(claude: Claude) -> None:
    """In mid-stream Claude Code does not read the words; its second try, not streamed, gets them as a status."""
    late = Script(sse(chunk({"content": "Well, "}), {"error": overflow(VLLM)}))
    plays = [says("One."), says("Two."), late, Script.json(overflow(VLLM), 400), SUMMARISED, says("Three.")]
    async with ScriptedServer(*plays) as server, serving("--backend", server.url) as url:
        for prompt in ("Count.", "Go on."):
            await (claude.go_on if claude.session else claude.ask)(url, prompt)
        turn = await claude.go_on(url, "Go on.")
        asked = bodies(server)
    assert (turn.status, turn.answer) == (0, "Three.")
    assert compacted(turn)
    assert asked[2]["messages"] == asked[3]["messages"]


# ------------------------------------------------------------------------------------------------- tokens for an answer


async def test_the_tokens_asked_for_are_cut_to_the_window(claude: Claude) -> None:
    """Claude Code always asks for 32,000; the prompt was counted at 20,000 of 32,768."""
    async with ScriptedServer(says("ok")) as server:
        server.on("GET", "/v1/models", model_list("m", max_model_len=WINDOW))
        server.on("POST", "/tokenize", Script.json({"count": 20_000}))
        async with serving("--backend", server.url, "--preset", "vllm") as url:
            turn = await claude.ask(url, "Say ok.")
        (asked,) = bodies(server)
        counted = [seen for seen in server.requests if seen.path == "/tokenize"]
    assert (turn.status, turn.answer, turn.told("api_retry")) == (0, "ok", [])
    assert asked["max_tokens"] == WINDOW - 20_000
    assert len(counted) == 1
    # what was counted before the request stands in `message_start`, of which this message was made
    messages = [event["message"] for event in turn.events if event["type"] == "assistant"]
    assert [message["usage"]["input_tokens"] for message in messages] == [20_000]


async def test_where_nobody_can_count_the_gateway_asks_again_with_what_fits(claude: Claude) -> None:
    words = (
        "'max_tokens' is too large: 32000. This model's maximum context length is 32768 tokens and your request has "
    )
    refusal = Script.json(overflow(f"{words}17459 input tokens (32000 > 32768 - 17459)."), 400)
    async with ScriptedServer(refusal, says("ok")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Say ok.")
        first, second = bodies(server)
    assert (turn.status, turn.answer) == (0, "ok")
    assert first["max_tokens"] == 32_000
    assert 0 < second["max_tokens"] <= WINDOW - 17_459
    assert second["messages"] == first["messages"]


async def test_an_answer_that_used_up_its_tokens_goes_on(claude: Claude) -> None:
    """`max_tokens` is passed on as it is, and Claude Code asks for the rest by itself."""
    full = Script(text_stream("The first half", finish="length"))
    async with ScriptedServer(full, default=says(" and the second.")) as server:
        async with serving("--backend", server.url) as url:
            turn = await claude.ask(url, "Tell.")
        asked = bodies(server)
    assert (turn.status, turn.answer) == (0, " and the second.")
    assert len(asked) == 2
    assert "The first half" in str(asked[1]["messages"][-2])
    assert "Resume directly" in str(asked[1]["messages"][-1])


# --------------------------------------------------------------------------------------------------------- cut streams


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
async def test_a_cut_stream_is_asked_again_whole(claude: Claude, reset: bool) -> None:
    """Not streamed the second time: Claude Code discards what it has read."""
    cut = Script(ANSWER, split="frames", cut_at=CUT.cut_at, reset=reset)
    async with ScriptedServer(cut, says("Hello", " there.")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Say hello.")
        first, second = bodies(server)
    assert (turn.status, turn.answer, turn.told("api_retry")) == (0, "Hello there.", [])
    assert second == first
    messages = [event["message"] for event in turn.events if event["type"] == "assistant"]
    # the non-streaming answer comes whole: its reason stands in the message already
    assert [message["stop_reason"] for message in messages] == ["end_turn"]


async def test_a_server_that_is_cut_before_its_answer_is_tried_again_as_a_stream(claude: Claude) -> None:
    gone = Script(ANSWER, cut_at=0, reset=True)
    async with ScriptedServer(gone, says("Hello.")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Say hello.")
    assert (turn.status, turn.answer) == (0, "Hello.")
    (retry,) = turn.told("api_retry")
    assert retry["error_status"] == 502


def half_call(*before: Json) -> Script:
    made = call_delta(0, "Bash", '{"command": "touch made.txt; ech', "call_0")
    return Script(sse(chunk({"role": "assistant"}), *before, chunk(made), done=False), unterminated=True)


async def test_half_a_command_is_not_run_and_asked_again(claude: Claude) -> None:
    async with ScriptedServer(half_call(), says("Once more.")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Run.", *BASH)
        first, second = bodies(server)
    assert (turn.status, turn.answer) == (0, "Once more.")
    assert list(claude.work.iterdir()) == []
    assert second["messages"] == first["messages"]


async def test_half_a_command_after_text_is_not_run_and_the_turn_goes_on_after_the_text(claude: Claude) -> None:
    """2.1.332 keeps the finished text and asks for the rest by itself."""
    play = half_call(chunk({"content": "I will."}))
    async with ScriptedServer(play, says("Here I am.")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Run.", *BASH)
        first, second = bodies(server)
    assert (turn.status, turn.answer) == (0, "Here I am.")
    assert list(claude.work.iterdir()) == []
    assert second["messages"][: len(first["messages"])] == first["messages"]
    kept, rest = second["messages"][len(first["messages"]) :]
    assert (kept["role"], kept["content"]) == ("assistant", "I will.")
    assert "cut off mid-stream" in str(rest["content"])


@OLDER
async def test_half_a_command_after_text_ends_the_turn_of_the_older_version(claude: Claude) -> None:
    """2.1.197 keeps the finished text and gives up there, whatever the gateway sends; the command is not run, and the
    conversation goes on with the next prompt."""
    play = half_call(chunk({"content": "I will."}))
    async with ScriptedServer(play, says("Here I am.")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Run.", *BASH)
        again = await claude.go_on(url, "And now?", *BASH)
    message = "The model server broke off in the middle of its answer. You can retry your request."
    assert (turn.status, turn.answer) == (1, f"API Error: {message}")
    assert list(claude.work.iterdir()) == []
    assert (again.status, again.answer) == (0, "Here I am.")


async def test_a_command_that_was_whole_is_run_although_the_stream_broke_after_it(claude: Claude) -> None:
    whole = call_delta(0, "Bash", json.dumps({"command": "echo ran >> ran.txt"}), "call_0")
    late = Script(sse(chunk(whole), chunk(call_delta(1, "Bash", '{"com', "call_1")), done=False), unterminated=True)
    async with ScriptedServer(late, says("Went on.")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Run.", *BASH)
        _, history = bodies(server)
    assert (turn.status, turn.answer) == (0, "Went on.")
    assert (claude.work / "ran.txt").read_text(encoding="utf-8") == "ran\n"
    calls = [call for message in history["messages"] for call in message.get("tool_calls") or []]
    assert [call["id"] for call in calls] == ["call_0"]


# ---------------------------------------------------------------------------------------------------- refusals and load


@pytest.mark.parametrize("status", [429, 503])
async def test_a_full_server_is_waited_for_as_long_as_it_says(claude: Claude, status: int) -> None:
    full = Script.json({"error": {"message": "too many requests"}}, status, {"retry-after": "2"})
    async with ScriptedServer(full, says("Your turn.")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Say hello.")
        first, second = server.chats
    assert (turn.status, turn.answer) == (0, "Your turn.")
    (retry,) = turn.told("api_retry")
    assert (retry["error_status"], retry["error"]) == (529, "overloaded")
    assert second.arrived - first.arrived > 1.9


async def test_silence_is_filled_and_a_failure_in_it_is_tried_again_as_a_stream(claude: Claude) -> None:
    """The head and pings go out before the model has begun; what fails then comes as an event before the message."""
    late = Script(sse({"error": {"message": "too many requests", "code": 429}}), first_delay=1.5)
    slow = Script(ANSWER, first_delay=1.5)
    async with ScriptedServer(late, slow) as server:
        quick = {"timeouts__head_after": "0.3", "timeouts__keepalive": "0.3"}
        async with serving("--backend", server.url, **quick) as url:
            turn = await claude.ask(url, "Say hello.")
        assert len(server.chats) == 2
    assert (turn.status, turn.answer) == (0, "Hello there.")
    messages = [event["message"] for event in turn.events if event["type"] == "assistant"]
    assert [message["stop_reason"] for message in messages] == [None]  # as a stream: the reason comes after it


@pytest.mark.parametrize(("claude", "requests"), [("claude", 1), ("claude-2.1.332", 6)], indirect=["claude"])
async def test_a_refusal_is_shown(claude: Claude, requests: int) -> None:
    """2.1.332 first leaves out what it holds for the cause: a count of thoughts, their display, deferred tools."""
    refusal = Script.json({"error": {"message": "temperature is too high"}}, 400)
    async with ScriptedServer(default=refusal) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Say hello.")
        asked = bodies(server)
    assert len(asked) == requests
    assert (turn.status, turn.last["api_error_status"], turn.told("api_retry")) == (1, 400, [])
    assert "temperature is too high" in turn.answer


async def test_a_wrong_key_ends_at_once(claude: Claude) -> None:
    """Without `x-should-retry: false` Claude Code tries for over a minute."""
    async with ScriptedServer() as server, serving("--backend", server.url, api_keys="another") as url:
        turn = await claude.ask(url, "Say hello.")
        assert server.chats == []
    assert (turn.status, turn.last["api_error_status"], turn.told("api_retry")) == (1, 401, [])


async def test_an_unknown_model_is_named(claude: Claude) -> None:
    async with ScriptedServer(models=("a", "b")) as server, serving("--backend", server.url) as url:
        turn = await claude.ask(url, "Say hello.")
    assert (turn.status, turn.last["api_error_status"]) == (1, 404)
    assert "any" in turn.answer
