"""Which family a server's model is of, proven by two answers of the server.

The first answer shows a call that stands in the text, and the families that read it are compared. The second is to
another tool and other arguments, and the chosen family alone reads it. Only a call with the arguments that were asked
for proves anything. Nothing is proven by the answers of clients' requests, because a client can make any model print
any tag.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

import orjson

from dragoman.backends.markup.detection import FAMILIES, by_name
from dragoman.backends.markup.recognition import read_answer
from dragoman.translators.fold import Fold
from dragoman.translators.ir import Message, Request, Sampling, Text, Tool, ToolCall

MOST_TEXT = 16_384  # characters of an answer that are read
TOKENS = 1024  # models that think first need some hundreds before they call a tool


@dataclass(frozen=True, slots=True)
class Question:
    """`arguments`: what the call must hold, each in any spelling that contains it."""

    text: str
    tool: str
    arguments: Mapping[str, str]


TOOLS = (
    Tool(
        "get_weather",
        "Tells the weather in a city.",
        {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    ),
    Tool(
        "set_alarm",
        "Sets an alarm.",
        {
            "type": "object",
            "properties": {"hour": {"type": "integer"}, "label": {"type": "string"}},
            "required": ["hour", "label"],
        },
    ),
)
FIRST = Question("What is the weather in Paris? Call the tool get_weather now.", "get_weather", {"city": "paris"})
SECOND = Question(
    'Set an alarm for 7 o\'clock with the label "Train". Call the tool set_alarm now.',
    "set_alarm",
    {"hour": "7", "label": "train"},
)


class Outcome(StrEnum):
    PROVEN = "proven"  # both calls stood in the text, and the family read them
    SERVER = "server"  # the server's own parser reads the calls
    UNREAD = "unread"  # a call stands in the text, and no family reads it
    REFUTED = "refuted"  # the family that read the first call did not read the second
    SILENT = "silent"  # the model called nothing


@dataclass(frozen=True, slots=True)
class Proof:
    """`family` is named where it is `PROVEN`."""

    outcome: Outcome
    family: str | None = None


Ask = Callable[[Request], Awaitable[Fold]]


async def prove(ask: Ask, model: str) -> Proof:
    """`ask` sends a request to the server and returns the answer, read without markup. Raises what it raises."""
    request = asked(FIRST, model)
    answer = await ask(request)
    if answered(answer, FIRST):
        return Proof(Outcome.SERVER)
    text = text_of(answer)[:MOST_TEXT]
    family = choose(text, request, FIRST)
    if family is None:
        return Proof(Outcome.UNREAD if _shows_call(text, FIRST) else Outcome.SILENT)
    request = asked(SECOND, model)
    answer = await ask(request)
    if answered(answer, SECOND) or not answered(read_answer(family, text_of(answer)[:MOST_TEXT], request), SECOND):
        return Proof(Outcome.REFUTED)
    return Proof(Outcome.PROVEN, family)


def asked(question: Question, model: str) -> Request:
    return Request(
        id=f"proof_{question.tool}",
        model=model,
        messages=(Message("user", (Text(question.text),)),),
        tools=TOOLS,
        max_tokens=TOKENS,
        sampling=Sampling(temperature=0.0),
    )


def choose(text: str, request: Request, question: Question) -> str | None:
    """The family that reads the call and leaves the least of the answer as text; of several, the one that the model's
    name tells, then the most general."""
    left: dict[str, int] = {}
    for name in FAMILIES:
        fold = read_answer(name, text, request)
        if answered(fold, question):
            left[name] = len(text_of(fold).strip())
    best = [name for name in left if left[name] == min(left.values())]
    named = by_name(request.model)
    return named if named in best else next(iter(best), None)


def answered(fold: Fold, question: Question) -> bool:
    """Whether the answer holds one call, which is the one that was asked for."""
    calls = [part for part in fold.parts if isinstance(part, ToolCall)]
    if len(calls) != 1 or calls[0].name != question.tool or fold.cut:
        return False
    try:
        arguments = orjson.loads(calls[0].arguments)
    except orjson.JSONDecodeError:
        return False
    return isinstance(arguments, dict) and all(
        wanted in str(arguments.get(key)).lower() for key, wanted in question.arguments.items()
    )


def text_of(fold: Fold) -> str:
    return "".join(part.text for part in fold.parts if isinstance(part, Text))


def _shows_call(text: str, question: Question) -> bool:
    """The tool's name and all that was asked for; prose about the weather in Paris does not name the tool."""
    lower = text.lower()
    return question.tool in lower and all(wanted in lower for wanted in question.arguments.values())
