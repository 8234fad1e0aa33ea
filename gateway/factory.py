"""Backends from the configuration: built and ready to be started, and how their addresses are shown.

Nothing is contacted here. What a backend finds wrong with its URL, preset or settings becomes a `ConfigError`. The
clients of the servers are imported only when a server is opened: whoever brings backends needs none of them.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from dragoman.backends.base import Backend
from dragoman.backends.pool.breaker import BreakerRules
from dragoman.backends.pool.discovery import Source
from dragoman.backends.pool.pool import Pool
from dragoman.backends.pool.replica import PoolSettings
from dragoman.backends.reader import Timeouts
from dragoman.backends.triton.address import KNOWN, shown
from dragoman.gateway.config import BackendConfig, BackendTls, Config, ConfigError, Group
from dragoman.gateway.config.certificates import load_authority, load_own
from dragoman.gateway.keys.secrets import Secrets
from dragoman.translators.errors import GatewayError

if TYPE_CHECKING:
    from dragoman.backends.registry import Options


def open_backends(config: Config, secrets: Secrets) -> list[Pool]:
    """One for each of `config.groups`, in that order."""
    return [open_group(config, secrets, group) for group in config.groups]


def open_servers(config: Config, secrets: Secrets) -> list[Backend]:
    """One backend for each server, also for the servers of pools."""
    return [_open(config, each, secrets.backend_key(str(each.name))) for each in config.named_backends]


def ingredients(config: Config, secrets: Secrets, group: Group) -> tuple[object, ...]:
    """Everything a group's backend is built from. If it is equal after a reload, the running backend is kept."""
    given, limits = config.timeouts, config.limits
    timeouts = (given.connect, given.first_event, given.between_events, given.wake if group.wakes else None)
    keys = tuple(secrets.backend_key(str(each.name)) for each in group.members)
    written = tuple(_version(path) for each in group.members for path in _files(each))
    return (
        group,
        keys,
        written,
        config.preset,
        config.model,
        config.system_messages,
        timeouts,
        limits.answer_bytes,
        config.pool,
    )


def _files(backend: BackendConfig) -> list[Path]:
    """What a backend reads when it is opened: certificates, and what a model's folder says of its prompts."""
    tls = backend.tls
    files = [path for path in (tls.ca, tls.certificate, tls.key) if path is not None] if tls is not None else []
    folder = backend.settings.get("tokenizer") or dict(parse_qsl(backend.url.partition("?")[2])).get("tokenizer")
    if isinstance(folder, str):
        found = Path(os.path.expanduser(folder)).glob("*")
        files += sorted(path for path in found if path.suffix in (".json", ".jinja"))
    return files


def _version(path: Path) -> tuple[str, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return path.name, found.st_mtime_ns, found.st_size


def open_group(config: Config, secrets: Secrets, group: Group) -> Pool:
    fixed = [each for each in group.members if each.discover is None]
    opened = [_open(config, each, secrets.backend_key(str(each.name))) for each in fixed]
    sources = [_source(config, secrets, each) for each in group.members if each.discover is not None]
    return Pool(group.name, opened, _settings(config), [each.url for each in fixed], sources)


def _source(config: Config, secrets: Secrets, backend: BackendConfig) -> Source:
    """What a name's replicas are opened from, when their addresses are known: all that takes files is read here."""
    from dragoman.backends.registry import open_backend

    key = secrets.backend_key(str(backend.name))
    template = _open(config, backend, key)
    options = _options(config, backend, key)
    parts = urlsplit(backend.url)
    secure = parts.scheme.lower() == "https"
    if secure and options.tls is None:
        options = replace(options, tls=ssl.create_default_context())

    def opened(address: str, name: str) -> Backend:
        return open_backend(backend.url, replace(options, address=address, name=name))

    port = parts.port or (443 if secure else 80)
    return Source(str(backend.name), str(parts.hostname), port, backend.url, template, opened)


def as_groups(config: Config, backends: Sequence[Backend]) -> list[Pool]:
    """Backends that were not opened from the configuration, each as a group of its own."""
    settings = _settings(config)
    return [each if isinstance(each, Pool) else Pool(each.name, [each], settings) for each in backends]


def _settings(config: Config) -> PoolSettings:
    given = config.pool
    return PoolSettings(
        probe=given.probe,
        down_after=given.down_after,
        slow=given.slow,
        retries=given.retries,
        spread=given.spread,
        wake=config.timeouts.wake,
        resolve=given.resolve,
        addresses=given.addresses,
        breaker=BreakerRules(given.failures, given.rest, given.longest_rest),
    )


def _open(config: Config, backend: BackendConfig, api_key: str | None) -> Backend:
    from dragoman.backends.registry import open_backend

    try:
        return open_backend(backend.url, _options(config, backend, api_key))
    except GatewayError as error:
        raise ConfigError(f"backends: {backend.name}: {' '.join(error.message.split())}") from None


def _options(config: Config, backend: BackendConfig, api_key: str | None) -> Options:
    from dragoman.backends.registry import Options

    settings: dict[str, Any] = dict(backend.settings)
    if config.system_messages is not None:
        settings.setdefault("system_messages", config.system_messages)
    return Options(
        preset=backend.preset or (config.preset if backend.url.lower().startswith("http") else None),
        settings=settings,
        model=backend.model or config.model,
        api_key=api_key,
        timeouts=Timeouts(
            connect=config.timeouts.connect,
            first=config.timeouts.first_event,
            between=config.timeouts.between_events,
        ),
        answer_bytes=config.limits.answer_bytes,
        name=backend.name,
        tls=tls_context(backend.tls, str(backend.name)) if backend.tls else None,
    )


def tls_context(section: BackendTls, name: str) -> ssl.SSLContext:
    """For connections to the backend of that name: `ca` replaces the system's authorities; the certificate is shown to
    servers that ask for one. Versions and ciphers are the library's defaults, never older than TLS 1.2."""
    where = f"backends: {name}: tls"
    context = ssl.create_default_context()
    if section.ca is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        load_authority(context, section.ca, f"{where}: ca")
    if section.certificate is not None:
        load_own(context, section.certificate, section.key, where)
    return context


def mask_url(url: str) -> str:
    """The address without what people put into it: a user name, a password, a key in the query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return shown(url)
    netloc = f"****@{parts.netloc.rpartition('@')[2]}" if "@" in parts.netloc else parts.netloc
    query = "&".join(_masked(each) for each in parts.query.split("&"))
    return urlunsplit(parts._replace(netloc=netloc, query=query, fragment="****" if parts.fragment else ""))


def _masked(parameter: str) -> str:
    """Only parameters known to hold no key stay readable, unless one is an address that itself needs a mask."""
    name, equals, value = parameter.partition("=")
    if not parameter or (name in KNOWN and (name != "metrics" or mask_url(unquote(value)) == unquote(value))):
        return parameter
    return f"{name}=****" if equals else "****"
