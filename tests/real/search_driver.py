"""Runs inside an environment that has the openai or the anthropic SDK: two turns of a conversation with web search.

    python search_driver.py openai|anthropic URL > report.json

The first answer is streamed with the SDK's accumulator and sent back as it gives it, with another question. The report
says which events came, what the SDK made of the answer, and what it could not read (`invalid`). It judges nothing.
"""

import json
import sys
from typing import Any


def with_openai(url: str) -> dict[str, Any]:
    import openai
    import pydantic
    from openai.types.responses import ResponseOutputItem, ResponseStreamEvent

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="dummy", max_retries=0, timeout=60)
    asked: dict[str, Any] = {"model": "m", "tools": [{"type": "web_search"}], "store": False}
    question: list[Any] = [{"role": "user", "content": "What is new?"}]
    invalid: list[str] = []
    with client.responses.stream(input=question, **asked) as stream:
        events = list(stream)
        answer = stream.get_final_response()
    raw = client.responses.with_raw_response.create(input=question, **asked)
    for item in json.loads(raw.text() if callable(raw.text) else raw.text)["output"]:
        try:
            pydantic.TypeAdapter(ResponseOutputItem).validate_python(item)
        except pydantic.ValidationError as error:
            invalid.append(str(error)[:300])
    for event in client.responses.create(input=question, stream=True, **asked):
        try:
            pydantic.TypeAdapter(ResponseStreamEvent).validate_python(event.to_dict())
        except pydantic.ValidationError as error:
            invalid.append(str(error)[:300])
    back = [item.to_dict() for item in answer.output]
    later = client.responses.create(input=[*question, *back, {"role": "user", "content": "And?"}], **asked)
    cited = [note.url for item in answer.output if item.type == "message" for note in item.content[0].annotations]
    return {
        "events": [event.type for event in events],
        "kinds": [item.type for item in answer.output],
        "text": answer.output_text,
        "cited": cited,
        "later": later.output_text,
        "invalid": invalid,
    }


def with_anthropic(url: str) -> dict[str, Any]:
    import anthropic
    import pydantic
    from anthropic.types import Message, RawMessageStreamEvent

    client = anthropic.Anthropic(base_url=url, api_key="dummy", max_retries=0, timeout=60)
    tools: Any = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]
    asked: dict[str, Any] = {"model": "m", "max_tokens": 512, "tools": tools}
    question: list[Any] = [{"role": "user", "content": "What is new?"}]
    invalid: list[str] = []
    with client.messages.stream(messages=question, **asked) as stream:
        events = [event.type for event in stream]
        answer = stream.get_final_message()
    for event in client.messages.create(messages=question, stream=True, **asked):
        try:
            pydantic.TypeAdapter(RawMessageStreamEvent).validate_python(event.to_dict())
        except pydantic.ValidationError as error:
            invalid.append(str(error)[:300])
    try:
        Message.model_validate(client.messages.create(messages=question, **asked).to_dict())
    except pydantic.ValidationError as error:
        invalid.append(str(error)[:300])
    back = {"role": "assistant", "content": [block.to_dict() for block in answer.content]}
    later = client.messages.create(messages=[*question, back, {"role": "user", "content": "And?"}], **asked)
    found: Any = next(block for block in answer.content if block.type == "web_search_tool_result")
    return {
        "events": events,
        "kinds": [block.type for block in answer.content],
        "text": "".join(block.text for block in answer.content if block.type == "text"),
        "cited": [result.url for result in found.content],
        "later": later.content[-1].to_dict()["text"],
        "invalid": invalid,
    }


if __name__ == "__main__":
    json.dump({"openai": with_openai, "anthropic": with_anthropic}[sys.argv[1]](sys.argv[2]), sys.stdout)
