"""The sections of the configuration: every key with its type, its default and the only text that explains it.

The explained file `configs/gateway.yaml`, the JSON schema and the page `docs/configuration.md` are made from these
descriptions (`reference`). An example is the value that the file shows for a key that has none by default.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, field_validator, model_validator

from dragoman.gateway.config.fields import Bytes, Host, Name, Origin, Seconds, Section, Tokens, Unit, Variable, Window


class Tls(Section):
    certificate: Path | None = Field(
        None, description="The certificate with its chain, in PEM.", examples=["/run/secrets/tls.crt"]
    )
    key: Path | None = Field(
        None, description="Its key. Default: it is in the certificate's file.", examples=["/run/secrets/tls.key"]
    )
    client_ca: Path | None = Field(
        None,
        description="Authorities whose certificates clients must show.",
        examples=["/run/secrets/clients-ca.crt"],
    )

    @model_validator(mode="after")
    def _has_a_certificate(self) -> Tls:
        if self.certificate is None and (self.key or self.client_ca):
            raise ValueError("needs a certificate")
        return self


class BackendTls(Section):
    ca: Path | None = Field(
        None, description="The authorities to trust instead of the system's.", examples=["/run/secrets/gpu-ca.crt"]
    )
    certificate: Path | None = Field(
        None,
        description="The certificate for a server that asks for one, in PEM.",
        examples=["/run/secrets/client.crt"],
    )
    key: Path | None = Field(
        None, description="Its key. Default: it is in the certificate's file.", examples=["/run/secrets/client.key"]
    )

    @model_validator(mode="after")
    def _has_a_certificate(self) -> BackendTls:
        if self.certificate is None and self.key is not None:
            raise ValueError("needs a certificate")
        return self


class BackendConfig(Section):
    url: str = Field(
        min_length=1,
        description="http(s)://host:port/v1                            a chat-completions server\n"
        "triton+grpc://host:8001/MODEL?tokenizer=DIR       Triton over gRPC\n"
        "triton+http://host:8000/MODEL?tokenizer=DIR       Triton over HTTP\n"
        "local:                                            the small model on the CPU",
        examples=["http://gpu-host:8000/v1"],
    )
    name: Name | None = Field(
        None,
        description="Its name in metrics, logs and the models table. Default: its kind and position (chat, chat-2, "
        "local).",
        examples=["gpu"],
    )
    pool: Name | None = Field(
        None,
        description="Servers with the same pool are replicas of one model; the models table names the pool. Default: "
        "none.",
        examples=["qwen"],
    )
    discover: Literal["dns"] | None = Field(
        None,
        description="dns: each address of the URL's host is a replica (in Kubernetes, a headless Service), looked up "
        "again every `pool.resolve` seconds. For http(s). Default: the URL is one server.",
        examples=["dns"],
    )
    preset: str | None = Field(
        None, description="As `preset` above, for this backend; http(s) alone has one.", examples=["trtllm-serve"]
    )
    model: Name | None = Field(None, description="As `model` above, for this backend.", examples=["Qwen/Qwen3-32B"])
    window: Window | None = Field(
        None,
        description="The context window in tokens. Default: the one in the server's list of models.",
        examples=[32768],
    )
    wake: Literal["refuse", "wake"] = Field(
        "refuse",
        description="When its engine sleeps: refuse (503 with Retry-After) or wake it with the preset's call, while "
        "requests wait.",
    )
    api_key_env: Variable | None = Field(
        None,
        description="Where the server's API key is: an environment variable or a file with one line, not both. Not "
        "set: DRAGOMAN_BACKEND_API_KEY, if that is set. Clients' keys are never sent on.",
        examples=["GPU_HOST_KEY"],
    )
    api_key_file: Path | None = Field(
        None,
        description="The file with the server's API key, in place of the variable.",
        examples=["/run/secrets/gpu-host-key"],
    )
    tls: BackendTls | None = Field(
        None,
        description="For https: the authorities to trust instead of the system's, and the certificate for a server "
        "that asks for one.",
    )
    settings: dict[str, Any] = Field(
        {},
        description="Single settings on top of the preset; docs/chat-settings.md and `dragoman config schema` list "
        "them. Triton obeys some.",
        examples=[{"images": False}],
    )

    @model_validator(mode="after")
    def _one_key(self) -> BackendConfig:
        if self.api_key_env and self.api_key_file:
            raise ValueError("api_key_env and api_key_file exclude each other")
        return self

    @model_validator(mode="after")
    def _has_a_name(self) -> BackendConfig:
        if self.discover is not None and not _named_host(self.url):
            raise ValueError("discover: dns needs an http(s) URL whose host is a name")
        return self


def _named_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:  # which is reported as such when the backend is opened
        return True
    try:
        ipaddress.ip_address(parts.hostname or "")
    except ValueError:
        return parts.scheme.lower() in ("http", "https") and bool(parts.hostname)
    return False


def _or_its_name(schema: dict[str, Any]) -> None:
    """In the schema for editors, what may also be written as a name alone."""
    whole = dict(schema)
    schema.clear()
    schema["anyOf"] = [{"type": "string"}, whole]


class Fallback(Section):
    """Written as the backend's name alone, or with what differs there."""

    model_config = ConfigDict(json_schema_extra=_or_its_name)

    backend: Name = Field(description="The name of the backend or pool.", examples=["cloud"])
    upstream: Name | None = Field(
        None, description="The name sent upstream there. Default: the rule's.", examples=["qwen3-32b"]
    )
    window: Window | None = Field(
        None, description="The context window there. Default: the backend's.", examples=[131072]
    )

    @model_validator(mode="before")
    @classmethod
    def _short(cls, values: Any) -> Any:
        return {"backend": values} if isinstance(values, str) else values


