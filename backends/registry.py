"""From a backend's URL to the backend: one line for each scheme.

Nothing is contacted here. A URL that cannot mean a backend is refused with the reason, before the gateway listens.
Nearly all servers are chat servers; the modules of the others are loaded where one is opened.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from dragoman.backends.base import Backend
from dragoman.backends.chat.backend import ChatCompletions
from dragoman.backends.chat.settings import resolve
from dragoman.backends.reader import Timeouts
from dragoman.backends.triton.address import unusable
from dragoman.translators.parts import ANSWER_BYTES


@dataclass(frozen=True, slots=True)
class Options:
    """What the configuration says about one backend besides its URL; `settings` are overrides of the preset's. What a
    kind of backend cannot obey, it refuses."""

    preset: str | None = None  # chat servers alone have presets; None: generic
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    api_key: str | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    answer_bytes: int = ANSWER_BYTES
    name: str | None = None
    tls: ssl.SSLContext | None = None  # for https
    address: str | None = None  # the one of the host's addresses to connect to


def open_backend(url: str, options: Options | None = None) -> Backend:
    """Raises `GatewayError` INVALID, in one line, for a URL or settings that cannot be used."""
    scheme = url.partition(":")[0].lower()
    opener = SCHEMES.get(scheme)
    if opener is None:
        known = ", ".join(f"{name}:" for name in SCHEMES)
        raise unusable(url, f"a backend's URL begins with one of {known}")
    return opener(url, options or Options())


def _chat(url: str, options: Options) -> Backend:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:  # its text may quote a password
        raise unusable(
            url, "Port out of range 0-65535" if "out of range" in str(error) else "its host or port cannot be read"
        ) from None
    if not parts.hostname or port == 0:
        raise unusable(url, "it names no host and port")
    if any(each.isspace() or each == "\\" for each in url.strip()):
        raise unusable(url, "it holds a blank or a backslash; each of several servers needs a URL of its own")
    if parts.username is not None or parts.password is not None:
        raise unusable(url, "keys belong into the environment or a file, not into the URL")
    if parts.query or parts.fragment:
        raise unusable(url, "it may not have a query or a fragment")
    path = parts.path.rstrip("/").removesuffix("/chat/completions")
    return ChatCompletions(
        f"{parts.scheme.lower()}://{parts.netloc}{path or '/v1'}",
        settings=resolve(options.preset or "generic", options.settings),
        model=options.model,
        api_key=options.api_key,
        timeouts=options.timeouts,
        answer_bytes=options.answer_bytes,
        name=options.name,
        tls=options.tls,
        address=options.address,
    )


def _local(url: str, options: Options) -> Backend:
    if url.partition(":")[2]:
        raise unusable(url, "the local model is named by `local:` alone")
    _of_chat_servers(url, options)
    from dragoman.backends.local.backend import Local

    return Local(
        dict(options.settings), timeouts=options.timeouts, answer_bytes=options.answer_bytes, name=options.name
    )


def _triton(url: str, options: Options) -> Backend:
    _of_chat_servers(url, options)
    from dragoman.backends.triton.factory import open_triton

    return open_triton(
        url,
        options.settings,
        timeouts=options.timeouts,
        answer_bytes=options.answer_bytes,
        name=options.name,
        api_key=options.api_key,
    )


def _of_chat_servers(url: str, options: Options) -> None:
    """Refuses what only a chat server obeys, so that it is not void in silence."""
    for name, given in (("preset", options.preset), ("tls", options.tls), ("discover", options.address)):
        if given is not None:
            raise unusable(url, f"{name} has a meaning for http: and https: alone")


SCHEMES: dict[str, Callable[[str, Options], Backend]] = {
    "http": _chat,
    "https": _chat,
    "triton+grpc": _triton,
    "triton+http": _triton,
    "local": _local,
}
