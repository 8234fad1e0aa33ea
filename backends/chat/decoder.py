"""Chat-completions streams into events: bytes cut anywhere in, grammar out.

Tolerant of what the servers really send (each tolerance has a transcript under
tests/golden/streams/chat_completions), strict about the end: without a finish reason the answer is broken, whatever
else arrived. The finish reason's word says whether the answer is whole, cut, filtered or failed; whether it has tool
calls is decided by the calls. After the finish reason the stream may still bring usage and [DONE]; the parts are
ended then, since some servers send their last delta late.

vLLM says `tool_calls` of every stream that has calls, also where the token limit cut one (vllm#53269), and may then
complete its JSON in the same chunk (vllm#53739). What it has counted shows it: an answer that was in a call and has
used up its limit was cut.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import orjson

from dragoman.backends.chat.call_deltas import CallDeltas
from dragoman.backends.chat.errors import nonsense, overflow
from dragoman.backends.chat.finish_reasons import OF_CALLS, finish_word, stop_reason
from dragoman.backends.chat.known_frame import KnownFrame
from dragoman.backends.chat.logprobs import bounded, read_logprobs
from dragoman.backends.chat.split_characters import SplitCharacters
from dragoman.backends.chat.usage import is_counted, read_usage
from dragoman.backends.markup import Markup, open_markup
from dragoman.backends.markup.unread import BEGINS, UnreadCalls, may_begin
from dragoman.backends.refusal import read
from dragoman.backends.usage import count
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Deltas, Event, Finished, Note, Request, StopReason, Usage
from dragoman.translators.json_text import is_bulky, without_lone_surrogates
from dragoman.translators.parts import ANSWER_BYTES, Parts
from dragoman.translators.sse import MAX_EVENT, EventReader, payloads
from dragoman.translators.steps import at_once

SEVERAL = 600  # bytes of events, from which on it is worth to look at them together: three of them
MAX_VALUES = 2_000_000  # of one event, or of an answer that is read whole
MAX_MENDED = 100_000  # values of an event that is looked through for what to repair
MAX_LIST = 1_024  # choices, calls or parts of one delta
CALL_IN_TEXT = Note("answer", "call_in_text")  # the server's parser read no call, the text shows one


class TextSink(Protocol):
    """Where text goes. `texts` does as `text` for each of them."""

    def text(self, text: str, logprobs: list[dict[str, Any]] | None = None, /) -> None: ...

    def texts(self, several: Deltas, /) -> None: ...


class ChatDecoder:
    """`feed` and `finish` raise `GatewayError` where the stream is broken; `abort` then gives what was certain until
    there.

    `classify` turns an in-band error (its status where it has one, and its object) into the error for the client.
    `markup` names the family by which calls and reasoning are read out of the text, for a server whose own parser
    fails; `markup_prompt` is what that server's template ends its prompt with. `trusts_done`: [DONE] alone ends an
    answer that has no finish reason. `completes_cut_calls`: the server makes a call whole that the limit cut.
    """

    def __init__(
        self,
        request: Request,
        classify: Callable[[int, Any], GatewayError],
        *,
        markup: str | None = None,
        markup_prompt: str = "",
        trusts_done: bool = False,
        completes_cut_calls: bool = False,
        answer_bytes: int = ANSWER_BYTES,
    ) -> None:
        self.done = False  # [DONE] was seen
        self.stopping = False  # the finish reason was seen: only usage and [DONE] are awaited
        self.prompt_read: tuple[int, int] | None = None  # tokens of the prompt, and of how many, where a server says so
        self._trusts_done = trusts_done
        self._halves = SplitCharacters()
        self._reasons_plainly = False  # then lists of reasoning repeat what was said
        self._sse = EventReader()
        self._parts = Parts.of(request, answer_bytes)
        self._calls = CallDeltas(self._parts)
        self._markup = open_markup(markup, self._parts, prompt=markup_prompt, request=request) if markup else None
        self._unread = UnreadCalls(tool.name for tool in request.tools) if request.tools and not markup else None
        self._sink = self._text_sink()
        self._known = KnownFrame()
        self._known_sink: TextSink = self._sink  # where the text of such a chunk goes
        self.limit = request.max_tokens  # tokens that the server was allowed, None where that is not known
        self._stops = request.sampling.stop or ()
        self._wants_logprobs = request.logprobs is not None
        # Log probabilities of tokens whose text is still to come; None where they may be of something that is no text.
        self._early: list[dict[str, Any]] | None = []
        self._classify = classify
        self._reason: StopReason | None = None
        self._said_calls = False  # as its finish reason
        self._call_was_open = False  # when that came
        self._completes_cut_calls = self._parts.holds_closing = completes_cut_calls and not markup
        self._stop_sequence: str | None = None
        self._usage: Usage | None = None
        self._ended = False

    @property
    def notes(self) -> list[Note]:
        return self._parts.notes

    @property
    def prompt_tokens(self) -> int | None:
        """The prompt's size, where the server has said it so far."""
        usage = self.usage
        return None if usage is None else usage.input

    @property
    def usage(self) -> Usage | None:
        """As far as the server has sent it: it may stand in a chunk of which nothing but the text was read."""
        if self._known.counted:
            self._usage, self._known.counted = read_usage(orjson.loads(self._known.counted)["usage"]), b""
        return self._usage

    @property
    def markup_size(self) -> int:
        """Of the text that is read for calls: it grows while the model writes, even where no event shows it."""
        return self._parts.markup_size

    def feed(self, data: bytes) -> list[Event]:
        events, known = self._sse.whole(data), self._known
        if len(events) > SEVERAL:
            self._feed_many(events)
        elif (
            events.startswith(known.opening)
            and events.endswith(known.closing)
            and b"\n" not in (string := events[len(known.opening) : -len(known.closing)])
            and (text := known.text_in(string))
        ):
            self._known_sink.text(text)  # one token, as most reads are
        elif events:
            for payload in payloads(events):
                self._feed_one(payload)
        return self._parts.take()

    def _feed_one(self, payload: bytes) -> None:
        if text := self._known.text(payload):
            self._known_sink.text(text)
        elif text is None:
            self._payload(payload)

    def _feed_many(self, events: bytes) -> None:
        at = 0
        while at < len(events):
            until, several = self._known.texts(events, at)
            if several is not None:
                if several.texts:
                    self._known_sink.texts(several)
            else:
                for payload in payloads(events[at:until]):
                    self._feed_one(payload)
            at = until

    def feed_whole(self, body: bytes) -> list[Event]:
        """A `chat.completion` object: one that was asked for, or from a server that ignored `stream`."""
        self._payload(body)
        return self._ended_events()

    def finish(self) -> list[Event]:
        """The stream has ended, or nothing more is awaited."""
        for payload in self._sse.finish():
            self._payload(payload)
        return self._ended_events()

    def _ended_events(self) -> list[Event]:
        if not self._ended:
            self._end()
        return self._parts.take()

    def abort(self) -> list[Event]:
        if not self._ended:
            if self._markup is not None:
                self._markup.finish(cut=True)
            self._calls.abort()
            self._parts.abort()
        return self._parts.take()

    def stop(self) -> list[Event]:
        """The receiver has had enough: the last event, with the usage as far as the server has sent it."""
        if self._ended:  # the end came with the same read
            return []
        self._ended, self.stopping = True, False
        self._known.forget()
        return [Finished(StopReason.STOP, self.usage)]

    def _end(self) -> None:
        if self._reason is None:
            message = "The model server ended its stream before the answer was complete."
            raise GatewayError(Kind.BACKEND_FAILED, message, source="backend")
        if self._reason is StopReason.LENGTH and self._wrote_nothing:
            raise overflow(self.usage.input if self.usage is not None else None, None)
        self._ended, self.stopping = True, False
        self._known.forget()
        if self._halves.waiting:
            self._parts.note("drop", "half_character")
        if self._markup is not None:
            self._markup.finish(cut=self._reason is not StopReason.STOP)
        self._calls.finish()
        if self._unread is not None and self._unread.found:
            self._parts.note(CALL_IN_TEXT.kind, CALL_IN_TEXT.name)
        if self._said_calls and self._call_was_open and self._limit_reached:
            self._reason = StopReason.LENGTH
        in_call = self._call_was_open or self._completes_cut_calls
        self._parts.finish(self._reason, self.usage, self._stop_sequence, in_call=in_call)

    @property
    def _wrote_nothing(self) -> bool:
        """Not a token: LMDeploy until 0.12 ends so where the prompt leaves no room."""
        return not self._parts.begun and self.usage is not None and self.usage.output == 0

    @property
    def _limit_reached(self) -> bool:
        usage = self.usage
        return usage is not None and self.limit is not None and usage.output >= self.limit

    def _payload(self, payload: bytes) -> None:
        if self._ended:
            return
        if payload == b"[DONE]":
            self.done = True
            if self._reason is None and self._trusts_done and self._parts.begun:
                self._reason = StopReason.STOP
            self._end()
        elif payload:
            try:
                self._decode(payload)
            except GatewayError:
                if self._reason is None:
                    raise
                # vLLM while it shuts down, or a body torn within the usage: the answer was whole already
                self._parts.note("answer", "error_after_finish")

    def _decode(self, payload: bytes) -> None:
        chunk = self._loads(payload)
        self._chunk(chunk)
        if self._halves.waiting or self._reason is not None:  # what follows is more than its text
            self._known.forget()
        elif self._known.learn(payload, chunk):
            self._known_sink = self._sink_of(chunk)

    def _loads(self, payload: bytes) -> object:
        """Strict and fast first; then with what servers get wrong repaired: invalid UTF-8, half a surrogate pair, and
        what Python's json writes and no other reads (-Infinity as a log probability)."""
        if len(payload) > MAX_VALUES and is_bulky(payload, MAX_VALUES):
            raise nonsense()
        try:
            chunk = orjson.loads(payload)
            if not self._halves.waiting:
                return chunk
        except orjson.JSONDecodeError:
            if len(payload) > MAX_EVENT:  # of an answer in one piece: reading it loosely takes a second
                raise nonsense() from None
            chunk = _loosely(payload)
        if is_bulky(payload, MAX_MENDED):
            raise nonsense()
        try:
            return self._halves.mend(chunk)
        except RecursionError:
            raise nonsense() from None

    def _chunk(self, chunk: object) -> None:
        if not isinstance(chunk, dict):
            raise nonsense()
        try:
            if _says_error(chunk):
                raise self._classify(200, chunk)
            if (usage := chunk.get("usage")) is not None and is_counted(usage):
                self._usage, self._known.counted = read_usage(usage), b""
            if (progress := chunk.get("prompt_progress")) is not None:  # llama.cpp, with `return_progress`
                self.prompt_read = _prompt_read(progress) or self.prompt_read
            for choice in _short(chunk.get("choices") or ()):
                if isinstance(choice, dict) and not choice.get("index"):  # only one choice is ever asked for
                    self._choice(choice)
        except (AttributeError, TypeError, ValueError) as error:  # a list where an object belongs, and the like
            raise nonsense() from error

    def _choice(self, choice: dict[str, Any]) -> None:
        if choice.get("error"):  # OpenRouter
            raise self._classify(200, choice)
        reason = finish_word(choice.get("finish_reason"))
        if reason and self._reason is None:
            self._call_was_open = self._calls.unfinished
            self._parts.holds_closing |= self._call_was_open  # vLLM may complete the call with the same chunk
        if delta := choice.get("delta"):
            self._delta(delta, choice)
        elif (message := choice.get("message")) and not self._parts.begun:  # else it repeats what the deltas said
            self._delta(message, choice, whole=True)
        if reason and self._reason is None:
            self._finish_reason(reason, choice)

    def _delta(self, delta: dict[str, Any], choice: dict[str, Any], whole: bool = False) -> None:
        # vLLM renamed reasoning_content to reasoning; some servers send both with the same text
        if reasoning := delta.get("reasoning_content") or delta.get("reasoning"):
            self._reasons_plainly, self._early = True, None
            self._parts.reasoning(str(reasoning))
        elif (details := delta.get("reasoning_details")) and not self._reasons_plainly:
            self._parts.reasoning(_joined(details))  # OpenRouter
        if content := delta.get("content"):
            text = content if isinstance(content, str) else self._text_of(content)
            if text:
                tokens = self._tokens(choice) if self._wants_logprobs else None
                if tokens and self._markup is not None:  # they cannot follow text that is read for calls and reasoning
                    self._parts.note("drop", "logprobs")
                    self._wants_logprobs = False  # noted once
                self._sink.text(text, tokens)
        elif content == "" and self._wants_logprobs and self._early is not None:
            self._early = bounded([*self._early, *read_logprobs(choice.get("logprobs") or {})])
        if refusal := delta.get("refusal"):
            self._parts.refusal(str(refusal))
        if calls := delta.get("tool_calls"):
            self._early = None
            for position, call in enumerate(_short(calls)):
                self._call(call, position if whole else None)
        elif call := delta.get("function_call"):  # the form before tools, still used by a few
            self._call({"index": 0, "function": call}, None)

    def _tokens(self, choice: dict[str, Any]) -> list[dict[str, Any]] | None:
        """The log probabilities of the text that a choice brings: its own, and those of tokens that came before their
        text. vLLM and trtllm-serve send such a token with an empty text: the beginning of a character, or what might
        be that of a stop string."""
        early, self._early = self._early or [], []
        return [*early, *read_logprobs(choice.get("logprobs") or {})] or None

    def _sink_of(self, chunk: Any) -> TextSink:
        """Where the text of chunks like this one goes, as `_delta` and `_call` would have it."""
        if self._known.field == "content":
            return self._sink
        if self._known.field != "arguments":
            return _Reasoning(self._parts)
        call = chunk["choices"][0]["delta"]["tool_calls"][0]
        index, id, name = call.get("index"), call.get("id"), call["function"].get("name")
        header = (
            index if isinstance(index, int) else None,
            id if isinstance(id, str) else "",
            name if isinstance(name, str) else "",
        )
        return _Arguments(self._calls, *header)

    def _text_of(self, content: object) -> str:
        """Content as a list of parts, as Mistral's servers send it; what the model thought is one of them."""
        if not isinstance(content, list):
            raise nonsense()
        texts = []
        for part in _short(content):
            kind = part.get("type") if isinstance(part, dict) else ""
            if kind == "thinking":
                thought = part.get("thinking")
                self._parts.reasoning(thought if isinstance(thought, str) else _joined(thought or ()))
            elif isinstance(text := part.get("text") if isinstance(part, dict) else part, str):
                texts.append(text)
            elif part:
                self._parts.note("drop", "content_part")
        return "".join(texts)

    def _text_sink(self) -> TextSink:
        """No method of our own, since a decoder that refers to itself is freed by a collection only."""
        if self._markup is not None:
            return _MarkedText(self._markup)
        return self._parts if self._unread is None else _WatchedText(self._unread, self._parts)

    def _call(self, call: object, position: int | None) -> None:
        if not isinstance(call, dict):
            raise nonsense()
        if self._unread is not None:  # the server reads calls, so text is text
            self._unread, self._sink = None, self._parts
        function = call.get("function") or {}
        arguments = function.get("arguments")
        whole = not isinstance(arguments, str | None)  # Ollama sends an object
        text = orjson.dumps(arguments).decode() if whole else arguments
        index, id, name = call.get("index"), call.get("id"), function.get("name")
        self._calls.feed(
            index if isinstance(index, int) else position,
            id if isinstance(id, str) else "",
            name if isinstance(name, str) else "",
            text if isinstance(text, str) else "",
            whole=whole,
        )

    def _finish_reason(self, word: str, choice: dict[str, Any]) -> None:
        self._reason, known = stop_reason(word)
        if not known:
            self._parts.note("answer", "unknown_finish_reason")
        self._said_calls = word in OF_CALLS
        self.stopping = True
        matched = choice.get("stop_reason") or choice.get("matched_stop")  # vLLM and trtllm-serve; SGLang
        if isinstance(matched, str) and matched in self._stops:
            self._stop_sequence = matched


