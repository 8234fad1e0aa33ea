"""Constraints that a server cannot enforce, as requests that it can answer and a check of what it answered.

A forced tool becomes constrained decoding of a call as JSON, or an instruction; a JSON format becomes an instruction.
Rules: the instruction is appended to the last user message, so that everything before it keeps its place in the
server's prefix cache; an answer that the token limit or a filter cut is passed on as it is; one more attempt is made,
which shows the failed answer. This module is pure; `backends.enforce` makes the requests, and `backends.schema_checks`
checks schemas and what must fit them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal

from dragoman.translators.constraints.guided import is_forced, unenforceable
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.fold import Fold
from dragoman.translators.ir import (
    Guided,
    JsonObject,
    JsonSchema,
    Message,
    Named,
    Note,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolCall,
)
from dragoman.translators.json_text import is_object, joined_halves

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A call that came as text, or JSON text without its code fence. With neither, the answer stays as it came, but for
    its text where it is to be `silent`."""

    call: tuple[str, str] | None = None
    text: str | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """`fault` is shown to the model."""

    fault: str


@dataclass(frozen=True, slots=True)
class Unchecked:
    """JSON text, accepted if it fits `schema`. That may take long, so it is not found out here."""

    text: str
    schema: Mapping[str, Any]

    def checked(self, fault: str | None) -> Accepted | Rejected:
        """`fault` is what does not fit."""
        if fault is None:
            return Accepted(text=self.text)
        return Rejected(f"The JSON does not fit the schema: {fault}")


@dataclass(frozen=True, slots=True)
class ForcedTool:
    """One of `tools` must be called. `request` is what the server is asked instead."""

    request: Request
    tools: tuple[Tool, ...]
    by: Literal["schema", "prompt"]
    name = "tool_choice"

    @property
    def notes(self) -> tuple[Note, ...]:
        """Constrained decoding is enforcement; an instruction is not."""
        return () if self.by == "schema" else (Note("unenforced", self.name),)

    @property
    def fails_loudly(self) -> bool:
        return self.by == "schema"

    def judge(self, fold: Fold) -> Accepted | Rejected:
        names = {tool.name for tool in self.tools}
        calls = [part for part in fold.parts if isinstance(part, ToolCall)]
        if calls:
            wrong = next((call for call in calls if call.name not in names), None)
            if wrong is not None:
                return Rejected(f"The tool {wrong.name} may not be called now; call {_one_of(self.tools)}.")
            if not all(is_object(call.arguments) for call in calls):
                return Rejected("The arguments of the call are not a JSON object.")
            return Accepted()
        return _call_in_text(answer_text(fold), names, self.tools)


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """The text must be JSON and fit `wanted`. An answer that calls tools is not checked, but prose beside the calls is
    left out: SDKs parse every text of such an answer as JSON (anthropic 2.14, openai 3.57). `enforceable`: the server
    can enforce it, but would then keep the model from calling a tool, so that only the second attempt asks for that."""

    request: Request
    wanted: JsonObject | JsonSchema
    enforceable: bool = False
    name = "format"

    @property
    def notes(self) -> tuple[Note, ...]:
        return () if self.enforceable else (Note("unenforced", self.name),)

    @property
    def fails_loudly(self) -> bool:
        return False

    def judge(self, fold: Fold) -> Accepted | Rejected | Unchecked:
        calls = any(isinstance(part, ToolCall) for part in fold.parts)
        text = unwrapped(answer_text(fold))
        try:
            value = _loads(text)
        except (ValueError, RecursionError):
            return Accepted(silent=bool(text)) if calls else Rejected("The answer is not JSON.")
        if calls:
            return Accepted()
        if isinstance(self.wanted, JsonSchema):
            return Unchecked(text, self.wanted.schema)
        return Accepted(text=text) if isinstance(value, dict) else Rejected("The answer is not a JSON object.")


Plan = ForcedTool | JsonAnswer


