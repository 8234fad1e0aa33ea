"""The body of a refusal: its words are found, cut and redacted, its fields read, whatever a server sends."""

from __future__ import annotations

import ast
import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from dragoman.backends.chat.decoder import ChatDecoder
from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.refused_fields import by_fields, by_words
from dragoman.backends.chat.settings import Settings
from dragoman.backends.refusal import MAX_SHOWN, MAX_WORDS, Fault, Refusal, Words, cut, for_log, read, redact
from dragoman.backends.triton.errors import classify as classify_triton
from dragoman.gateway.telemetry.logs import Redactor
from dragoman.translators.errors import GatewayError, Kind
from tests.recording import ask
from tests.scripted import Script, sse
from tests.serving_gateway import PATHS, asking, served

BACKENDS = Path(__file__).parents[2] / "backends"


def said(message: object, **fields: object) -> dict[str, Any]:
    return {"error": {"message": message, **fields}}


# ------------------------------------------------------------------------------------------------------------- reading


def test_the_words_are_found_wherever_the_server_puts_them() -> None:
    for body in (
        {"error": "x"},
        {"error": {"message": "x"}},
        {"error": {"detail": "x"}},
        {"error": {"message": {"detail": "x"}}},
        {"detail": "x"},
        {"detail": ["x"]},
        {"error": None, "message": "x"},
        {"message": "x"},
        "x",
    ):
        assert read(orjson.dumps(body)).words == "x"
    assert read(b'data: {"error":"x"}\n\ndata: [DONE]\n\n').words == "x"
    assert read(b"<html>x</html>").words == "<html>x</html>"


def test_fields_are_read_beside_the_words() -> None:
    error = said("no", type="invalid_request_error", code="unknown_parameter", param="top_k")
    assert read(orjson.dumps(error)) == Refusal(Words("no"), Words("invalid_request_error unknown_parameter"), "top_k")
    assert read(said("no", code=429)).status == 429
    assert read(said("no", code="429")).status == 429
    assert read(said("no", code=4290)).status == 0
    assert read(said("no", n_prompt_tokens=9, n_ctx=5)).words == "no n_prompt_tokens=9 n_ctx=5"


def test_of_validation_faults_only_what_the_server_says_is_read() -> None:
    fault = {
        "type": "extra_forbidden",
        "loc": ["body", "top_k"],
        "msg": "Extra inputs",
        "input": "ECHO",
        "ctx": {"a": 1},
    }
    for body in ({"detail": [fault]}, {"error": [fault]}, [fault], said([fault]), {"message": [fault]}):
        refusal = read(orjson.dumps(body))
        assert refusal.words == "body.top_k: Extra inputs"
        assert refusal.faults == (Fault(("body", "top_k"), "extra_forbidden"),)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("[{'type': 'x', 'loc': ('body', 'a'), 'msg': 'no', 'input': 'ECHO ECHO'}]", "'msg': 'no'"),
        ('Bad request: [{"type":"x","loc":["body","a"],"msg":"no","input":{"a":"ECHO"}}]', '"msg":"no"'),
        ("a\n  Input should be 1 [type=int, input_value='ECHO', input_type=str]\nb\n  no", "b\n  no"),
        ("[{'msg': 'no', 'input': '" + "ECHO " * 20_000 + "'}]", "'msg': 'no'"),
    ],
)
def test_what_a_printed_fault_repeats_of_the_request_is_left_out(text: str, kept: str) -> None:
    for body in (orjson.dumps({"error": text}), text.encode()):
        words = read(body).words
        assert "ECHO" not in words
        assert kept in words


def test_the_first_and_the_last_of_many_faults_are_read() -> None:
    faults = [{"type": "missing", "loc": ["body", f"field{n}"], "msg": "Field required"} for n in range(1000)]
    refusal = read(orjson.dumps({"detail": faults}))
    assert {"field0", "field999"} <= {fault.path[1] for fault in refusal.faults}
    assert "field0:" in refusal.words
    assert "field999:" in refusal.words


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"null", b"[]", b"3", b'"text"', b"\xff\xfe", b"data:", b'{"error": null}', b'{"error": {}}'),
        b'{"error": [1]}',
        b'{"error": {"code": true, "type": [], "param": {}}}',
        b'{"detail": [null, {"loc": 5}, {"loc": [{}], "msg": 3}]}',
        b'{"error":' * 200 + b'"x"' + b"}" * 200,
        b'{"error":' + b"[" * 900 + b"]" * 900 + b"}",
        b"[" * 60_000,
    ],
)
@pytest.mark.parametrize("status", [200, 302, 400, 404, 422, 500, 503])
def test_no_body_is_too_odd(status: int, body: bytes) -> None:
    assert classify(status, body, Settings()).message
    refusal = read(body)
    assert not by_fields(refusal, {"top_k"})
    assert not by_words(refusal, {"top_k"})


