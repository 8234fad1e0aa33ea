"""How Codex CLI takes what goes wrong: overflows, cut streams, silence, a sleeping server, calls that were cut.

The first half goes through the gateway. The second half measures Codex itself against a server that plays raw
Responses events, because the gateway's rules about cut calls stand on it; docs/clients.md has the results.
"""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.real.codex import EACH_CODEX, Codex, catalogue, configuration, full_configuration
from tests.real.raw_responses import FAILED, INCOMPLETE, bye, streamed
from tests.real.scripted_model import results, says
from tests.real.serving import serving, until_page
from tests.scripted import Json, Script, ScriptedServer, call_delta, chunk, sse, text_stream

pytestmark = pytest.mark.real

TOO_LONG = (
    "This model's maximum context length is 32768 tokens. However, you requested 40000 tokens in the messages. "
    "Please reduce the length of the messages."
)
OVERFLOW = {"object": "error", "message": TOO_LONG, "type": "BadRequestError", "param": None, "code": 400}
PATCH = "*** Begin Patch\n*** Add File: made.txt\n+one\n+two\n*** End Patch\n"
CUT_PATCH = PATCH[: PATCH.index("+two")]
ONE_RETRY = "stream_max_retries = 1\n"
SILENCE = 7.0  # seconds
PATIENCE_MS = 3000  # far from either side, so that a loaded machine does not decide
QUICK_KEEPALIVE = {"timeouts__head_after": "0.3", "timeouts__keepalive": "0.4"}

# ------------------------------------------------------------------------------------------------- through the gateway


@pytest.mark.parametrize(
    "script",
    [
        Script.json(OVERFLOW, 400),
        Script(sse({"error": OVERFLOW})),
        Script(sse(chunk({"content": "Well, "}), {"error": OVERFLOW})),
    ],
    ids=["status", "first-event", "after-text"],
)
async def test_an_overflow_is_reported_as_one_and_not_retried(codex: Codex, script: Script) -> None:
    async with ScriptedServer(script) as server, serving("--backend", server.url) as url:
        codex.configure(configuration(url))
        turn = await codex.exec("Say hello.")
        assert len(server.chats) == 1
    assert turn.status == 1
    assert "ran out of room in the model's context window" in turn.complaints[-1]


@EACH_CODEX
async def test_a_cut_answer_is_asked_for_again_over_a_websocket_too(codex: Codex) -> None:
    body = text_stream("Hello", " there.")
    cut = Script(body, split="frames", cut_at=body.index(b" there."))
    server = ScriptedServer(Script(text_stream("x")), cut, default=says("Hello", " there."))
    async with server, serving("--backend", server.url) as url:
        codex.configure(configuration(url) + "supports_websockets = true\n")
        turn = await codex.exec("Say hello.")
    assert (turn.status, turn.answers) == (0, ["Hello", "Hello there."])


@EACH_CODEX
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("websockets", [False, True], ids=["http", "websocket"])
async def test_a_cut_stream_is_retried_and_survives(codex: Codex, reset: bool, websockets: bool) -> None:
    """Codex keeps the text of the cut answer and shows it: what the server said is not lost, but it stands twice."""
    body = text_stream("Hello", " there.")
    cut = Script(body, split="frames", cut_at=body.index(b" there."), reset=reset)
    warm = [Script(text_stream("x"))] * websockets
    async with ScriptedServer(*warm, cut, says("Hello", " there.")) as server, serving("--backend", server.url) as url:
        codex.configure(configuration(url) + "supports_websockets = true\n" * websockets)
        turn = await codex.exec("Say hello.")
        assert len(server.chats) == 2 + len(warm)
    assert turn.status == 0
    assert turn.answers == ["Hello", "Hello there."]
    assert all(complaint.startswith("Reconnecting... 1/5") for complaint in turn.complaints)
    assert len(turn.complaints) == (not websockets)  # it says nothing of the first retry on a WebSocket


@EACH_CODEX
@pytest.mark.parametrize("websockets", [False, True], ids=["http", "websocket"])
async def test_a_full_server_is_asked_again_when_it_says(codex: Codex, websockets: bool) -> None:
    full = Script.json({"error": "the queue is full"}, 503, {"retry-after": "2"})
    warm = [Script(text_stream("x"))] * websockets
    server = ScriptedServer(*warm, full, says("There was room."))
    async with server, serving("--backend", server.url) as url:
        codex.configure(configuration(url) + "supports_websockets = true\n" * websockets)
        turn = await codex.exec("Say hello.")
        refused, answered = server.chats[-2:]
    assert (turn.status, turn.answers) == (0, ["There was room."])
    assert answered.arrived - refused.arrived > 1.9


async def test_a_server_that_fails_before_its_answer_gives_an_error_status(codex: Codex) -> None:
    failing = Script.json({"error": "out of memory"}, 500)
    async with ScriptedServer(default=failing) as server, serving("--backend", server.url) as url:
        codex.configure(configuration(url) + "request_max_retries = 0\nstream_max_retries = 0\n")
        turn = await codex.exec("Say hello.")
    assert turn.status == 1
    assert "502" in turn.complaints[-1]