def plan(
    request: Request,
    *,
    force_tool: Literal["native", "required", "schema", "prompt"],
    json_schema: Literal["enforced", "prompt"],
    guided: bool = False,
    shows_tools: bool = True,
) -> Plan | None:
    """None where the server enforces everything that was asked. `shows_tools`: the model's template renders tools;
    `guided`: the server takes a `Guided`, for which there is no other way. A format that is enforced holds from the
    first token on, so that no tool can be called beside it (vllm#39929, sglang#25777)."""
    if force_tool in ("schema", "prompt") and is_forced(request):
        allowed = allowed_tools(request)
        by: Literal["schema", "prompt"] = "schema" if force_tool == "schema" and json_schema == "enforced" else "prompt"
        return ForcedTool(_forced(request, allowed, by, shows_tools), allowed, by)
    if isinstance(request.format, Guided):
        if not guided:
            raise unenforceable(request.format)
        return None
    may_call = bool(request.tools) and request.tool_choice == "auto" and shows_tools
    if request.format is not None and (json_schema == "prompt" or may_call):
        instruction = _json_instruction(request.format, may_call)
        messages = (instructed_first if may_call else instructed)(request.messages, instruction)
        asked = replace(request, format=None, messages=messages)
        return JsonAnswer(asked, request.format, enforceable=json_schema == "enforced")
    return None


def checked_schema(plan: Plan) -> Mapping[str, Any] | None:
    """The schema that answers will be checked against here alone; it must be usable before the server is asked."""
    if isinstance(plan, JsonAnswer) and isinstance(plan.wanted, JsonSchema) and not plan.enforceable:
        return plan.wanted.schema
    return None


def allowed_tools(request: Request) -> tuple[Tool, ...]:
    """Those of which one must be called. Raises INVALID where the choice names none of them."""
    choice = request.tool_choice
    allowed = tuple(t for t in request.tools if t.name == choice.name) if isinstance(choice, Named) else request.tools
    if not allowed:
        raise GatewayError(Kind.INVALID, "tool_choice names a tool that is not in tools.", "tool_choice")
    return allowed


def in_markup(request: Request, wanted: Guided, choice: Literal["auto", "none"] = "auto") -> ForcedTool:
    """A forced call that decoding holds to the model's own markup: the conversation stays as it is, and so do the tools
    that the model is shown. `choice` is what the server is told of them."""
    asked = replace(request, tool_choice=choice, format=wanted)
    return ForcedTool(asked, allowed_tools(request), "schema")


def again(plan: Plan, fold: Fold, fault: str) -> Request:
    """The plan's request with the failed answer and what was wrong with it."""
    said = "\n".join([answer_text(fold), *(f"{c.name}({c.arguments})" for c in fold.parts if isinstance(c, ToolCall))])
    turns = (
        Message("assistant", (Text(said.strip() or "(nothing)"),)),
        Message("user", (Text(f"{fault} Try again."),)),
    )
    request = replace(plan.request, messages=plan.request.messages + turns)
    if isinstance(plan, JsonAnswer) and plan.enforceable:  # it has decided against a call
        return replace(request, format=plan.wanted, tool_choice="none")
    return request


def answer_text(fold: Fold) -> str:
    return "".join(part.text for part in fold.parts if isinstance(part, Text))


def reasoning_text(fold: Fold) -> str:
    return "".join(part.text for part in fold.parts if isinstance(part, Reasoning))


# -------------------------------------------------------------------------------------------------------- instructions


def instructed(messages: Sequence[Message], instruction: str) -> tuple[Message, ...]:
    """Added to the last user message, or after tool results as a message of its own: no template refuses either."""
    if messages and messages[-1].role == "user":
        last = messages[-1]
        return (*messages[:-1], Message("user", (*last.parts, Text(instruction))))
    return (*messages, Message("user", (Text(instruction),)))


def instructed_first(messages: Sequence[Message], instruction: str) -> tuple[Message, ...]:
    """Added to the first system messages, where it stands the same in every step of an agent: the prompt goes on as it
    was, and after results no user message begins another turn, for which templates leave out what was thought."""
    leading = sum(1 for _ in takewhile(lambda message: message.role in ("system", "developer"), messages))
    return (*messages[:leading], Message("system", (Text(instruction),)), *messages[leading:])


