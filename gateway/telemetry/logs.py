"""Logging: one line per record on stderr, JSON or text, with every known secret removed.

In a terminal the text is aligned and coloured; elsewhere, in files and under supervisors, it is JSON unless configured.
Requests are logged when they end, and in a terminal also when a model server is asked and while it reads a long
prompt, with figures and names but never with prompt or answer text. A server's words and the message of an unexpected
exception may quote a prompt, so they are left out at every level unless `log.prompts` is set; a bug is logged with the
frames of its traceback.

Whoever wrote a value, it cannot end a line, add a field or steer a terminal: a character that is not printable is
escaped as in JSON, in every format, and in the text format a value that could be read as more than one is quoted.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, TextIO

import orjson

from dragoman.backends.sensitive import Sensitive
from dragoman.gateway.config import LogConfig

log = logging.getLogger("dragoman")
begins = logging.getLogger("dragoman.begins")  # has a switch of its own
begins.disabled = True
SLOW_READER = 100  # milliseconds that one is waited for
LOST = {"name": log.name, "levelno": logging.WARNING, "levelname": "WARNING", "msg": "lost, since nobody read the log"}
NOT_LOGGED = "(words not logged: log.prompts)"
DIM = "2"
COLOURS = {logging.DEBUG: "36", logging.INFO: "32", logging.WARNING: "33", logging.ERROR: "31", logging.CRITICAL: "31"}
LEVEL, MESSAGE = 7, 12  # widths of columns
PLAIN_VALUE = re.compile(r"""[^\s"'=]+""")  # one value without a doubt, so that it needs no quotes
# What looks like a key, although it is none of ours: bearer tokens, `sk-…`, and `api_key=…` in an address.
PATTERNS = re.compile(r"(?i)(bearer\s+|\bsk-|x-api-key[\"':\s=]+|api[_-]?key[\"':\s=]+)[A-Za-z0-9._~+/=-]{6,}")
MARKS = ("bearer", "sk-", "key")  # case-folded: without any of them a text needs no search, which takes 20 µs a line


def escaped(text: str) -> str:
    """With what is not printable (controls, line separators, marks of direction) written as JSON escapes it."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _quoted(value: object) -> str:
    """A value in a line of text, in quotes where a reader could take it for several."""
    text = str(value)
    if PLAIN_VALUE.fullmatch(text):
        return escaped(text)
    return escaped(json.dumps(text, ensure_ascii=False))


class Redactor:
    def __init__(self, secrets: Iterable[str] = ()) -> None:
        plain = {secret for secret in secrets if secret}
        in_json = {json.dumps(secret, ensure_ascii=False)[1:-1] for secret in plain}
        self._known = sorted(plain | in_json, key=len, reverse=True)
        self._any_known = re.compile("|".join(map(re.escape, self._known)))

    def __call__(self, text: str) -> str:
        for secret in self._known:
            if secret in text:
                text = self._any_known.sub("****", text)
                break
        folded = text.casefold()
        for mark in MARKS:
            if mark in folded:
                return PATTERNS.sub(r"\1****", text)
        return text


class Formatter(logging.Formatter):
    """`style` is json, text, or terminal: text that is aligned, with colours where `coloured`."""

    def __init__(self, style: str, redact: Redactor, prompts: bool = False, coloured: bool = False) -> None:
        super().__init__()
        self._json = style == "json"
        self._terminal = style == "terminal"
        self._coloured = coloured
        self._redact = redact
        self._prompts = prompts

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._message(record),
        }
        fields |= getattr(record, "fields", None) or {}
        if record.exc_info and record.exc_info[1] is not None:
            fields["exception"] = self._exception(record.exc_info[1], record.exc_info[2])
        if self._json:
            return escaped(self._redact(_json(fields)))
        message, rest = _message(fields["message"]), list(fields.items())[4:]
        if self._terminal:
            return self._for_people(record, message, rest)
        pairs = " ".join(f"{key}={_quoted(value)}" for key, value in rest)
        return self._redact(f"{fields['time']} {fields['level']:7} {message} {pairs}".rstrip())

    def _for_people(self, record: logging.LogRecord, message: str, rest: list[tuple[str, Any]]) -> str:
        """The local time, the level and the message in columns, then the fields. Colours come after the secrets are
        gone, since an escape sequence in between would hide one."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        pairs = [self._redact(f"{key}={_quoted(value)}").partition("=") for key, value in rest]
        shown = " ".join(f"{self._colour(DIM, f'{key}{equals}')}{value}" for key, equals, value in pairs)
        level = self._colour(COLOURS.get(record.levelno, ""), record.levelname.lower().ljust(LEVEL))
        return f"{self._colour(DIM, clock)} {level} {self._redact(message).ljust(MESSAGE)} {shown}".rstrip()

    def _colour(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._coloured and code else text

    def _message(self, record: logging.LogRecord) -> str:
        args = record.args
        if self._prompts or not isinstance(args, tuple) or not any(isinstance(each, Sensitive) for each in args):
            return record.getMessage()
        return record.msg % tuple(NOT_LOGGED if isinstance(each, Sensitive) else each for each in args)

    def _exception(self, error: BaseException, trace: TracebackType | None) -> str:
        # walked, not extracted: that would read the source files, on the event loop
        frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(trace)]
        where = " > ".join(f"{code.co_filename}:{line} {code.co_name}" for code, line in frames[-12:])
        words = f": {error}" if self._prompts else ""
        return f"{type(error).__name__}{words} ({where})"


