"""The openai and anthropic SDKs, each in an environment of its own. The settings are more arguments of each request."""

import json
from typing import Any

from scenario import SYSTEM, Reading, Scenario, Seen, serve

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "weather", "description": "The weather in a city.", "parameters": PARAMETERS}


def responses(scenario: Scenario, seen: Seen) -> None:
    import openai

    client = openai.OpenAI(base_url=scenario.base, api_key=scenario.key, max_retries=0)
    given: dict[str, Any] = {"model": scenario.model, "instructions": SYSTEM, **scenario.settings}
    if scenario.tools:
        given["tools"] = [{"type": "function", **FUNCTION}]
    if scenario.schema:
        given["text_format"] = Reading
    items: list[Any] = []
    for place, text in enumerate(scenario.questions):
        content: list[Any] = [{"type": "input_text", "text": text}]
        if place == 0 and scenario.image:
            content.append({"type": "input_image", "image_url": scenario.image_url, "detail": "auto"})
        if place == 0 and scenario.pdf:
            content.append({"type": "input_file", "filename": "invoice.pdf", "file_data": scenario.pdf_url})
        items.append({"role": "user", "content": content})
        while True:
            if scenario.streamed:
                with client.responses.stream(input=items, **given) as stream:
                    seen.pieces += [event.delta for event in stream if event.type == "response.output_text.delta"]
                    said: Any = stream.get_final_response()
            else:
                said = (client.responses.parse if scenario.schema else client.responses.create)(input=items, **given)
            items += said.output
            thoughts = [item for item in said.output if item.type == "reasoning"]
            seen.reasoning += [part.text for item in thoughts for part in item.summary or item.content]
            calls = [item for item in said.output if item.type == "function_call"]
            if not calls:
                break
            for call in calls:
                result = seen.weather(json.loads(call.arguments)["city"])
                items.append({"type": "function_call_output", "call_id": call.call_id, "output": result})
        if scenario.schema:
            seen.reading = said.output_parsed.model_dump()
        else:
            seen.answers.append(said.output_text)


def chat(scenario: Scenario, seen: Seen) -> None:
    import openai

    client = openai.OpenAI(base_url=scenario.base, api_key=scenario.key, max_retries=0)
    given: dict[str, Any] = {"model": scenario.model, **scenario.settings}
    if scenario.tools:
        given["tools"] = [{"type": "function", "function": FUNCTION}]
    if scenario.schema:
        given["response_format"] = Reading
    messages: list[Any] = [{"role": "system", "content": SYSTEM}]
    for place, text in enumerate(scenario.questions):
        content: list[Any] = [{"type": "text", "text": text}]
        if place == 0 and scenario.image:
            content.append({"type": "image_url", "image_url": {"url": scenario.image_url}})
        if place == 0 and scenario.pdf:
            content.append({"type": "file", "file": {"filename": "invoice.pdf", "file_data": scenario.pdf_url}})
        messages.append({"role": "user", "content": content})
        while True:
            if scenario.streamed:
                with client.chat.completions.stream(messages=messages, **given) as stream:
                    seen.pieces += [event.delta for event in stream if event.type == "content.delta"]
                    said: Any = stream.get_final_completion().choices[0].message
            else:
                ask = client.chat.completions.parse if scenario.schema else client.chat.completions.create
                said = ask(messages=messages, **given).choices[0].message
            messages.append(said)
            seen.reasoning.append(getattr(said, "reasoning_content", None) or "")
            if not said.tool_calls:
                break
            for call in said.tool_calls:
                result = seen.weather(json.loads(call.function.arguments)["city"])
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        if scenario.schema:
            seen.reading = said.parsed.model_dump()
        else:
            seen.answers.append(said.content)


def messages(scenario: Scenario, seen: Seen) -> None:
    import anthropic

    client = anthropic.Anthropic(base_url=scenario.base, api_key=scenario.key, max_retries=0)
    given: dict[str, Any] = {"model": scenario.model, "system": SYSTEM, "max_tokens": 4096, **scenario.settings}
    if scenario.tools:
        given["tools"] = [{"name": "weather", "description": FUNCTION["description"], "input_schema": PARAMETERS}]
    if scenario.schema:
        given["output_format"] = Reading
    turns: list[Any] = []
    for place, text in enumerate(scenario.questions):
        content: list[Any] = [{"type": "text", "text": text}]
        for kind, media, data in (
            ("image", "image/png", scenario.image),
            ("document", "application/pdf", scenario.pdf),
        ):
            if place == 0 and data:
                content.append({"type": kind, "source": {"type": "base64", "media_type": media, "data": data}})
        turns.append({"role": "user", "content": content})
        while True:
            if scenario.streamed:
                with client.messages.stream(messages=turns, **given) as stream:
                    seen.pieces += list(stream.text_stream)
                    said: Any = stream.get_final_message()
            else:
                said = (client.messages.parse if scenario.schema else client.messages.create)(messages=turns, **given)
            turns.append({"role": "assistant", "content": said.content})
            seen.reasoning += [block.thinking for block in said.content if block.type == "thinking"]
            calls = [block for block in said.content if block.type == "tool_use"]
            if not calls:
                break
            results = [(call.id, seen.weather(call.input["city"])) for call in calls]
            content = [{"type": "tool_result", "tool_use_id": id, "content": result} for id, result in results]
            turns.append({"role": "user", "content": content})
        if scenario.schema:
            seen.reading = said.parsed_output.model_dump()
        else:
            seen.answers.append("".join(block.text for block in said.content if block.type == "text"))


if __name__ == "__main__":
    ways = {"responses": responses, "chat": chat, "messages": messages}
    serve(lambda scenario, seen: ways[scenario.protocol](scenario, seen))
