"""Probes of tool calls: offered, forced, two at once, and the parameters that come with them."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace

import orjson

from dragoman.backends.markup.proof import TOOLS, Proof, prove
from dragoman.gateway.doctor.asking import Asker
from dragoman.gateway.doctor.finding import Finding
from dragoman.gateway.doctor.probe_stream import ProbeStream
from dragoman.gateway.doctor.text_probes import LIMITED, TWICE
from dragoman.translators.errors import GatewayError
from dragoman.translators.fold import Fold
from dragoman.translators.ir import Message, Request, Text, Thinking, ToolCall, ToolResult
from dragoman.translators.json_text import is_object

TOOL_CALL, FORCED, TWO_CALLS, PARAMETERS = "tool call", "forced tool", "two calls at once", "parameters"
TURNS = "turns of agents"
WEATHER = TOOLS[0]
NO_TOOLS = "start the server with its tool parser, or serve a model that was trained to call tools"
WRONG_PARSER = "the server's tool parser does not fit the model: start the server with the right one"
# A call that was left in the text: a model family's marks, or the tool's name followed by its arguments.
LEAKED = re.compile(
    r"<tool_call|\[TOOL_CALLS\]|<\|python_tag\||<function=|<[|\uff5c]tool|to=functions\."
    r"|get_weather[\"'\s:,>]{0,20}((arguments|parameters)\W{0,5})?[({]"
)


async def tool_call(asker: Asker) -> Finding:
    asked = asker.request(("user", "What is the weather in Paris? Call the tool get_weather to find out."))
    answer = await asker.ask(replace(asked, tools=(WEATHER,)))
    if isinstance(answer, GatewayError):
        return Finding("FAIL", TOOL_CALL, asker.reason(answer), NO_TOOLS)
    if any(note.name == "auto:unsupported" for note in answer.notes):
        return Finding("FAIL", TOOL_CALL, "this model's template has no tools: only forced calls", NO_TOOLS)
    if (fault := _fault(TOOL_CALL, answer)) is not None:
        return fault
    if answer.calls:
        asker.calls_tools = True
        return Finding("ok", TOOL_CALL, _shown(answer.calls[0]))
    if LEAKED.search(answer.text):
        return Finding("FAIL", TOOL_CALL, "none, it stands in the text", WRONG_PARSER)
    return Finding("FAIL", TOOL_CALL, "none, the model answered in text", NO_TOOLS)


async def proof(asker: Asker) -> Proof | None:
    """Whose markup it is that stands in the text; None where the server did not answer. To be asked without `markup`,
    so that the text is seen as it came."""

    async def ask(request: Request) -> Fold:
        answer = await asker.ask(replace(request, id=secrets.token_hex(16)))
        if isinstance(answer, GatewayError):
            raise answer
        return answer.fold

    try:
        return await prove(ask, asker.model)
    except GatewayError:
        return None


async def forced_tool(asker: Asker) -> Finding:
    asked = asker.request(("user", "What is the weather in Paris?"))
    answer = await asker.ask(replace(asked, tools=(WEATHER,), tool_choice="required"))
    if isinstance(answer, GatewayError):
        advice = "set `force_tool: schema`, or `prompt` without guided decoding"
        return Finding("weak", FORCED, asker.reason(answer), advice)
    if not answer.calls:
        return Finding("weak", FORCED, "ignored", "set `force_tool: schema`, or `prompt`")
    unenforced = any(note.kind == "unenforced" for note in answer.notes)
    called = Finding("ok", FORCED, _shown(answer.calls[0]) + (", by prompt only" if unenforced else ""))
    return _fault(FORCED, answer) or called


async def two_calls(asker: Asker) -> Finding:
    asked = asker.request(("user", "What is the weather in Paris and in Rome? Call get_weather for both at once."))
    answer = await asker.ask(replace(asked, tools=(WEATHER,)))
    if isinstance(answer, GatewayError):
        return Finding("weak", TWO_CALLS, asker.reason(answer))
    count = len(answer.calls)
    called = Finding("ok" if count > 1 else "weak", TWO_CALLS, f"{count} calls" if count != 1 else "1 call")
    return (_fault(TWO_CALLS, answer) if answer.calls else None) or called


async def turns(asker: Asker) -> Finding:
    """Two messages of the user's in a row, as Codex begins, and one right after a result, as Claude Code sends
    reminders, and as whoever interrupts a tool goes on."""
    if not asker.calls_tools:
        return Finding("ok", TURNS, "not asked, for want of a call")
    asked = asker.request(("user", "I am in Paris."), ("user", "What is the weather?"))
    call = ToolCall("callabc12", WEATHER.name, '{"city":"Paris"}')  # the length that Mistral's templates demand
    turns = (
        Message("assistant", (call,)),
        Message("tool", (ToolResult(call.id, (Text("Sunny."),)),)),
        Message("user", (Text("Answer in one word."),)),
    )
    answer = await asker.ask(replace(asked, messages=(*asked.messages, *turns), tools=(WEATHER,)))
    if isinstance(answer, GatewayError):
        return Finding("FAIL", TURNS, asker.reason(answer), "set `turns: alternate`")
    if answer.in_turns:
        return Finding("weak", TURNS, TWICE, "set `turns: alternate`")
    return Finding("ok", TURNS, "accepted")


async def parameters(asker: Asker) -> Finding:
    """Whether something that agents send is refused by name, now or in an earlier probe. Such a request is asked twice,
    once with it and once without."""
    asked = asker.request(("user", "Say hello."))
    sampling = replace(asked.sampling, top_p=0.9, seed=7)
    asked = replace(asked, sampling=sampling, thinking=Thinking(effort="medium"))
    if asker.calls_tools:
        asked = replace(asked, tools=(WEATHER,), parallel_tool_calls=False)
    answer = await asker.ask(asked)
    if isinstance(answer, GatewayError):
        return Finding("weak", PARAMETERS, f"top_p, seed and an effort: {asker.reason(answer)}")
    if asker.refused:
        return Finding("weak", PARAMETERS, f"refuses {', '.join(sorted(asker.refused))}: calls are asked twice")
    return Finding("ok", PARAMETERS, "those of agents are accepted")


def _fault(probe: str, answer: ProbeStream) -> Finding | None:
    """What is wrong with an answer that should hold calls. An answer that holds none but ended by itself is not
    faulty: what that means is for the probe to say."""
    if answer.cut:
        made = _shown(answer.calls[0]) if answer.calls else "no call"
        return Finding("FAIL", probe, f"{made}, in an answer that a limit ended", LIMITED)
    for call in answer.calls:
        if call.name != WEATHER.name:
            return Finding("FAIL", probe, f"a tool that was not offered: {_shown(call)}", WRONG_PARSER)
        if not is_object(call.arguments):
            return Finding("FAIL", probe, f"arguments that are no JSON object: {_shown(call)}", WRONG_PARSER)
        if not orjson.loads(call.arguments):
            return Finding("FAIL", probe, f"arguments that were lost: {_shown(call)}", WRONG_PARSER)
    return None


def _shown(call: ToolCall) -> str:
    return f"{call.name}({call.arguments if len(call.arguments) <= 60 else call.arguments[:57] + '...'})"
