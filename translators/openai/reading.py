"""Reading by hand what is deep and often large in a body: the conversation and the tools.

This is several times faster than a union of forty pydantic models, and it can name the exact place of a fault. `path`
is always that of `owner`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dragoman.translators.errors import GatewayError
from dragoman.translators.fields import Given
from dragoman.translators.openai.refusals import empty, missing, wrong_type
from dragoman.translators.protocol import Json


def expect_text(owner: Mapping[str, Any], key: str, path: str) -> str:
    value = owner.get(key)
    if isinstance(value, str):
        return value
    raise _refused(owner, key, path, "a string")


def expect_list(owner: Mapping[str, Any], key: str, path: str) -> list[Any]:
    value = owner.get(key)
    if isinstance(value, list):
        return value
    raise _refused(owner, key, path, "an array")


def expect_object(owner: Mapping[str, Any], key: str, path: str) -> Json:
    value = owner.get(key)
    if isinstance(value, dict):
        return value
    raise _refused(owner, key, path, "an object")


def given_object(owner: Given, key: str, path: str) -> Given:
    """An object inside another, to be closed when it is read."""
    return owner.inner(expect_object(owner, key, path), f"{path}.{key}")


def text_or_null(owner: Mapping[str, Any], key: str, path: str) -> str | None:
    return None if owner.get(key) is None else expect_text(owner, key, path)


def object_or_null(owner: Mapping[str, Any], key: str, path: str) -> Json | None:
    value = owner.get(key)
    if value is None or isinstance(value, dict):
        return value
    raise wrong_type(f"{path}.{key}", "an object", value)


def bool_or_null(owner: Mapping[str, Any], key: str, path: str) -> bool | None:
    value = owner.get(key)
    if value is None or isinstance(value, bool):
        return value
    raise wrong_type(f"{path}.{key}", "a boolean", value)


def filled_text(owner: Mapping[str, Any], key: str, path: str) -> str:
    """A string that is there and not empty."""
    text = expect_text(owner, key, path)
    if not text:
        raise empty(f"{path}.{key}")
    return text


def name_of(owner: Mapping[str, Any], path: str) -> str:
    return filled_text(owner, "name", path)


def _refused(owner: Mapping[str, Any], key: str, path: str, expected: str) -> GatewayError:
    place = f"{path}.{key}"
    return wrong_type(place, expected, owner[key]) if key in owner else missing(place)
