"""Runs inside an environment that has the openai SDK: a conversation that is kept at BASE_URL, in a way of the SDK.

    python state_driver.py BASE_URL endpoints|socket|session|errors > report.json

`socket` and `session` need the extra `realtime`. It judges nothing. Needs the standard library and the SDK.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import openai


def endpoints(client: openai.OpenAI) -> dict[str, Any]:
    responses = client.responses
    items: Any = [{"role": "user", "content": str(number)} for number in range(45)]
    first = responses.create(model="m", input=items, metadata={"a": "b"})
    with responses.stream(model="m", input="go on", previous_response_id=first.id) as stream:
        list(stream)
        second = stream.get_final_response()
    referred: Any = [{"type": "item_reference", "id": item.id} for item in second.output]
    third = responses.create(model="m", input=[*referred, {"role": "user", "content": "and?"}])
    report = {
        "retrieved": [responses.retrieve(each.id).to_dict() == each.to_dict() for each in (first, third)],
        "metadata": responses.retrieve(first.id).metadata,
        # the SDK asks for page after page
        "listed": [item.content[0].text for item in responses.input_items.list(first.id, order="asc", limit=20)],
        "newest": next(iter(responses.input_items.list(first.id))).content[0].text,
        "counted": responses.input_tokens.count(model="m", input="x", previous_response_id=second.id).input_tokens,
    }
    responses.delete(first.id)
    return report


def errors(client: openai.OpenAI) -> dict[str, Any]:
    responses: Any = client.responses
    kept = responses.create(model="m", input="1")
    told: dict[str, Any] = {}
    calls: dict[str, Callable[[], object]] = {
        "retrieve": lambda: responses.retrieve("resp_none"),
        "delete": lambda: responses.delete("resp_none"),
        "input_items": lambda: responses.input_items.list("resp_none"),
        "continue": lambda: responses.create(model="m", input="x", previous_response_id="resp_none"),
        "cancel": lambda: responses.cancel(kept.id),
        "stream": lambda: responses.retrieve(kept.id, stream=True),
        "conversation": lambda: responses.create(model="m", input="x", conversation="conv_1"),
    }
    for name, call in calls.items():
        try:
            call()
        except openai.APIStatusError as error:
            told[name] = [error.status_code, error.code]
    return told


def socket(client: openai.OpenAI) -> dict[str, Any]:
    report: dict[str, Any] = {}
    with client.responses.connect() as connection:
        previous: dict[str, Any] = {}
        for text in ("one", "two"):
            connection.response.create(model="m", input=text, store=False, **previous)
            last = ended(connection)
            report[text] = last.response.output_text
            previous = {"previous_response_id": last.response.id}
        connection.response.create(model="m", input="x", previous_response_id="resp_none")
        report["error"] = ended(connection).to_dict()
    return report


def session(client: openai.OpenAI) -> dict[str, Any]:
    """How each of three questions ended, and the last answers of two conversations that take turns."""
    from openai.lib.responses_websocket import ResponsesWebSocketLimits, ResponsesWebSocketSession

    limits = ResponsesWebSocketLimits(3, 1000, 1000, 2**20, 2**20)
    with client.responses.connect() as connection, ResponsesWebSocketSession(connection, limits=limits) as lanes:
        ends = []
        for text in ("one", "two", "three"):
            lanes.default.send({"type": "response.create", "model": "m", "input": text, "store": False})
            answer = lanes.default.get_final_response(timeout=60)
            ends.append([answer.status, answer.output_text])
        told: dict[str, Any] = {name: None for name in ("left", "right")}
        named = {name: lanes.lane(name) for name in told}
        for text in ("one", "two"):
            for name, lane in named.items():
                given: Any = {"model": "m", "input": f"{name} {text}", "store": False}
                if told[name] is not None:
                    given["previous_response_id"] = told[name].id
                lane.send({"type": "response.create", **given})
                told[name] = lane.get_final_response(timeout=60)
    return {"ends": ends, "lanes": [answer.status for answer in told.values()]}


def ended(connection: Any) -> Any:
    for event in connection:
        if event.type in ("response.completed", "response.failed", "error"):
            return event
    raise AssertionError("the connection ended")


async def in_asyncio(url: str) -> dict[str, Any]:
    async with openai.AsyncOpenAI(base_url=url, api_key="dummy") as client, client.responses.connect() as connection:
        await connection.response.create(model="m", input="three", store=False)
        async for event in connection:
            if event.type == "response.completed":
                return {"three": event.response.output_text}
    raise AssertionError("the connection ended")


def main(url: str, way: str) -> None:
    with openai.OpenAI(base_url=url, api_key="dummy", max_retries=0, timeout=60) as client:
        report = {"endpoints": endpoints, "socket": socket, "session": session, "errors": errors}[way](client)
    if way == "socket":
        report |= asyncio.run(in_asyncio(url))
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
