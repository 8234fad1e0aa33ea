"""The output items of a response, one class for each kind: what each sends when it opens, before the text of every
delta, and when it is done.

An item knows its own JSON and nothing about sequence numbers or framing; `translators.responses.stream` drives it, and
collects its text while it is open.
Shapes are those of the responses reference, sections "Output items" and "Streaming". Fields that a validator refuses as
null are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from typing import Any, ClassVar, assert_never

import orjson

from dragoman.translators.ir import PartStarted, SearchEnded
from dragoman.translators.json_text import DEEPEST, StringReader, deeper_than, is_object
from dragoman.translators.openai.catalogue import Catalogue, DeclaredTool
from dragoman.translators.protocol import Json
from dragoman.translators.responses.options import ResponsesStreamOptions
from dragoman.translators.responses.proxies import (
    APPLY_PATCH_PARAMETERS,
    LOCAL_SHELL_PARAMETERS,
    SHELL_PARAMETERS,
    fitting,
)
from dragoman.translators.responses.searches import carried_text, citations, result_shown

ItemEvent = tuple[str, Json]  # its name and its fields
Seal = Callable[[str], str]


class Item:
    """`delta_event` names its delta events, "" where the kind has none, and `delta_head` is the encoded beginning of
    each up to the text.

    While it is open, the stream writes into `pieces` what goes out of each delta: all of it, or what `reader` makes of
    it. Log probabilities are appended to `logprobs`, where they are wanted at all."""

    prefix: ClassVar[str]
    open_when_broken = False  # where the answer fails, it must not look done: see the docstring of `stream`

    def __init__(self, id: str, index: int) -> None:
        self.id = f"{self.prefix}_{id}"
        self.index = index
        self.delta_event = ""
        self.delta_head = b""
        self.status = "in_progress"
        self.pieces = StringIO()
        self.reader: StringReader | None = None
        self.logprobs: list[Json] | None = None

    def finish(self, complete: bool) -> str:
        """Ends the item; returns a last piece of text that became certain only now."""
        self.status = "completed" if complete else "incomplete"
        return ""

    @property
    def whole(self) -> bool:
        """Whether nothing can be missing of it, where the answer fails before its end."""
        return False

    @property
    def open_when_cut(self) -> bool:
        """Whether it must not look done when it was cut: see the docstring of `stream`."""
        return False

    @property
    def passes_on(self) -> bool:
        """Whether its deltas are the text as it comes and nothing else."""
        return self.reader is None and self.logprobs is None

    @property
    def text(self) -> str:
        return self.pieces.getvalue()

    def added(self) -> Json:
        raise AssertionError("every kind says what it is")

    def opening(self) -> Iterator[ItemEvent]:
        yield from ()

    def closing(self) -> Iterator[ItemEvent]:
        yield from ()

    def done(self, seal: Seal | None) -> Json:
        return self.added()

    def _head(self, event: str, **position: int) -> None:
        fields = "".join(f',"{name}":{value}' for name, value in position.items())
        self.delta_event = event
        self.delta_head = (
            f'{{"type":"{event}","item_id":"{self.id}","output_index":{self.index}{fields},"delta":'.encode()
        )

    def _at(self, **fields: Any) -> Json:
        return {"item_id": self.id, "output_index": self.index, **fields}


class MessageItem(Item):
    """A message of one content part. `phase` is left out where it is not known."""

    prefix = "msg"
    phase: str | None = None

    def _part(self) -> Json:
        raise AssertionError("every kind of part has its own shape")

    def added(self) -> Json:
        item = {"id": self.id, "type": "message", "role": "assistant", "status": self.status, "content": []}
        return item if self.phase is None else item | {"phase": self.phase}

    def opening(self) -> Iterator[ItemEvent]:
        yield "response.content_part.added", self._at(content_index=0, part=self._part())

    def done(self, seal: Seal | None) -> Json:
        return self.added() | {"content": [self._part()]}


class TextItem(MessageItem):
    """`titles` are those of the pages that were found, by address: where the text names one of them, it is cited."""

    def __init__(self, id: str, index: int, wants_logprobs: bool, titles: Mapping[str, str] | None = None) -> None:
        super().__init__(id, index)
        self._titles = titles
        self._annotations: list[Json] = []
        self._head("response.output_text.delta", content_index=0)
        if wants_logprobs:
            self.logprobs = []
        else:  # the field is required, and empty
            self.delta_head = self.delta_head.replace(b'"delta":', b'"logprobs":[],"delta":')

    def _part(self) -> Json:
        return {
            "type": "output_text",
            "text": self.text,
            "annotations": self._annotations,
            "logprobs": self.logprobs or [],
        }

    def finish(self, complete: bool) -> str:
        super().finish(complete)
        if self._titles:
            self._annotations = citations(self.text, self._titles)
        return ""

    def closing(self) -> Iterator[ItemEvent]:
        for place, each in enumerate(self._annotations):
            where = self._at(content_index=0, annotation_index=place)
            yield "response.output_text.annotation.added", where | {"annotation": each}
        part = self._part()
        yield "response.output_text.done", self._at(content_index=0, text=part["text"], logprobs=part["logprobs"])
        yield "response.content_part.done", self._at(content_index=0, part=part)


class RefusalItem(MessageItem):
    def __init__(self, id: str, index: int) -> None:
        super().__init__(id, index)
        self._head("response.refusal.delta", content_index=0)

    def _part(self) -> Json:
        return {"type": "refusal", "refusal": self.text}

    def closing(self) -> Iterator[ItemEvent]:
        yield "response.refusal.done", self._at(content_index=0, refusal=self.text)
        yield "response.content_part.done", self._at(content_index=0, part=self._part())


class ReasoningItem(Item):
    """Reasoning as `reasoning_text`, under the event names of OpenAI or of Open Responses."""

    prefix = "rs"

    def __init__(self, id: str, index: int, event: str) -> None:
        super().__init__(id, index)
        self._event = event
        self._head(f"{event}.delta", content_index=0)

    def _part(self) -> Json:
        return {"type": "reasoning_text", "text": self.text}

    def added(self) -> Json:
        return {"id": self.id, "type": "reasoning", "status": self.status, "summary": [], "content": []}

    def opening(self) -> Iterator[ItemEvent]:
        yield "response.content_part.added", self._at(content_index=0, part=self._part())

    def closing(self) -> Iterator[ItemEvent]:
        yield f"{self._event}.done", self._at(content_index=0, text=self.text)
        yield "response.content_part.done", self._at(content_index=0, part=self._part())

    def done(self, seal: Seal | None) -> Json:
        return self.added() | {"content": [self._part()]} | self._sealed(seal)

    def _sealed(self, seal: Seal | None) -> Json:
        return {"encrypted_content": seal(self.text)} if seal is not None and self.status == "completed" else {}


class SummaryItem(ReasoningItem):
    """Reasoning sent as a summary, the only form that Codex, AI SDK, LangChain and LiteLLM show. The finished item also
    has it as content, which pydantic-ai sends back instead, unless it is sealed, as OpenAI's is: Copilot CLI takes the
    content of an answer without text for its text, shows it and sends it back."""

    def __init__(self, id: str, index: int) -> None:
        super().__init__(id, index, "response.reasoning_summary_text")
        self._head("response.reasoning_summary_text.delta", summary_index=0)

    def _summary(self) -> Json:
        return {"type": "summary_text", "text": self.text}

    def opening(self) -> Iterator[ItemEvent]:
        yield "response.reasoning_summary_part.added", self._at(summary_index=0, part=self._summary())

    def closing(self) -> Iterator[ItemEvent]:
        yield "response.reasoning_summary_text.done", self._at(summary_index=0, text=self.text)
        yield "response.reasoning_summary_part.done", self._at(summary_index=0, part=self._summary())

    def done(self, seal: Seal | None) -> Json:
        sealed = self._sealed(seal)
        content = [] if sealed else [self._part()]
        return self.added() | {"summary": [self._summary()], "content": content} | sealed


class CallItem(Item):
    def __init__(self, id: str, index: int, call_id: str, tool: DeclaredTool) -> None:
        super().__init__(id, index)
        self._call_id = call_id
        self._tool = tool

    def _named(self, type: str) -> Json:
        """The fields with which the calls of functions and of free-form tools begin."""
        item = {"id": self.id, "type": type, "call_id": self._call_id, "name": self._tool.name}
        return item if self._tool.namespace is None else item | {"namespace": self._tool.namespace}


class FunctionCallItem(CallItem):
    prefix = "fc"

    def __init__(self, id: str, index: int, call_id: str, tool: DeclaredTool) -> None:
        super().__init__(id, index, call_id, tool)
        self._head("response.function_call_arguments.delta")

    def added(self) -> Json:
        # Codex's sub-agents read an argument as plain text only where the call says that none is encrypted
        extra: Json = {"encrypted_function_args": []} if self._tool.encrypted else {}
        return self._named("function_call") | {"arguments": self.text, "status": self.status} | extra

    @property
    def whole(self) -> bool:
        return is_object(self.text)

    @property
    def open_when_cut(self) -> bool:
        """Half JSON is refused by whoever runs calls. What reads as the whole arguments is not: none at all, or those
        that a server has completed (`Parts.holds_closing`) unseen."""
        return self.whole or not self.text.strip()

    def closing(self) -> Iterator[ItemEvent]:
        if self.status == "completed" or not self.open_when_cut:
            yield "response.function_call_arguments.done", self._at(name=self._tool.name, arguments=self.text)


class CustomCallItem(CallItem):
    """A free-form tool: the model writes {"input": "..."}, and the client gets the text as it comes."""

    prefix = "ctc"

    def __init__(self, id: str, index: int, call_id: str, tool: DeclaredTool) -> None:
        super().__init__(id, index, call_id, tool)
        self.reader = StringReader()
        self._head("response.custom_tool_call_input.delta")

    @property
    def open_when_cut(self) -> bool:
        return True

    def finish(self, complete: bool) -> str:
        super().finish(complete)
        assert self.reader is not None
        rest = self.reader.finish() if complete else ""
        self.pieces.write(rest)
        return rest

    def added(self) -> Json:
        """The SDK's type has no status, but OpenAI sends one, and AI SDK 6 and 7 refuse a finished item without it."""
        return self._named("custom_tool_call") | {"status": self.status, "input": self.text}

    def closing(self) -> Iterator[ItemEvent]:
        if self.status == "completed":
            yield "response.custom_tool_call_input.done", self._at(input=self.text)


