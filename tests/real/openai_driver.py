"""Runs inside an environment that has the openai SDK: reads every answer with it and reports what it saw.

    python openai_driver.py BASE_URL FOLDER CASE… > report.json

The server at BASE_URL plays the answer whose case is the request's `model`. The report says, for each case, what the
iterator over `responses.create(stream=True)` gave, what the accumulator of `responses.stream()` made of it, what the
whole answer was, and where the bytes disagree with the SDK's types: `missing` names events, items and tools that this
version has no class for, `extra` fields that it does not know, `invalid` values that it refuses. It judges nothing.

Needs the standard library and the SDK; none of the gateway's code can be imported there.
"""

import json
import sys
from pathlib import Path
from typing import Any, get_args

import openai
import pydantic
from openai.types.responses import Response, ResponseOutputItem, ResponseStreamEvent, Tool


def by_type(union: Any) -> dict[str, Any]:
    """The SDK's classes of a union by the `type` that they stand for."""
    found: dict[str, Any] = {}
    for cls in get_args(get_args(union)[0]):
        for name in get_args(cls.model_fields["type"].annotation):
            found[name] = cls
    return found


EVENTS, ITEMS, TOOLS = by_type(ResponseStreamEvent), by_type(ResponseOutputItem), by_type(Tool)


def known(entries: list[Any], classes: dict[str, Any], what: str, told: dict[str, set[str]]) -> list[Any]:
    """The entries that this version has a class for; the others are named."""
    told["missing"] |= {f"{what} {entry['type']}" for entry in entries if entry["type"] not in classes}
    return [entry for entry in entries if entry["type"] in classes]


def known_parts(response: Any, told: dict[str, set[str]]) -> Any:
    output, tools = response.get("output", []), response.get("tools", [])
    return {**response, "output": known(output, ITEMS, "item", told), "tools": known(tools, TOOLS, "tool", told)}


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


def check(cls: Any, data: Any, told: dict[str, set[str]]) -> None:
    try:
        told["extra"] |= unknown_fields(cls.model_validate(data))
    except pydantic.ValidationError as error:
        told["invalid"] |= {describe(cls, each) for each in fitting(error)}


def fitting(error: pydantic.ValidationError) -> list[Any]:
    """Of a union's many complaints, those of the members whose `type` fits."""
    complaints = error.errors()
    wrong = {each["loc"][:-1] for each in complaints if each["loc"][-1] == "type"}
    best = [each for each in complaints if each["loc"][-1] != "type" and not wrong & prefixes(each["loc"])]
    return best or complaints


def prefixes(path: Any) -> set[Any]:
    return {path[:length] for length in range(len(path) + 1)}


def describe(cls: Any, complaint: Any) -> str:
    where = ".".join("[]" if isinstance(step, int) else str(step) for step in complaint["loc"])
    given = complaint["input"] if isinstance(complaint["input"], str | int | float | None) else "…"
    return f"{cls.__name__}.{where}={given}"


def bytes_of(stream: bytes) -> list[Any]:
    lines = [line[6:] for line in stream.decode().split("\n") if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def check_bytes(stream: bytes, told: dict[str, set[str]]) -> None:
    for data in bytes_of(stream):
        cls = EVENTS.get(data["type"])
        if cls is None:
            told["missing"].add(f"event {data['type']}")
        elif "response" in data:
            check(cls, {**data, "response": known_parts(data["response"], told)}, told)
        elif "item" not in data or known([data["item"]], ITEMS, "item", told):
            check(cls, data, told)


def iterated(client: openai.OpenAI, case: str) -> dict[str, Any]:
    types: list[str] = []
    last: Any = None
    try:
        for last in client.responses.create(model=case, input="x", stream=True):
            types.append(last.type)
    except openai.APIError as error:
        return {"types": types, "raised": error.message, "code": error.code}
    return {"types": types, "status": last.response.status}


def accumulated(client: openai.OpenAI, case: str) -> dict[str, Any]:
    types: list[str] = []
    try:
        with client.responses.stream(model=case, input="x") as stream:
            for event in stream:
                types.append(event.type)
            final = stream.get_final_response()
    except Exception as error:  # whatever the SDK raises is what is asked for
        return {"types": types, "raised": f"{type(error).__name__}: {error}"}
    return {"types": types, "text": final.output_text, "items": [item.id for item in final.output]}


def whole(client: openai.OpenAI, case: str, told: dict[str, set[str]]) -> dict[str, Any]:
    try:
        response = client.responses.create(model=case, input="x")
    except openai.APIStatusError as error:
        return {"raised": type(error).__name__, "code": error.code, "status": error.status_code}
    check(Response, known_parts(response.to_dict(warnings=False), told), told)
    return {"status": response.status, "text": response.output_text}


def main(url: str, folder: str, *cases: str) -> None:
    report: dict[str, Any] = {"version": openai.__version__, "cases": {}}
    with openai.OpenAI(base_url=url, api_key="dummy", max_retries=0, timeout=60) as client:
        for case in cases:
            told: dict[str, set[str]] = {"missing": set(), "extra": set(), "invalid": set()}
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