class ModelRule(Section):
    """`name` and `aliases` match exactly, `prefixes` by their longest; `upstream` is the name sent to the server."""

    name: Name | None = Field(
        None,
        description="The exact name, which is also sent upstream unless `upstream` says otherwise.",
        examples=["qwen"],
    )
    aliases: tuple[Name, ...] = Field(
        (), description="More exact names for the same.", examples=[["opus", "sonnet", "haiku"]]
    )
    prefixes: tuple[str, ...] = Field(
        (),
        description='Prefixes of names; the longest that matches wins, after all exact names. "" matches every name.',
        examples=[["claude-", "gpt-"]],
    )
    backend: Name | None = Field(
        None, description="The name of the backend or pool. Default: the first one.", examples=["qwen"]
    )
    upstream: Name | None = Field(
        None,
        description="The name sent upstream. Default: `name`; with prefixes alone, what the client asked for.",
        examples=["Qwen/Qwen3-32B"],
    )
    window: Window | None = Field(
        None,
        description="The context window in tokens, if the server does not report it or reports it wrong. Default: the "
        "backend's.",
        examples=[32768],
    )

    fallback: tuple[Fallback, ...] = Field(
        (),
        description="Backends or pools that serve a call, in this order, if the one above is down, asleep, has no room "
        "or fails before its first event; each is its name, or {backend, upstream, window} where the model has another "
        "name or window there. The header x-dragoman-fallback names the one that answered.",
        examples=[["spare", {"backend": "cloud", "upstream": "qwen3-32b"}]],
    )

    @model_validator(mode="after")
    def _matches_something(self) -> ModelRule:
        if self.name is None and not self.aliases and not self.prefixes:
            raise ValueError("needs a name, aliases or prefixes")
        if self.aliases and self.name is None and self.upstream is None:
            raise ValueError("aliases need a name or an upstream name to stand for")
        return self


class Timeouts(Section):
    connect: Seconds = Field(3, description="To open a connection to a backend.")
    first_event: Seconds = Field(
        600,
        description="From a request to the model's first event; queueing and reading the prompt count. For an answer "
        "that is asked for in one piece (`whole_answers`), to its end.",
    )
    between_events: Seconds = Field(120, description="Between two events of a running answer.")
    keepalive: Seconds = Field(
        15,
        description="A silent stream gets a keepalive, as a real event, this often. Codex gives up after 300 s, "
        "proxies often after 60 s.",
    )
    head_after: Seconds = Field(
        10,
        description="How long an answer is held back, so that an error can still be an HTTP status; then the head and "
        "keepalives go out.",
    )
    start: Seconds = Field(120, description="How long requests wait for a model that the gateway itself is starting.")
    wake: Seconds = Field(
        300, description="How long requests wait for a model that is being woken (see `wake` of a backend)."
    )
    client: Seconds = Field(
        300,
        description="How long a client may leave its answer unread before it counts as gone; meanwhile the model "
        "server is held back.",
    )
    body: Seconds = Field(
        120,
        description="How long a request's body may take to arrive and to be decoded; slower ones are refused.",
    )
    grace: Annotated[float, Field(ge=0, le=3600), Unit("seconds")] | None = Field(
        None,
        description="How long new requests are still taken after SIGTERM, while the gateway is already not ready: load "
        "balancers need that time to notice. Not set: 5 if other machines can connect, 0 on loopback.",
        examples=[5],
    )
    drain: Annotated[float, Field(ge=0, le=86_400), Unit("seconds")] = Field(
        600,
        description="How long running answers may go on after that; those cut then end with a failure that clients "
        "retry.",
    )
    stall: Annotated[float, Field(ge=0, le=3600), Unit("seconds")] = Field(
        30,
        description="How long the process may stand still, serving nobody, before it writes its stacks to standard "
        "error and ends with status 1, so that another one replaces it. 0: as long as it likes.",
    )


