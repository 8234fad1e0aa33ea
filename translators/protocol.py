"""What a client protocol is: how a body becomes a `Request`, how events become frames, how an error is worded.

The gateway's one handler is written against this module and knows no protocol by name. Everything here is pure: ids,
time and policy come in through `Context`, so that the same input always gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from typing import Protocol as Interface

from dragoman.translators.errors import GatewayError
from dragoman.translators.fields import MOST_OBJECTS
from dragoman.translators.framing import SSE, Framing
from dragoman.translators.ir import Event, Note, Request
from dragoman.translators.json_text import encoded
from dragoman.translators.rate_headers import RateHeaders, openai

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the operator decides about translation. The configuration explains each key; `web_search`: there is a
    search service; `documents`: the gateway can read PDFs."""

    hosted_tools: Literal["ignore", "reject"] = "ignore"
    strict_history: bool = False
    reasoning_events: Literal["openai", "open_responses", "summary"] = "openai"
    unreadable: Literal["note", "reject"] = "note"
    echo_tools: bool = True
    max_tools: int = 1024
    max_items: int = MOST_OBJECTS
    web_search: bool = False
    documents: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """`id` is a fresh lower-case hex string of at least 24 digits, the seed of all ids in this answer. `clock` returns
    Unix seconds. `seal` and `open` encrypt reasoning that travels through the client; they are None without a key.
    `framing` is how the answer's stream is written."""

    id: str
    clock: Callable[[], int]
    headers: Mapping[str, str] = field(default_factory=dict)  # lower-case names
    policy: Policy = field(default_factory=Policy)
    seal: Callable[[str], str] | None = None
    open: Callable[[str], str | None] | None = None
    framing: Framing = SSE
    continues: bool = False  # the earlier answer that the body names is in its input already
    earlier: int = 0  # items in its input that the client has not sent with it
    stored: bool = False  # the answer will be kept


class Stream(Interface):
    """Events in, frames out, for one answer. A frame is one whole event of the protocol, written as `Context.framing`
    says; none is split, joined with another or empty, so that a log may end after any of them. The frames that one call
    returns belong together and go out in one write.

    `start` (optional, once) returns what may be sent before the model has begun; without it, `feed` starts the stream.
    After `Finished` or `fail` nothing more may be fed. Non-streaming answers come from the same machine, through
    `body`: where only that is wanted, `unseen` is set before the first event, and no frame is made. `notes` grows with
    what turns out only while answering, such as a part that the protocol has no place for.
    """

    notes: list[Note]
    unseen: bool

    def start(self) -> list[bytes]: ...

    def keepalive(self) -> list[bytes]:
        """A real event that resets the client's idle timer and changes nothing else; where the protocol has none, the
        framing's comment, which may be nothing at all."""
        ...

    def feed(self, events: Sequence[Event]) -> list[bytes]: ...

    def fail(self, error: GatewayError) -> list[bytes]:
        """Closes what is open as incomplete and ends with the protocol's own failure event."""
        ...

    def body(self) -> Json:
        """The whole answer as one object, after `Finished`."""
        ...


class BufferedStream:
    """What the streams of all protocols share. A subclass appends whole frames to `_out`, returns `_take()` from each
    method and sets `_final` when the answer is finished."""

    def __init__(self, framing: Framing) -> None:
        self.notes: list[Note] = []
        self.unseen = False
        self._framing = framing
        self._out: list[bytes] = []
        self._final: Json | None = None

    def body(self) -> Json:
        assert self._final is not None, "the answer is not finished"
        return self._final

    def _append_each(self, head: bytes, texts: Sequence[str], tail: bytes) -> None:
        """A frame for each of these texts, which stand between `head` and `tail` as JSON strings."""
        head, tail = head + b'"', b'"' + tail
        self._out += [head + text + tail for text in encoded(texts)]

    def _take(self) -> list[bytes]:
        frames = self._out
        self._out = []
        return frames


@dataclass(frozen=True, slots=True)
class Turn:
    """A parsed call: what to ask, whether to stream, how to answer, and what was dropped or repaired on the way.

    `counted` takes the prompt's size as soon as it is known, where the protocol sends it before the answer. `events`
    are the answer where the protocol knows it without a model; then no backend is asked. Nor is one for `searched`:
    what is found for that query is the answer."""

    request: Request
    streaming: bool
    stream: Stream
    notes: tuple[Note, ...] = ()
    counted: Callable[[int], None] | None = None
    events: Sequence[Event] = ()
    searched: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error before the head goes out: the protocol's own status and body, with headers such as `retry-after`."""

    status: int
    body: Json
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Count:
    """The protocol's own way to ask how long a prompt is: `path` below `/v1/`, and the body that answers a number."""

    path: str
    parse: Callable[[Json, Context], Request]
    body: Callable[[int], Json]


