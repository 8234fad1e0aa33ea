"""What is written to the log: one line a record, no secret, no prompt."""

from __future__ import annotations

import io
import linecache
import logging
import os
import re
import time
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragoman.backends.base import Sink
from dragoman.backends.refusal import for_log
from dragoman.gateway.calls import access_log
from dragoman.gateway.calls.access_log import PromptProgress
from dragoman.gateway.config import LogConfig
from dragoman.gateway.telemetry.logs import PATTERNS, Redactor, begin_line, begins, configure, log, request_line
from dragoman.gateway.telemetry.metrics import MOST_NAMES, Metrics
from dragoman.translators.ir import (
    Delta,
    Finished,
    Note,
    PartEnded,
    PartStarted,
    Request,
    Started,
    StopReason,
    Usage,
)
from tests.gateway_fakes import FakeBackend, running

# Keys, what stands before them, and letters that case folding and regular expressions take for ASCII ones.
PIECES = (
    "canary", "canary-2", "Bearer ", "bea", "rer", "SK-", "\u017fk-", "s\u212a-", "api", "ap\u0131", "\u212aey", "KEY",
    "x-", "_", "-", "=", ": ", '"', "a1b2c3", "Z9", " ", "\n", "\u00e9",
)  # fmt: skip


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("asyncio", "aiohttp")}
    yield io.StringIO()
    begins.disabled = True
    root.handlers[:], _ = before
    root.setLevel(before[1])
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def bug() -> None:
    raise KeyError("a prompt")


def test_records_are_json_lines_without_secrets(stream: io.StringIO) -> None:
    configure(LogConfig(), ["canary-1"], stream)
    log.info("a key canary-1\nand Bearer abcdefghij", extra={"fields": {"where": "http://x/?api_key=abcdefgh", "n": 1}})
    request_line(logging.INFO, {"status": 200, "absent": None})
    lines = stream.getvalue().splitlines()
    first, second = map(orjson.loads, lines)
    assert first["message"] == "a key ****\nand Bearer ****"
    assert first["where"] == "http://x/?api_key=****"
    assert (second["message"], second["status"]) == ("request", 200)
    assert "absent" not in second


@pytest.mark.parametrize("style", ["json", "text"])
def test_a_key_with_a_quote_or_a_backslash_is_removed_too(stream: io.StringIO, style: str) -> None:
    configure(LogConfig.model_validate({"format": style}), ['can"ary\\1'], stream)
    log.info('behind can"ary\\1 before', extra={"fields": {"where": 'can"ary\\1'}})
    told = stream.getvalue()
    assert "ary" not in told
    assert "behind **** before" in told


@pytest.mark.parametrize("prompts", [False, True])
@pytest.mark.parametrize("level", ["info", "debug"])
def test_a_bug_is_logged_with_its_place_and_its_words_only_where_asked_for(
    stream: io.StringIO, level: str, prompts: bool
) -> None:
    configure(LogConfig.model_validate({"level": level, "prompts": prompts}), [], stream)
    try:
        bug()
    except KeyError:
        log.exception("bug")
    told = orjson.loads(stream.getvalue())["exception"]
    assert "KeyError" in told
    assert "gateway/telemetry/test_logs.py" in told
    assert ("a prompt" in told) == prompts


