"""Model servers as scripts: one that can do everything, and others that differ from it in one thing.

Each is a function of a request's body. `Strict` refuses what a real server would, so that a remedy helps only where it
changes what is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dragoman.backends.chat.settings import Settings
from tests.backends.markup.writers import WRITINGS
from tests.scripted import Json, Script, call_delta, chunk, sse, text_stream, usage

Play = Callable[[Json], Script]
PARIS, ROME = '{"city":"Paris"}', '{"city":"Rome"}'
COMMON = Settings().parameters  # of a server of no known kind
COUNT = [f"{number}, " for number in range(1, 41)]
FORCED = '{"name": "get_weather", "arguments": {"city": "Paris"}}'  # a call by a schema
PLAIN = 11  # tokens of a short prompt, as the usage says


def words(body: Json) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else str(content)


def size(body: Json) -> int:
    """Tokens of a prompt: a short one has eleven."""
    return max(PLAIN, sum(len(str(message["content"]).split()) for message in body["messages"]) - 20)


def able(body: Json) -> Script:
    counts = usage(size(body))
    asked = words(body)
    if "500" in asked:
        return Script(text_stream(*[f"{number}, " for number in range(500)]), split="frames", gap=0.02)
    if "Count from 1 to 40" in asked:
        return Script(text_stream(*COUNT, counts=counts), split="frames", gap=0.001)
    if wanted := body.get("response_format"):
        return Script(text_stream(FORCED if "tool_call" in str(wanted) else '{"n": 42}', counts=counts))
    if body.get("tools") and body.get("tool_choice") != "none":
        return Script(sse(*map(chunk, native(asked)), chunk({}, "tool_calls"), chunk(None, usage=counts)))
    return Script(text_stream("Hello.", reasoning=["They greet."], counts=counts))


def calls(asked: str) -> list[tuple[str, Json]]:
    if "alarm" in asked:
        return [("set_alarm", {"hour": 7, "label": "Train"})]
    cities = ["Paris", "Rome"] if "Rome" in asked else ["Paris"]
    return [("get_weather", {"city": city}) for city in cities]


def native(asked: str) -> list[Json]:
    if "alarm" in asked:
        return [call_delta(0, "set_alarm", '{"hour": 7, "label": "Train"}', "c1")]
    deltas = [call_delta(0, "get_weather", PARIS, "c1")]
    return deltas + ([call_delta(1, "get_weather", ROME, "c2")] if "Rome" in asked else [])


def unparsed(family: str) -> Play:
    """A server without a tool parser, whose model writes calls as that family does."""

    def play(body: Json) -> Script:
        if not body.get("tools") or body.get("response_format"):
            return able(body)
        return Script(text_stream(WRITINGS[family].write(*calls(words(body))), counts=usage(size(body))))

    return play


def refuses(message: str, when: Callable[[Json], bool], status: int = 400, after: Play = able, **more: Any) -> Play:
    error = {"message": message, "type": "BadRequestError", **more}
    return lambda body: Script.json({"error": error}, status) if when(body) else after(body)


def tools_need_a_flag(body: Json) -> Script:
    """vLLM without --enable-auto-tool-choice refuses every choice but none, with which the model sees the tools."""
    if body.get("tools") and body.get("tool_choice") == "auto":
        message = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
        return Script.json({"error": {"message": message, "type": "BadRequestError", "code": 400}}, 400)
    return unparsed("hermes")(body)


def with_tools(*chunks: Json, when: Callable[[Json], bool] = lambda body: True) -> Play:
    """An able server that answers with these chunks where tools are offered and `when` holds."""

    def play(body: Json) -> Script:
        return Script(sse(*chunks)) if body.get("tools") and when(body) else able(body)

    return play


def broken_parser(body: Json) -> Script:
    """Its tool parser loses the arguments; where it is told not to look for calls, they stand in the text."""
    if body.get("tools") and body.get("tool_choice") != "none":
        return Script(sse(chunk(call_delta(0, "get_weather", "", "c1")), chunk({}, "tool_calls")))
    return unparsed("hermes")(body)


def window_of(limit: int, message: str = "This model's maximum context length is {limit} tokens. {size} asked") -> Play:
    return lambda body: (
        Script.json({"error": {"message": message.format(limit=limit, size=size(body))}}, 400)
        if size(body) > limit
        else able(body)
    )


def cuts_at(limit: int) -> Play:
    """Cuts a longer prompt without a word."""

    def play(body: Json) -> Script:
        return Script(text_stream("ok", counts=usage(limit))) if size(body) > limit else able(body)

    return play


def whole(body: Json) -> Script:
    """Ignores `stream`."""
    message: Json = {"role": "assistant", "content": "".join(COUNT) if "Count" in words(body) else "Hello."}
    finish = "stop"
    if body.get("tools"):
        made = [each["tool_calls"][0] for each in native(words(body))]
        message, finish = {"role": "assistant", "content": None, "tool_calls": made}, "tool_calls"
    elif body.get("response_format"):
        message["content"] = '{"n": 42}'
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Script.json({"object": "chat.completion", "choices": [choice], "usage": usage(size(body))})


def buffered(body: Json) -> Script:
    """A proxy collects the stream and sends it at once."""
    return replace(able(body), split="given", gap=0.0)


def without_usage(body: Json) -> Script:
    """Sends usage only where it is not asked for it: a `stream_options` of any kind switches it off."""
    script = able(body)
    if "stream_options" not in body or not isinstance(script.body, bytes):
        return script
    frames = script.body.split(b"\n\n")
    return replace(script, body=b"\n\n".join(frame for frame in frames if b'"usage"' not in frame))


def thinks_in_text(body: Json) -> Script:
    if body.get("tools") or body.get("response_format") or "Count" in words(body):
        return able(body)
    return Script(text_stream("<think>They greet.</think>Hello.", counts=usage(size(body))))


@dataclass(frozen=True)
class Errors200:
    """Failures come as 200 with an error object, where a field is sent."""

    field: str

    def __call__(self, body: Json) -> Script:
        if self.field in body:
            message = f"Unknown parameter: {self.field}"
            return Script.json({"error": {"message": message, "code": "unknown_parameter"}}, 200)
        return able(body)


def many_faults(body: Json) -> Script:
    """Four at once: two parameters refused, roles, and calls as text."""
    for field in ("max_tokens", "seed"):
        if field in body:
            return Script.json({"error": {"message": f"Unknown parameter: {field}"}}, 400)
    if "system" in [message["role"] for message in body["messages"][1:]]:
        return Script.json({"error": {"message": "bad roles"}}, 400)
    return unparsed("qwen3_coder")(body)
