"""From the configuration to backends that can be started: what the gateway passes on, and how an address is shown.

Nothing is contacted here. What a backend finds wrong with its URL, preset or settings becomes a `ConfigError`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from backends.base import Backend
from backends.chat_completions import Timeouts
from backends.registry import Options, open_backend
from gateway.config import BackendConfig, Config, ConfigError
from gateway.secrets import Secrets
from translators.errors import GatewayError


def open_backends(config: Config, secrets: Secrets) -> list[Backend]:
    return [_open(config, each, secrets.backend_key(str(each.name))) for each in config.named_backends]


def _open(config: Config, backend: BackendConfig, api_key: str | None) -> Backend:
    settings: dict[str, Any] = dict(backend.settings)
    if config.system_messages is not None:
        settings.setdefault("system_messages", config.system_messages)
    options = Options(
        preset=backend.preset or config.preset or "generic",
        settings=settings,
        model=backend.model or config.model,
        api_key=api_key,
        timeouts=Timeouts(
            connect=config.timeouts.connect,
            first=config.timeouts.first_event,
            between=config.timeouts.between_events,
        ),
        name=backend.name,
    )
    try:
        return open_backend(backend.url, options)
    except GatewayError as error:
        raise ConfigError(f"backends: {backend.name}: {' '.join(error.message.split())}") from None


def mask_url(url: str) -> str:
    """The address without a password or a user name, which people do write into it."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=f"****@{parts.netloc.rpartition('@')[2]}"))
