"""What a model server may send or refuse, and what a client of the Responses API must be able to make of it.

Each case is one request and one scripted answer. Its judge returns None where the answer is right, else what was seen.
A stream that is broken off counts as a failure that the client knows of, as does an error status: only an answer that
looks whole and is not, or that cannot be used, is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.real.comparison.answers import Answer
from tests.scripted import Json, Play, Script, Seen, call_delta, call_stream, chunk, sse, text_stream, usage

Judge = Callable[[Answer, Sequence[Seen]], str | None]

PARIS, NOW = '{"city":"Paris"}', '{"zone":"CET"}'
TWO = [("get_weather", json.loads(PARIS)), ("get_time", json.loads(NOW))]
PATCH = "*** Begin Patch\n*** End Patch\n"
LEAVES_THE_TEXT, LEAVES_THE_PROMPT = "the client leaves in the text", "the client leaves in the prompt"


def function(name: str, *fields: str) -> Json:
    schema = {"type": "object", "properties": {field: {"type": "string"} for field in fields}, "required": list(fields)}
    return {"type": "function", "name": name, "description": f"Runs {name}.", "parameters": schema, "strict": False}


TOOLS = {"tools": [function("get_weather", "city"), function("get_time", "zone")]}


@dataclass(frozen=True, slots=True)
class Case:
    """`asks` are fields of the request; `sent` and `right` are words of the table. With `leave_after` the client leaves
    once so many deltas have come, and the judge looks at what became of the server's work."""

    name: str
    sent: str
    right: str
    plays: Play
    judge: Judge
    asks: Json = field(default_factory=dict)
    leave_after: int | None = None
    short: str = ""
    """Its row in the README's table, where it has one."""


# ---- judges


def completes(*, text: str | None = None, calls: Sequence[tuple[str, Json]] | None = None) -> Judge:
    def judge(answer: Answer, _: Sequence[Seen]) -> str | None:
        right = answer.outcome == "completed"
        right = right and (text is None or answer.text == text)
        return None if right and (calls is None or made(answer) == list(calls)) else answer.said()

    return judge


def made(answer: Answer) -> list[tuple[str, object]]:
    """The calls, with what is no JSON as it is."""
    return [
        (str(item.get("name")), parsed(str(item.get("arguments"))))
        for item in answer.items
        if item.get("type") == "function_call"
    ]


