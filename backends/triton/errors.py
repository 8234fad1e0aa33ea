"""What Triton's refusals mean. Their codes say little: an error without a code arrives as INVALID_ARGUMENT or 400, BLS
models turn every code into INTERNAL, and send a whole traceback.

Rules: names and types were validated before anything was sent, so only the wording of an overflow makes an error the
client's; everything else is the server's. Words are passed on redacted, of a traceback the last line at most. They may
quote a prompt: an error whose code does not say the same by itself is not `certain`, and nothing is learned from it.
"""

from __future__ import annotations

import re

from dragoman.backends.chat.errors import classify as classify_chat
from dragoman.backends.chat.settings import Wording
from dragoman.backends.refusal import Refusal, Words, cut, redact
from dragoman.translators.errors import GatewayError, Kind

_WORDING = Wording()  # those of overflows are the chat servers' too
_NOT_LOADED = re.compile(r"no available versions|is not ready|not at ready state|unloading|is being (?:un)?loaded")
_UNKNOWN = re.compile(r"unknown model", re.IGNORECASE)
_TOO_LARGE = re.compile(r"message larger than max", re.IGNORECASE)
# All that Triton itself says about a model that it does not serve; inside of a longer text it may be a quotation.
_NOT_SERVED = re.compile(r"Request for unknown model: '[^']{1,200}' (?:has no available versions|is not found)")
_FULL = re.compile(r"maximum queue size|queue is full|timeout expired", re.IGNORECASE)
_NO_CONNECTION = re.compile(
    r"failed to connect|connection (?:refused|reset)|connection attempt timed out|name resolution|socket closed"
    r"|broken pipe|end of TCP stream|GOAWAY|goaway",
    re.IGNORECASE,
)


class RpcError(Exception):
    """How a call over gRPC ended: its `code` in gRPC's word, and what the server said."""

    def __init__(self, code: str, details: str) -> None:
        super().__init__(f"{code}: {details}")
        self.code = code
        self.details = details


def classify(code: str, words: Words, *, begun: bool = False) -> GatewayError:
    """`code` is gRPC's word (`INTERNAL`); `begun`: a part of the answer has come already. Never raises."""
    error = _meaning(code, words, begun)
    by_code = error.kind is _meaning(code, cut(""), begun).kind
    cannot_serve = code == "UNAVAILABLE" and error.kind is not Kind.OVERFLOW  # the words say why
    error.certain = by_code or cannot_serve or _NOT_SERVED.fullmatch(words) is not None
    return error


def _meaning(code: str, words: Words, begun: bool) -> GatewayError:
    overflow = classify_chat(500, Refusal(words, cut("")), _WORDING)
    if overflow.kind is Kind.OVERFLOW:
        return overflow
    if _NOT_LOADED.search(words):
        return _error(Kind.ASLEEP, "The model is not loaded.", 5.0)
    if code == "NOT_FOUND" or (code in ("INVALID_ARGUMENT", "UNKNOWN") and _UNKNOWN.search(words)):
        return _error(Kind.MODEL_NOT_FOUND, "The model server does not know this model.")
    if code in ("DEADLINE_EXCEEDED",):
        return _error(Kind.TIMEOUT, "The model server did not answer in time.")
    if (code == "RESOURCE_EXHAUSTED" and not _TOO_LARGE.search(words)) or _FULL.search(words):
        return _error(Kind.BUSY, "The model server is busy.", 1.0)
    if code == "UNAVAILABLE":
        return _unavailable(words, begun)
    said = f": {shown}" if (shown := redact(words)) else "."
    during = " during the answer" if begun else ""
    return _error(Kind.BACKEND_FAILED, f"The model server failed{during}{said}")


def _unavailable(words: Words, begun: bool) -> GatewayError:
    if begun:
        return broken_off()
    if _NO_CONNECTION.search(words):
        return unreachable()
    return _error(Kind.BUSY, "The model server is not available now.", 1.0)


def unreachable() -> GatewayError:
    return _error(Kind.BACKEND_DOWN, "The model server cannot be reached.", 1.0)


def broken_off() -> GatewayError:
    return _error(Kind.BACKEND_FAILED, "The model server broke off in the middle of its answer.")


def timed_out() -> GatewayError:
    return _error(Kind.TIMEOUT, "The model server did not answer in time.")


def failed(message: str) -> GatewayError:
    return _error(Kind.BACKEND_FAILED, message)


def _error(kind: Kind, message: str, retry_after: float | None = None) -> GatewayError:
    return GatewayError(kind, message, retry_after=retry_after, source="backend")
