"""What surrounds a text is remembered only where nothing else can differ: a decoder says the same with and without."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.chat.decoder import CALL_IN_TEXT, SEVERAL, ChatDecoder
from dragoman.backends.chat.known_frame import CREDIT, FEW, LONGEST, WINDOW, KnownFrame, only_text
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import Deltas, Event, Finished, Request, StopReason, Tool, Usage
from dragoman.translators.parts import ANSWER_BYTES
from tests.event_grammar import apart
from tests.golden_files import TRANSCRIPTS, upstream

REQUEST = Request(id="s", model="m", messages=(), tools=(Tool("f", "", {"type": "object"}),))
Json = dict[str, Any]


def classify(status: int, error: object) -> GatewayError:
    return GatewayError(Kind.BACKEND_FAILED, f"classified {status}: {error}", source="backend")


def chunk(delta: Json, **fields: Any) -> Json:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    } | fields


def piece(arguments: str, **call: Any) -> Json:
    return chunk({"tool_calls": [{"index": 0, "function": {"arguments": arguments}} | call]})


class Heard:
    """Where text goes that is only listened to."""

    def __init__(self, texts: list[str]) -> None:
        self._heard = texts

    def text(self, text: str, logprobs: object = None) -> None:
        self._heard.append(text)

    def texts(self, several: Deltas) -> None:
        self._heard += several.texts


class Learned:
    """A decoder that has had one chunk."""

    def __init__(self, first: bytes) -> None:
        self._decoder = ChatDecoder(REQUEST, classify)
        self._decoder.feed(b"data: " + first + b"\n\n")
        self._texts: list[str] = []
        self._in_full: list[bytes] = []
        self._decoder._known_sink = Heard(self._texts)
        self._decoder._payload = self._in_full.append  # type: ignore[assignment]

    def text(self, payload: bytes) -> str | None:
        """What it says in a chunk that is recognised; None for one that is decoded in full."""
        self._decoder.feed(b"data: " + payload + b"\n\n")
        if self._in_full:
            assert self._in_full.pop() == payload
            return None
        return self._texts.pop()


def learned(first: Json) -> Learned:
    return Learned(json.dumps(first).encode())


Said = tuple[list[Event], str, list[str]]


def decoded(reads: list[bytes], *, remembering: bool, limit: int = ANSWER_BYTES) -> Said:
    decoder = ChatDecoder(REQUEST, classify, answer_bytes=limit)
    if not remembering:
        decoder._known.credit = 0
    events: list[Event] = []
    try:
        for read in reads:
            events += decoder.feed(read)
        events += decoder.finish()
    except GatewayError as error:
        return apart([*events, *decoder.abort()]), error.message, [note.name for note in decoder.notes]
    return apart(events), "", [note.name for note in decoder.notes]


def both(reads: list[bytes], limit: int = ANSWER_BYTES) -> None:
    assert decoded(reads, remembering=True, limit=limit) == decoded(reads, remembering=False, limit=limit)


# ---------------------------------------------------------------------------------------------- what is recognised


@pytest.mark.parametrize("text", ["b", " two", 'say "no"', "a\\b", "line\nend", "é", "\u2028", "😀", "\x7f"])
@pytest.mark.parametrize("ascii", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        lambda text: chunk({"content": text}),
        lambda text: chunk({"role": "assistant", "content": text, "tool_calls": None, "reasoning_content": ""}),
        lambda text: chunk({"content": None, "reasoning_content": text}),
        lambda text: chunk({"reasoning": text}),
        lambda text: chunk({"reasoning": text, "reasoning_content": text}),
        lambda text: chunk({"reasoning_content": text, "role": None, "reasoning": text}),
        lambda text: piece(text),
        lambda text: piece(text, id="call_1", type="function"),
        lambda text: chunk({"content": text}, usage=None, system_fingerprint='"content":"x"'),
    ],
)
def test_the_same_chunk_with_another_text_is_recognised(said: Any, text: str, ascii: bool) -> None:
    known = learned(said("same"))
    assert known.text(json.dumps(said(text), ensure_ascii=ascii).encode()) == text


NO_TEXT = [
    b"null",
    b"1",
    b'["a"]',
    b'{"a":"b"}',
    b"",
    b'"a","refusal":"b"',
    b'"a"}},{"delta":{"content":"b"',
    b'"a',
    b'"\\"',
]


@pytest.mark.parametrize("between", NO_TEXT)
def test_what_is_more_or_less_than_a_text_is_not(between: bytes) -> None:
    first = json.dumps(chunk({"content": "SAME"})).encode()
    assert Learned(first).text(first.replace(b'"SAME"', between)) is None


@pytest.mark.parametrize(
    "between", [*NO_TEXT, b'""', b'"a","b"', rb'"\ud83d"', b'","', b'a"', b'"],["a"', b' "a"', b'"a"\t', b'"\n"']
)
@pytest.mark.parametrize("after", [[], [b'"b"'] * 6, [b'","a"', *[b'"b"'] * 4], [b'b"', *[b'"b"'] * 4], [b"", b'"b"']])
def test_nor_is_it_among_others_of_the_same_read(between: bytes, after: list[bytes]) -> None:
    frame = json.dumps(chunk({"content": "SAME"})).encode()
    said = [frame.replace(b'"SAME"', each) for each in (b'"a"', b'"b"', b'"c"', between, *after)]
    both([read(*said)])
    both([read(said[0]), read(*said[1:])])


def test_half_a_character_is_not_a_text_by_itself() -> None:
    first = json.dumps(chunk({"content": "SAME"})).encode()
    assert Learned(first).text(first.replace(b"SAME", rb"\ud83d")) is None


def test_another_frame_is_decoded_in_full() -> None:
    known = learned(chunk({"content": "a"}))
    for other in (chunk({"content": "a"}, created=2), chunk({"content": "a"}, usage={"prompt_tokens": 3}), piece("a")):
        assert known.text(json.dumps(other).encode()) is None
    whole = chunk({"content": "a"})
    whole["choices"][0]["finish_reason"] = "stop"
    assert known.text(json.dumps(whole).encode()) is None


@pytest.mark.parametrize(
    "said",
    [
        chunk({"content": "a"}, usage={"prompt_tokens": 0, "completion_tokens": 1}),
        chunk({"content": "a"}, usage=[1]),
        chunk({"content": "a"}, error={"message": "no"}),
        chunk({"content": "a"}, object="error"),
        chunk({"content": "a"}, prompt_progress={"processed": 1, "total": 2}),
        chunk({"content": "a", "refusal": "b"}),
        chunk({"content": "a", "reasoning": "b"}),
        chunk({"content": "a", "reasoning": "a"}),
        chunk({"reasoning_content": "a", "reasoning": "b"}),
        chunk({"content": ""}),
        chunk({"content": ["a"]}),
        chunk({"refusal": "a"}),
        chunk({}),
        chunk({"content": "a"}, choices=[]),
        chunk({"content": "a"}, choices=[*chunk({"content": "a"})["choices"], *chunk({"content": "b"})["choices"]]),
        chunk({"content": "a"}, choices=[{"index": 1, "delta": {"content": "a"}}]),
        chunk({"content": "a"}, choices=[{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]),
        chunk({"content": "a"}, choices=[{"index": 0, "delta": {"content": "a"}, "logprobs": {"content": [{}]}}]),
        chunk({"content": "a"}, choices=[{"index": 0, "message": {"content": "a"}}]),
        chunk({"tool_calls": [{"function": {"arguments": {"a": 1}}}]}),
        chunk({"tool_calls": [{"function": {"arguments": "a"}}, {"function": {"arguments": "b"}}]}),
        chunk({"tool_calls": "a"}),
        ["a"],
        None,
    ],
)
def test_a_chunk_that_says_anything_else_teaches_nothing(said: object) -> None:
    assert only_text(said) is None
    assert not KnownFrame().learn(json.dumps(said).encode(), said)


def test_a_frame_is_not_learned_from_another_string_of_that_name() -> None:
    after = b'{"choices":[{"delta":{"content":"a"}}],"x":"y","content":"z"}'
    assert Learned(after).text(after.replace(b'"a"', b'"c"')) == "c"
    before = b'{"note":{"content":"a"},"choices":[{"delta":{"content":"a"}}]}'
    twice = b'{"choices":[{"delta":{"content":"a","content":"a"}}]}'  # the second one counts
    for payload in (before, twice):
        assert not KnownFrame().learn(payload, orjson.loads(payload))


def lessons(chunks: list[Json], monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What came of each chunk that was decoded in full: whether it was learned."""
    learned: list[bool] = []
    inner = KnownFrame.learn

    def learn(known: KnownFrame, payload: bytes, said: object) -> bool:
        learned.append(inner(known, payload, said))
        return learned[-1]

    monkeypatch.setattr(KnownFrame, "learn", learn)
    ChatDecoder(REQUEST, classify).feed(read(*chunks))
    return learned