def _forced(request: Request, tools: tuple[Tool, ...], by: Literal["schema", "prompt"], shows_tools: bool) -> Request:
    if by == "prompt" and shows_tools:
        text = f"Answer with a call of {_one_of(tools)} now, and with nothing else."
        return replace(request, tool_choice="auto", format=None, messages=instructed(request.messages, text))
    lines = [
        "Call a tool now. The tools, one a line as JSON:",
        *(_dumps({"name": t.name, "description": t.description, "parameters": t.parameters}) for t in tools),
        'Answer with one JSON object of the form {"name": the tool\'s name, "arguments": {…}} and nothing else.',
    ]
    wanted = JsonSchema("tool_call", call_schema(tools), strict=True) if by == "schema" else None
    messages = instructed(request.messages, "\n".join(lines))
    return replace(request, tools=(), tool_choice="auto", format=wanted, messages=messages)


def _one_of(tools: Sequence[Tool]) -> str:
    names = [f"`{tool.name}`" for tool in tools]
    return f"the tool {names[0]}" if len(names) == 1 else f"one of the tools {', '.join(names)}"


def _json_instruction(wanted: JsonObject | JsonSchema, may_call: bool) -> str:
    begin = "Call tools as you need them. Then answer" if may_call else "Answer"
    if isinstance(wanted, JsonSchema):
        described = f" ({wanted.description})" if wanted.description else ""
        return (
            f"{begin} with one JSON value that fits the following JSON schema and with nothing else: "
            f"no prose, no code fence.{described}\n{_dumps(wanted.schema)}"
        )
    return f"{begin} with one JSON object and with nothing else: no prose, no code fence."


# -------------------------------------------------------------------------------------------------------------- schemas


def call_schema(tools: Sequence[Tool]) -> Json:
    """The schema of a call of one of the tools. References inside a tool's parameters are rewritten for their place."""
    if len(tools) == 1:
        return _one_call(tools[0], "#/properties/arguments")
    return {"anyOf": [_one_call(t, f"#/anyOf/{i}/properties/arguments") for i, t in enumerate(tools)]}


def _one_call(tool: Tool, place: str) -> Json:
    parameters = _moved(tool.parameters, place) or {"type": "object"}
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    if isinstance(schema, Mapping):
        return {key: _moved_reference(key, value, place) for key, value in schema.items() if key != "$schema"}
    if isinstance(schema, list | tuple):
        return [_moved(item, place) for item in schema]
    return schema


def _moved_reference(key: str, value: Any, place: str) -> Any:
    if key == "$ref" and isinstance(value, str) and (value == "#" or value.startswith("#/")):
        return place + value[1:]
    return _moved(value, place)


# ----------------------------------------------------------------------------------------------------- reading answers


def unwrapped(text: str) -> str:
    """`text` without the code fence that models put around JSON even when asked not to."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text.split("\n", 1)[1][:-3].strip()
    return text


def _call_in_text(text: str, names: set[str], tools: Sequence[Tool]) -> Accepted | Rejected:
    try:
        value = _loads(unwrapped(text))
    except (ValueError, RecursionError):
        return Rejected(f"There is no tool call in the answer; call {_one_of(tools)}.")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Rejected(f"There is no tool call in the answer; call {_one_of(tools)}.")
    arguments = value.get("arguments", value.get("parameters"))
    if value["name"] not in names:
        return Rejected(f"The tool {value['name']} may not be called now; call {_one_of(tools)}.")
    if not isinstance(arguments, dict):
        return Rejected("The arguments of the call are not a JSON object.")
    return Accepted(call=(value["name"], joined_halves(_dumps(arguments))))


def _loads(text: str) -> Any:
    """Raises ValueError for what Python takes for JSON and no other reader does (NaN, Infinity)."""
    return json.loads(text, parse_constant=_finite, parse_float=_finite)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text[:32]} is no JSON number")
    return number


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=dict)
