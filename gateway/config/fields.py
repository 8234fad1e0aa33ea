"""The types of keys that several sections share: names, times, sizes, and the units in which numbers are meant.

A unit is part of the type, so that an error can say "seconds; write 600" where somebody wrote `10m`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from dragoman.backends.numeric_fields import NumericFields

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]{0,30}://[A-Za-z0-9_.\[\]:-]{1,255}")
HOST = re.compile(r"\.?[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*(:\d{1,5})?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class ConfigError(Exception):
    """What is wrong with the configuration: one line for each fault, with source, key and reason."""


@dataclass(frozen=True, slots=True)
class Unit:
    """What a number counts; `faults.SCALES` has the words for more of each."""

    name: str


def _one_line_name(value: str) -> str:
    if not value or not value.isprintable() or value != value.strip():
        raise ValueError("must be a printable name without blanks around it")
    return value


def _origin(value: str) -> str:
    if value != "*" and not ORIGIN.fullmatch(value):
        raise ValueError("must be * or an origin as browsers send it: scheme, host and port, without a path")
    return value


def _host(value: str) -> str:
    if not HOST.fullmatch(value):
        raise ValueError("must be host, .suffix or either with :port, without a scheme or a path")
    return value


def _variable(value: str) -> str:
    if not VARIABLE.fullmatch(value):  # not quoted: somebody may have written the key itself
        raise ValueError("must be the name of an environment variable, not the key")
    return value


SystemMessages = Literal["leading", "keep", "hoist", "user"]
Seconds = Annotated[float, Field(gt=0, le=86_400), Unit("seconds")]
Name = Annotated[str, AfterValidator(_one_line_name)]
Origin = Annotated[str, AfterValidator(_origin)]
Host = Annotated[str, AfterValidator(_host)]
Variable = Annotated[str, AfterValidator(_variable)]
Window = Annotated[int, Field(ge=256), Unit("tokens")]
Bytes = Annotated[int, Field(ge=1024), Unit("bytes")]
Tokens = Annotated[int, Field(ge=1), Unit("tokens")]


class Section(NumericFields):
    model_config = ConfigDict(frozen=True, extra="forbid")