def test_the_place_of_a_bug_is_named_without_reading_its_source(
    stream: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("a source file was looked at, on the event loop of a gateway that serves")

    configure(LogConfig(), [], stream)
    with monkeypatch.context() as patched:
        for name in ("checkcache", "updatecache", "getline", "getlines"):
            patched.setattr(linecache, name, read)
        try:
            bug()
        except KeyError:
            log.exception("bug")
    assert "test_logs.py" in orjson.loads(stream.getvalue())["exception"]


@pytest.mark.parametrize("prompts", [False, True])
@pytest.mark.parametrize("style", ["json", "text"])
def test_what_a_server_said_is_logged_only_where_asked_for(stream: io.StringIO, style: str, prompts: bool) -> None:
    configure(LogConfig.model_validate({"format": style, "prompts": prompts}), [], stream)
    log.warning("%s: status %d: %s", "gpu", 400, for_log(b"bad prompt: hello\nworld"))
    told = stream.getvalue()
    assert "gpu: status 400: " in told
    assert ("bad prompt: hello world" in told) is prompts
    assert ("log.prompts" in told) is not prompts


def test_the_text_format_is_one_line_too(stream: io.StringIO) -> None:
    configure(LogConfig(format="text"), [], stream)
    log.warning("two\nlines", extra={"fields": {"n": 1}})
    assert stream.getvalue().endswith("warning two\\nlines n=1\n")
    assert stream.getvalue().count("\n") == 1


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> Terminal:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def test_a_terminal_gets_aligned_and_coloured_lines_for_people(terminal: Terminal) -> None:
    configure(LogConfig(), [], terminal)
    log.warning("draining", extra={"fields": {"in_flight": 2}})
    request_line(logging.INFO, {"status": 200})
    first, second = terminal.getvalue().splitlines()
    assert re.fullmatch(
        r"\x1b\[2m\d\d:\d\d:\d\d\x1b\[0m \x1b\[33mwarning\x1b\[0m draining     \x1b\[2min_flight=\x1b\[0m2", first
    )
    assert second.endswith("\x1b[32minfo   \x1b[0m request      \x1b[2mstatus=\x1b[0m200")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_without_colours_gets_none(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    configure(LogConfig(), [], terminal)
    log.info("ready", extra={"fields": {"n": 1}})
    assert re.fullmatch(r"\d\d:\d\d:\d\d info    ready        n=1\n", terminal.getvalue())


def test_json_can_be_asked_for_in_a_terminal_too(terminal: Terminal) -> None:
    configure(LogConfig(format="json"), [], terminal)
    log.info("ready")
    assert orjson.loads(terminal.getvalue())["message"] == "ready"


def test_a_secret_is_removed_before_colours_could_hide_it_and_nothing_moves_the_cursor(terminal: Terminal) -> None:
    configure(LogConfig(), ["canary-1"], terminal)
    log.info("key canary-1 \x1b[2J", extra={"fields": {"api_key": "canary-2", "where": "a\nb canary-1"}})
    told = terminal.getvalue()
    assert "canary" not in told
    assert "\x1b[2J" not in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "in_terminal", "logged"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"level": "debug"}, False, True),
        ({"begins": True}, False, True),
        ({"begins": False}, True, False),
        ({"begins": True, "level": "warning"}, True, False),
    ],
)
def test_a_line_when_a_server_is_asked_comes_where_somebody_waits_for_it(
    stream: io.StringIO, terminal: Terminal, config: dict[str, object], in_terminal: bool, logged: bool
) -> None:
    into = terminal if in_terminal else stream
    configure(LogConfig.model_validate(config), [], into)
    if not begins.disabled:
        begin_line({"request_id": "req_1", "client": None})
    assert ("req_1" in into.getvalue()) is logged
    assert "client" not in into.getvalue()


def test_a_line_says_how_far_a_server_is_with_a_long_prompt_and_none_for_a_short_one(terminal: Terminal) -> None:
    configure(LogConfig(), [], terminal)
    now = 100.0
    said = PromptProgress("req_1", lambda: now)
    for seconds, tokens in ((0.0, 0), (4.0, 500), (5.0, 600), (8.0, 900), (10.0, 1200), (11.0, 2000)):
        now = 100.0 + seconds
        said(tokens, 2000)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line)[9:] for line in terminal.getvalue().splitlines()]
    assert lines == [
        "info    reading      request_id=req_1 tokens_read=600 tokens_in=2000 percent=30",
        "info    reading      request_id=req_1 tokens_read=1200 tokens_in=2000 percent=60",
    ]


@pytest.mark.parametrize("config", [{}, {"begins": False}])
async def test_a_call_logs_how_far_its_server_is_where_somebody_waits_for_it(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, config: dict[str, object]
) -> None:
    async def play(request: Request, sink: Sink) -> None:
        sink.prompt_read(5, 10)
        sink.feed([Started(), PartStarted("text"), Delta("x"), PartEnded(), Finished(StopReason.STOP, None)])

    monkeypatch.setattr(access_log, "PROGRESS_EVERY", 0.0)
    async with running(FakeBackend(play)) as served:
        configure(LogConfig.model_validate(config), [], terminal)
        async with served.post({"model": "only", "input": "hi", "stream": True}) as answer:
            assert answer.status == 200
            await answer.read()
    told = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())
    assert ("tokens_read=5 tokens_in=10 percent=50" in told) is (not config)


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer sekret-123456",
        "x-api-key: sekret-123456",
        "sk-sekret-123456",
        '{"api_key": "sekret-123456"}',
    ],
)
def test_what_looks_like_a_key_is_removed(text: str) -> None:
    assert "sekret" not in Redactor()(text)