class Limits(Section):
    body_bytes: Bytes = Field(64 * 1024 * 1024, description="Size of a request's body, decompressed.")
    bodies_bytes: Bytes = Field(
        512 * 1024 * 1024,
        description="Size of the bodies larger than 1 MiB of all running calls together, with the stored conversations "
        "that they continue, for each worker; further ones wait before they are received. They take about three times "
        "their size of memory.",
    )
    json_depth: Annotated[int, Field(ge=4, le=500)] = Field(
        64, description="How deep the JSON of a request may be nested."
    )
    json_values: Annotated[int, Field(ge=1024)] = Field(
        200_000,
        description="How many values that JSON may hold, counted by its commas and opening brackets outside of "
        "strings. Each takes up to 200 bytes of memory beside its text; an agent's conversation of 5 MB has some "
        "twenty thousand.",
    )
    items: Annotated[int, Field(ge=16)] = Field(
        20_000,
        description="Messages or input items in one request, their content parts, calls and results, and tools, all "
        "counted together. An agent's conversation of a long day has some thousands.",
    )
    tools: Annotated[int, Field(ge=0)] = Field(1024, description="Tools in one request.")
    memo_bytes: Annotated[int, Field(ge=0), Unit("bytes")] = Field(
        64 * 1024 * 1024,
        description="Memory for earlier requests, for each worker: the tools, and the beginning of the conversation, "
        "that a client (by its key) sends again are not parsed again. Sixty tools take half a megabyte, a long session "
        "of an agent one or two. 0 keeps none.",
    )
    answer_bytes: Bytes = Field(
        8 * 1024 * 1024,
        description="Size of a model's answer: its text, and 32 bytes for each piece in which it comes. One that is "
        "larger, or has more than 1024 tool calls, fails, and the model server is stopped.",
    )
    sockets: Annotated[int, Field(ge=0)] = Field(
        256,
        description="WebSocket connections of one client (by its key), for each worker; further ones are refused with "
        "429.",
    )


class PoolConfig(Section):
    probe: Seconds = Field(
        5,
        description="Seconds between two probes of the health of each server of several. A single one is probed when "
        "its health is needed.",
    )
    down_after: Annotated[int, Field(ge=1)] = Field(
        2, description="How many probes in a row must fail before a server that was ready counts as down."
    )
    failures: Annotated[int, Field(ge=1)] = Field(
        3,
        description="How many failures in a row (no connection, 5xx, no answer in time, see slow) make the gateway "
        "skip a server, or report the only one as not ready.",
    )
    rest: Seconds = Field(
        5,
        description="For how many seconds; then one request tries it, and the time is doubled each time that fails …",
    )
    longest_rest: Seconds = Field(60, description="… up to this many.")
    slow: Seconds = Field(
        120,
        description="A first event that takes longer than this many seconds counts as a failure; while none comes at "
        "all, the server hangs.",
    )
    retries: Annotated[int, Field(ge=0)] = Field(
        2,
        description="On how many more servers a request is tried before its first event, if one is not reachable or "
        "has no room.",
    )
    resolve: Seconds = Field(
        15, description="Seconds between two look-ups of a name whose addresses are replicas (see `discover`)."
    )
    addresses: Annotated[int, Field(ge=1, le=1024)] = Field(
        64, description="How many addresses of one name are replicas; the log says how many more there are."
    )
    spread: Annotated[float, Field(ge=1)] = Field(
        1.25,
        description="How many times its fair share of the requests a server takes before a session goes to the next "
        "one.",
    )


class AdmissionConfig(Section):
    requests: Annotated[int, Field(ge=1)] | None = Field(
        None, description="Model calls that run at once, for each model. Not set: no limit.", examples=[64]
    )
    tokens: Tokens | None = Field(
        None,
        description="Tokens in flight for each model: estimated prompts, and up to 2048 for each answer. Not set: no "
        "limit.",
        examples=[400000],
    )
    queue: Annotated[int, Field(ge=0)] = Field(
        256,
        description="How many calls may wait, for each model; further ones are refused (503, 529, or in a stream a "
        "failure to retry).",
    )
    wait: Seconds = Field(300, description="How long a call waits at most, in seconds.")


