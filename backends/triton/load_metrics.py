"""How much a Triton server has to do, from its Prometheus metrics.

The engine profile publishes its requests; llmapi publishes nothing, and then the requests that wait in Triton's queues
are all that is known. A server without reachable metrics has no load, and is asked again only after a while.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Collection

import aiohttp

from dragoman.backends.json_body import read_bounded

LIMIT = aiohttp.ClientTimeout(total=1.0)
INTERVAL = 1.0  # seconds
PAUSE = 60.0
STALE = 15.0
MAX_BODY = 4 * 1024 * 1024
_SAMPLE = re.compile(
    r"^(nv_trt_llm_request_metrics|nv_inference_pending_request_count)\{([^}\n]{0,500})\} (\S{1,32})",
    re.MULTILINE,
)
_LABEL = re.compile(r'(\w{1,64})="([^"]{0,200})"')


class LoadMetrics:
    """`load` is the last measured number of requests that run or wait, None when that is older than `STALE`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session: aiohttp.ClientSession | None = None
        self._load: float | None = None
        self._at = -STALE
        self._next = 0.0

    @property
    def load(self) -> float | None:
        return self._load if time.monotonic() - self._at < STALE else None

    async def measure(self, models: Collection[str]) -> None:
        """Never raises."""
        now = time.monotonic()
        if not self._url or now < self._next:
            return
        self._next = now + INTERVAL
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=LIMIT, cookie_jar=aiohttp.DummyCookieJar())
        try:
            async with self._session.get(self._url, allow_redirects=False) as response:
                text = (await read_bounded(response, MAX_BODY)).decode("utf-8", "replace")
                found = read(text, models) if response.status == 200 else None
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            found = None
        if found is None:
            self._next = now + PAUSE
        self._load, self._at = found, now

    async def close(self) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await session.close()


def read(text: str, models: Collection[str]) -> float | None:
    """The engine's active and waiting requests; where there are none of these figures, what waits before `models`."""
    engine: list[float] = []
    queues: list[float] = []
    for name, labels, written in _SAMPLE.findall(text):
        label, value = dict(_LABEL.findall(labels)), _gauge(written)
        if label.get("model") not in models or value is None:
            continue
        if name == "nv_inference_pending_request_count":
            queues.append(value)
        elif label.get("request_type") in ("active", "waiting"):
            engine.append(value)
    found = engine or queues
    return sum(found) if found else None


def _gauge(written: str) -> float | None:
    try:
        value = float(written)
    except ValueError:
        return None
    return value if 0 <= value < math.inf else None
