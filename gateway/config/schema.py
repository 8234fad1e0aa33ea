"""The models of the configuration: every key, its type, its default and what must hold between keys.

They are frozen, and unknown keys are errors. A secret is never part of them: it is named by an environment variable or
a file. `configs/gateway.yaml` explains each key; a test keeps that file equal to these models.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "DRAGOMAN_"
FIXED = ("host", "port", "workers")  # need a restart to change: sockets and processes are made from them
DEFAULT_BACKEND = "local:"
HOST = re.compile(r"\.?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*(:\d{1,5})?")

SystemMessages = Literal["leading", "keep", "hoist", "user"]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class ConfigError(Exception):
    """Its text is one line: source, key, reason."""


def _one_line_name(value: str) -> str:
    if not value or not value.isprintable() or value != value.strip():
        raise ValueError("must be a printable name without blanks around it")
    return value


Name = Annotated[str, AfterValidator(_one_line_name)]
Window = Annotated[int, Field(ge=256)]  # tokens


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tls(Section):
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    @model_validator(mode="after")
    def _has_a_certificate(self) -> Tls:
        if self.certificate is None and (self.key or self.client_ca):
            raise ValueError("needs a certificate")
        return self


class BackendTls(Section):
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _has_a_certificate(self) -> BackendTls:
        if self.certificate is None and self.key is not None:
            raise ValueError("needs a certificate")
        return self


class BackendConfig(Section):
    url: str = Field(min_length=1)
    name: Name | None = None
    pool: Name | None = None
    preset: str | None = None
    model: Name | None = None
    window: Window | None = None
    wake: Literal["refuse", "wake"] = "refuse"
    api_key_env: str | None = None
    api_key_file: Path | None = None
    tls: BackendTls | None = None
    settings: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_key(self) -> BackendConfig:
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env and api_key_file exclude each other")
        return self


@dataclass(frozen=True, slots=True)
class Group:
    """The servers that share one name: those of a pool, or a single server outside any pool."""

    name: str
    members: tuple[BackendConfig, ...]

    @property
    def pooled(self) -> bool:
        return self.members[0].pool is not None

    @property
    def wakes(self) -> bool:
        return any(each.wake == "wake" for each in self.members)

    @property
    def model(self) -> str | None:
        return next((each.model for each in self.members if each.model), None)

    @property
    def window(self) -> int | None:
        return min((each.window for each in self.members if each.window), default=None)


class ModelRule(Section):
    """`name` and `aliases` match exactly, `prefixes` by their longest; `upstream` is the name sent to the server."""

    name: Name | None = None
    aliases: tuple[Name, ...] = ()
    prefixes: tuple[str, ...] = ()
    backend: Name | None = None
    upstream: Name | None = None
    window: Window | None = None

    @model_validator(mode="after")
    def _matches_something(self) -> ModelRule:
        if self.name is None and not self.aliases and not self.prefixes:
            raise ValueError("needs a name, aliases or prefixes")
        if self.aliases and self.name is None and self.upstream is None:
            raise ValueError("aliases need a name or an upstream name to stand for")
        return self


class Timeouts(Section):
    connect: Seconds = 3
    first_event: Seconds = 600
    between_events: Seconds = 120
    keepalive: Seconds = 15
    head_after: Seconds = 10
    start: Seconds = 120
    wake: Seconds = 300
    client: Seconds = 300
    body: Seconds = 120
    grace: Annotated[float, Field(ge=0, le=3600)] | None = None
    drain: Annotated[float, Field(ge=0, le=86_400)] = 600


class StoreConfig(Section):
    url: str | None = None
    age: Annotated[float, Field(gt=0)] = 86_400
    bytes: Annotated[int, Field(ge=1_048_576)] = 1024**3
    sealed: bool = False

    @model_validator(mode="before")
    @classmethod
    def _short(cls, values: Any) -> Any:
        """`store: off` alone; YAML reads that word as False."""
        return {"url": values} if values is False or isinstance(values, str) else values

    @field_validator("url", mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        return "off" if value is False else value

    @field_validator("url")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        known = value in (None, "off", "memory") or str(value).startswith(("sqlite:", "postgresql://"))
        if not known or value == "sqlite:":
            raise ValueError("must be off, memory, sqlite:PATH or postgresql://HOST/DATABASE")
        return value


class Limits(Section):
    body_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    json_depth: Annotated[int, Field(ge=4, le=500)] = 64
    json_values: Annotated[int, Field(ge=1024)] = 500_000
    tools: Annotated[int, Field(ge=0)] = 1024
    sockets: Annotated[int, Field(ge=0)] = 256


class PoolConfig(Section):
    probe: Seconds = 5
    down_after: Annotated[int, Field(ge=1)] = 2
    failures: Annotated[int, Field(ge=1)] = 3
    rest: Seconds = 5
    longest_rest: Seconds = 60
    slow: Seconds = 120
    retries: Annotated[int, Field(ge=0)] = 2
    spread: Annotated[float, Field(ge=1)] = 1.25


class AdmissionConfig(Section):
    requests: Annotated[int, Field(ge=1)] | None = None
    tokens: Annotated[int, Field(ge=1)] | None = None
    queue: Annotated[int, Field(ge=0)] = 256
    wait: Seconds = 300


class PolicyConfig(Section):
    hosted_tools: Literal["ignore", "reject"] = "ignore"
    strict_history: bool = False
    reasoning_events: Literal["openai", "open_responses", "summary"] = "openai"
    unreadable: Literal["note", "reject"] = "note"


def _host(value: str) -> str:
    if not HOST.fullmatch(value):
        raise ValueError("must be host, .suffix or either with :port, without a scheme or a path")
    return value


class ImagesConfig(Section):
    allow: tuple[Annotated[str, AfterValidator(_host)], ...] = ()
    private: bool = False
    bytes: Annotated[int, Field(ge=1024)] = 20 * 1024 * 1024
    most: Annotated[int, Field(ge=0)] = 200
    redirects: Annotated[int, Field(ge=0, le=20)] = 3
    timeout: Seconds = 20


class LogConfig(Section):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["json", "text"] = "json"
    prompts: bool = False


class Config(BaseSettings):
    """Everything that the operator decides. `load` builds it from its sources; built directly, it reads none."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8080, ge=0, le=65_535)
    workers: int = Field(1, ge=1)
    tls: Tls = Tls()
    model: Name | None = None
    preset: str | None = None
    backends: tuple[BackendConfig, ...] = ()
    models: tuple[ModelRule, ...] = ()
    system_messages: SystemMessages | None = None
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()
    policy: PolicyConfig = PolicyConfig()
    pool: PoolConfig = PoolConfig()
    admission: AdmissionConfig = AdmissionConfig()
    images: ImagesConfig = ImagesConfig()
    api_keys_file: Path | None = None
    no_auth: bool = False
    seal_keys_file: Path | None = None
    state_dir: Path | None = None
    store: StoreConfig = StoreConfig()
    metrics_public: bool = False
    log: LogConfig = LogConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)  # `load` merges the sources itself, because it reports where a bad value came from

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, values: Any) -> Any:
        if isinstance(values, dict) and "api_keys" in values:
            raise ValueError("api_keys: are never written down here; use DRAGOMAN_API_KEYS or api_keys_file")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        self._one_local_model()
        if self.store.url == "memory" and self.workers > 1:
            raise ValueError("store.url: workers do not share their memory; use sqlite:PATH")
        names = [backend.name for backend in self.named_backends]
        if doubled := sorted({name for name in names if name and names.count(name) > 1}):
            raise ValueError(f"backends: the name {doubled[0]!r} is used twice")
        if taken := sorted({str(each.pool) for each in self.backends if each.pool in names}):
            raise ValueError(f"backends: the name {taken[0]!r} is a pool's and a backend's")
        for place, rule in enumerate(self.models):
            if rule.backend is not None and rule.backend not in [group.name for group in self.groups]:
                pool = next((each.pool for each in self.named_backends if each.name == rule.backend), None)
                hint = f"; it is a server of the pool {pool!r}" if pool else ""
                raise ValueError(f"models.{place}.backend: no backend is called {rule.backend!r}{hint}")
        exact = [name for rule in self.models for name in (rule.name, *rule.aliases) if name is not None]
        if doubled := sorted({name for name in exact if exact.count(name) > 1}):
            raise ValueError(f"models: the name {doubled[0]!r} is matched twice")
        return self

    @property
    def named_backends(self) -> tuple[BackendConfig, ...]:
        """At least one, each with a name: its own, or one made from its kind and position (`chat`, `chat-2`, `local`).
        Never from its host: `/readyz`, which is open to everybody, shows the names."""
        given = self.backends or (BackendConfig(url=DEFAULT_BACKEND),)
        named = []
        for place, each in enumerate(given):
            scheme = each.url.partition(":")[0].partition("+")[0].lower()
            kind = {"http": "chat", "https": "chat", "triton": "triton", "local": "local"}.get(scheme, "backend")
            name = each.name or (kind if place == 0 else f"{kind}-{place + 1}")
            named.append(each.model_copy(update={"name": name}))
        return tuple(named)

    @property
    def groups(self) -> tuple[Group, ...]:
        """The backends that calls go to: each pool once, in the order of its first server."""
        members: dict[str, list[BackendConfig]] = {}
        for each in self.named_backends:
            members.setdefault(str(each.pool or each.name), []).append(each)
        return tuple(Group(name, tuple(each)) for name, each in members.items())

    def as_running(self, running: Config) -> Config:
        """This configuration with the `FIXED` keys of the running one; raises `ConfigError` if they contradict it."""
        effective = self.model_copy(update={name: getattr(running, name) for name in FIXED})
        try:
            effective._one_local_model()
        except ValueError as error:
            raise ConfigError(f"configuration: {error}") from None
        return effective

    def _one_local_model(self) -> None:
        if self.workers > 1 and any(each.url.startswith(DEFAULT_BACKEND) for each in self.named_backends):
            raise ValueError("workers: the local model belongs to one process; several need a backend of their own")

    @property
    def grace(self) -> float:
        """Seconds between turning not ready and closing the sockets; on loopback nobody routes by readiness."""
        return self.timeouts.grace if self.timeouts.grace is not None else (0.0 if self.loopback else 5.0)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach `host`."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
