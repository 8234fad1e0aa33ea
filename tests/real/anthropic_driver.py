"""Runs inside an environment that has the anthropic SDK: reads every answer with it and reports what it saw.

    python anthropic_driver.py BASE_URL FOLDER CASE… > report.json

The server at BASE_URL plays the answer whose case is the request's `model`. The report says, for each case, what the
iterator over `messages.create(stream=True)` gave, what the accumulator of `messages.stream()` made of it, what the
whole answer was, and where the bytes disagree with the SDK's types: `extra` names fields that this version does not
know, `invalid` values that it refuses. It judges nothing.

Needs the standard library and the SDK; none of the gateway's code can be imported there.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anthropic
import pydantic
from anthropic.types import Message, RawMessageStreamEvent

EVENTS: Any = pydantic.TypeAdapter(RawMessageStreamEvent)
ASKED: dict[str, Any] = {"max_tokens": 4096, "messages": [{"role": "user", "content": "x"}]}


def unknown_fields(value: Any) -> set[str]:
    """`Class.field` of everything below `value` that the SDK has no field for."""
    if isinstance(value, pydantic.BaseModel):
        extra = set(value.model_extra or {})
        known = [getattr(value, name) for name in type(value).model_fields if name in value.model_fields_set]
        return {f"{type(value).__name__}.{name}" for name in extra}.union(*map(unknown_fields, known), set())
    if isinstance(value, dict):
        return set().union(*map(unknown_fields, value.values()), set())
    if isinstance(value, list):
        return set().union(*map(unknown_fields, value), set())
    return set()


def check(validate: Callable[[Any], Any], data: Any, told: dict[str, set[str]]) -> None:
    try:
        told["extra"] |= unknown_fields(validate(data))
    except pydantic.ValidationError as error:
        told["invalid"] |= {f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()}


def check_bytes(stream: bytes, told: dict[str, set[str]]) -> None:
    """Every event but those that the SDK itself takes off the stream: `ping` and `error`."""
    for line in stream.decode().split("\n"):
        if line.startswith("data: "):
            data = json.loads(line[6:])
            if data["type"] not in ("ping", "error"):
                check(EVENTS.validate_python, data, told)


def failure(error: Exception) -> dict[str, Any]:
    told: dict[str, Any] = {"raised": type(error).__name__, "says": str(error)[:300]}
    if isinstance(error, anthropic.APIStatusError):
        body: Any = error.body
        told |= {"status": error.status_code, "body": body, "request_id": error.request_id}
    return told


def iterated(client: anthropic.Anthropic, case: str) -> dict[str, Any]:
    types: list[str] = []
    try:
        for event in client.messages.create(model=case, stream=True, **ASKED):
            types.append(event.type)
    except Exception as error:  # whatever the SDK raises is what is asked for
        return {"types": types} | failure(error)
    return {"types": types}


def accumulated(client: anthropic.Anthropic, case: str) -> dict[str, Any]:
    try:
        with client.messages.stream(model=case, **ASKED) as stream:
            final = stream.get_final_message()
    except Exception as error:
        return failure(error)
    return {"message": final.to_dict()}


def whole(client: anthropic.Anthropic, case: str, told: dict[str, set[str]]) -> dict[str, Any]:
    try:
        message = client.messages.create(model=case, **ASKED)
    except anthropic.APIStatusError as error:
        return failure(error)
    check(Message.model_validate, message.to_dict(), told)
    return {"message": message.to_dict()}


def main(url: str, folder: str, *cases: str) -> None:
    report: dict[str, Any] = {"version": anthropic.__version__, "cases": {}}
    with anthropic.Anthropic(base_url=url, api_key="dummy", max_retries=0, timeout=60) as client:
        for case in cases:
            told: dict[str, set[str]] = {"extra": set(), "invalid": set()}
            check_bytes(Path(folder, f"{case}.sse").read_bytes(), told)
            seen = {
                "iterated": iterated(client, case),
                "accumulated": accumulated(client, case),
                "whole": whole(client, case, told),
            }
            report["cases"][case] = seen | {key: sorted(value) for key, value in told.items()}
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
