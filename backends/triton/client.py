"""What both transports of a Triton server offer, in one vocabulary: tensors by name in, tensors by name out.

A `Tensor` is a flat list of plain values; its type on the wire is the one in the model's metadata. A server's refusal
leaves a client as `GatewayError` (`backends.triton.errors`). Nothing here knows a profile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Outputs = Mapping[str, list[Any]]  # BYTES as str; other types as numbers and booleans
Config = Mapping[str, Any]  # the model's configuration as JSON

MAX_MESSAGE = 16 * 1024 * 1024  # bytes of one response


@dataclass(frozen=True, slots=True)
class Tensor:
    """`shape` without the batch dimension; by default one dimension with all values."""

    values: Sequence[Any]
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Metadata:
    """`inputs` and `outputs` are data types by name (`INT32`, `BYTES`); `batched`: shapes begin with a batch of one."""

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    batched: bool


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One request. `id` is unique among the requests in flight. `streamed` must be what the model's transaction policy
    says: a decoupled model answers streams only, another one only whole."""

    model: Metadata
    id: str
    inputs: Mapping[str, Tensor]
    streamed: bool = True
    outputs: Sequence[str] = ()  # which are wanted, where the transport lets one choose; all when empty
    quiet: bool = False  # its refusal is expected: no warning is logged


@dataclass(frozen=True, slots=True)
class ModelState:
    """As the repository index lists it: READY, LOADING, UNLOADING, UNAVAILABLE or "" for one that was never loaded."""

    name: str
    state: str
    reason: str = field(default="")


class Questions(Protocol):
    """Bounded by `QUESTION` seconds each."""

    async def ready(self, model: str) -> bool: ...

    async def index(self) -> list[ModelState]: ...

    async def describe(self, model: str) -> tuple[Metadata, Config]: ...

    async def load(self, model: str) -> None:
        """Returns once the model is loaded, at most `LOADING` seconds later; a server that loads by itself refuses."""
        ...


QUESTION = 5.0
LOADING = 600.0  # an engine is some ten gigabytes


def metadata(name: str, inputs: Mapping[str, str], outputs: Mapping[str, str], config: Config) -> Metadata:
    return Metadata(name, dict(inputs), dict(outputs), batched=int(config.get("max_batch_size") or 0) > 0)


def wire_shape(tensor: Tensor, batched: bool) -> list[int]:
    shape = list(tensor.shape) if tensor.shape is not None else [len(tensor.values)]
    return [1, *shape] if batched else shape