class ProxiedCallItem(CallItem):
    """A tool whose call has an item type of its own (tool_search, shell …). There are no deltas: the item is sent whole
    when it is done. Its arguments are the fields of the item (`translators.responses.proxies`)."""

    prefix = "tc"

    @property
    def open_when_cut(self) -> bool:
        return True

    def added(self) -> Json:
        status = self.status
        if self._tool.kind == "apply_patch" and status == "incomplete":
            status = "in_progress"  # the only status that its type has for this
        item = {"id": self.id, "type": f"{self._tool.kind}_call", "call_id": self._call_id, "status": status}
        return item | self._fields(_arguments(self.text))

    def _fields(self, given: Json) -> Json:
        match self._tool.kind:
            case "tool_search":
                return {"execution": "client", "arguments": given}
            case "local_shell":
                command = given.get("command", [])
                line = ["bash", "-lc", command] if isinstance(command, str) else command
                action = {"env": {}, "command": [], **fitting({**given, "command": line}, LOCAL_SHELL_PARAMETERS)}
                return {"action": {**action, "type": "exec"}}
            case "shell":
                commands = given.get("commands", [])
                lines = [commands] if isinstance(commands, str) else commands
                limits: Json = {"timeout_ms": None, "max_output_length": None}
                action = {"commands": [], **fitting({**given, "commands": lines}, SHELL_PARAMETERS)}
                return {"action": limits | action, "environment": {"type": "local"}}
            case "apply_patch":
                operation: Json = {"type": "update_file", "path": "", **fitting(given, APPLY_PATCH_PARAMETERS)}
                return {"operation": operation if operation["type"] == "delete_file" else {"diff": "", **operation}}
            case "function" | "custom" | "web_search":
                raise AssertionError("these have classes of their own")
            case _:
                assert_never(self._tool.kind)