def _silent(where: str) -> Script:
    body = text_stream("Here ", "I am.")
    middle = body.index(b"\n\n", body.index(b"Here ")) + 2
    return Script(body, split=(middle,), gap=SILENCE) if where == "in-the-answer" else Script(body, first_delay=SILENCE)


@pytest.mark.parametrize("where", ["before-the-answer", "in-the-answer"])
async def test_keepalives_carry_a_silence_longer_than_codex_waits(codex: Codex, where: str) -> None:
    async with ScriptedServer(default=_silent(where)) as server:
        async with serving("--backend", server.url, **QUICK_KEEPALIVE) as url:
            codex.configure(configuration(url) + f"stream_idle_timeout_ms = {PATIENCE_MS}\n")
            turn = await codex.exec("Say hello.")
        assert len(server.chats) == 1
    assert (turn.status, turn.answers, turn.complaints) == (0, ["Here I am."], [])


async def test_without_keepalives_the_same_silence_is_given_up(codex: Codex) -> None:
    """The counter-proof of the test above: it is the keepalives that carry."""
    server = ScriptedServer(default=_silent("in-the-answer"))
    async with server, serving("--backend", server.url, timeouts__keepalive="60") as url:
        codex.configure(configuration(url) + f"stream_idle_timeout_ms = {PATIENCE_MS}\nstream_max_retries = 0\n")
        turn = await codex.exec("Say hello.")
        await server.until(lambda: server.chats[0].outcome == "client_gone")
    assert turn.status == 1
    assert "idle timeout" in turn.complaints[-1]


async def test_a_sleeping_server_is_waited_for(codex: Codex) -> None:
    """503 with `Retry-After`, which Codex obeys: it comes back when the server has woken, and the user sees nothing."""
    async with ScriptedServer(says("I am awake.")) as server:
        async with serving("--backend", server.url, "--preset", "vllm") as url:
            server.on("GET", "/is_sleeping", Script.json({"is_sleeping": True}))
            await until_page(f"{url}/readyz", "asleep")
            codex.configure(configuration(url))
            asking = asyncio.create_task(codex.exec("Say hello."))
            await until_page(f"{url}/metrics", 'status="503"')
            assert not server.chats
            server.on("GET", "/is_sleeping", Script.json({"is_sleeping": False}))
            turn = await asking
        assert len(server.chats) == 1
    assert (turn.status, turn.answers, turn.complaints) == (0, ["I am awake."], [])


def _cut_call(name: str, arguments: str, ending: str) -> Script:
    """A call whose arguments end in the middle: the connection breaks (`cut`), or the budget is used up (`length`)."""
    chunks = [chunk({"role": "assistant"}), chunk(call_delta(0, name, "", "call_0"))]
    chunks += [chunk(call_delta(0, arguments=piece)) for piece in (arguments[:5], arguments[5:])]
    if ending == "length":
        return Script(sse(*chunks, chunk({}, "length")))
    return Script(sse(*chunks, done=False), unterminated=True)


@pytest.mark.parametrize("ending", ["cut", "length"])
async def test_half_a_patch_is_not_applied(codex: Codex, ending: str) -> None:
    arguments = json.dumps({"input": PATCH})
    half = _cut_call("apply_patch", arguments[: arguments.index("+two")], ending)
    async with ScriptedServer(half, says("Once more.")) as server, serving("--backend", server.url) as url:
        codex.configure(full_configuration(url))
        await catalogue(codex)
        turn = await codex.exec("Edit.", sandbox="workspace-write")
        asked = [seen.body for seen in server.chats]
    assert list(codex.work.iterdir()) == []
    assert turn.items("file_change") == []
    if ending == "cut":
        # the same request again: nothing of the half call has entered the history
        assert (turn.status, turn.answers) == (0, ["Once more."])
        assert asked[0] is not None
        assert asked[1] is not None
        assert asked[1]["messages"] == asked[0]["messages"]
    else:
        assert (turn.status, len(asked)) == (1, 1)
        assert turn.complaints[-1] == "Incomplete response returned, reason: max_output_tokens"


@pytest.mark.parametrize("ending", ["cut", "length"])
async def test_half_a_command_is_not_run(codex: Codex, ending: str) -> None:
    half = _cut_call("exec_command", '{"cmd": "touch ran.txt; ech', ending)
    async with ScriptedServer(half, says("Once more.")) as server, serving("--backend", server.url) as url:
        codex.configure(configuration(url))
        turn = await codex.exec("Run.", sandbox="workspace-write")
        asked = [seen.body for seen in server.chats]
    assert list(codex.work.iterdir()) == []
    if ending == "cut":
        assert (turn.status, turn.answers) == (0, ["Once more."])
        # the same request again: nothing of the half call has entered the history
        assert asked[0] is not None
        assert asked[1] is not None
        assert asked[1]["messages"] == asked[0]["messages"]
    else:
        assert (turn.status, len(asked)) == (1, 1)


