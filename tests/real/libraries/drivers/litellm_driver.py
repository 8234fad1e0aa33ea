"""LiteLLM as a library. The settings are more arguments of `completion`, or of `responses` where `api` says so.

`provider` in the settings is the prefix of the model's name, which chooses the protocol.
"""

import json
from typing import Any

import litellm
from scenario import SYSTEM, Reading, Scenario, Seen, serve

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def question(text: str, scenario: Scenario, first: bool) -> dict[str, Any]:
    content: list[Any] = [{"type": "text", "text": text}]
    if first and scenario.image:
        content.append({"type": "image_url", "image_url": {"url": scenario.image_url}})
    if first and scenario.pdf:
        content.append({"type": "file", "file": {"filename": "invoice.pdf", "file_data": scenario.pdf_url}})
    return {"role": "user", "content": content}


def answer(messages: list[Any], scenario: Scenario, seen: Seen) -> Any:
    settings = dict(scenario.settings)
    given = {
        "model": f"{settings.pop('provider')}/{scenario.model}",
        "api_base": scenario.base,
        "api_key": scenario.key,
        "max_retries": 0,
        "messages": messages,
        **settings,
    }
    if scenario.tools:
        given["tools"] = [TOOL]
    if scenario.schema:
        given["response_format"] = Reading
    if not scenario.streamed:
        return litellm.completion(**given)
    chunks = list(litellm.completion(stream=True, **given))
    seen.pieces += [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    return litellm.stream_chunk_builder(chunks, messages=messages)


def converse(scenario: Scenario, seen: Seen) -> None:
    messages: list[Any] = [{"role": "system", "content": SYSTEM}]
    for text in scenario.questions:
        messages.append(question(text, scenario, first=len(messages) == 1))
        while True:
            said = answer(messages, scenario, seen).choices[0].message
            messages.append(said)
            seen.reasoning.append(getattr(said, "reasoning_content", None) or "")
            if not said.tool_calls:
                break
            for call in said.tool_calls:
                result = seen.weather(json.loads(call.function.arguments)["city"])
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        if scenario.schema:
            seen.reading = Reading.model_validate_json(said.content).model_dump()
        else:
            seen.answers.append(said.content or "")


if __name__ == "__main__":
    serve(converse)
