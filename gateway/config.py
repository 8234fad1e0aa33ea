"""The configuration: frozen models, and where their values come from.

Flags beat the environment, the environment beats the one YAML file, the file beats the defaults. Whatever is wrong
(an unknown key, a bad value, a missing file) raises `ConfigError`, whose text is one line that names source, key and
reason. Secrets are referenced by environment variable or file and never written here; `secrets.read` fetches them.
What each key means is explained in `configs/gateway.yaml`, which a test keeps equal to these models.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

PREFIX = "DRAGOMAN_"
# Variables that are no keys of the file: secrets, and the short ways to name one backend or the file itself.
FIXED = ("host", "port", "workers")  # what stays until the next start, since sockets and processes are made of it
OTHER_VARIABLES = frozenset({"API_KEYS", "BACKEND", "BACKEND_API_KEY", "CONFIG", "SEAL_KEYS"})
DEFAULT_BACKEND = "local:"
# Kubernetes puts these into every container beside a Service that is called dragoman; they are nobody's settings.
SERVICE_LINKS = re.compile(r"SERVICE_(HOST|PORT\w*)|PORT_\d+_(TCP|UDP|SCTP)\w*")
SERVICE_ADDRESS = re.compile(r"(tcp|udp|sctp)://")

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
    """What answers under one name: the servers of a pool, or one server that is in none."""

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


class Limits(Section):
    body_bytes: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    json_depth: Annotated[int, Field(ge=4, le=500)] = 64
    json_values: Annotated[int, Field(ge=1024)] = 500_000
    tools: Annotated[int, Field(ge=0)] = 1024


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
    """Everything that the operator decides. Built by `load`; built directly, it reads no environment and no file."""

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
        return (init_settings,)  # `load` merges the sources itself, because it has to tell where a bad value came from

    @model_validator(mode="before")
    @classmethod
    def _no_secrets(cls, values: Any) -> Any:
        if isinstance(values, dict) and "api_keys" in values:
            raise ValueError("api_keys: are never written down here; use DRAGOMAN_API_KEYS or api_keys_file")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        self._one_local_model()
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
        """At least one, each with a name: its own, or one made of its kind and its place (`chat`, `chat-2`, `local`).
        Never of its host: names show in `/readyz`, which is open."""
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
        """The backends as they are asked: each pool once, in the order of its first server."""
        members: dict[str, list[BackendConfig]] = {}
        for each in self.named_backends:
            members.setdefault(str(each.pool or each.name), []).append(each)
        return tuple(Group(name, tuple(each)) for name, each in members.items())

    def as_running(self, running: Config) -> Config:
        """With what cannot change before the next start as it runs; raises `ConfigError` where that contradicts."""
        kept = self.model_copy(update={name: getattr(running, name) for name in FIXED})
        try:
            kept._one_local_model()
        except ValueError as error:
            raise ConfigError(f"configuration: {error}") from None
        return kept

    def _one_local_model(self) -> None:
        if self.workers > 1 and any(each.url.startswith(DEFAULT_BACKEND) for each in self.named_backends):
            raise ValueError("workers: the local model belongs to one process; several need a backend of their own")

    @property
    def grace(self) -> float:
        """Seconds between not being ready and closing the door; on loopback nobody routes by readiness."""
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


# ------------------------------------------------------------------------------------------------------------ sources


class Environment(EnvSettingsSource):
    """Variables with our prefix; a list may be written as JSON or with commas."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        found = super()._load_env_vars()
        return {name: value for name, value in found.items() if not _is_service_link(name, value or "")}

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        text = str(value).strip()
        if text.startswith(("[", "{")):
            return super().decode_complex_value(field_name, field, value)
        return split_commas(text)