class PolicyConfig(Section):
    hosted_tools: Literal["ignore", "reject"] = Field(
        "ignore",
        description="Tools that only their vendor can run (web_search …): ignore (visible in the header "
        "x-dragoman-ignored and in the metrics) or reject. A Messages request that offers nothing else is answered "
        "that they are unavailable, since its model would only make something up. With `search`, web search is none of "
        "them.",
    )
    strict_history: bool = Field(
        False,
        description="Refuse a history with missing or orphaned tool results instead of repairing it, and one with "
        "items of types that nobody knows instead of leaving them out.",
    )
    reasoning_events: Literal["openai", "open_responses", "summary"] = Field(
        "openai",
        description="Which events carry reasoning in the Responses protocol: openai (reasoning_text), open_responses "
        "(the names of that specification) or summary (as a summary). A request that names reasoning.summary gets a "
        "summary whatever stands here.",
    )
    pass_through: tuple[Literal["embeddings", "completions", "rerank"], ...] = Field(
        ("embeddings", "completions", "rerank"),
        description="Endpoints below /v1 whose bodies go to the model's server as they are, and its answers back; of "
        "chat-completions servers alone. [] closes them all.",
    )
    unreadable: Literal["note", "reject"] = Field(
        "note",
        description="What happens to documents and images that cannot be read here (PDFs, unless `documents` "
        "reads them, other binary files, uploaded or remote ones, SVG): note puts a text for the model in their place "
        "(visible in x-dragoman-ignored as item:document, item:file or item:image), since a refusal would come back "
        "with every later turn; reject refuses the request, with words that make Claude Code remove them by itself.",
    )
    echo_tools: bool = Field(
        True,
        description="Whether the response object of the Responses protocol repeats the request's tools, as OpenAI's "
        "does. An agent's are some 20 kB, in the first two events of a stream, each keepalive and the last event. "
        "With false the list is empty; no client that the tests run misses it (docs/clients.md).",
    )


class ImagesConfig(Section):
    allow: tuple[Host, ...] = Field(
        (),
        description="Hosts: images.example.org, or .example.org for all its subdomains; host:port for a port other "
        "than the usual one.",
    )
    private: bool = Field(
        False,
        description="Whether a listed host may be in a private network or on this machine; never where clouds serve "
        "credentials.",
    )
    bytes: Bytes = Field(20 * 1024 * 1024, description="Size of one image, fetched or not.")
    most: Annotated[int, Field(ge=0)] = Field(200, description="Images in one request.")
    redirects: Annotated[int, Field(ge=0, le=20)] = Field(
        3, description="How many redirects are followed, each to a listed host."
    )
    timeout: Seconds = Field(20, description="How long one image may take, in seconds, its turn included.")


class DocumentsConfig(Section):
    pages: Annotated[int, Field(ge=0), Unit("pages")] = Field(
        100, description="Pages of one PDF that are read, from the first on. 0 reads no PDF."
    )
    characters: Annotated[int, Field(ge=100, le=2_000_000), Unit("characters")] = Field(
        500_000, description="Characters of text of all PDFs in one request; what is beyond them is left out."
    )
    seconds: Seconds = Field(
        20, description="How long all PDFs of one request may take that were not read before, their turn included."
    )
    bytes: Bytes = Field(32 * 1024 * 1024, description="Size of one PDF; a larger one is not read.")


class StoreConfig(Section):
    url: str | None = Field(
        None,
        description="Where: off, memory (gone with the process, for one worker), sqlite:PATH (one machine) or "
        "postgresql://HOST/DATABASE (any number of gateways; the extra `postgres`). A password belongs into "
        "DRAGOMAN_STORE__URL or a passfile. Not set: answers.db in the state directory on loopback, off where other "
        "machines can connect.",
        examples=["sqlite:/var/lib/dragoman/answers.db"],
    )
    age: Annotated[float, Field(gt=0), Unit("seconds")] = Field(
        86_400, description="Seconds after which a conversation that nothing was added to is deleted."
    )
    bytes: Annotated[int, Field(ge=1_048_576), Unit("bytes")] = Field(
        1024**3,
        description="Bytes of JSON that are kept; beyond them the conversations go first that nothing was added to for "
        "longest.",
    )
    sealed: bool = Field(
        False, description="Encrypts what is kept, with the keys that also seal reasoning (see seal_keys_file)."
    )

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


class CorsConfig(Section):
    origins: tuple[Origin, ...] = Field(
        (),
        description='Origins whose pages may call the gateway: https://app.example.org, app://obsidian.md, or "*" for '
        "every one.",
    )


class LogConfig(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="debug, info, warning or error. One line for each request is at info."
    )
    format: Literal["json", "text"] | None = Field(
        None,
        description="json, or text for people. Not set: text in a terminal, with colours unless NO_COLOR is set, and "
        "json elsewhere.",
        examples=["text"],
    )
    begins: bool | None = Field(
        None,
        description="A line also when a model server is asked, since a long prompt may take minutes before its answer; "
        "llama.cpp and local: are asked how far they are, for a line every 5 seconds. Not set: in a terminal, and at "
        "level debug.",
        examples=[True],
    )
    prompts: bool = Field(
        False,
        description="Whether servers' words about a failure and the messages of unexpected exceptions are logged: they "
        "may quote prompts.",
    )
