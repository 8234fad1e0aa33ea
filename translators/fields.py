"""The fields that a request body has in every client protocol: the model, and how to sample its answer.

The schemas are strict about types and ranges (a bool is not an integer, a string is not a number) and lenient about
what they do not know: unknown fields are kept apart in `model_extra`, so that a parser can report them.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dragoman.translators.ir import Note, NoteKind, Sampling

INT32 = 2**31 - 1  # what engines store such numbers in


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]  # also as 64.0, which is how Gson, Lua and R write it

_UNPRINTABLE = re.compile(r"[^a-zA-Z0-9_.-]")


class Lenient(BaseModel):
    """An object inside a body. Unknown fields of it are ignored."""

    model_config = ConfigDict(strict=True, extra="ignore")


class RequestFields(BaseModel):
    """Sampling parameters that a protocol lacks are extensions of the engines, sent through `extra_body`."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: Whole | None = Field(None, ge=-1, le=INT32)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: Whole | None = Field(None, ge=-(2**63), le=2**63 - 1)


def sampling(fields: RequestFields, stop: Sequence[str] | None) -> Sampling:
    return Sampling(
        temperature=fields.temperature,
        top_p=fields.top_p,
        top_k=fields.top_k if fields.top_k and fields.top_k > 0 else None,  # 0 and -1 switch it off; some engines crash
        min_p=fields.min_p,
        repetition_penalty=fields.repetition_penalty,
        presence_penalty=fields.presence_penalty,
        frequency_penalty=fields.frequency_penalty,
        seed=fields.seed,
        stop=tuple(stop) if stop else None,
    )


def unusual(fields: BaseModel, ordinary: Mapping[str, Container[object]]) -> list[str]:
    """Names of the fields that hold anything but one of their ordinary values."""
    values = ((name, getattr(fields, name), usual) for name, usual in ordinary.items())
    return [name for name, value, usual in values if value is not None and value not in usual]


def unknown(fields: BaseModel) -> list[str]:
    """Names of the fields that the schema does not have."""
    return [name for name, value in (fields.model_extra or {}).items() if value is not None]


def noted(kind: NoteKind, name: str) -> Note:
    """A note whose name the client chose: cut to what may stand in a header and in a metric."""
    return Note(kind, _UNPRINTABLE.sub("_", name[:64]))
