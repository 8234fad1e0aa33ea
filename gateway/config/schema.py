"""The configuration as a whole: what stands at its top, and what must hold between its keys.

The models are frozen, and unknown keys are errors. A secret is never part of them: it is named by an environment
variable or a file. Descriptions are the only text about a key (see `sections`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from dragoman.backends.numeric_fields import NumericFields
from dragoman.gateway.config.fields import ConfigError, Name, SystemMessages
from dragoman.gateway.config.search_section import SearchConfig
from dragoman.gateway.config.sections import (
    AdmissionConfig,
    BackendConfig,
    CorsConfig,
    DocumentsConfig,
    ImagesConfig,
    Limits,
    LogConfig,
    ModelRule,
    PolicyConfig,
    PoolConfig,
    StoreConfig,
    Timeouts,
    Tls,
)
from dragoman.gateway.nearest import nearest

PREFIX = "DRAGOMAN_"
FIXED = ("host", "port", "workers")  # need a restart to change: sockets and processes are made from them
DEFAULT_BACKEND = "local:"


class Inconsistent(ValueError):
    """Keys that contradict each other: the key to change, and the reason, of each contradiction."""

    def __init__(self, faults: list[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(f"{'.'.join(map(str, key))}: {reason}" for key, reason in faults))
        self.faults = faults


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


class Config(NumericFields, BaseSettings):
    """Everything that the operator decides. `load` builds it from its sources; built directly, it reads none."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="The address to listen on. Without client keys (see api_keys_file) only loopback addresses are "
        "allowed.",
    )
    port: int = Field(8080, ge=0, le=65_535, description="The port to listen on; 0 takes any free one.")
    workers: int = Field(
        1,
        ge=1,
        description="Processes that share the port. Each has its share of the limits of admission; the rates of keys "
        "and the metrics are those of all together.",
    )
    tls: Tls = Field(
        Tls(),
        description="TLS for clients; read again at SIGHUP. Not set: plain HTTP. With client_ca, clients must show a "
        "certificate that it signed.",
    )
    model: Name | None = Field(
        None,
        description="The name sent upstream, whatever a client asks for. Not set: a name that the backend lists goes "
        "upstream unchanged; a backend with one model gets that one's name; with several, an unknown name is answered "
        "with 404. Also: --model.",
        examples=["Qwen/Qwen3-32B"],
    )
    preset: str | None = Field(
        None,
        description="What kind of chat-completions server the backends are, unless they say so themselves: generic, "
        "trtllm-serve, triton-openai, vllm, sglang, lmdeploy, llama.cpp. Not set: generic. Also: --preset.",
        examples=["trtllm-serve"],
    )
    backends: tuple[BackendConfig, ...] = Field(
        (),
        description="The model servers. Not set: one, `local:`, a small real model on the CPU. Also: --backend URL "
        "(several times), or DRAGOMAN_BACKEND with commas; both replace this list, and several addresses given that "
        "way are one pool.",
    )
    models: tuple[ModelRule, ...] = Field(
        (),
        description="The models table: which names clients may use, and what they stand for. With a table, it alone "
        "decides: a name that nothing matches is answered with 404. Not set: see `model`.",
    )
    system_messages: SystemMessages | None = Field(
        None,
        description="System and developer messages in the middle of a conversation: leading (the first ones are merged "
        "into one, later ones stay in their place), keep (none is merged), hoist (all are merged into the first, which "
        "costs the server's prefix cache), user (later ones become marked user messages, for templates that refuse "
        "them). Not set: the preset's value.",
        examples=["leading"],
    )
    timeouts: Timeouts = Field(Timeouts(), description="All in seconds.")
    limits: Limits = Field(Limits(), description="What one request may hold.")
    policy: PolicyConfig = Field(
        PolicyConfig(),
        description="What is done where a request asks for more than a model server or the gateway can do.",
    )
    pool: PoolConfig = Field(
        PoolConfig(),
        description="How the servers of a model are watched and chosen. A single one, outside of any pool, is watched "
        "in the same way, which decides what /readyz reports of it, but there is nothing to choose: probe, retries and "
        "spread are for several. A session stays with one of them, for its prefix cache.",
    )
    admission: AdmissionConfig = Field(
        AdmissionConfig(),
        description="How many calls a model's servers run at once; further ones wait in a queue, in turns between the "
        "clients' keys, and streams get keepalives meanwhile. With several workers, each has its share of these "
        "limits.",
    )
    images: ImagesConfig = Field(
        ImagesConfig(),
        description="Images come as data: URLs. Those given by http(s) URL are fetched only if their host is listed, "
        "and by the gateway itself, never by a model server. An image that cannot be fetched is refused in the user's "
        "last message and left out, visibly, in the history.",
    )
    documents: DocumentsConfig = Field(
        DocumentsConfig(),
        description="PDFs whose data is in the request: with the extra `documents` the gateway reads their text, in "
        "processes of its own, and the model gets that text. One that cannot be read (encrypted, scanned, broken, "
        "beyond these limits) is treated as policy.unreadable says.",
    )
    search: SearchConfig = Field(
        SearchConfig(),
        description="Web search for models, run by the gateway where a client declares the tool (docs/web-search.md). "
        "Off unless a service is named; queries then leave the gateway for that service. What was found is only text: "
        "its addresses are never opened.",
    )
    cors: CorsConfig = Field(
        CorsConfig(),
        description="Pages in browsers (CORS). They send keys as every other client does; only the browser's own "
        "question beforehand (OPTIONS) needs none.",
    )
    api_keys_file: Path | None = Field(
        None,
        description="A file with clients' keys, one a line, # for comments; read again when it changes. On the line, "
        "after the key, there may be name=ann (for logs and metrics), models=qwen,claude-* (which names it may ask "
        "for), rpm=60 and tpm=100000 (requests and tokens a minute). No key may stand twice or have one character. "
        "Also: DRAGOMAN_API_KEYS, with commas, without such limits. "
        "With keys, only /healthz and /readyz are open. Clients send `Authorization: Bearer KEY` or `x-api-key: KEY`.",
        examples=["/run/secrets/dragoman-keys"],
    )
    no_auth: bool = Field(
        False,
        description="Listen beyond this machine without keys. Also: --no-auth. Whoever can reach the port may then use "
        "the models.",
    )
    seal_keys_file: Path | None = Field(
        None,
        description="Reasoning travels through the client, sealed, so that any replica can open it on the next turn. A "
        "file with the secrets that seal it, one a line: the first seals, all open, which is how they are rotated. "
        "Replicas must share it. Also: DRAGOMAN_SEAL_KEYS, with commas. Not set: a secret of this machine, generated "
        "once in the state directory.",
        examples=["/run/secrets/dragoman-seal-keys"],
    )
    state_dir: Path | None = Field(
        None,
        description="Where the gateway stores what must survive a restart. Not set: $XDG_STATE_HOME/dragoman or "
        "~/.local/state/dragoman.",
        examples=["/var/lib/dragoman"],
    )
    store: StoreConfig = Field(
        StoreConfig(),
        description="Answers that clients come back to, by `previous_response_id` or at /v1/responses/ID "
        "(docs/state.md). Nothing is kept of a request with `store: false`, and nobody finds what another key has "
        "kept.",
    )
    metrics_public: bool = Field(False, description="Leaves /metrics open even if there are keys.")
    log: LogConfig = Field(LogConfig(), description="The log, on standard error.")

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

    @field_validator("host")
    @classmethod
    def _host_alone(cls, value: str) -> str:
        bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value  # as in a URL
        if "/" in bare or bare.count(":") == 1 or "]" in bare:
            raise ValueError("must be an address or a name alone; the port has a key of its own")
        return bare

    @model_validator(mode="after")
    def _consistent(self) -> Config:
        faults = [
            *self._one_local_model(),
            *self._backend_names(),
            *self._one_model_of_a_pool(),
            *self._model_names(),
            *self._one_memory(),
            *self._room_for_one_body(),
        ]
        if faults:
            raise Inconsistent(faults)
        return self

    def _backend_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        names = [backend.name for backend in self.named_backends]
        for place, name in enumerate(names):
            if name in names[:place]:
                yield ("backends", place, "name"), f"the name {name!r} is used twice"
        for place, each in enumerate(self.backends):
            if each.pool in names:
                yield ("backends", place, "pool"), f"the name {each.pool!r} is a pool's and a backend's"

    def _one_model_of_a_pool(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        models: dict[str, str] = {}
        for place, each in enumerate(self.backends):
            if each.pool is None or each.model is None:
                continue
            first = models.setdefault(each.pool, each.model)
            if each.model != first:
                yield (
                    ("backends", place, "model"),
                    f"the pool {each.pool!r} serves {first!r} already; its servers are replicas of one model",
                )

    def _model_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        seen: set[str] = set()
        groups = [group.name for group in self.groups]
        for place, rule in enumerate(self.models):
            if rule.backend is not None and rule.backend not in groups:
                pool = next((each.pool for each in self.named_backends if each.name == rule.backend), None)
                hint = f"; it is a server of the pool {pool!r}" if pool else nearest(rule.backend, groups)
                yield ("models", place, "backend"), f"no backend is called {rule.backend!r}{hint}"
            own = rule.backend or groups[0]
            for number, each in enumerate(rule.fallback):
                key = ("models", place, "fallback", number)
                if each.backend not in groups:
                    yield key, f"no backend is called {each.backend!r}{nearest(each.backend, groups)}"
                elif each.backend in (own, *(earlier.backend for earlier in rule.fallback[:number])):
                    yield key, f"{each.backend!r} was tried before it"
            for name in (rule.name, *rule.aliases):
                if name in seen:
                    yield ("models", place), f"the name {name!r} is matched twice"
                if name is not None:
                    seen.add(name)

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
        for key, reason in (*effective._one_local_model(), *effective._one_memory()):
            raise ConfigError(f"configuration: {'.'.join(map(str, key))}: {reason}")
        return effective

    def _room_for_one_body(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        if self.limits.bodies_bytes < self.limits.body_bytes:
            yield (
                ("limits", "bodies_bytes"),
                "smaller than limits.body_bytes: one body may never find room",
            )

    def _one_memory(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        if self.store.url == "memory" and self.workers > 1:
            yield ("store", "url"), "workers do not share their memory; use sqlite:PATH"

    def _one_local_model(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        if self.workers > 1 and any(each.url.startswith(DEFAULT_BACKEND) for each in self.named_backends):
            yield ("workers",), "the local model belongs to one process; several need a backend of their own"

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
