"""Expected failures, sorted by who is at fault.

`GatewayError` is the only exception that translators, backends and the gateway raise on purpose. Anything else is a
bug and becomes a 500 with its traceback in the log. Each client protocol has one table from `Kind` to its own words
and statuses; each backend has one function from its server's words to a `Kind`. `message` goes to the client, so it
never holds an upstream's stack trace, file path or host.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Literal

# OpenAI's own words in a stream. Where the answer has begun there is no status, and agents look for words they know.
RETRY = "You can retry your request"
Source = Literal["gateway", "backend"]
Content = Literal["document", "image", "media"]  # media: documents and images together


class Kind(Enum):
    """What went wrong. `status` is the HTTP status where the protocol does not say otherwise; `retry_after` the seconds
    to wait before another try, None where waiting does not help; `final` marks a status that SDKs would retry in vain.
    """

    INVALID = (400, "invalid")  # the request is wrong; `param` says where
    UNSUPPORTED = (400, "unsupported")  # the request is right, but this gateway or server cannot do it
    OVERFLOW = (400, "overflow")  # prompt and answer do not fit the context window
    UNAUTHENTICATED = (401, "unauthenticated")
    FORBIDDEN = (403, "forbidden")
    NOT_FOUND = (404, "not_found")
    MODEL_NOT_FOUND = (404, "model_not_found")
    METHOD = (405, "method")
    TOO_LARGE = (413, "too_large")
    UPGRADE = (426, "upgrade")  # no WebSocket mode here
    RATE_LIMITED = (429, "rate_limited", 1)  # this client's own limit
    INTERNAL = (500, "internal", None, True)  # a bug of ours
    BACKEND_FAILED = (502, "backend_failed")  # the server answered with a failure or with nonsense
    BACKEND_DOWN = (503, "backend_down", 5)  # the server cannot be reached
    ASLEEP = (503, "asleep", 10)  # the server is asleep, loading or not ready
    BUSY = (503, "busy", 2)  # no room now: queue full, server saturated
    DRAINING = (503, "draining", 2)  # this gateway is shutting down
    TIMEOUT = (504, "timeout", None, True)  # the server did not answer in time

    def __init__(self, status: int, _name: str, retry_after: int | None = None, final: bool = False) -> None:
        self.status = status
        self.retry_after = retry_after
        self.final = final


class GatewayError(Exception):
    """`param` is the path of the offending field as the client wrote it (`input[2].type`), `code` a more exact word
    in the client protocol's vocabulary. `retry_after` is in seconds and overrides that of `kind`. `tokens` and `limit`
    give the size of an overflow where it is known; with `at_least` the prompt may have more tokens than that. `certain`
    is False where `kind` was read out of a server's words, which may quote the client: such an error answers this
    request and changes nothing for others. `content` is what the request would have to leave out to be served; some
    clients do that.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        param: str | None = None,
        *,
        code: str | None = None,
        retry_after: float | None = None,
        source: Source = "gateway",
        tokens: int | None = None,
        limit: int | None = None,
        content: Content | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after
        self.source = source
        self.tokens = tokens
        self.limit = limit
        self.at_least = False
        self.certain = True
        self.content = content

    @property
    def wait(self) -> int | None:
        """Whole seconds to wait before another try, None where waiting does not help."""
        wait = self.kind.retry_after if self.retry_after is None else self.retry_after
        return None if wait is None else max(1, math.ceil(wait))

    @property
    def in_stream(self) -> str:
        """The message where the answer has begun: it says so if another try is worth it."""
        if self.kind.final or self.kind.status < 500 or RETRY in self.message:
            return self.message
        return f"{self.message.rstrip()} {RETRY}."

    def __repr__(self) -> str:
        return f"GatewayError({self.kind.name}, {self.message!r}, param={self.param!r})"


def quoted(value: object) -> str:
    """A client's value as a message shows it."""
    return f"'{value[:64]}'" if isinstance(value, str) else repr(value)[:64]


def invalid(message: str, param: str | None = None, code: str = "invalid_value") -> GatewayError:
    """The most common error: the client's fault, with the parameter named. Codes are OpenAI's; other protocols ignore
    them."""
    return GatewayError(Kind.INVALID, message, param, code=code)
