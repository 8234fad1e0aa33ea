"""What a model family is made of: its markers, the forms of its calls, the tags of its thoughts, what tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from dragoman.backends.markup.calls import Form

THINK: Mapping[str, str] = {"<think>": "</think>"}
COMMON_ENDS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "</s>")


def on_a_line(openers: Mapping[str, Form]) -> Mapping[str, Form]:
    """The openers, each with the newline before it that belongs to the template."""
    return {**openers, **{f"\n{opener}": form for opener, form in openers.items()}}


@dataclass(frozen=True, slots=True)
class Bare:
    """Calls without an opener: they begin the answer, or follow a thought or a call, with one of `begins`."""

    form: Form
    begins: tuple[str, ...] = ("{", "[")


@dataclass(frozen=True, slots=True)
class Written:
    """How a model of the family writes calls, for grammars that hold it to that: `before` NAME `between` ARGUMENTS
    `after`, several of them with `separator` between `begin` and `end`. `single`: only one can be written so. `style`
    is how the arguments are written, in the words of xgrammar's structural tags."""

    before: str
    between: str
    after: str
    begin: str = ""
    end: str = ""
    separator: str = ""
    single: bool = False
    style: str = "json"


def in_array(begin: str, end: str) -> Written:
    """Calls as objects of name and arguments in one array."""
    return Written('{"name": "', '", "arguments": ', "}", begin, end, ", ")


@dataclass(frozen=True, slots=True)
class Headers:
    """Messages of `start` ROLE `channel` CHANNEL `message` BODY, ended by one of `stops`; ` to=RECIPIENT` in the header
    makes a call of it. `thoughts` are channels, `to_self` and `to_user` recipients that are not called. `in_body`:
    calls stand in the bodies, in a form of their own."""

    start: str
    channel: str
    message: str
    stops: tuple[str, ...]
    thoughts: tuple[str, ...] = ("analysis",)
    to_self: tuple[str, ...] = ()
    to_user: tuple[str, ...] = ("assistant", "user", "all", "system", "developer")
    in_body: bool = False

    @property
    def openers(self) -> tuple[str, ...]:
        return (self.start, self.channel, self.message)


@dataclass(frozen=True, slots=True)
class Family:
    """`openers` begin calls. `breaks`: they also end an open thought, where a call of that form follows. `thinking`
    maps what opens a thought to what ends it. `ends` are tokens that end the turn, dropped at its very end. `frames`
    never reach the text, `answer_frames` only after a thought. `signs`: a template that holds all markers of one of
    these is the family's; `names` are parts of published names, for a model without a template. `written` is missing
    where models of the family write calls in several forms, or in one that no grammar holds them to. `goes_on`: an
    opener with which the prompt may end, so that the answer goes on after it. `named`: a declared name may stand before
    an opener, which then belongs to it.

    The rest is for people: `models`, `markup`, the `field` under which templates print earlier thoughts, and what is
    recovered (`recovers`)."""

    name: str
    models: str
    openers: Mapping[str, Form] = field(default_factory=dict)
    bare: Bare | None = None
    headers: Headers | None = None
    breaks: bool = False
    thinking: Mapping[str, str] = field(default_factory=lambda: THINK)
    ends: tuple[str, ...] = COMMON_ENDS
    frames: tuple[str, ...] = ()
    answer_frames: tuple[str, ...] = ()
    signs: tuple[tuple[str, ...], ...] = ()
    names: tuple[str, ...] = ()
    goes_on: str = ""
    named: bool = False
    written: Written | None = None
    markup: str = ""
    field: str = ""
    recovers: str = ""