def parsed(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def fails(answer: Answer, _: Sequence[Seen]) -> str | None:
    return None if answer.knows_of_failure else answer.said()


def is_cut_short(reason: str) -> Judge:
    def judge(answer: Answer, _: Sequence[Seen]) -> str | None:
        found = (answer.final.get("incomplete_details") or {}).get("reason")
        if answer.outcome != "incomplete" or found != reason:
            return answer.said() if answer.outcome != "incomplete" else f"incomplete: {found}"
        whole = [item for item in answer.items if item.get("type") == "function_call" and item["status"] == "completed"]
        return f"half a call as completed: {whole[0]['arguments']}" if whole else None

    return judge


def overflows(answer: Answer, _: Sequence[Seen]) -> str | None:
    return None if answer.code == "context_length_exceeded" else f"{answer.outcome}, code {answer.code}"


def says_when(answer: Answer, _: Sequence[Seen]) -> str | None:
    after = answer.headers.get("retry-after")
    return None if answer.status in (429, 503) and after == "7" else f"{answer.outcome}, Retry-After {after}"


def is_in_order(answer: Answer, _: Sequence[Seen]) -> str | None:
    kinds = [item.get("type") for item in answer.items]
    right = kinds == ["message", "function_call", "message"] and answer.text == "First.Then."
    return None if right and answer.outcome == "completed" else answer.said()


def counts(prompt: int, completion: int, cached: int, reasoning: int) -> Judge:
    def judge(answer: Answer, _: Sequence[Seen]) -> str | None:
        given = answer.final.get("usage") or {}
        found = (
            given.get("input_tokens"),
            given.get("output_tokens"),
            (given.get("input_tokens_details") or {}).get("cached_tokens"),
            (given.get("output_tokens_details") or {}).get("reasoning_tokens"),
        )
        right = (prompt, completion, cached, reasoning)
        return None if found == right else "in, out, cached, reasoning: " + ", ".join(map(str, found))

    return judge


def invents_no_usage(answer: Answer, _: Sequence[Seen]) -> str | None:
    given = answer.final.get("usage")
    if answer.outcome != "completed":
        return answer.said()
    return None if given is None else f"{given.get('input_tokens')} in, {given.get('output_tokens')} out"


def names_what_is_left_out(answer: Answer, _: Sequence[Seen]) -> str | None:
    """A refusal by name counts as well as a header."""
    if answer.status >= 400:
        return None if "image_generation" in json.dumps(answer.body) else answer.said()
    return None if any("image_generation" in value for value in answer.headers.values()) else "left out without a word"


def has_a_custom_call(answer: Answer, _: Sequence[Seen]) -> str | None:
    found = [(item.get("name"), item.get("input")) for item in answer.items if item.get("type") == "custom_tool_call"]
    return None if found == [("apply_patch", PATCH)] else answer.said()


def has_a_call_in_its_namespace(answer: Answer, _: Sequence[Seen]) -> str | None:
    found = [(item.get("namespace"), item.get("name")) for item in answer.items if item.get("type") == "function_call"]
    return None if found == [("mcp__files", "read")] else answer.said()


def sees_the_history(answer: Answer, requests: Sequence[Seen]) -> str | None:
    if answer.outcome != "completed" or not requests or requests[-1].body is None:
        return answer.said()
    messages = requests[-1].body["messages"]
    results = [message.get("content") for message in messages if message["role"] == "tool"]
    asked = [call["function"]["name"] for message in messages for call in message.get("tool_calls") or ()]
    return None if (results, asked) == (["18 degrees"], ["get_weather"]) else f"the server saw {asked} and {results}"


def names_its_items(answer: Answer, _: Sequence[Seen]) -> str | None:
    """Codex takes a delta whose item it does not know for an error."""
    announced: set[object] = set()
    for event in answer.events:
        if event.get("type") == "response.output_item.added":
            announced.add((event.get("item") or {}).get("id"))
        if str(event.get("type")).endswith(".delta") and event.get("item_id") not in announced:
            return f"item_id is {event.get('item_id')!r}"
        if "sequence_number" not in event:
            return f"{event.get('type')} has no sequence_number"
    return None if announced and answer.ends else answer.said()


def ends_the_work(_: Answer, requests: Sequence[Seen]) -> str | None:
    if not requests:
        return "the server was not asked"
    return None if requests[-1].outcome == "client_gone" else "the server goes on"


# ---- what the server plays


def interleaved(*indexes: int, ids: bool = True) -> bytes:
    """Two calls whose arguments come in halves, in turns."""
    halves = [(text[: len(text) // 2], text[len(text) // 2 :]) for text in (PARIS, NOW)]
    first, second = indexes
    deltas = [
        call_delta(first, "get_weather", "", "call_a"),
        call_delta(second, "get_time", "", "call_b"),
        *(call_delta(index, arguments=half) for place in (0, 1) for index, half in _turn(indexes, halves, place)),
    ]
    return sse(*map(chunk, deltas), chunk({}, "tool_calls"), chunk(None, usage=usage()))


def _turn(indexes: Sequence[int], halves: Sequence[tuple[str, str]], place: int) -> list[tuple[int, str]]:
    return [(index, half[place]) for index, half in zip(indexes, halves, strict=True)]


def together() -> bytes:
    """Both calls in the one list of one delta."""
    both = [call_delta(0, "get_weather", PARIS, "call_a"), call_delta(1, "get_time", NOW, "call_b")]
    delta = {"tool_calls": [call for each in both for call in each["tool_calls"]]}
    return sse(chunk(delta), chunk({}, "tool_calls"), chunk(None, usage=usage()))


def same_index() -> bytes:
    deltas = [call_delta(0, "get_weather", PARIS, "call_a"), call_delta(0, "get_time", NOW, "call_b")]
    return sse(*map(chunk, deltas), chunk({}, "tool_calls"), chunk(None, usage=usage()))


def odd_index() -> bytes:
    return sse(
        chunk(call_delta(1, "get_weather", PARIS, "call_a")), chunk({}, "tool_calls"), chunk(None, usage=usage())
    )


def text_call_text() -> bytes:
    call = call_delta(0, "get_weather", PARIS, "call_a")
    deltas = [{"content": "First."}, call, {"content": "Then."}]
    return sse(*map(chunk, deltas), chunk({}, "tool_calls"), chunk(None, usage=usage()))


def half_a_call() -> bytes:
    deltas = [call_delta(0, "get_weather", "", "call_a"), call_delta(0, arguments='{"city":"Pa')]
    return sse(*map(chunk, deltas), chunk({}, "length"), chunk(None, usage=usage()))


def with_comments() -> bytes:
    return b": ping\r\n\r\n".join(
        frame.replace(b"\n", b"\r\n") for frame in _frames(text_stream("Hel", "lo.", counts=usage()))
    )


def _frames(body: bytes) -> list[bytes]:
    return [part + b"\n\n" for part in body.split(b"\n\n") if part]


def uses(ending: str, given: str) -> Callable[[Json], Script]:
    """Calls the tool whose name ends so, with its first field; a text where the server was offered none."""

    def play(asked: Json) -> Script:
        for tool in asked.get("tools") or ():
            if tool["function"]["name"].endswith(ending):
                (key, *_) = tool["function"]["parameters"]["properties"]
                return Script(call_stream((tool["function"]["name"], json.dumps({key: given}))))
        return Script(text_stream("I was offered no such tool."))

    return play


HELLO = text_stream("Hel", "lo.")
LONG = Script([*_frames(text_stream(*(f"word {place} " for place in range(400))))], gap=0.05)
LATE = Script(HELLO, first_delay=60.0)
OVERFLOW = {
    "message": "This model's maximum context length is 4096 tokens. However, your request has 5000 input tokens. "
    "Please reduce the length of the input messages.",
    "type": "BadRequestError",
    "param": "input_tokens",
    "code": 400,
}
BUSY = Script.json({"error": {"message": "Too many requests.", "code": 429}}, 429, {"retry-after": "7"})
BROKEN = {"error": {"message": "EngineCore died", "type": "InternalServerError", "code": 500}}
HISTORY = [
    {"type": "message", "role": "user", "content": "How warm is it in Paris?"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAAABsomebody-else-sealed-this"},
    {"type": "function_call", "call_id": "call_a", "name": "get_weather", "arguments": PARIS},
    {"type": "function_call_output", "call_id": "call_a", "output": "18 degrees"},
]
PATCH_TOOL = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": 'start: "*** Begin Patch" /(.|\\n)+/'},
}
NAMESPACE = {"type": "namespace", "name": "mcp__files", "description": "Files.", "tools": [function("read", "path")]}
PICTURES = {"type": "image_generation"}

CASES = (
    Case("plain text", "two deltas, then usage", "the text, completed", Script(HELLO), completes(text="Hello.")),
    Case(
        "ids of the events",
        "two deltas",
        "each delta names an item that was announced; each event has its number",
        Script(HELLO),
        names_its_items,
    ),
    Case(
        "two calls",
        "one after the other",
        "both, whole",
        Script(call_stream(("get_weather", PARIS), ("get_time", NOW))),
        completes(calls=TWO),
        TOOLS,
    ),
    Case(
        "two calls in turns",
        "their arguments come in halves: first, second, first, second",
        "both, whole",
        Script(interleaved(0, 1)),
        completes(calls=TWO),
        TOOLS,
    ),
    Case(
        "two calls in one delta",
        "both in one list",
        "both, whole",
        Script(together()),
        completes(calls=TWO),
        TOOLS,
    ),
    Case(
        "two calls with one index",
        "other ids, both with index 0",
        "both, whole",
        Script(same_index()),
        completes(calls=TWO),
        TOOLS,
        short="two calls that share an index",
    ),
    Case(
        "text, call, text",
        "in that order",
        "three items in that order",
        Script(text_call_text()),
        is_in_order,
        TOOLS,
        short="text, call, text in their order",
    ),
    Case(
        "`parallel_tool_calls: false`",
        "two calls all the same",
        "the first, whole",
        Script(call_stream(("get_weather", PARIS), ("get_time", NOW))),
        completes(calls=TWO[:1]),
        {**TOOLS, "parallel_tool_calls": False},
        short="`parallel_tool_calls: false` kept",
    ),
    Case(
        "`parallel_tool_calls: false`, odd index",
        "one call, with index 1",
        "that call",
        Script(odd_index()),
        completes(calls=TWO[:1]),
        {**TOOLS, "parallel_tool_calls": False},
    ),
    Case(
        "cut in the text",
        "the connection ends within a chunk",
        "failed",
        Script(HELLO, cut_at=len(HELLO) // 2),
        fails,
        short="a stream cut midway is no success",
    ),
    Case(
        "no finish reason",
        "a clean end after half of the text",
        "failed",
        Script(sse(chunk({"content": "Hel"}), done=False)),
        fails,
    ),
    Case("an empty 200", "a stream without a byte", "failed", Script(b""), fails, short="an empty 200 is no success"),
    Case(
        "an error in the stream",
        "text, then an error object",
        "failed",
        Script(sse(chunk({"content": "Hel"}), BROKEN, done=False)),
        fails,
    ),
    Case(
        "the budget is used up",
        "text, finish reason `length`",
        "incomplete, `max_output_tokens`",
        Script(text_stream("Hel", finish="length")),
        is_cut_short("max_output_tokens"),
    ),
    Case(
        "the budget ends in a call",
        "half of the arguments, finish reason `length`",
        "incomplete, and the call is not said to be complete",
        Script(half_a_call()),
        is_cut_short("max_output_tokens"),
        TOOLS,
        short="half a call is not called complete",
    ),
    Case(
        "a filter",
        "finish reason `content_filter`",
        "incomplete, `content_filter`",
        Script(text_stream("Hel", finish="content_filter")),
        is_cut_short("content_filter"),
    ),
    Case(
        "the window overflows",
        "400 in vLLM's words",
        "the code `context_length_exceeded`, on which agents compact",
        Script.json({"error": OVERFLOW}, 400),
        overflows,
        short="an overflow that agents recognize",
    ),
    Case("the server is busy", "429 with `Retry-After: 7`", "429 or 503 with that time", BUSY, says_when),
    Case(
        "comments between frames",
        "`: ping`, lines end in CRLF",
        "the text, completed",
        Script(with_comments()),
        completes(text="Hello."),
    ),
    Case(
        "usage",
        "11 in (5 cached), 7 out (3 reasoning)",
        "the same",
        Script(text_stream("Hello.", counts=usage(11, 7, 5, 3))),
        counts(11, 7, 5, 3),
    ),
    Case(
        "no usage",
        "none",
        "none",
        Script(sse(chunk({"content": "Hello."}), chunk({}, "stop"))),
        invents_no_usage,
        short="usage measured or absent",
    ),
    Case(
        "a tool that nobody serves",
        "text; `image_generation` was offered beside a function",
        "refused by name, or named in a header",
        Script(HELLO),
        names_what_is_left_out,
        {"tools": [function("get_weather", "city"), PICTURES]},
        short="tools left out are named",
    ),
    Case(
        "a custom tool with a grammar",
        "a call of it (Codex's `apply_patch`)",
        "`custom_tool_call` with the raw text",
        uses("apply_patch", PATCH),
        has_a_custom_call,
        {"tools": [PATCH_TOOL]},
    ),
    Case(
        "a namespace of tools",
        "a call of one (Codex's MCP servers)",
        "`function_call` with its namespace and name",
        uses("read", "a.txt"),
        has_a_call_in_its_namespace,
        {"tools": [NAMESPACE]},
    ),
    Case(
        "reasoning sealed by others",
        "the history of an agent that changed its provider",
        "the server sees call and result",
        Script(HELLO),
        sees_the_history,
        {**TOOLS, "input": HISTORY},
    ),
    Case(
        LEAVES_THE_TEXT,
        "a long answer",
        "the server's work ends within 5 s",
        LONG,
        ends_the_work,
        leave_after=1,
        short="a client that leaves ends the work",
    ),
    Case(
        LEAVES_THE_PROMPT,
        "nothing for a minute",
        "the server's work ends within 5 s",
        LATE,
        ends_the_work,
        leave_after=0,
    ),
)