class WebSearchItem(Item):
    """A search that the gateway runs. OpenAI's item has the addresses as `sources`; `results`, which it does not have,
    come back with the next turn (`translators.responses.searches`)."""

    prefix = "ws"

    def __init__(self, id: str, index: int, query: str) -> None:
        super().__init__(id, index)
        self._query = query
        self._ended: SearchEnded | None = None

    def found(self, ended: SearchEnded) -> None:
        self._ended = ended

    def finish(self, complete: bool) -> str:
        super().finish(complete)
        if self._ended is not None and self._ended.error is not None:
            self.status = "failed"
        return ""

    def added(self) -> Json:
        action = {"type": "search", "query": self._query}
        return {"id": self.id, "type": "web_search_call", "status": self.status, "action": action}

    def opening(self) -> Iterator[ItemEvent]:
        yield "response.web_search_call.in_progress", self._at()
        yield "response.web_search_call.searching", self._at()

    def closing(self) -> Iterator[ItemEvent]:
        if self.status == "completed":
            yield "response.web_search_call.completed", self._at()

    def done(self, seal: Seal | None) -> Json:
        item = self.added()
        if self._ended is None:
            return item
        if self._ended.error is not None:
            return item | {"error": {"code": self._ended.error}}
        results = self._ended.results
        item["action"]["sources"] = [{"type": "url", "url": each.url} for each in results]
        return item | {"results": [result_shown(each) for each in results]}


