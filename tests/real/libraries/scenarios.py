"""What every client is put through: a scripted model for each scenario, and what its user must have got.

A scenario holds where its judge has nothing to say. Judges look at what the client returned or raised; at the prompts
that reached the model server they look only where the user's input must have arrived there.
"""

from __future__ import annotations

import base64
import json
import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.pdfs import pdf
from tests.real.scripted_model import calls, function_names, results, says
from tests.scripted import Json, Play, Script, call_delta, chunk, sse, text_stream, usage

Way = Literal["whole", "streamed"]
BOTH: tuple[Way, ...] = ("whole", "streamed")
READING = {"city": "Rome", "celsius": 21}
ASKING, ANSWERING = "I should ask.", "They said so."
FULL = {"error": {"message": "Too many requests, please try again later.", "type": "rate_limit_error", "code": 429}}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the client's user saw (the fields of `Seen` in the drivers) and the bodies that the model server read."""

    seen: Json
    prompts: Sequence[Json]

    def messages(self, role: str, prompt: int = -1) -> list[Json]:
        return [each for each in self.prompts[prompt]["messages"] if each["role"] == role] if self.prompts else []


Judge = Callable[[Outcome], str]  # what is missing; empty where all is there


@dataclass(frozen=True, slots=True)
class Scenario:
    """`limited`: with a key that may ask no more in this minute. The names from `questions` on are the drivers'."""

    name: str
    meaning: str
    play: Play
    judge: Judge
    ways: tuple[Way, ...] = BOTH
    limited: bool = False
    questions: tuple[str, ...] = ("How is the weather in Rome?",)
    tools: bool = False
    schema: bool = False
    image: str = ""
    pdf: str = ""

    def asked(self) -> Json:
        names = ("questions", "tools", "schema", "image", "pdf")
        return {name: getattr(self, name) for name in names}


# -------------------------------------------------------------------------------------------------- the scripted model


def in_tools(*cities: str) -> Callable[[Json], Script]:
    """Thinks, asks for the weather in these cities at once, and then says what it was told."""

    def play(asked: Json) -> Script:
        if told := re.findall(r"sunny in \w+", " ".join(results(asked))):  # agents put words of theirs around it
            return Script(text_stream("It is ", " and ".join(told), ".", reasoning=["They ", "said so."]))
        names = function_names(asked)
        name = next((each for each in names if each.endswith("weather")), "")
        if not name:
            return calls(("ToolSearch", SEARCH)) if "ToolSearch" in names else says("I have no tools.")
        deltas: list[Json] = [{"role": "assistant"}, {"reasoning_content": "I "}, {"reasoning_content": "should ask."}]
        for index, city in enumerate(cities):
            deltas.append(call_delta(index, name, "", f"call_{city}"))
            deltas.append(call_delta(index, arguments=json.dumps({"city": city})))
        return Script(sse(*map(chunk, deltas), chunk({}, "tool_calls"), chunk(None, usage=usage())))

    return play


def reading(asked: Json) -> Script:
    """Keeps to the schema by the way that the client chose: a tool of its own, the format or the prompt."""
    tools = [tool["function"]["name"] for tool in asked.get("tools", ()) if "celsius" in json.dumps(tool)]
    if tools and not results(asked):
        return calls((tools[0], READING))
    if "json_schema" in asked.get("response_format", {}) or "celsius" in str(asked["messages"]):
        return says('{"city": "Rome", ', '"celsius": 21}')
    return says("It is 21 degrees in Rome.")


def by_turn(asked: Json) -> Script:
    turn = sum(question in str(asked["messages"]) for question in TURNS)
    return says("Answer ", f"{turn}.")


def reader(asked: Json) -> Script:
    """Reads the file that the user names, where that is what the client lets a model do."""
    path = re.search(r"@(\S+\.pdf)", str(asked["messages"]))
    if path and "Read" in function_names(asked) and not results(asked):
        return calls(("Read", {"file_path": path[1]}))
    return TEXT


TURNS = ("First question.", "Second question.")
SEARCH = {"query": "select:mcp__demo__weather", "max_results": 1}  # as Claude Code's models find a tool
TEXT = says("Hello", " there.")
CUT = Script(sse(*(chunk({"content": text}) for text in ("Well, ", "the ", "weather ")), done=False), unterminated=True)
HALF = (call_delta(0, "weather", "", "call_0"), call_delta(0, arguments='{"city": "Ro'))
CUT_CALL = Script(sse(*map(chunk, HALF), done=False), unterminated=True)
HALF_READING = '{"city": "Ro'


def cut_reading(asked: Json) -> Script:
    """Half of what `reading` gives, in the same way."""
    tools = [tool["function"]["name"] for tool in asked.get("tools", ()) if "celsius" in json.dumps(tool)]
    half = call_delta(0, tools[0], HALF_READING, "call_0") if tools else {"content": HALF_READING}
    return Script(sse(chunk(half), done=False), unterminated=True)


BUSY = Script.json(FULL, 429, {"retry-after": "1"})


# --------------------------------------------------------------------------------------------------------- the judges


def said(*answers: str) -> Judge:
    def judge(outcome: Outcome) -> str:
        if outcome.seen["raised"]:
            return f"raised {outcome.seen['raised']}"
        given = [answer.strip() for answer in outcome.seen["answers"]]
        return "" if given == list(answers) else f"answered {given}"

    return judge


