"""Logging: one line per record on stderr, JSON or text, with every known secret removed.

Requests are logged once, when they end, with figures and names but never with prompt or answer text. A server's words
and the message of an unexpected exception may quote a prompt, so they are left out at every level unless `log.prompts`
is set; a bug is logged with the frames of its traceback.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterable
from types import TracebackType
from typing import Any, TextIO

import orjson

from dragoman.backends.sensitive import Sensitive
from dragoman.gateway.config import LogConfig

log = logging.getLogger("dragoman")
NOT_LOGGED = "(words not logged: log.prompts)"
# What looks like a key, although it is none of ours: bearer tokens, `sk-…`, and `api_key=…` in an address.
PATTERNS = re.compile(r"(?i)(bearer\s+|\bsk-|x-api-key[\"':\s=]+|api[_-]?key[\"':\s=]+)[A-Za-z0-9._~+/=-]{6,}")


class Redactor:
    def __init__(self, secrets: Iterable[str] = ()) -> None:
        plain = {secret for secret in secrets if secret}
        escaped = {json.dumps(secret, ensure_ascii=False)[1:-1] for secret in plain}  # as they stand in a JSON line
        known = sorted(plain | escaped, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def __call__(self, text: str) -> str:
        if self._known is not None:
            text = self._known.sub("****", text)
        return PATTERNS.sub(r"\1****", text)


class Formatter(logging.Formatter):
    def __init__(self, style: str, redact: Redactor, prompts: bool = False) -> None:
        super().__init__()
        self._json = style == "json"
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
            return self._redact(orjson.dumps(fields, default=str).decode())
        rest = " ".join(f"{key}={value}" for key, value in list(fields.items())[4:])
        line = f"{fields['time']} {fields['level']:7} {fields['message']} {rest}".rstrip()
        return self._redact(line.replace("\n", "\\n"))

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


def configure(config: LogConfig, secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Takes over the process's root logger; for `dragoman serve`, not for an application that embeds the gateway."""
    verbose = config.level == "debug"
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(Formatter(config.format, Redactor(secrets), config.prompts))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
    logging.getLogger("asyncio").setLevel(max(root.level, logging.WARNING))
    # broken HTTP of an upstream or a client is not our error
    logging.getLogger("aiohttp").setLevel(logging.DEBUG if verbose else logging.CRITICAL)


def request_line(level: int, fields: dict[str, Any]) -> None:
    """Logs one line when a request has ended; None values are left out."""
    if log.isEnabledFor(level):
        known = {key: value for key, value in fields.items() if value is not None}
        log.log(level, "request", extra={"fields": known})
