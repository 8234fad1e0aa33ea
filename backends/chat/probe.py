"""What a chat server reports about itself, apart from its answers.

Whether it can serve, whether it sleeps, which models it has, how long a prompt is. What every request asks is cached
for a moment and shared by all who wait for it, so that it costs a server nothing. An
endpoint that the server does not have is no failure. It does not decide about requests: that is the pool's and the
gateway's.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Generic, TypeVar

import aiohttp
import orjson

from dragoman.backends.base import Health, ModelInfo
from dragoman.backends.chat.encode import dumps
from dragoman.backends.chat.errors import classify
from dragoman.backends.chat.settings import Probing
from dragoman.backends.json_body import JsonBody, read_bounded
from dragoman.backends.refusal import for_log, read, redact
from dragoman.backends.unreached import unreached
from dragoman.backends.usage import count
from dragoman.translators.errors import GatewayError, Kind

log = logging.getLogger(__name__)

SLEEP_TTL = 0.3  # seconds; every request asks
ABSENT_TTL = 60.0  # a proxy may answer for a server that is still starting, so an endpoint can appear later
MODELS_TTL = 10.0
# Seconds that an answer may take.
USUAL = 5.0
SLEEP = 2.0  # requests wait for it
WAKE = 300.0  # weights come back from the host's memory or from a disk
COUNT = 30.0
MAX_BODY = 8 * 1024 * 1024
LAST_SECOND = 253_402_300_799  # of the year 9999
# Where servers write the window: vLLM and SGLang, TensorRT-LLM's proxies, OpenRouter-like lists, llama.cpp's meta.
WINDOW_FIELDS = ("max_model_len", "context_length", "context_window", "max_context_length", "max_seq_len", "n_ctx")

PAGE = "a web page came in place of the list of models: is its address right, with its path?"

T = TypeVar("T")


class Cached(Generic[T]):
    """The last result of `ask` for some seconds; concurrent callers share one question. Failures are not cached."""

    def __init__(self, ask: Callable[[], Awaitable[T]], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._value: T | None = None
        self._until = 0.0

    async def get(self) -> T:
        async with self._lock:
            if self._value is None or time.monotonic() >= self._until:
                self._value = await self._ask()
                self._until = time.monotonic() + self._seconds
            return self._value

    def forget(self) -> None:
        self._value = None


class Probe:
    """`base` is the URL that ends in `/v1`; the server's root is above it."""

    def __init__(self, session: aiohttp.ClientSession, base: str, settings: Probing, name: str) -> None:
        self._session = session
        self._base = base
        self._root = root_of(base)
        self._settings = settings
        self._name = name
        self._sleep_absent_until = 0.0
        self._sleep = Cached(self._ask_asleep, SLEEP_TTL)
        self._models = Cached(self._ask_models, MODELS_TTL)

    async def asleep(self) -> bool:
        """False where that is not known: the request itself will show it."""
        if self._settings.sleep_path is None or time.monotonic() < self._sleep_absent_until:
            return False
        return await self._sleep.get()

    async def models(self) -> list[ModelInfo]:
        return await self._models.get()

    async def wake(self) -> None:
        """Asks the server to wake; raises ASLEEP where it cannot be asked or refuses."""
        method, _, path = (self._settings.wake_call or "").partition(" ")
        status = 0
        if path:
            try:
                url = f"{self._root}{path}"
                async with self._session.request(
                    method, url, timeout=self._within(WAKE), allow_redirects=False
                ) as response:
                    status = response.status
                    await read_bounded(response, MAX_BODY)
            except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
                log.warning("%s: cannot be woken: %r", self._name, error)
        self._sleep.forget()
        if not 200 <= status < 300:
            log.warning("%s: did not wake: status %d", self._name, status)
            raise GatewayError(Kind.ASLEEP, "The model could not be woken.", retry_after=5.0, source="backend")

    # -------------------------------------------------------------------------------------------------------- questions

    def _within(self, seconds: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=seconds)

    async def _get(self, url: str, seconds: float = USUAL) -> tuple[int, bytes]:
        async with self._session.get(url, timeout=self._within(seconds), allow_redirects=False) as response:
            return response.status, await read_bounded(response, MAX_BODY)

    async def _ask_asleep(self) -> bool:
        try:
            status, body = await self._get(f"{self._root}{self._settings.sleep_path}", SLEEP)
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return False
        if status in (404, 405, 501):
            self._sleep_absent_until = time.monotonic() + ABSENT_TTL  # vLLM has it in developer mode only
            return False
        answer = _loads(body)
        return isinstance(answer, dict) and answer.get("is_sleeping") is True

    async def health(self) -> Health:
        """Not kept: whoever asks knows how new the answer has to be."""
        if await self.asleep():
            return Health("asleep", "the engine sleeps", 5.0)
        url = f"{self._root}{self._settings.health_path}" if self._settings.health_path else f"{self._base}/models"
        try:
            status, body = await self._get(url)
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            return Health("down", str(unreached(error)), 1.0)
        if 200 <= status < 300 and not self._settings.health_path and body.lstrip()[:1] == b"<":
            return Health("down", PAGE)
        if 200 <= status < 300 or status in (404, 405, 501):
            return Health("ready")  # a server without the endpoint is reachable all the same
        if status in (401, 403):
            return Health("down", "refuses the gateway's credentials")
        said = redact(read(body).words)
        retry_after = 5.0 if status == 503 else None
        return Health("asleep" if status == 503 else "down", said or f"status {status}", retry_after, quoted=bool(said))

    async def _ask_models(self) -> list[ModelInfo]:
        try:
            status, body = await self._get(f"{self._base}/models")
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            message = "The model server cannot be reached."
            raise GatewayError(Kind.BACKEND_DOWN, message, retry_after=1.0, source="backend") from None
        if status != 200:
            log.warning("%s: no list of models: status %d: %s", self._name, status, for_log(body))
            raise classify(status, body, self._settings)
        if (entries := entries_of(_loads(body))) is None:
            raise GatewayError(
                Kind.BACKEND_FAILED, "The model server's list of models cannot be read.", source="backend"
            )
        models = _with_parents_window([(entry, model) for entry in entries if (model := _model(entry)) is not None])
        if self._settings.tokenize == "llama.cpp":
            models = await self._with_slot_window(models)
        return models

    async def _with_slot_window(self, models: list[ModelInfo]) -> list[ModelInfo]:
        """llama.cpp lists the window that the model was trained with; the window of a request is in its properties."""
        try:
            status, body = await self._get(f"{self._root}/props")
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            return models
        answer = _loads(body) if status == 200 else None
        generation = answer.get("default_generation_settings") if isinstance(answer, dict) else None
        window = _window(generation) if isinstance(generation, dict) else None
        return [ModelInfo(m.id, m.created, m.owned_by, window or m.window) for m in models]

    # --------------------------------------------------------------------------------------------------------- counting

    async def count(self, body: dict[str, Any]) -> int | None:
        """Tokens of the rendered prompt of a chat body (model, messages, tools), None where the server cannot count."""
        match self._settings.tokenize:
            case "none":
                return None
            case "vllm":
                answer = await self._post("/tokenize", {"add_generation_prompt": True, **body})
            case "trtllm-serve":
                answer = await self._post("/_internal/tokenize", {"add_generation_prompt": True, **body})
            case "llama.cpp":
                rendered = await self._post("/apply-template", body)
                prompt = None if rendered is None else rendered.get("prompt")
                if not isinstance(prompt, str):
                    return None
                question = {"content": prompt, "add_special": True, "parse_special": True}
                answer = await self._post("/tokenize", question)
        if answer is None:
            return None
        counted, tokens = count(answer.get("count")), answer.get("tokens")
        return len(tokens) if counted is None and isinstance(tokens, list) else counted

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        try:
            async with self._session.post(
                f"{self._root}{path}", data=JsonBody(dumps(body)), timeout=self._within(COUNT), allow_redirects=False
            ) as response:
                said = await read_bounded(response, MAX_BODY)
                status = response.status
        except (aiohttp.ClientError, ConnectionError, TimeoutError) as error:
            log.warning("%s: cannot count tokens: %r", self._name, error)
            return None
        if status != 200:
            log.warning("%s: cannot count tokens: status %d: %s", self._name, status, for_log(said))
            return None
        answer = _loads(said)
        return answer if isinstance(answer, dict) else None