class _UniqueKeys(yaml.SafeLoader):
    """Plain YAML, except that a key given twice is an error instead of a silent loss of the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
            if isinstance(key, str):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _is_service_link(variable: str, value: str) -> bool:
    name = variable.upper().removeprefix(PREFIX)
    return bool(SERVICE_LINKS.fullmatch(name)) or (name == "PORT" and bool(SERVICE_ADDRESS.match(value)))


def split_commas(text: str) -> list[str]:
    return [piece.strip() for piece in text.split(",") if piece.strip()]


def read_file(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    try:
        content = yaml.load(text, _UniqueKeys)
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise ConfigError(f"{path}:{line} not valid YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    except (ValueError, LookupError, AttributeError, RecursionError) as error:  # as of `2024-13-45` and `!!bool x`
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ConfigError(f"{path}: not valid YAML: {reason}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: must hold keys and values at the top, as in configs/gateway.yaml")
    return content


def read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    known = {name.upper() for name in Config.model_fields} | OTHER_VARIABLES
    for variable, value in environ.items():
        name = variable.upper().removeprefix(PREFIX)
        if not variable.upper().startswith(PREFIX) or _is_service_link(variable, value):
            continue
        if name.split("__", 1)[0] not in known:
            raise ConfigError(f"environment: {variable}: no such setting")
    try:
        values = Environment(Config)()
    except SettingsError as error:
        reason = error.__cause__ or error
        field = next((name for name in Config.model_fields if f'"{name}"' in str(error)), "?")
        raise ConfigError(f"environment: {PREFIX}{field.upper()}: {' '.join(str(reason).split())}") from None
    if backend := environ.get(f"{PREFIX}BACKEND", "").strip():
        values["backends"] = replicas(split_commas(backend))
    return values


def replicas(urls: Sequence[str]) -> list[dict[str, Any]]:
    """Backends named by address alone: one, or several that are servers of one pool."""
    return [{"url": url, **({"pool": "pool"} if len(urls) > 1 else {})} for url in urls]


def load(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Config:
    """`flags` holds only what was given, by key; None and empty values are left out. The file may also be named by
    `DRAGOMAN_CONFIG`. Reads `os.environ`."""
    if path is None and (named := os.environ.get(f"{PREFIX}CONFIG")):
        path = Path(named)
    sources = {
        "command line": {key: value for key, value in (flags or {}).items() if value not in (None, [], ())},
        "environment": read_environment(os.environ),
        str(path): read_file(path) if path is not None else {},
    }
    merged: dict[str, Any] = {}
    for values in reversed(sources.values()):
        merged = _merge(merged, values)
    try:
        return Config(**merged)
    except ValidationError as error:
        raise ConfigError(_explain(error, sources)) from None


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _explain(error: ValidationError, sources: Mapping[str, Mapping[str, Any]]) -> str:
    first = error.errors()[0]
    where = [step for step in first["loc"] if not str(step).startswith("function-")]
    key = ".".join(str(step) for step in where)
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        reason = "unknown key"
    if not key:  # a rule over several keys names its key itself
        key, colon, rest = reason.partition(": ")
        key, reason = (key, rest) if colon and " " not in key else (key.split(" ")[0], reason)
        where = list(key.split("."))
    source = _source_of(where, sources)
    if source == "environment" and where:
        key = PREFIX + "__".join(str(step).upper() for step in where)
    elif source == "command line" and where:
        key = f"--{str(where[0]).removesuffix('s' if where[0] == 'backends' else '')}".replace("_", "-")
    return f"{source}: {key}: {reason}"


def _source_of(where: list[Any], sources: Mapping[str, Mapping[str, Any]]) -> str:
    for source, values in sources.items():
        current: Any = values
        for depth, step in enumerate(where):
            if isinstance(current, dict) and step in current:
                current = current[step]
            elif isinstance(current, list | tuple) and str(step).isdigit() and int(step) < len(current):
                current = current[int(step)]
            else:
                # a missing key below a list is still the fault of whoever gave the list
                if depth > 0 and isinstance(values.get(str(where[0])), list | tuple):
                    return source
                break
        else:
            return source
    return "configuration"