class LogHandler(logging.StreamHandler[TextIO]):
    """Waits for nobody who has stopped reading, such as a terminal after ^S: all streams would wait with it, and the
    watchdog end the process. What cannot be written meanwhile is lost, and counted."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0
        self._poll: Callable[[int], object] | None = None
        if hasattr(select, "poll"):
            with contextlib.suppress(OSError, ValueError):  # one that is no file, or closed
                poll = select.poll()
                poll.register(stream.fileno(), select.POLLOUT)
                self._poll = poll.poll

    def emit(self, record: logging.LogRecord) -> None:
        if self._poll is not None and not self._poll(0 if self._lost else SLOW_READER):
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            super().emit(logging.makeLogRecord({**LOST, "fields": {"lines": lost}}))
        super().emit(record)


def _json(fields: dict[str, Any]) -> str:
    try:
        return orjson.dumps(fields, default=str).decode()
    except TypeError:  # half a surrogate pair, which is no UTF-8
        return json.dumps(fields, default=str, ensure_ascii=False).encode("utf-8", "replace").decode()


def _message(text: str) -> str:
    """A sentence may have blanks; one that holds what could be a field is quoted."""
    return _quoted(text) if "=" in text else escaped(text)


def configure(config: LogConfig, secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Takes over the process's root logger; for `dragoman serve`, not for an application that embeds the gateway."""
    verbose = config.level == "debug"
    stream = stream or sys.stderr
    terminal = stream.isatty()
    style: str = config.format or ("text" if terminal else "json")
    coloured = terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    handler = LogHandler(stream)
    style = "terminal" if terminal and style == "text" else style
    handler.setFormatter(Formatter(style, Redactor(secrets), config.prompts, coloured))
    begins.disabled = not (terminal or verbose if config.begins is None else config.begins)
    # no format shows them, and looking them up for each record takes longer than writing it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    logging.getLogger("asyncio").setLevel(max(root.level, logging.WARNING))
    # broken HTTP of an upstream or a client is not our error
    logging.getLogger("aiohttp").setLevel(logging.DEBUG if verbose else logging.CRITICAL)


def begin_line(fields: dict[str, Any]) -> None:
    """Logs one line when a model server is asked, unless `begins` is disabled; None values are left out."""
    begins.info("asked", extra={"fields": {key: value for key, value in fields.items() if value is not None}})


def progress_line(fields: dict[str, Any]) -> None:
    """Logs one line while a model server reads a prompt; the caller has looked whether `begins` is disabled."""
    begins.info("reading", extra={"fields": fields})


def request_line(level: int, fields: dict[str, Any]) -> None:
    """Logs one line when a request has ended; None values are left out."""
    if log.isEnabledFor(level):
        # Made here: the library would walk the stack for the caller's name, which no format shows.
        record = log.makeRecord(log.name, level, __file__, 0, "request", (), None)
        record.fields = {key: value for key, value in fields.items() if value is not None}
        log.handle(record)
