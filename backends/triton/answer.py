"""One answer: tensors in, events of the grammar out. No I/O.

Usage is the server's where it counts, else the tokenizer's. Why an answer ended: the model's own end token or a stop
string, or the server's reason (llmapi), or, since the engine profile gives none, `length` when as many tokens came
as were allowed. A stream that ends without a single response is a failure: that is what a Triton ensemble makes of a
request that it could not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

from dragoman.backends.markup import Markup
from dragoman.backends.triton.client import Outputs
from dragoman.backends.triton.errors import broken_off, failed, timed_out
from dragoman.backends.triton.output import Cumulative, Deltas, IdDecoder, Ids, Stops
from dragoman.backends.triton.profiles import Profile, PromptRequest
from dragoman.backends.usage import count, measured
from dragoman.translators.ir import Event, Note, StopReason, Usage
from dragoman.translators.parts import Parts

COUNTED = 65_536  # characters that are counted at once
MORE_IDS = 1_024  # than the answer may have: what comes beyond is not decoded


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    """How an answer is read. `decoder` and `markup` make what one answer needs; `ends` are the texts of the end tokens;
    `count` gives the number of tokens of a text."""

    decoder: Callable[[], IdDecoder]
    markup: Callable[[Parts], Markup]
    count: Callable[[str], int]
    ends: Sequence[str] = ()


class AnswerDecoder:
    """`done`: nothing more is wanted of the server. `feed`, `finish` and `stop` give events; `abort` what is left."""

    def __init__(self, profile: Profile, ask: PromptRequest, parts: Parts, format: AnswerFormat) -> None:
        self.done = False
        self._profile = profile
        self._ask = ask
        self._parts = parts
        self._format = format
        self._markup = format.markup(parts)
        echoes = not profile.decoupled and "exclude_input_in_output" not in profile.asked.inputs
        self._ids = Ids(format.decoder(), ask.ends, ask.ids if echoes else ())
        self._text: Cumulative | Deltas = Cumulative() if profile.cumulative else Deltas()
        sampling = ask.sampling
        self._stops = Stops(
            sampling.stop or (), () if profile.by_ids else format.ends, bool(sampling.include_stop_str_in_output)
        )
        self._raw = StringIO()  # text that is not counted yet
        self._counted = 0  # tokens of the text before it
        self._responses = 0
        self._input: int | None = None
        self._output: int | None = 0  # as far as the server counts; None once it has counted nonsense
        self._reason = ""
        self._stop_reason = ""

    @property
    def notes(self) -> list[Note]:
        return self._parts.notes

    @property
    def ended_by_model(self) -> bool:
        """By its own end token: its stream ends by itself."""
        return self._ids.ended or (self._stops.done and self._stops.found is None)

    @property
    def begun(self) -> bool:
        return self._responses > 0

    @property
    def stopping(self) -> bool:
        """The server has said why the answer ends, and only the end of its stream is missing."""
        return bool(self._reason)

    # --------------------------------------------------------------------------------------------------------- reading

    def feed(self, batch: Sequence[Outputs]) -> list[Event]:
        for outputs in batch:
            if self.done:
                break
            self._read(outputs)
        return self._parts.take()

    def _read(self, outputs: Outputs) -> None:
        self._responses += 1
        if counted := outputs.get("num_input_tokens"):
            self._input = count(counted[0])  # repeated in each response
        if counted := outputs.get("num_output_tokens"):
            more = count(counted[0])  # of this response alone
            self._output = None if more is None or self._output is None else self._output + more
        if self._profile.by_ids:
            ids = _sequence(outputs)
            if len(ids) > self._ids.room + self._ask.max_tokens + MORE_IDS:
                raise failed("The model server sent more tokens than it was asked for.")
            try:
                text = self._ids.feed(ids)
            except (OverflowError, TypeError):  # an engine whose weights are wrong computes NaN and picks -1
                raise failed("The model server sent something that is no token.") from None
            ended = self._ids.ended
        else:
            texts = outputs.get("text_output")
            text = self._text.feed(str(texts[0])) if texts else ""
            ended = False
        if text:
            self._keep(text)
            self._show(self._stops.feed(text))
        self._end_reason(outputs)
        if self._stops.done or ended:
            self._finish()

    def _end_reason(self, outputs: Outputs) -> None:
        """llmapi's reasons are printed by Python, so a missing one is "None"."""
        reason = _word(outputs, "finish_reason")
        if reason:
            self._reason = reason
        self._stop_reason = _word(outputs, "stop_reason") or self._stop_reason
        if reason == "timeout":
            raise timed_out()
        if reason == "cancelled":
            raise failed("The model server cancelled the answer.")

    def _keep(self, text: str) -> None:
        """For the tokens that the server does not count; a very long text is counted in pieces, as it comes."""
        self._raw.write(text)
        if not self._profile.by_ids and self._raw.tell() > COUNTED:
            self._counted += self._format.count(self._raw.getvalue())
            self._raw = StringIO()

    def _show(self, text: str) -> None:
        if text:
            self._markup.feed(text)

    # ------------------------------------------------------------------------------------------------------------- end

    def finish(self) -> list[Event]:
        """The server's stream has ended."""
        if self.done:
            return []
        if not self._responses:
            raise failed("The model server ended the answer without a word.")
        if self._profile.form == "llmapi" and "finish_reason" in self._profile.asked.outputs and not self._reason:
            raise broken_off()
        held = (self._ids if self._profile.by_ids else self._text).finish()
        if held:
            self._keep(held)
            self._show(self._stops.feed(held))
        self._finish()
        return self._parts.take()

    def stop(self) -> list[Event]:
        """The receiver has enough: the answer ends here, with the usage so far."""
        if self.done:
            return []
        self.done = True
        self._parts.finish(StopReason.STOP, self.usage())
        return self._parts.take()

    def abort(self) -> list[Event]:
        if self.done:
            return []
        self.done = True
        self._show(self._stops.finish())
        self._markup.finish(cut=True)
        self._parts.abort()
        return self._parts.take()

    def _finish(self) -> None:
        self.done = True
        if not self._stops.done:
            self._show(self._stops.finish(self._text.excess if isinstance(self._text, Cumulative) else 0))
        usage = self.usage()
        reason = self._stop_word(usage)
        self._markup.finish(cut=reason is not StopReason.STOP)
        self._parts.finish(reason, usage, self._stop_sequence())

    def _stop_word(self, usage: Usage | None) -> StopReason:
        if self._stops.done or self._ids.ended or self._reason == "stop":
            return StopReason.STOP
        if self._reason == "length" or (usage is not None and usage.output >= self._ask.max_tokens):
            return StopReason.LENGTH
        return StopReason.STOP

    def _stop_sequence(self) -> str | None:
        if self._stops.found is not None:
            return self._stops.found
        return self._stop_reason if self._stop_reason in (self._ask.sampling.stop or ()) else None

    def usage(self) -> Usage | None:
        output = self._output
        if not output:
            output = (
                self._ids.count if self._profile.by_ids else self._counted + self._format.count(self._raw.getvalue())
            )
        return measured(len(self._ask.ids) if self._input is None else self._input, output)


def _sequence(outputs: Outputs) -> list[int]:
    """The first beam's ids."""
    ids = outputs.get("output_ids", [])
    lengths = outputs.get("sequence_length")
    length = count(lengths[0]) if lengths else None
    return ids if length is None else ids[:length]


def _word(outputs: Mapping[str, list[Any]], name: str) -> str:
    words = outputs.get(name)
    word = str(words[0]).strip() if words else ""
    return "" if word == "None" else word
