"""Headers that a request carries to its server beside its body: the context of a trace (W3C `traceparent`,
`tracestate`).

They belong to the task that asks, so they need no place in the request itself: whoever runs `Backend.stream` sets them
and a backend that speaks HTTP sends them on. Names and values have been checked by whoever sets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar

NONE: Mapping[str, str] = {}
OUTGOING: ContextVar[Mapping[str, str]] = ContextVar("outgoing", default=NONE)