# -------------------------------------------------------------------------------------------------------------- the cut


def test_a_short_text_is_left_as_it_is() -> None:
    assert cut("x " * 2048) == "x " * 2048


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    words = cut("max_seq_len (8192) " + "between " * 10_000 + "ValueError: bad temperature")
    assert len(words) <= MAX_WORDS
    assert words.startswith("max_seq_len (8192) between")
    assert words.endswith("ValueError: bad temperature")


@pytest.mark.parametrize("whole", ["123456789", "sk-abcdefghijklmnop", "http://10.0.0.7:8000/v1", "/opt/engine/run.py"])
def test_what_the_cut_goes_through_is_left_out(whole: str) -> None:
    """Half a number would be another number, and half a key would not be recognised as one."""
    for shift in range(-len(whole) - 3, 4):
        for place in (MAX_WORDS // 2 + shift, 10_000 - MAX_WORDS // 2 + shift):
            text = (" " * place + whole).ljust(10_000)
            assert cut(text).replace("…", "").strip() in ("", whole)


def test_an_overflow_s_numbers_survive_the_cut_at_either_end() -> None:
    wording = "This model's maximum context length is 8192 tokens. However, your request has 9351 input tokens."
    for text in (wording + " pad" * 20_000, "pad " * 15_000 + wording):
        error = classify(400, said(text), Settings())
        assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, 9351, 8192)


def test_a_number_of_a_thousand_digits_is_no_size() -> None:
    text = f"maximum context length is {'9' * 5000} tokens. {'8' * 5000} tokens from the input, max_seq_len (8192)"
    error = classify(400, said(text[:4000]), Settings())
    assert (error.kind, error.tokens, error.limit) == (Kind.OVERFLOW, None, None)


def test_words_are_made_by_the_cut_alone() -> None:
    """mypy holds the rest: patterns and what is passed on take `Words`."""
    makers = {
        path.name
        for path in BACKENDS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Words"
    }
    assert makers == {"refusal.py"}


# ------------------------------------------------------------------------------------------------------------- redacted


@pytest.mark.parametrize(
    "secret",
    [
        "http://10.0.0.7:8000/v1/x",
        "10.0.0.7:8000",
        "gpu-3.internal.example:8000",
        "localhost:9000",
        "/usr/lib/python3/site-packages/engine/run.py",
        "C:\\Users\\me\\x.py",
        "sk-abcdefghijkl",
        "Bearer abc.def",
    ],
)
def test_addresses_paths_and_keys_are_not_passed_on(secret: str) -> None:
    shown = redact(cut(f"cannot do {secret} now"))
    assert secret not in shown
    assert shown.startswith("cannot do")
    assert secret not in classify(400, said(f"cannot do {secret} now"), Settings()).message


def test_of_a_stack_trace_the_last_line_is_passed_on() -> None:
    frames = "".join(f'  File "/x/y{n}.py", line {n}, in f\n    g()\n' for n in range(1000))
    for trace in (f"Traceback (most recent call last):\n{frames}", frames):
        assert redact(cut(f"{trace}ValueError: bad temperature\n\n")) == "ValueError: bad temperature"


def test_long_words_are_shown_in_part() -> None:
    assert len(redact(cut("long words " * 2000))) == MAX_SHOWN


def test_parameter_names_and_schemas_survive_redaction() -> None:
    schema = "tools[0].function.name must match ^[a-z]+$"
    assert redact(cut(schema)) == schema


# -------------------------------------------------------------------------------------------------------------- hostile