def streamed(outcome: Outcome) -> str:
    pieces = [piece for piece in outcome.seen["pieces"] if piece]
    whole = "".join(pieces) == "Hello there." and len(pieces) > 1  # some cut them anew
    return said("Hello there.")(outcome) or ("" if whole else f"streamed {pieces}")


def called(*cities: str) -> Judge:
    answer = f"It is {' and '.join(f'sunny in {city}' for city in cities)}."

    def judge(outcome: Outcome) -> str:
        if missing := said(answer)(outcome):
            return missing
        made = sorted(outcome.seen["called"])  # they may run at once
        return "" if made == sorted(cities) else f"called for {made}"

    return judge


def read_object(outcome: Outcome) -> str:
    if outcome.seen["raised"]:
        return f"raised {outcome.seen['raised']}"
    return "" if outcome.seen["reading"] == READING else f"got {outcome.seen['reading']}"


def shown(outcome: Outcome) -> str:
    if missing := called("Rome")(outcome):
        return missing
    text = "".join(outcome.seen["reasoning"])
    absent = [thought for thought in (ASKING, ANSWERING) if text.count(thought) != 1]
    return f"{absent} not shown once in {text!r}" if absent else ""


def replayed(outcome: Outcome) -> str:
    if missing := called("Rome")(outcome):
        return missing
    thoughts = [message["reasoning"] for message in outcome.messages("assistant") if message.get("reasoning")]
    return "" if thoughts == [ASKING] else f"replayed {thoughts}"


def arrived_image(outcome: Outcome) -> str:
    return said("Hello there.")(outcome) or _arrived("data:image/", outcome)  # some encode it anew


def arrived_pdf(outcome: Outcome) -> str:
    return said("Hello there.")(outcome) or _arrived(PDF_TEXT, outcome)


def _arrived(text: str, outcome: Outcome) -> str:
    messages = [*outcome.messages("user"), *outcome.messages("tool")]
    return "" if text in json.dumps(messages) else "it did not reach the model"


def two_turns(outcome: Outcome) -> str:
    if missing := said("Answer 1.", "Answer 2.")(outcome):
        return missing
    answers = [text for each in outcome.messages("assistant") if (text := text_of(each).strip()).startswith("Answer")]
    return "" if answers == ["Answer 1."] else f"the second turn knew {answers}"


def failed(words: str) -> Judge:
    """The user got our message as an error, and no tool ran."""

    def judge(outcome: Outcome) -> str:
        if outcome.seen["called"]:
            return f"called for {outcome.seen['called']}"
        if words in outcome.seen["raised"]:
            return ""
        return f"raised {outcome.seen['raised'] or 'nothing'}, answered {outcome.seen['answers']}"

    return judge


def text_of(message: Json) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


# ------------------------------------------------------------------------------------------------------ the scenarios


def png() -> bytes:
    """One red pixel."""

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\0\0")
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", pixels) + block(b"IEND", b"")


IMAGE = base64.b64encode(png()).decode()
PDF_TEXT = "Invoice 4711"
PDF = base64.b64encode(pdf(PDF_TEXT)).decode()

SCENARIOS = (
    Scenario("plain", "the whole answer's text is returned.", TEXT, said("Hello there."), ways=("whole",)),
    Scenario("streamed", "the text arrives in pieces that make up the answer.", TEXT, streamed, ways=("streamed",)),
    Scenario(
        "tool",
        "the client runs a tool, its result reaches the model, and the answer after it is returned.",
        in_tools("Rome"),
        called("Rome"),
        tools=True,
    ),
    Scenario(
        "parallel tools",
        "the same with two calls at once.",
        in_tools("Rome", "Oslo"),
        called("Rome", "Oslo"),
        tools=True,
    ),
    Scenario("schema", "the answer becomes an object of the user's class.", reading, read_object, schema=True),
    Scenario(
        "reasoning shown",
        "the client returns what the model thought before the call and before the answer, once each.",
        in_tools("Rome"),
        shown,
        tools=True,
    ),
    Scenario(
        "reasoning replayed",
        "what it thought before the call is in the prompt of the next request.",
        in_tools("Rome"),
        replayed,
        tools=True,
    ),
    Scenario("image", "an image of the user's reaches the model.", TEXT, arrived_image, image=IMAGE),
    Scenario("PDF", "the text of the user's PDF reaches the model.", reader, arrived_pdf, pdf=PDF),
    Scenario(
        "two turns",
        "the second question comes after the first one and its answer.",
        by_turn,
        two_turns,
        questions=TURNS,
    ),
    Scenario(
        "cut stream",
        "the server breaks off in the text: the client raises, with our message.",
        CUT,
        failed("broke off"),
        ways=("streamed",),
    ),
    Scenario(
        "cut call",
        "the server breaks off in a call: the client raises, and no tool runs.",
        CUT_CALL,
        failed("broke off"),
        ways=("streamed",),
        tools=True,
    ),
    Scenario(
        "cut object",
        "the server breaks off in an answer that becomes an object: the client raises, with our message.",
        cut_reading,
        failed("broke off"),
        ways=("streamed",),
        schema=True,
    ),
    Scenario(
        "429",
        "the key has spent its rate: the client raises, with our message.",
        TEXT,
        failed("1 requests a minute"),
        limited=True,
    ),
    Scenario(
        "busy server",
        "the server itself answers 429: the client raises, with our message.",
        BUSY,
        failed("model server is busy"),
    ),
)
