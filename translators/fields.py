"""The fields that a request body has in every client protocol, and what becomes of keys that nobody reads.

The schemas are strict about types and ranges (a bool is not an integer, a string is not a number) and lenient about
what they do not know. Nothing is lost in silence, at any depth: what pydantic checks keeps unknown fields apart, what
is read by hand goes through `Given`, which remembers what was read, and `Unread` turns the rest into notes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence, Set
from functools import cache
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dragoman.translators.errors import GatewayError, invalid
from dragoman.translators.ir import Note, NoteKind, Sampling

INT32 = 2**31 - 1  # what engines store such numbers in
_UNPRINTABLE = re.compile(r"[^a-zA-Z0-9_.-]")
_INDEX = re.compile(r"\[\d+\]|\.\d+(?=\.|$)")  # as the protocols write it: `messages[2].content`, `messages.2.content`
MOST_OBJECTS = 20_000  # an agent's day has some thousands
_MOST_KEPT = 32
_NOTHING: tuple[object, ...] = (None, [], {})  # what a key may hold without saying anything
_MISSING = object()
_NONE: Set[str] = frozenset()


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def unset(value: object) -> object:
    """-1 is "not set" in what llama.cpp, LM Studio and LangChain for JavaScript send."""
    return None if value == -1 else value


Whole = Annotated[int, BeforeValidator(_whole)]  # also as 64.0, which is how Gson, Lua and R write it


class Lenient(BaseModel):
    """An object inside a body. Unknown fields of it are kept apart for `Unread.of_model`."""

    model_config = ConfigDict(strict=True, extra="allow")


class RequestFields(BaseModel):
    """Sampling parameters that a protocol lacks are extensions of the engines, sent through `extra_body`."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: Annotated[float | None, Field(ge=0, le=1), BeforeValidator(unset)] = None
    top_k: Whole | None = Field(None, ge=-1, le=INT32)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: Whole | None = Field(None, ge=-(2**63), le=2**63 - 1)
    # Read by `translators.thinking`.
    chat_template_kwargs: dict[str, Any] | None = None
    enable_thinking: bool | None = None
    # Read by `translators.guided`.
    guided_json: Any = None
    guided_choice: Any = None
    guided_regex: Any = None
    guided_grammar: Any = None
    structured_outputs: Any = None
    regex: Any = None
    ebnf: Any = None
    grammar: Any = None
    json_schema: Any = None


def sampling(fields: RequestFields, stop: Sequence[str] | None, **own: Any) -> Sampling:
    """`own` are parameters that only some protocols have."""
    return Sampling(
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k if fields.top_k and fields.top_k > 0 else None,  # 0 and -1 switch it off; some engines crash
        min_p=fields.min_p,
        repetition_penalty=fields.repetition_penalty,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        seed=fields.seed,
        stop=tuple(stop) if stop else None,
        **own,
    )


def unusual(fields: BaseModel, ordinary: Mapping[str, Container[object]]) -> list[str]:
    """Names of the fields that hold anything but one of their ordinary values."""
    values = ((name, getattr(fields, name), usual) for name, usual in ordinary.items())
    return [name for name, value, usual in values if value is not None and value not in usual]


def unknown(fields: BaseModel) -> list[str]:
    """Names of the fields that the schema does not have."""
    return [name for name, value in (fields.model_extra or {}).items() if value is not None]


@cache
def _inner(model: type[BaseModel]) -> tuple[tuple[str, str], ...]:
    """The fields that may hold a checked object, each with its name in the body."""
    fields = model.model_fields.items()
    return tuple((name, field.alias or name) for name, field in fields if _may_be_model(field.annotation))


def _may_be_model(annotation: Any) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    return any(map(_may_be_model, get_args(annotation)))


class Tally:
    """Names that a client chose, counted for notes of one kind. Only so many are kept: of the rest, `+499968` counts
    how often they came."""

    def __init__(self, kind: NoteKind) -> None:
        self._kind = kind
        self._counts: dict[str, int] = {}
        self._more = 0

    def count(self, name: str, times: int = 1) -> None:
        if name in self._counts or len(self._counts) < _MOST_KEPT:
            self._counts[name] = self._counts.get(name, 0) + times
        else:
            self._more += times

    def skip(self, many: int) -> None:
        """Counts names without a look at each."""
        self._more += many

    @property
    def total(self) -> int:
        return sum(self._counts.values()) + self._more

    @property
    def complete(self) -> bool:
        """Whether every name was kept."""
        return not self._more

    def add(self, other: Tally) -> None:
        """As if what a complete one has counted had been counted here."""
        for name, count in other._counts.items():
            self.count(name, count)

    def notes(self) -> list[Note]:
        notes = [Note(self._kind, _UNPRINTABLE.sub("_", name), count) for name, count in self._counts.items()]
        return [*notes, Note(self._kind, f"+{self._more}", self._more)] if self._more else notes