@given(st.lists(st.sampled_from(PIECES)).map("".join))
def test_what_is_searched_for_marks_first_loses_the_same_keys(text: str) -> None:
    assert Redactor(["canary", "canary-2"])(text) == PATTERNS.sub(
        r"\1****", text.replace("canary-2", "****").replace("canary", "****")
    )


def test_names_that_clients_choose_cannot_fill_the_metrics() -> None:
    metrics = Metrics()
    for number in range(MOST_NAMES * 2):
        metrics.note(Note("field", f"name{number}"))
    metrics.note(Note("field", "not a plain name!"))
    series = [line for line in metrics.render().decode().splitlines() if line.startswith("dragoman_notes_total")]
    assert len(series) == MOST_NAMES + 1
    assert f'dragoman_notes_total{{kind="field",name="other"}} {MOST_NAMES + 1}.0' in series


def test_unmeasured_usage_is_counted_as_unknown_not_as_zero() -> None:
    metrics = Metrics()
    series = metrics.series("r", "codex", "b", "m")
    series.usage(None)
    series.usage(Usage(5, 0))
    value = metrics.registry.get_sample_value
    assert value("dragoman_answers_without_usage_total", {"route": "r", "backend": "b"}) == 1
    labels = {"route": "r", "client_kind": "codex", "model": "m", "backend": "b"}
    assert value("dragoman_tokens_total", {**labels, "direction": "input"}) == 5
    assert value("dragoman_tokens_total", {**labels, "direction": "cached"}) is None


HARMFUL = [
    *("\0", "\x1b[2J", "\x7f", "\x9b2J", "\n", "\r", "\x85", "\u2028", "\u2029"),
    *("\u202e", "\u2066", "\u200b", "\ufeff", "\U000e0001", "\ud800"),
]


@pytest.mark.parametrize("char", HARMFUL)
@pytest.mark.parametrize("style", ["json", "text", "terminal"])
def test_no_value_steers_a_terminal_or_ends_a_line(
    stream: io.StringIO, terminal: Terminal, style: str, char: str
) -> None:
    terminal_text, into = style == "terminal", terminal if style == "terminal" else stream
    configure(LogConfig.model_validate({"format": None if terminal_text else style}), [], into)
    log.info("words %s", f"a{char}b", extra={"fields": {"model": f"a{char}b", "list": [f"a{char}b"]}})
    told = into.getvalue()
    assert told.endswith("\n")
    rest = re.sub(r"\x1b\[[0-9;]+m", "", told[:-1]) if terminal_text else told[:-1]
    assert rest.isprintable()
    if style == "json":
        assert orjson.loads(told)["message"] == f"words a{char}b".encode("utf-8", "replace").decode()


def test_a_value_is_one_field_whatever_it_holds(stream: io.StringIO) -> None:
    configure(LogConfig(format="text"), [], stream)
    log.info("asked %s", "x status=500", extra={"fields": {"model": "m status=200 client=root", "id": 'a"b', "n": 1}})
    assert stream.getvalue().endswith('"asked x status=500" model="m status=200 client=root" id="a\\"b" n=1\n')


def test_a_secret_in_a_quoted_value_is_removed(stream: io.StringIO) -> None:
    configure(LogConfig(format="text"), ['can"ary 1'], stream)
    log.info("x", extra={"fields": {"where": 'before can"ary 1\n'}})
    assert stream.getvalue().endswith('where="before ****\\n"\n')


@pytest.mark.usefixtures("stream")
def test_a_reader_that_has_stopped_holds_up_nobody() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    with open(writing, "w") as written, open(reading, "rb") as pipe:
        configure(LogConfig(), stream=written)
        began = time.monotonic()
        for number in range(2000):
            log.warning("line %d", number)
        assert time.monotonic() - began < 5
        told = [orjson.loads(line)["message"] for line in pipe]
        log.warning("again")
        last = [orjson.loads(line) for line in pipe]
    assert told == [f"line {number}" for number in range(len(told))]
    assert [each["message"] for each in last] == ["lost, since nobody read the log", "again"]
    assert last[0]["lines"] == 2000 - len(told)