class CarriedSearchItem(Item):
    """What the model read of a search, as sealed reasoning (`translators.responses.searches`)."""

    prefix = "rs"

    def __init__(self, id: str, index: int, ended: SearchEnded) -> None:
        super().__init__(id, index)
        self._carried = carried_text(ended)

    def added(self) -> Json:
        return {"id": self.id, "type": "reasoning", "status": self.status, "summary": [], "content": []}

    def done(self, seal: Seal | None) -> Json:
        assert seal is not None
        return self.added() | {"encrypted_content": seal(self._carried)}


def _arguments(text: str) -> Json:
    """What the model wrote, as an object. Anything else goes to the client as the field `input`, which it will
    refuse."""
    if not text.strip():
        return {}
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {"input": text}
    if deeper_than([value], DEEPEST):
        return {"input": text}
    return value if isinstance(value, dict) else {"input": value}


def open_item(
    part: PartStarted,
    id: str,
    index: int,
    tools: Catalogue,
    options: ResponsesStreamOptions,
    titles: Mapping[str, str],
) -> Item:
    """The item for a part that has begun. `id` is unique in the gateway; `titles` are those of pages that were
    found, by address."""
    match part.kind:
        case "text":
            text = TextItem(id, index, options.logprobs, titles)
            text.open_when_broken = options.json
            return text
        case "refusal":
            return TextItem(id, index, False) if options.refusals_as_text else RefusalItem(id, index)
        case "reasoning":
            if options.reasoning_events == "summary":
                return SummaryItem(id, index)
            openai = options.reasoning_events == "openai"
            return ReasoningItem(id, index, "response.reasoning_text" if openai else "response.reasoning")
        case "call":
            return _open_call(part, id, index, tools.restore(part.name))
        case _:
            assert_never(part.kind)


def _open_call(part: PartStarted, id: str, index: int, tool: DeclaredTool) -> Item:
    match tool.kind:
        case "function":
            return FunctionCallItem(id, index, part.id, tool)
        case "custom":
            return CustomCallItem(id, index, part.id, tool)
        case _:
            return ProxiedCallItem(id, index, part.id, tool)
