"""The checks of JSON schemas as they run in a child process (`schema_checks` asks for them): JSON in, JSON out."""

from __future__ import annotations

import contextlib
import json

from dragoman.translators.constraints.schema_check import faults, usable

with contextlib.suppress(ImportError):
    import jsonschema as jsonschema  # loaded before the first question, whose time is limited


def answer(question: bytes) -> bytes:
    """`{"schema": …}`, with `"text"` where an answer is to be checked against it → `{"fault": "…"}` or null."""
    asked = json.loads(question)
    schema = asked["schema"]
    fault = faults(json.loads(asked["text"]), schema) if "text" in asked else usable(schema)
    return json.dumps({"fault": fault}).encode()