def test_it_gives_up_on_a_server_whose_chunks_never_repeat(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [chunk({"content": "a"}, created=second) for second in range(2 * CREDIT)]
    assert lessons(chunks, monkeypatch) == [True] * CREDIT + [False] * CREDIT


def test_one_that_changes_now_and_then_is_learned_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [chunk({"content": "a"}, created=second // 2) for second in range(6 * CREDIT)]
    assert lessons(chunks, monkeypatch) == [True] * 3 * CREDIT


def test_a_large_chunk_is_not_kept() -> None:
    said = chunk({"content": "a" * LONGEST})
    assert not KnownFrame().learn(json.dumps(said).encode(), said)


# ------------------------------------------------------------------------------------------------------ in the decoder


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The chunks that are decoded in full."""
    decodings: list[bytes] = []
    inner = ChatDecoder._decode

    def decode(decoder: ChatDecoder, payload: bytes) -> None:
        decodings.append(payload)
        inner(decoder, payload)

    monkeypatch.setattr(ChatDecoder, "_decode", decode)
    return decodings


def test_only_the_first_of_many_chunks_is_decoded_in_full(decodings: list[bytes]) -> None:
    decoder = ChatDecoder(REQUEST, classify)
    for text in ("a", "b", "c", "d"):
        decoder.feed(b"data: " + json.dumps(chunk({"content": text})).encode() + b"\n\n")
    for text in ("e", "f", "g"):
        decoder.feed(b"data: " + json.dumps(chunk({"reasoning": text})).encode() + b"\n\n")
    assert len(decodings) == 2


def counting(number: int) -> Json:
    return {"usage": {"prompt_tokens": 10, "total_tokens": 10 + number, "completion_tokens": number}}


def averaging(number: int) -> Json:
    choice = chunk({"content": ""})["choices"][0]
    return {"choices": [choice | {"stop_reason": None, "avg_decoded_tokens_per_iter": 1 + 3 / (7 + number)}]}


def timed(number: int) -> Json:
    return {"timings": {"prompt_n": 12, "predicted_n": number, "predicted_ms": 30.0 * number, "rate": -1e-05}}


def compact(said: Json) -> bytes:
    return json.dumps(said, separators=(",", ":")).encode()


@pytest.mark.parametrize("numbers", [counting, averaging, timed, lambda number: {"token_ids": [7_000 + number]}])
@pytest.mark.parametrize("field", ["content", "reasoning"])
@pytest.mark.parametrize("ending", [b"\n\n", b" \n\n"])
def test_numbers_after_the_text_may_change(numbers: Any, field: str, ending: bytes, decodings: list[bytes]) -> None:
    def said(number: int) -> bytes:
        whole = chunk({field: "abcdefghijklmnop"[number]}) | numbers(number)
        whole["choices"][0]["delta"] = {field: "abcdefghijklmnop"[number]}
        return b"data: " + compact(whole) + ending

    decoder = ChatDecoder(REQUEST, classify)
    for number in range(6):
        decoder.feed(said(number))
    assert len(decodings) <= 2  # where no usage says that they do, they are seen to change
    events = decoder.feed(b"".join(map(said, range(6, 12))) + read(STOPPED))
    assert events == [Deltas([*"ghijkl"], "ghijkl")]
    assert len(decodings) <= 3


def usages(reads: list[bytes]) -> list[Usage | None]:
    """What is known of the usage after each read."""
    decoder, known = ChatDecoder(REQUEST, classify), list[Usage | None]()
    for each in reads:
        decoder.feed(each)
        known.append(decoder.usage)
    return known


def test_the_usage_is_that_of_the_last_chunk_that_counts() -> None:
    said = [compact(chunk({"content": "a"}) | counting(number)) for number in range(1, 20)]
    counts = [Usage(10, number) for number in range(1, 20)]
    assert usages([read(each) for each in said]) == counts
    assert usages([read(*said)]) == counts[-1:]
    last = compact(chunk({"content": "a"}, usage={"prompt_tokens": 12, "completion_tokens": 3}))
    none = compact(chunk({"content": "a"}, usage={"prompt_tokens": 0, "completion_tokens": 0}))
    assert usages([read(*said, last)]) == [Usage(12, 3)]
    assert usages([read(*said, none)]) == counts[-1:]
    assert usages([read(*said, compact(chunk({"content": "a"})))]) == counts[-1:]


def test_a_stream_that_is_ended_early_has_the_usage_so_far() -> None:
    decoder = ChatDecoder(REQUEST, classify)
    for number in range(1, 5):
        decoder.feed(read(compact(chunk({"content": "a"}) | counting(number))))
    assert decoder.stop() == [Finished(StopReason.STOP, Usage(10, 4))]


@pytest.mark.parametrize(
    "other",
    [
        lambda said: said.replace(b'"completion_tokens":9', b'"completion_tokens":"9"'),
        lambda said: said.replace(b'"completion_tokens":9', b'"completion_tokens":9,"a":1'),
        lambda said: said.replace(b'"completion_tokens":9', b'"completion_tokens":09'),
        lambda said: said.replace(b'"completion_tokens":9', b'"completion_tokens":1e999'),
        lambda said: said.replace(b'"completion_tokens":9', b'"completion_tokens":' + b"9" * 40),
        lambda said: said.replace(b'"completion_tokens":9', b'"completion_tokens":'),
        lambda said: said.replace(b'"completion_tokens":9', b'"completion_tokens":9},"error":{"message":"no"'),
        lambda said: said.replace(b'"prompt_tokens":10', b'"prompt_tokens":0'),
        lambda said: said.replace(b'"finish_reason":null', b'"finish_reason":"stop"'),
        lambda said: said.replace(b'"TEXT"', b'""'),
        lambda said: said.replace(b'"TEXT"', b"null"),
        lambda said: said.replace(b'"TEXT"', b'"TEXT","refusal":"b"'),
        lambda said: said.replace(b'"TEXT"', b'"},\\"logprobs\\":null"'),
        lambda said: said.replace(b'"TEXT"', rb'"\ud83d"'),
        lambda said: said.replace(b'"TEXT"', b'"TE\nXT"'),
        lambda said: said + b"\nid: 1",
        lambda said: b"[DONE]",
    ],
)
@pytest.mark.parametrize("after", [0, 1, 6])
def test_one_that_differs_in_more_among_chunks_that_count(other: Any, after: int) -> None:
    texts = [compact(chunk({"content": str(number)}) | counting(number)) for number in range(1, 6)]
    odd = other(compact(chunk({"content": "TEXT"}) | counting(9)))
    said = [*texts, odd, *texts[:after], STOPPED]
    both([read(*said)])
    both([read(each) for each in said])


@pytest.mark.parametrize("place", ["index", "tool"])
def test_a_number_that_is_read_does_not_change(place: str) -> None:
    """JSON in which it stands after the text."""
    other: Json = {"choices": [{"delta": {"content": "a"}, "finish_reason": None, "index": 0}]}
    if place == "tool":
        call = {"function": {"arguments": "a"}, "id": "c", "index": 0}
        other = {"choices": [{"delta": {"tool_calls": [call]}, "finish_reason": None, "index": 0}]}
    payload = compact(other | counting(3))
    said = [payload.replace(b'"index":0', b'"index":%d' % number, 1) for number in (0, 0, 1, 1, 0, 2, 0)]
    both([read(BEGUN, *said, STOPPED)])
    both([read(BEGUN), *map(read, said), read(STOPPED)])
    assert not KnownFrame().learn(payload, orjson.loads(payload))


@pytest.mark.parametrize("numbers", [lambda number: {}, counting, timed])
def test_a_thought_under_both_of_its_names_is_one(numbers: Any, decodings: list[bytes]) -> None:
    """vLLM copies `reasoning` to `reasoning_content` in each delta of some versions."""

    def said(number: int) -> bytes:
        text = "abcdefghijkl"[number]
        return compact(chunk({"reasoning": text, "reasoning_content": text}) | numbers(number))

    decoder = ChatDecoder(REQUEST, classify)
    for number in range(4):
        decoder.feed(read(said(number)))
    assert decoder.feed(read(*map(said, range(4, 9)))) == [Deltas([*"efghi"], "efghi")]
    assert len(decodings) <= 2


@pytest.mark.parametrize(
    "both_texts",
    [("x", "y"), ("xy", "x"), ("", ""), ("", "x"), ("x", ""), ('","reasoning_content":"', '","reasoning_content":"')],
)
@pytest.mark.parametrize("numbers", [lambda number: {}, counting])
def test_two_thoughts_in_one_chunk(both_texts: tuple[str, str], numbers: Any) -> None:
    one, other = both_texts
    alike = [compact(chunk({"reasoning": text, "reasoning_content": text}) | numbers(3)) for text in "abcdef"]
    odd = compact(chunk({"reasoning": one, "reasoning_content": other}) | numbers(4))
    both([read(*alike, odd, *alike, STOPPED)])
    both([read(each) for each in (*alike, odd, *alike, STOPPED)])
    both([read(*alike, odd.replace(b'"y"', b'"\\u0078"'), odd.replace(b',"reasoning_content"', b""), *alike, STOPPED)])


@pytest.mark.parametrize("field", ["content", "reasoning"])
def test_chunks_of_no_text_are_not_decoded_either(field: str, decodings: list[bytes]) -> None:
    """trtllm-serve sends one for each token of a call that its parser holds back."""
    decoder = ChatDecoder(REQUEST, classify)
    for text in ("a", "", "b"):
        decoder.feed(read(chunk({field: text})))
    assert decoder.feed(read(*(chunk({field: text}) for text in ("c", "", "d", "")))) == [Deltas(["c", "d"], "cd")]
    assert decoder.feed(read(*[chunk({field: ""})] * 5)) == []
    assert len(decodings) == 1


@pytest.mark.parametrize("field", ["content", "reasoning"])
def test_what_comes_together_goes_on_together(field: str) -> None:
    decoder = ChatDecoder(REQUEST, classify)
    decoder.feed(read(chunk({field: "a"})))
    assert decoder.feed(read(*(chunk({field: text}) for text in ("b", "c", "d", "e")))) == [Deltas([*"bcde"], "bcde")]
    assert decoder.feed(read(*(chunk({field: text}) for text in "fghi"), STOPPED)) == [Deltas([*"fghi"], "fghi")]


def test_text_of_code_too_and_the_call_that_it_shows_is_seen() -> None:
    """Nearly all code holds a character with which some family begins its calls."""
    decoder = ChatDecoder(REQUEST, classify)
    decoder.feed(read(chunk({"content": "Look: "})))
    code = ["if a[0]", " >", " 1:", " <too", "l_call>", '{"name": "', "f", '"}']
    assert decoder.feed(read(*(chunk({"content": text}) for text in code))) == [Deltas(code, "".join(code))]
    decoder.feed(read(STOPPED, b"[DONE]"))
    assert decoder.notes == [CALL_IN_TEXT]


def test_pieces_of_arguments_too() -> None:
    decoder = ChatDecoder(REQUEST, classify)
    decoder.feed(read(BEGUN, piece("b")))
    assert decoder.feed(read(*(piece(each) for each in "cdef"))) == [Deltas([*"cdef"], "cdef")]


def read(*said: object) -> bytes:
    return b"".join(
        b"data: " + (each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n\n" for each in said
    )


BEGUN = piece("", id="c", function={"name": "f", "arguments": '{"a": ["'})
STOPPED = chunk({}, choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
HALF = json.dumps(chunk({"content": "HALF"})).encode()


@pytest.mark.parametrize(
    "said",
    [
        [chunk({"content": "a"}), HALF.replace(b"HALF", rb"\ud83d"), HALF.replace(b"HALF", rb"\ude00b"), STOPPED],
        [chunk({"content": "a"}), HALF.replace(b"HALF", rb"\ud83d"), chunk({"content": "b"}), STOPPED],
        [chunk({"content": "a"}), STOPPED, chunk({"content": "late"}), chunk({"content": "later"}), b"[DONE]"],
        [chunk({"content": "a"}), STOPPED, b"[DONE]", chunk({"content": "after"})],
        [chunk({"content": "a"}), chunk({"content": "b"})],
        [
            chunk({"content": "<tool_call>"}),
            chunk({"content": '{"name": "f"}'}),
            piece("{}", id="c", type="f"),
            STOPPED,
        ],
        [
            chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]}),
            *(piece(part) for part in ('{"a"', ': "', "b", '"}', "{}", "x")),
            STOPPED,
        ],
        [
            chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]}),
            piece("}"),
            chunk({"content": "text"}),
            chunk({"tool_calls": [{"index": 1, "id": "d", "function": {"name": "f", "arguments": "{"}}]}),
            piece("late"),
            piece("}", index=1),
            STOPPED,
        ],
        [
            *(
                chunk({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": each}}]})
                for each in ("{", '{"a', '{"a":1}')
            ),
            STOPPED,
        ],
    ],
)
def test_state_between_chunks_is_kept(said: list[object]) -> None:
    both([read(*said)])
    both([read(each) for each in said])


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda each: each.stem)
def test_each_transcript_says_the_same(transcript: Any) -> None:
    data = upstream(transcript)
    both([data])
    both([event + b"\n\n" for event in data.split(b"\n\n")])


@pytest.mark.parametrize("field", ["content", "reasoning"])
@pytest.mark.parametrize("limit", range(30, 400, 10))
def test_an_answer_ends_at_the_same_byte_however_many_pieces_come_at_once(field: str, limit: int) -> None:
    said = read(*(chunk({field: text}) for text in ["a", "é", " ", "<", "b" * 40, "c", "d", "e", "f"]))
    both([said], limit)


@pytest.mark.parametrize("count", [1, 2, 4, 30, 300])
@pytest.mark.parametrize("at", [0, 1, 2, 29, 70, 299])
def test_one_that_differs_among_many(count: int, at: int) -> None:
    said: list[object] = [chunk({"content": str(number)}) for number in range(count)]
    ending = json.dumps(chunk({"content": "x"})).replace('"finish_reason": null', '"finish_reason": "ok"').encode()
    for other in (chunk({"content": ""}), chunk({"content": "x"}, created=2), chunk({"reasoning": "x"}), ending, b"{}"):
        both([read(*said[:at], other, *said[at:], STOPPED, b"[DONE]")])


@pytest.mark.parametrize("long", [SEVERAL, WINDOW - 300, WINDOW, 3 * WINDOW])
def test_a_long_text_among_many(long: int) -> None:
    said = [chunk({"content": text}) for text in ("a", "b", "c", "d" * long, "e", "f", "g" * long, "h" * long, "i")]
    both([read(*said, STOPPED)])


@pytest.mark.parametrize("event", [b"\n", b":\n\n", b"data:\n\n", b"data: {}\n\n"])
@pytest.mark.parametrize("begun", [True, False])
def test_events_of_no_size_are_not_looked_at_one_by_one(
    event: bytes, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0
    inner = KnownFrame.texts

    def texts(known: KnownFrame, events: bytes, begin: int) -> tuple[int, Any]:
        nonlocal looks
        looks += 1
        return inner(known, events, begin)

    monkeypatch.setattr(KnownFrame, "texts", texts)
    decoder = ChatDecoder(REQUEST, classify)
    decoder.feed(read(*[chunk({"content": "a"})] * begun))
    decoder.feed(event * (WINDOW // len(event)))
    assert looks <= 1 + WINDOW // FEW


FRAMES = [b"data: %b\n\n", b"data:%b\n\n", b"data: %b \n\n", b"data: %b  \n\n", b"data: %b\r\n\r\n", b"data: %b\n\n\n",
          b": still here\n\ndata: %b\n\n", b"event: message\ndata: %b\n\n", b"data: %b\nid: 1\n\n"]  # fmt: skip


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("other", FRAMES)
def test_many_in_whatever_lines(frame: bytes, other: bytes) -> None:
    said = [json.dumps(chunk({"content": text})).encode() for text in "abcdefghijkl"]
    lines = [(other if number in (5, 8, 9) else frame) % each for number, each in enumerate(said)]
    both([b"".join(lines)])
    both([lines[0], b"".join(lines[1:])])


@pytest.mark.parametrize("cut", [b"\n\n", b"\n", b" ", b"\n\ndata: ", b"\n\ndata: {"])
def test_an_event_that_ends_within_its_frame(cut: bytes) -> None:
    """Then the rest is an event of its own."""
    event = read(chunk({"content": "a"}))
    head, string, tail = event.partition(b'"a"')
    for broken in (head + string + cut + tail, head + cut + string + tail, head + b'"a' + cut + b'"' + tail):
        both([event * 4, broken * 2 + event * 6])
        both([event * 8 + broken + event * 8])


TEXTS = st.text(st.characters(exclude_categories=()), max_size=4)
SAID = st.one_of(
    TEXTS.map(lambda text: chunk({"content": text})),
    TEXTS.map(lambda text: chunk({"content": text, "reasoning_content": None})),
    TEXTS.map(lambda text: chunk({"reasoning_content": text})),
    TEXTS.map(lambda text: chunk({"reasoning_content": text, "reasoning": text})),
    st.builds(lambda text, index: piece(text, index=index), TEXTS, st.sampled_from([0, 1])),
    st.builds(
        lambda text, id: chunk({"tool_calls": [{"index": 0, "id": id, "function": {"name": "f", "arguments": text}}]}),
        TEXTS,
        st.sampled_from(["c", "d", None]),
    ),
    st.just(chunk({"content": "a"}, usage={"prompt_tokens": 1, "completion_tokens": 1})),
    st.builds(lambda text, number: compact(chunk({"content": text}) | counting(number)), TEXTS, st.integers(0, 30)),
    st.builds(lambda text, number: compact(chunk({"content": text}) | timed(number)), TEXTS, st.integers(0, 3)),
    st.just(STOPPED),
    st.just(b"[DONE]"),
)


@given(st.lists(SAID, max_size=12), st.booleans())
def test_any_sequence_says_the_same(said: list[object], apart: bool) -> None:
    both([read(each) for each in said] if apart else [read(*said)])


@pytest.mark.parametrize(
    "pieces", ["x" * 9, 'x"]}     ', 'x"] }late!', ['x"', "] } late", *" more"], ['x"]}', *"abcdef"], ['"]}'] * 6]
)
@pytest.mark.parametrize("header", [{}, {"id": "c"}, {"id": "c", "type": "function"}])
@pytest.mark.parametrize("limit", [300, 420, 450, ANSWER_BYTES])
def test_arguments_are_whole_with_the_same_piece_however_many_come_at_once(
    pieces: list[str], header: Json, limit: int
) -> None:
    said = read(BEGUN, *(piece(each, **header) for each in pieces), STOPPED)
    both([said], limit)


def test_arguments_of_a_call_that_waits_for_another_one() -> None:
    second = piece("", index=1, id="d", function={"name": "f", "arguments": '{"b": ["'})
    for pieces in ("x" * 9, ['x"]}', *"abcdef"]):
        both([read(BEGUN, second, *(piece(each, index=1) for each in pieces), piece('"]}'), STOPPED)])
        both([read(BEGUN, second, *(piece(each) for each in pieces), piece('"]}', index=1), STOPPED)])


def test_a_piece_that_is_as_long_as_all_before_it_may_be_a_snapshot() -> None:
    begun = '{"a": ["'
    for pieces in (["b", begun + "bc", *"defg"], ["b", "c", begun + "bc" + "d" * 9, *"efg"], [begun, begun, *"abcd"]):
        both([read(BEGUN, *(piece(each) for each in pieces), piece('"]}'), STOPPED)])


HEADERS: list[Json] = [{}, {"id": "c"}, {"id": "c", "function": {"name": "f"}}, {"index": 1, "id": "d"}, {"id": "e"}]
RUNS = st.one_of(
    st.builds(
        lambda texts: [chunk({"content": text}) for text in texts], st.lists(st.text("a<é{", min_size=1, max_size=3))
    ),
    st.builds(
        lambda texts: [chunk({"reasoning": text}) for text in texts], st.lists(st.text("a ", min_size=1, max_size=3))
    ),
    st.builds(
        lambda texts, header: [
            piece("", **header | {"function": {"arguments": text, **header.get("function", {})}}) for text in texts
        ],
        st.lists(st.text('{}[]":,\\ a1', min_size=1, max_size=3), max_size=12),
        st.sampled_from(HEADERS),
    ),
)


@given(st.lists(RUNS, max_size=5), st.booleans(), st.integers(100, 900))
def test_any_runs_say_the_same(runs: list[list[Json]], begun: bool, limit: int) -> None:
    said = [*([BEGUN] if begun else []), *(each for run in runs for each in run), STOPPED]
    both([read(*said)])
    both([read(*said)], limit)
