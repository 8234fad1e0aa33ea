"""A Triton backend's URL: `triton+grpc://host:8001/MODEL?tokenizer=DIR`, `triton+http://host:8000/MODEL?tokenizer=DIR`.

More parameters: `via=text` (an ensemble's text instead of its engine's ids), `markup=FAMILY` (how calls and reasoning
are written; else found from the chat template), `window=N` (context window in tokens), `metrics=URL` (of the server's
metrics; else port 8002 of its host). Every mistake is refused with its reason.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from dragoman.backends.model_folder import why_unreadable
from dragoman.translators.errors import GatewayError, Kind

PORTS = {"grpc": 8001, "http": 8000}
METRICS_PORT = 8002
KNOWN = ("tokenizer", "via", "markup", "window", "metrics")


@dataclass(frozen=True, slots=True)
class Address:
    """`host` is host:port. `tokenizer` is the folder with tokenizer.json, tokenizer_config.json and the template."""

    transport: Literal["grpc", "http"]
    host: str
    model: str
    tokenizer: Path
    via_text: bool = False
    markup: str | None = None
    window: int | None = None
    metrics: str = ""


def parse(url: str) -> Address:
    """Raises `GatewayError` INVALID in one line."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may quote a password
        raise unusable(url, "its host or port cannot be read") from None
    if parts.username is not None or parts.password is not None:
        raise unusable(url, "keys do not belong into the URL")
    if not parts.hostname or port == 0:
        raise unusable(url, "it names no host and port")
    transport: Literal["grpc", "http"] = "grpc" if parts.scheme.lower() == "triton+grpc" else "http"
    model = unquote(parts.path.strip("/"))
    if not model or "/" in model:
        raise unusable(url, f"the path must be the model's name, as in {parts.scheme}://host:{PORTS[transport]}/MODEL")
    return _with_query(url, parts, transport, model)


def _with_query(url: str, parts: SplitResult, transport: Literal["grpc", "http"], model: str) -> Address:
    try:
        query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise unusable(url, "its query must be name=value pairs with & between them") from None
    if unknown := sorted(query.keys() - set(KNOWN)):
        raise unusable(url, f"unknown parameter {', '.join(unknown)}; known are {', '.join(KNOWN)}")
    if parts.fragment:
        raise unusable(url, "it may not have a fragment")
    if not query.get("tokenizer"):
        raise unusable(
            url,
            "Triton takes a prompt, not messages: name the folder of the model's tokenizer.json and chat template "
            "with ?tokenizer=DIR",
        )
    folder = Path(os.path.expanduser(query["tokenizer"]))
    if reason := why_unreadable(folder / "tokenizer.json", f"there is no tokenizer.json in {query['tokenizer']}"):
        raise unusable(url, reason)
    if query.get("via") not in (None, "text", "ids"):
        raise unusable(url, "via must be text or ids")
    window = query.get("window")
    if window is not None and not (window.isdigit() and int(window) > 0):
        raise unusable(url, "window must be a number of tokens")
    name = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    return Address(
        transport=transport,
        host=f"{name}:{parts.port or PORTS[transport]}",
        model=model,
        tokenizer=folder,
        via_text=query.get("via") == "text",
        markup=query.get("markup") or None,
        window=None if window is None else int(window),
        metrics=query.get("metrics", f"http://{name}:{METRICS_PORT}/metrics"),
    )


def unusable(url: str, reason: str) -> GatewayError:
    return GatewayError(Kind.INVALID, f"backend {shown(url)!r} cannot be used: {reason}", "backend")


def shown(url: str) -> str:
    """A URL as far as it may be shown: people write keys into the user's place, the query and the fragment."""
    head = url.partition("?")[0].partition("#")[0]
    if "@" in head:
        return "…@" + head.rpartition("@")[2]
    if "@" in url:  # a password that holds one of ? and #
        return url.partition(":")[0] + ":…"
    return head if head == url else f"{head}…"
