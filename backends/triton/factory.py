"""From a Triton URL to the backend. Nothing is contacted; missing packages are reported before the gateway listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dragoman.backends.markup import FAMILIES
from dragoman.backends.prompts.rendering import wrong
from dragoman.backends.reader import Timeouts
from dragoman.backends.triton.address import Address, parse, unusable
from dragoman.backends.triton.backend import Triton
from dragoman.backends.triton.grpc_client import GrpcClient
from dragoman.backends.triton.http_client import HttpClient
from dragoman.backends.triton.model_files import loader
from dragoman.backends.triton.settings import prompt_settings
from dragoman.backends.triton.transport import Client
from dragoman.translators.parts import ANSWER_BYTES


def open_triton(
    url: str,
    settings: Mapping[str, Any],
    *,
    timeouts: Timeouts | None = None,
    answer_bytes: int = ANSWER_BYTES,
    name: str | None = None,
    api_key: str | None = None,
) -> Triton:
    """Raises `GatewayError` INVALID, in one line, for a URL, settings or an installation that cannot be used."""
    address = parse(url)
    if address.markup is not None and address.markup not in FAMILIES:
        raise unusable(url, f"unknown markup {address.markup}; there are {', '.join(FAMILIES)}")
    timeouts = timeouts or Timeouts()
    rendering = prompt_settings(settings)
    if None not in (address.markup, rendering.markup) and address.markup != rendering.markup:
        raise wrong("markup", f"the backend's URL says {address.markup}")
    return Triton(
        address,
        _client(address, timeouts.connect, api_key),
        loader(address.tokenizer, address.markup or rendering.markup, address.model, rendering),
        settings=rendering,
        timeouts=timeouts,
        answer_bytes=answer_bytes,
        name=name,
    )


def _client(address: Address, connect: float, api_key: str | None) -> Client:
    if address.transport == "grpc":
        return GrpcClient(address.host, connect=connect, api_key=api_key)
    return HttpClient(f"http://{address.host}", connect=connect, api_key=api_key)