async def test_half_a_command_that_the_server_has_completed_is_not_run(codex: Codex) -> None:
    """SGLang closes the JSON of a call that the limit cut."""
    half = _cut_call("exec_command", '{"cmd": "touch ran.txt"}', "length")
    async with ScriptedServer(half) as server, serving("--backend", server.url, "--preset", "sglang") as url:
        codex.configure(configuration(url))
        turn = await codex.exec("Run.", sandbox="workspace-write")
        assert len(server.chats) == 1
    assert list(codex.work.iterdir()) == []
    assert (turn.status, turn.complaints[-1]) == (1, "Incomplete response returned, reason: max_output_tokens")


@EACH_CODEX
async def test_a_call_that_was_whole_is_run_although_the_stream_broke_after_it(codex: Codex) -> None:
    """Codex runs a call when it is done and keeps its result, so the retry goes on where the stream broke."""
    whole = call_delta(0, "exec_command", json.dumps({"cmd": "echo ran >> ran.txt"}), "call_0")
    chunks = [chunk(whole), chunk(call_delta(1, "exec_command", '{"cm', "call_1"))]
    late = Script(sse(*chunks, done=False), unterminated=True)
    async with ScriptedServer(late, says("Went on.")) as server, serving("--backend", server.url) as url:
        codex.configure(configuration(url) + ONE_RETRY)
        turn = await codex.exec("Run.", sandbox="workspace-write")
        history = server.chats[1].body
    assert (turn.status, turn.answers) == (0, ["Went on."])
    assert (codex.work / "ran.txt").read_text(encoding="utf-8") == "ran\n"
    assert history is not None
    assert "exited with code 0" in results(history)[0]


# ------------------------------------------------------------------------------------------------------- Codex alone


def patch_call(text: str, **more: str) -> Json:
    head = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_1", "name": "apply_patch"}
    return {**head, "input": text, **more}


def command_call(arguments: str, **more: str) -> Json:
    head = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "exec_command"}
    return {**head, "arguments": arguments, **more}


WHOLE_COMMAND = json.dumps({"cmd": "touch made.txt"})
CUT_COMMAND = WHOLE_COMMAND[:-6]
NOT_DONE = streamed(patch_call(PATCH, status="incomplete"), done=False)
DONE_AS_INCOMPLETE = streamed(patch_call(PATCH, status="incomplete"), done=True)
DONE_BUT_CUT = streamed(patch_call(CUT_PATCH, status="incomplete"), done=True)
COMMAND_AS_INCOMPLETE = streamed(command_call(WHOLE_COMMAND, status="incomplete"), done=True)
COMMAND_CUT = streamed(command_call(CUT_COMMAND, status="incomplete"), done=True)


@pytest.mark.parametrize(
    ("body", "executed", "told"),
    [
        pytest.param(NOT_DONE + FAILED, False, "", id="custom-not-done-failed"),
        pytest.param(NOT_DONE + INCOMPLETE, False, None, id="custom-not-done-incomplete"),
        pytest.param(DONE_AS_INCOMPLETE + FAILED, True, "Success", id="custom-done-failed"),
        pytest.param(DONE_AS_INCOMPLETE + INCOMPLETE, True, None, id="custom-done-incomplete"),
        pytest.param(DONE_BUT_CUT + FAILED, False, "must be '*** End Patch'", id="custom-done-cut-failed"),
        pytest.param(DONE_BUT_CUT + INCOMPLETE, False, None, id="custom-done-cut-incomplete"),
        pytest.param(COMMAND_AS_INCOMPLETE + FAILED, True, "exited with code 0", id="function-done-failed"),
        pytest.param(COMMAND_AS_INCOMPLETE + INCOMPLETE, True, None, id="function-done-incomplete"),
        pytest.param(COMMAND_CUT + FAILED, False, "failed to parse function arguments", id="function-cut-failed"),
        pytest.param(COMMAND_CUT + INCOMPLETE, False, None, id="function-cut-incomplete"),
    ],
)
async def test_what_codex_does_with_a_call_that_was_cut(
    codex: Codex, body: str, executed: bool, told: str | None
) -> None:
    """Measured with 0.169.0: a call runs the moment that its `output_item.done` arrives. Its status is not looked at,
    nor is the end of the stream waited for, so `failed` and `incomplete` come too late. Half a patch is then refused
    by the patch tool itself, and half a JSON by its parser; raw input of another tool would be executed as it is. A
    call that is never done is not executed, and the retry after `failed` does not hold it.

    `told` is what the next request says of the call, "" that it says nothing; None: there is no next request.
    """
    answers = [body, bye()]
    async with ScriptedServer() as server:
        server.on("POST", "/v1/responses", lambda _: Script(answers.pop(0).encode()))
        codex.configure(full_configuration(server.root) + ONE_RETRY)
        await catalogue(codex)
        turn = await codex.exec("Work.", sandbox="workspace-write")
        asked = [seen.body for seen in server.requests]
    assert (codex.work / "made.txt").exists() is executed
    assert turn.status == (1 if told is None else 0)
    assert len(asked) == (1 if told is None else 2)
    if told is not None:
        history = asked[1]
        assert history is not None
        outputs = [str(item["output"]) for item in history["input"] if item["type"].endswith("_call_output")]
        assert len(outputs) == bool(told)
        assert told in "".join(outputs)
