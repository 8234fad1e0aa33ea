"""A small vocabulary for saying what a JSON value must look like.

A `Check` takes a value and the place where it stands, and raises `Violation` when the value does not fit. Objects name
all their keys: an unknown key is a violation unless the shape says `open_ended`. The rules are `missing`, `unknown-key`
and `type`, so that a test can tell a shape error from an error of order.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

Check = Callable[[Any, str], None]

NO_KEYS: Mapping[str, Check] = MappingProxyType({})


class Violation(AssertionError):
    """A broken rule: `rule` is its short name, `where` the event and path."""

    def __init__(self, rule: str, where: str, detail: str) -> None:
        super().__init__(f"{rule} at {where}: {detail}")
        self.rule = rule
        self.where = where


def require(holds: bool, rule: str, where: str, detail: str) -> None:
    if not holds:
        raise Violation(rule, where, detail)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def string(value: Any, where: str) -> None:
    require(isinstance(value, str), "type", where, f"a string is needed, not {_short(value)}")


def text(value: Any, where: str) -> None:
    """A string that is not empty: ids, names, codes."""
    require(isinstance(value, str) and value != "", "type", where, f"a non-empty string is needed, not {_short(value)}")


def integer(value: Any, where: str) -> None:
    # bool is an int in Python, but `true` is not a number in JSON
    require(type(value) is int, "type", where, f"an integer is needed, not {_short(value)}")


def count(value: Any, where: str) -> None:
    require(type(value) is int and value >= 0, "type", where, f"a count of 0 or more is needed, not {_short(value)}")


def number(value: Any, where: str) -> None:
    require(type(value) in (int, float), "type", where, f"a number is needed, not {_short(value)}")


def boolean(value: Any, where: str) -> None:
    require(isinstance(value, bool), "type", where, f"true or false is needed, not {_short(value)}")


def anything(value: Any, where: str) -> None:
    """For what the client sent and gets back: its shape is the client's affair."""


def mapping(value: Any, where: str) -> None:
    require(isinstance(value, dict), "type", where, f"an object is needed, not {_short(value)}")


def one_of(*allowed: object) -> Check:
    def check(value: Any, where: str) -> None:
        fits = any(value == other and type(value) is type(other) for other in allowed)
        require(fits, "type", where, f"one of {allowed} is needed, not {_short(value)}")

    return check


def nullable(inner: Check) -> Check:
    def check(value: Any, where: str) -> None:
        if value is not None:
            inner(value, where)

    return check


def either(*checks: Check) -> Check:
    """Any of several shapes; the last one's complaint is the one reported."""

    def check(value: Any, where: str) -> None:
        for attempt in checks[:-1]:
            try:
                return attempt(value, where)
            except Violation:
                continue
        return checks[-1](value, where)

    return check


def array(inner: Check) -> Check:
    def check(value: Any, where: str) -> None:
        require(isinstance(value, list), "type", where, f"an array is needed, not {_short(value)}")
        for index, element in enumerate(value):
            inner(element, f"{where}[{index}]")

    return check


def record(
    required: Mapping[str, Check], optional: Mapping[str, Check] = NO_KEYS, *, open_ended: bool = False
) -> Check:
    """An object with these keys; `optional` ones may be absent, never of another type."""

    def check(value: Any, where: str) -> None:
        mapping(value, where)
        for key, inner in required.items():
            require(key in value, "missing", f"{where}.{key}", "this key is required")
            inner(value[key], f"{where}.{key}")
        for key, element in value.items():
            if key in optional:
                optional[key](element, f"{where}.{key}")
            else:
                require(open_ended or key in required, "unknown-key", f"{where}.{key}", "no such key in this object")

    return check


def tagged(shapes: Mapping[str, Check], tag: str = "type", *, otherwise: Check | None = None) -> Check:
    """An object whose `tag` key says which of the shapes it has; other tags are refused unless `otherwise` is given."""

    def check(value: Any, where: str) -> None:
        mapping(value, where)
        kind = value.get(tag)
        known = shapes.get(kind) if isinstance(kind, str) else None
        if known is None:
            require(otherwise is not None, "type", f"{where}.{tag}", f"unknown kind {_short(kind)}")
        chosen = known or otherwise
        if chosen is not None:
            chosen(value, where)

    return check