class Unread:
    """The keys of one request that nobody read.

    A note has the path of the key without positions and values (`messages.content.citations`). Every object that is
    read by hand passes here once, a message as well as a part of it, so their number is bounded here too: `most` in one
    request. What follows from a request costs time and memory by that number, hardly by its bytes.
    """

    def __init__(self, most: int = MOST_OBJECTS) -> None:
        self._tally = Tally("field")
        self._most = most
        self._left = most

    def given(self, owner: Mapping[str, Any], path: str) -> Given:
        """An object to be read by hand; `path` is its own."""
        return Given(owner, path, self)

    def count(self, path: str) -> None:
        """One more object, the one at `path`; raises INVALID where that is one too many."""
        self._left -= 1
        if self._left < 0:
            raise too_many(path, self._most)

    @property
    def left(self) -> int:
        """How many more objects there may be."""
        return self._left

    @property
    def total(self) -> int:
        """How many keys nobody read so far."""
        return self._tally.total

    def count_again(self, objects: int) -> bool:
        """Counts objects that were read before; False, and nothing, where there are too many."""
        if objects > self._left:
            return False
        self._left -= objects
        return True

    def fresh(self) -> Unread:
        """One of the same kind that has counted nothing."""
        return Unread(self._most)

    @property
    def complete(self) -> bool:
        """Whether it holds all that was counted, so that another one can take it over."""
        return self._tally.complete

    def takes(self, other: Unread) -> bool:
        """Takes over what a fresh one has counted; False, and nothing, where that may not come out the same."""
        left = self._left - (other._most - other._left)
        if left < 0 or not other.complete:
            return False
        self._left = left
        self._tally.add(other._tally)
        return True

    def of_model(self, model: BaseModel, path: str = "") -> None:
        """What the schema of a checked object, and of those inside it, does not have."""
        if model.model_extra:
            self.add(path, model.model_extra)
        for name, shown in _inner(type(model)):
            if isinstance(value := getattr(model, name), BaseModel):
                self.of_model(value, _joined(path, shown))

    def add(self, path: str, owner: Mapping[str, Any], read: Set[str] = _NONE, inert: Set[str] = _NONE) -> None:
        """The keys of the object at `path`, except for those that were `read`, or that change nothing anywhere."""
        place, seen = "", 0
        for key, value in owner.items():
            if key in read:
                continue
            seen += 1
            if seen > _MOST_KEPT:
                self._tally.skip(len(owner) - len(read) - _MOST_KEPT)  # no longer worth a look at each
                return
            if key not in inert and value not in _NOTHING:
                place = place or _INDEX.sub("", path)
                self._tally.count(_joined(place, key[:64]))

    def notes(self) -> list[Note]:
        return self._tally.notes()


class Given(Mapping[str, Any]):
    """An object as the client gave it. It remembers which of its keys were read; `close` notes the others."""

    __slots__ = ("_owner", "_path", "_read", "_unread")

    def __init__(self, owner: Mapping[str, Any], path: str, unread: Unread) -> None:
        self._owner = owner
        self._path = path
        self._unread = unread
        self._read: set[str] = set()
        unread.count(path)

    def get(self, key: str, default: Any = None) -> Any:
        value = self._owner.get(key, _MISSING)
        if value is _MISSING:
            return default
        self._read.add(key)
        return value

    def __getitem__(self, key: str) -> Any:
        self._read.add(key)
        return self._owner[key]

    def __contains__(self, key: object) -> bool:
        return key in self._owner

    def __iter__(self) -> Iterator[str]:
        return iter(self._owner)

    def __len__(self) -> int:
        return len(self._owner)

    def peek(self, key: str) -> Any:
        """The value, without its being read."""
        return self._owner.get(key)

    def inner(self, owner: Mapping[str, Any], path: str) -> Given:
        """An object inside this one, to be read and closed in the same way."""
        return Given(owner, path, self._unread)

    def pass_over(self, *keys: str) -> None:
        """Counts keys as read: another key stands for them, or they say what is the case anyway."""
        self._read.update(key for key in keys if key in self._owner)

    def close(self, inert: Set[str] = _NONE) -> None:
        """Notes what was not read, except for `inert` keys, which change nothing anywhere."""
        if len(self._read) != len(self._owner):
            self._unread.add(self._path, self._owner, self._read, inert)


def too_many(path: str, most: int) -> GatewayError:
    message = f"{path}: too many items: a request may hold {most} messages, content parts, calls and tools in all"
    return invalid(message, path, "array_above_max_length")


def few(notes: Sequence[Note]) -> tuple[Note, ...]:
    """The notes of one request. Many become few: each name once with its count, and only so many names."""
    if len(notes) <= 2 * _MOST_KEPT:
        return tuple(notes)
    counts = Counter[tuple[NoteKind, str]]()
    for note in notes:
        counts[note.kind, note.name] += note.count
    kept = [*counts.items()][: 2 * _MOST_KEPT]
    more = Counter[NoteKind]()
    for (kind, _), count in [*counts.items()][len(kept) :]:
        more[kind] += count
    surplus = [Note(kind, f"+{count}", count) for kind, count in more.items()]
    return (*(Note(kind, name, count) for (kind, name), count in kept), *surplus)


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def noted(kind: NoteKind, name: str) -> Note:
    """A note whose name the client chose: cut to what may stand in a header and in a metric."""
    return Note(kind, _UNPRINTABLE.sub("_", name[:64]))