@dataclass(frozen=True, slots=True)
class State:
    """How a protocol's clients keep conversations at the gateway. A conversation is a list of items, those of requests
    (`own_items`, which gives each an id, made of a seed where it has none) and those of answers (`items`, of a whole
    answer)."""

    previous: Callable[[Json], str | None]  # the id of the answer that a body continues
    continued: Callable[[Json, Sequence[Json]], Json]  # the body with earlier items before its own
    references: Callable[[Json], list[str]]  # ids of stored items in a body
    resolved: Callable[[Json, Mapping[str, Json]], Json]  # the body with those items that were found
    own_items: Callable[[Json, str], list[Json]]
    items: Callable[[Json], list[Json]]
    stores: Callable[[Json], bool]  # whether the client wants the answer to be kept
    unstored: Callable[[Stream], list[bytes]]  # the end of a stream again, saying that the answer was not kept
    not_found: Callable[[str], GatewayError]  # what a body continues
    unknown_item: Callable[[str], GatewayError]  # that a body names
    resource: StoredAnswers


@dataclass(frozen=True, slots=True)
class StoredAnswers:
    """How stored answers are shown. `page` takes the request's own items and the parameters of the query."""

    shown: Callable[[Json, Sequence[Json]], Json]
    page: Callable[[Sequence[Json], Mapping[str, str]], Json]
    deleted: Callable[[str], Json]
    unknown: Callable[[str], GatewayError]
    refused: Callable[[Mapping[str, str]], None]  # raises for what a query may not ask of a stored answer
    cancelled: Callable[[str], GatewayError]  # there is nothing that could be cancelled


@dataclass(frozen=True, slots=True)
class Socket:
    """How a protocol is spoken over a WebSocket. `request` gives the body of the call that a message asks for, and
    raises for one that asks for none; `lane`: a name that each event of the answer repeats; `error` is a refusal, with
    its status, body and headers over HTTP and the message, which is empty where it asked for a call or could not be
    read."""

    request: Callable[[Json], Json]
    lane: Callable[[Json], str | None]
    error: Callable[[int, Json, Mapping[str, str], Json], Json]


class ListedModel(Interface):
    """A model as a list names it. `created` is in Unix seconds, `window` in tokens, None where it is unknown."""

    @property
    def id(self) -> str: ...

    @property
    def created(self) -> int: ...

    @property
    def owned_by(self) -> str: ...

    @property
    def window(self) -> int | None: ...


@dataclass(frozen=True, slots=True)
class ModelBodies:
    """How the protocol answers `GET /v1/models` and `GET /v1/models/{id}`. `many` takes the query too."""

    many: Callable[[Sequence[ListedModel], Mapping[str, str]], Json]
    one: Callable[[ListedModel], Json]


@dataclass(frozen=True, slots=True)
class PlainError:
    """An error that answers something other than a call: an unknown path, a model's name, what is not HTTP."""

    status: int
    message: str
    request_id: str
    param: str | None = None
    code: str | None = None

    def fields(self) -> Json:
        """The object `error`, with types that OpenAI's and Anthropic's clients both know."""
        kind = {401: "authentication_error", 404: "not_found_error"}.get(self.status)
        kind = kind or ("invalid_request_error" if self.status < 500 else "api_error")
        return {"type": kind, "message": self.message, "param": self.param, "code": self.code}


def claims_nothing(path: str, headers: Mapping[str, str]) -> bool:
    """For protocols whose clients send no header of their own."""
    return False


@dataclass(frozen=True, slots=True)
class Protocol:
    """`path` is below `/v1/`. `parse` raises `GatewayError` with `param`; `error` puts any error into the protocol's
    shape; `schema` returns the JSON schema of a body, where there is one; `rates` says in headers how a key stands.

    Some requests belong to no protocol's endpoint, such as those for models and for unknown paths. `claims(path,
    headers)` says whether such a request comes from this protocol's clients; then `models` and `refusal` give the
    bodies that they can read."""

    name: str
    path: str
    parse: Callable[[Json, Context], Turn]
    error: Callable[[GatewayError, str], ErrorReply]
    models: ModelBodies
    refusal: Callable[[PlainError], Json]
    claims: Callable[[str, Mapping[str, str]], bool] = claims_nothing
    count: Count | None = None
    state: State | None = None
    socket: Socket | None = None
    schema: Callable[[], Json] | None = None
    rates: RateHeaders = openai
