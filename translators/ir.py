"""The intermediate representation: what a request is and what an answer is made of, for every protocol and every
backend.

A client protocol turns bytes into a `Request`; a backend turns a `Request` into whatever its server speaks, and the
server's reply into `Event`s; the protocol turns events into bytes. A concept belongs here only when two of them have
it.

The stream grammar is the contract between the two halves:

    Started (PartStarted (Delta | Deltas)* PartEnded | SearchStarted SearchEnded)* Finished
    or, at any point, a GatewayError

Strictly one part or search is open at a time, so no delta carries an index. `translators.parts` is the only producer
of that order, but for searches, which the gateway puts between the model's parts. Events are values: nothing changes
one after it was made. They are not frozen only because that would double the cost of a delta.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

# --------------------------------------------------------------------------------------------------------- conversation


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Refusal:
    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What the model thought before it answered. It goes back to the model only where its template takes it."""

    text: str


@dataclass(frozen=True, slots=True)
class Image:
    """`url` is a `data:` URL, or http(s) where the gateway allows it; `detail` is low, high, auto, original or None."""

    url: str
    detail: str | None = None
    path: str = field(default="", compare=False)  # where the client wrote it, for an error
    past: bool = field(default=False, compare=False)  # the answer is not about it: more has been said since


@dataclass(frozen=True, slots=True)
class ToolCall:
    """`arguments` is the text of a JSON object, exactly as the model wrote it; `name` is the upstream (flat, unique)
    name."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    call_id: str
    content: tuple[Text | Image, ...]
    is_error: bool = False


@dataclass(frozen=True, slots=True)
class Tool:
    """A function as the server sees it: `name` is unique in the request, `parameters` is a JSON schema of type
    object. A `deferred` one became known in the conversation, by a `ToolReference`."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool | None = None
    deferred: bool = False


@dataclass(frozen=True, slots=True)
class ToolReference(Text):
    """A text that makes a deferred tool known; `tool` is set where it is the first one to do so."""

    tool: Tool | None = None


@dataclass(frozen=True, slots=True)
class Document(Text):
    """A PDF that the gateway may read; `text` takes its place where it cannot. `data` is base64, `context` what the
    client says about it, and `kind` the protocol's word for a document."""

    data: str = field(default="", repr=False)
    name: str | None = None
    context: str | None = None
    kind: str = "document"
    path: str = field(default="", compare=False)  # where the client wrote it, for an error


Part = Text | Refusal | Reasoning | Image | ToolCall | ToolResult
Role = Literal["system", "developer", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `tool` messages hold exactly one `ToolResult`; `ToolCall` and `Reasoning` occur in `assistant` only."""

    role: Role
    parts: tuple[Part, ...]


# -------------------------------------------------------------------------------------------------------------- request


@dataclass(frozen=True, slots=True)
class Named:
    """tool_choice: this tool and no other."""

    name: str


ToolChoice = Literal["auto", "none", "required"] | Named


@dataclass(frozen=True, slots=True)
class JsonObject:
    """Any JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    name: str
    schema: Mapping[str, Any]
    strict: bool | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True)
class Guided:
    """Text that is not JSON but must be one of several texts, or match a regular expression, a grammar or a structural
    tag (as JSON; no client sends one). Nothing here runs it; `path` is the field in which the client sent it."""

    kind: Literal["choice", "regex", "grammar", "tag"]
    rule: str | tuple[str, ...]
    path: str = field(default="", compare=False)


Format = JsonObject | JsonSchema | Guided


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling and decoding fields under their usual engine names; None means that the client did not set them."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    min_tokens: int | None = None
    ignore_eos: bool | None = None
    skip_special_tokens: bool | None = None
    include_stop_str_in_output: bool | None = None
    logit_bias: Mapping[str, float] | None = None


