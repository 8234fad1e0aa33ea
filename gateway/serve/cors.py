"""Pages of other origins that may call the gateway from a browser (CORS, of the Fetch standard). None may by default.

A preflight asks without a key, since browsers send none with it; it is answered before keys are looked at and says only
what its origin may send. Cookies play no part, so `*` opens the gateway to pages and gives none of them a key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aiohttp import web
from multidict import CIMultiDict

from dragoman.translators.rate_headers import NAMES as RATE_HEADERS

_NAMES = re.compile(r"[A-Za-z0-9-]+(\s*,\s*[A-Za-z0-9-]+)*")
EXPOSED = ", ".join(
    (
        *("x-request-id", "request-id", "retry-after", "x-should-retry"),
        *(f"x-dragoman-{each}" for each in ("ignored", "unenforced", "error-source", "fallback", "estimated", "runs")),
        *RATE_HEADERS,
    )
)
_REMEMBERED = 600  # seconds for which a browser need not ask again


class Cors:
    """`origins` are those of the configuration, `*` for every one."""

    def __init__(self, origins: Sequence[str]) -> None:
        self._origins = frozenset(origin.lower() for origin in origins)

    def preflight(self, request: web.Request) -> web.Response | None:
        """The answer, where the request is a preflight of a page that may call."""
        headers = request.headers
        if request.method != "OPTIONS" or "Access-Control-Request-Method" not in headers or not self._may(request):
            return None
        response = web.Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE"
        asked = headers.get("Access-Control-Request-Headers", "")
        if _NAMES.fullmatch(asked):  # clients' libraries send dozens of their own
            response.headers["Access-Control-Allow-Headers"] = asked
        response.headers["Access-Control-Max-Age"] = str(_REMEMBERED)
        return response

    def mark(self, request: web.BaseRequest, headers: CIMultiDict[str]) -> None:
        """What lets the page read an answer."""
        headers.add("Vary", "Origin")
        if self._may(request):
            headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            headers["Access-Control-Expose-Headers"] = EXPOSED

    def _may(self, request: web.BaseRequest) -> bool:
        origin = request.headers.get("Origin", "")
        return bool(origin) and ("*" in self._origins or origin.lower() in self._origins)