def root_of(base: str) -> str:
    """The server's root, above the URL that may end in `/v1`."""
    return re.sub(r"/v\d+$", "", base)


def entries_of(listing: object) -> list[Any] | None:
    """The models of a list in one of the forms that servers have; None for what is none. An empty one is one: Ollama's
    without a model has `data: null`."""
    if not isinstance(listing, dict):
        return listing if isinstance(listing, list) else None
    found = [each for each in (listing.get("data"), listing.get("models")) if isinstance(each, list)]
    if not found:
        return [] if listing.get("object") == "list" and listing.get("data") is None else None
    return next(filter(None, found), found[0])


def _loads(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _model(entry: object) -> ModelInfo | None:
    if not isinstance(entry, dict):
        return None
    name = entry.get("id") or entry.get("name") or entry.get("model")
    if not isinstance(name, str):
        return None
    owner = entry.get("owned_by")
    meta, parameters = entry.get("meta"), entry.get("parameters")
    return ModelInfo(
        id=name,
        created=_seconds(entry.get("created")),
        owned_by=owner if isinstance(owner, str) and owner else "dragoman",
        window=_window(entry)
        or (_window(parameters) if isinstance(parameters, dict) else None)  # TabbyAPI
        or (_window(meta) or _positive(meta.get("n_ctx_train")) if isinstance(meta, dict) else None),
    )


def _with_parents_window(listed: list[tuple[Any, ModelInfo]]) -> list[ModelInfo]:
    """A LoRA adapter has the window of its model; vLLM and SGLang write it there only."""
    windows = {model.id: model.window for _, model in listed}
    return [
        model if model.window is not None else replace(model, window=windows.get(_parent(entry)))
        for entry, model in listed
    ]


def _parent(entry: dict[str, Any]) -> str:
    parent = entry.get("parent")
    return parent if isinstance(parent, str) else ""


def _window(entry: dict[str, Any]) -> int | None:
    return next((window for name in WINDOW_FIELDS if (window := _positive(entry.get(name))) is not None), None)


def _seconds(value: object) -> int:
    """A Unix time, which some servers have in milliseconds or less."""
    time = count(value) or 0
    while time > LAST_SECOND:
        time //= 1000
    return time


def _positive(value: object) -> int | None:
    return count(value) or None