class _WatchedText:
    """Text in which the server has read no call so far, and should have read those that it shows."""

    __slots__ = ("_parts", "_unread")

    def __init__(self, unread: UnreadCalls, parts: Parts) -> None:
        self._unread = unread
        self._parts = parts

    def text(self, text: str, logprobs: list[dict[str, Any]] | None = None) -> None:
        if BEGINS.search(text) or self._unread.reading:
            self._unread.feed(text)
        self._parts.text(text, logprobs)

    def texts(self, several: Deltas) -> None:
        if self._unread.reading or may_begin(several.text):
            self._unread.feed(several.text)
        self._parts.texts(several)


class _Reasoning:
    """What the model thinks."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def text(self, text: str, logprobs: object = None) -> None:
        self._parts.reasoning(text)

    def texts(self, several: Deltas) -> None:
        self._parts.texts(several, "reasoning")


class _Arguments:
    """The arguments of a call, whose deltas have this header."""

    __slots__ = ("text", "texts")

    def __init__(self, calls: CallDeltas, index: int | None, id: str, name: str) -> None:
        self.text = partial(calls.feed, index, id, name)
        self.texts = partial(calls.feed_all, index, id, name)


class _MarkedText:
    """Text that is read for calls and reasoning."""

    __slots__ = ("_markup",)

    def __init__(self, markup: Markup) -> None:
        self._markup = markup

    def text(self, text: str, logprobs: object = None) -> None:
        self._markup.feed(text)

    def texts(self, several: Deltas) -> None:
        self._markup.feed_all(several)


def _says_error(chunk: dict[str, Any]) -> bool:
    """As an object of its own, or as the chunk itself."""
    if chunk.get("error") or chunk.get("object") == "error":
        return True
    return "choices" not in chunk and bool(chunk.get("error_message") or chunk.get("detail") or read(chunk).status)


def _prompt_read(progress: Any) -> tuple[int, int] | None:
    """`processed` counts what was found in the cache too."""
    read, total = count(progress.get("processed")), count(progress.get("total"))
    return None if read is None or total is None or read > total else (read, total)


def _loosely(payload: bytes) -> object:
    """JSON with halves of surrogate pairs left in it."""
    try:
        text = payload.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = at_once(without_lone_surrogates(payload)).decode("utf-8", "replace")
    try:
        return json.loads(text, strict=False, parse_constant=float)
    except (ValueError, RecursionError):
        raise nonsense() from None


def _short(items: Any) -> Any:
    """A list of one delta; a long one costs more than a turn of the loop may."""
    if len(items) > MAX_LIST:
        raise nonsense()
    return items


def _joined(parts: object) -> str:
    """The texts of a list of parts; what is encrypted has none."""
    found = [part for part in _short(parts) if isinstance(part, dict)] if isinstance(parts, list) else []
    return "".join(text for part in found if isinstance(text := part.get("text") or part.get("summary"), str))