@dataclass(frozen=True, slots=True)
class Thinking:
    """How much the model should think: `effort` as the protocols name it (none … max), `budget` in tokens."""

    effort: str | None = None
    budget: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """`id` is unique and seeds every id that is made for this answer; `affinity` identifies the session for routing.
    With `prefill` the last message is the beginning of the answer, which the server is to go on with.
    `template_kwargs` are variables of the chat template under the client's names; those that switch thinking are also
    in `thinking`."""

    id: str
    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    max_tokens: int | None = None
    sampling: Sampling = field(default_factory=Sampling)
    format: Format | None = None
    thinking: Thinking = field(default_factory=Thinking)
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    logprobs: int | None = None
    affinity: str | None = None
    search: WebSearch | None = None
    truncates: bool = False  # of a conversation that does not fit, the oldest turns may be left out
    prefill: bool = False
    whole: bool = False  # the client takes its answer in one piece, so that nobody waits for its beginning


@dataclass(frozen=True, slots=True)
class WebSearch:
    """The client lets the model search the web, and the gateway runs the searches. `tool` is the function that stands
    for it. `most` is how many searches this answer may have and `results` how many results each, as far as the client
    says. Domains are `example.org`, which stands for its subdomains too, or `example.org/path`."""

    tool: str
    most: int | None = None
    results: int | None = None
    allowed: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()


NoteKind = Literal["tool", "field", "item", "repair", "drop", "answer", "unenforced"]


@dataclass(frozen=True, slots=True)
class Note:
    """Something dropped, repaired, odd or not enforced: counted in a metric, and listed in `x-dragoman-ignored` as
    `kind:name` when it is known before the head goes out. `count` is how often it came."""

    kind: NoteKind
    name: str
    count: int = field(default=1, compare=False)


# --------------------------------------------------------------------------------------------------------------- answer


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as measured by the server or a tokenizer; `backends.usage` makes it. None means unknown, which is not
    zero. `input` includes `cached` and `written`, which were found in the prefix cache and put into it."""

    input: int
    output: int
    cached: int | None = None
    reasoning: int | None = None
    written: int | None = None


class StopReason(StrEnum):
    """Why a complete answer ended. Whether it ended in tool calls shows in its parts, not in a server's word."""

    STOP = "stop"
    LENGTH = "length"
    CONTENT_FILTER = "content_filter"


PartKind = Literal["text", "refusal", "reasoning", "call"]


@dataclass(slots=True)
class Started:
    """The model has begun: from here on the request must not be retried elsewhere."""


@dataclass(slots=True)
class PartStarted:
    """`id` and `name` are those of a call, final and never empty. Both are "" for other kinds."""

    kind: PartKind
    id: str = ""
    name: str = ""


@dataclass(slots=True)
class Delta:
    """A non-empty piece of the open part: text, or the next piece of a call's JSON arguments."""

    text: str
    logprobs: list[dict[str, Any]] | None = None


@dataclass(slots=True)
class Deltas:
    """Several that came with one read and have nothing but their `texts`, which are together `text`: what is done for
    each of them can be done once. A client gets the same bytes as for each alone."""

    texts: Sequence[str]
    text: str


@dataclass(slots=True)
class PartEnded:
    """`complete` is False for a part that the end of the answer cut short."""

    complete: bool = True


@dataclass(slots=True)
class Finished:
    reason: StopReason
    usage: Usage | None = None
    stop_sequence: str | None = None


@dataclass(frozen=True, slots=True)
class SearchResult:
    """`url` is http(s); `text` is what the search service shows of the page, and `age` its date in the service's
    words."""

    url: str
    title: str
    text: str = ""
    age: str | None = None


SearchError = Literal[
    "invalid_tool_input", "max_uses_exceeded", "query_too_long", "request_too_large", "too_many_requests", "unavailable"
]


@dataclass(slots=True)
class SearchStarted:
    """The gateway searches the web for the model. `query` is empty where the model gave none."""

    query: str


@dataclass(slots=True)
class SearchEnded:
    results: tuple[SearchResult, ...] = ()
    error: SearchError | None = None


Event = Started | PartStarted | Delta | Deltas | PartEnded | SearchStarted | SearchEnded | Finished