UNITS = [
    "\n",
    "\t ",
    "\r",
    'File "',
    '\n File "',
    "9",
    "9 ",
    "9.",
    "1.1.1.1.",
    "a.",
    "a-",
    "-.",
    "a" * 63 + ".",
    "/a/a/a",
]
UNITS += ["a.a.a.a:", "a:/", "http://", "\\", "C:\\a", "x.py", "sk-", "key-aaaaaaaa ", "Bearer ", "api_key=", "=", "["]
UNITS += ["model ", "model a ", "unknown parameter ", "'seed' ", "\nseed", "seed is ", "Extra inputs are not permitted"]
UNITS += [
    "extra_forbidden', 'loc': ('a', ",
    "prompt length (",
    "splited_prompt_len` (1)",
    "must be ",
    "n_ctx....",
    "é.",
]
UNITS += ["'input': ", "input_value=", "Traceback (most recent call last)\n", '{"a":', "\u2028", "\x00"]
SHAPES: dict[str, Callable[[str], object]] = {
    "message": said,
    "fields": lambda text: said("x", type=text, code=text, param=text),
    "faults": lambda text: {"detail": [{"type": text, "loc": ["body", text], "msg": text, "input": text}] * 3},
    "many faults": lambda text: {"detail": [{"type": "extra_forbidden", "loc": [text[:50]], "msg": text[:50]}] * 600},
    "no message": lambda text: {f"k{n}": text[:100] for n in range(600)},
}


def consider(refusal: Refusal) -> None:
    """All that is ever done with what a server said."""
    classify(400, refusal, Settings(overflow_patterns=(r"zu lang: (?P<tokens>\d+) von (?P<limit>\d+)",)))
    classify(200, refusal, Settings())
    classify_triton("INTERNAL", refusal.words)
    by_fields(refusal, {"seed", "top_k"})
    by_words(refusal, {"seed", "top_k"})
    redact(refusal.words)


@pytest.mark.parametrize("unit", UNITS, ids=repr)
def test_sixty_kilobytes_of_anything_cost_no_time(unit: str) -> None:
    text = unit * (60_000 // len(unit))
    begun = time.process_time()
    for body in [text.encode(), *(orjson.dumps(shape(text)) for shape in SHAPES.values())]:
        refusal = read(body)
        assert len(refusal.words) <= MAX_WORDS
        assert len(refusal.code) <= MAX_WORDS
        assert len(refusal.param) <= MAX_WORDS
        consider(refusal)
        Redactor(["a known key"])(for_log(body))
    assert time.process_time() - begun < 1  # before, one of them took eleven seconds


@pytest.mark.parametrize("unit", ["\n", "9 ", "a-", "é.", "\t "], ids=repr)
def test_a_megabyte_within_a_stream_costs_no_time(unit: str) -> None:
    refusals: list[Refusal] = []

    def keep(status: int, error: object) -> GatewayError:
        refusals.append(read(error))
        for_log(f"{refusals[-1].code} {refusals[-1].words}")
        return classify(status, refusals[-1], Settings())

    text = unit * (1_000_000 // len(unit))
    begun = time.process_time()
    for shape in SHAPES.values():
        with pytest.raises(GatewayError):
            ChatDecoder(ask(), keep).feed(b"data: " + orjson.dumps({"error": None, **_top(shape(text))}) + b"\n\n")
    assert len(refusals) == len(SHAPES)
    assert all(len(refusal.words) <= MAX_WORDS for refusal in refusals)
    assert time.process_time() - begun < 1.5


def _top(body: Any) -> dict[str, Any]:
    return body if "error" in body else {"error": body}


LONG = {
    "line ends": Script(b"\n" * 60_000, 400),
    "line ends in words": Script.json(said("\n" * 60_000), 422),
    "frames of a traceback": Script.json({"error": '\n  File "' * 8_000}, 500),
    "a megabyte in the stream": Script(sse(said("\n" * 1_000_000))),
    "a megabyte of types in the stream": Script(sse(said("no", type="\t" * 1_000_000, code="9 " * 500_000))),
}


@pytest.mark.parametrize("how", LONG)
async def test_others_are_served_while_a_long_refusal_is_read(how: str) -> None:
    gaps = [0.0]

    async def tick() -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(0.005)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    async with served(LONG[how], backend={"preset": "vllm"}) as it:
        ticking = asyncio.create_task(tick())
        async with it.session.post(it.url + PATHS["responses"], json=asking("responses", "hi")) as reply:
            assert reply.status in (400, 502)
            assert len(await reply.text()) < 2000
        ticking.cancel()
        await asyncio.wait((ticking,))
    assert max(gaps) < 1  # before, it was two to eleven seconds for some
