"""Haystack. The settings are `generation_kwargs`."""

from typing import Any

from haystack.components.agents import Agent
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage, FileContent, ImageContent
from haystack.tools import create_tool_from_function
from haystack.utils import Secret
from scenario import SYSTEM, Reading, Scenario, Seen, serve


def opened(scenario: Scenario) -> Any:
    options = dict(scenario.settings)
    if scenario.schema:  # models of pydantic do not stream
        form = {"name": "Reading", "schema": Reading.model_json_schema(), "strict": True}
        if scenario.protocol == "responses":
            options["text"] = {"format": {"type": "json_schema", **form}}
        else:
            options["response_format"] = {"type": "json_schema", "json_schema": form}
    kind: Any = OpenAIResponsesChatGenerator if scenario.protocol == "responses" else OpenAIChatGenerator
    return kind(
        model=scenario.model,
        api_base_url=scenario.base,
        api_key=Secret.from_token(scenario.key),
        max_retries=0,
        generation_kwargs=options,
    )


def question(text: str, scenario: Scenario, first: bool) -> Any:
    parts: list[Any] = [text]
    if first and scenario.image:
        parts.append(ImageContent(base64_image=scenario.image, mime_type="image/png"))
    if first and scenario.pdf:
        parts.append(FileContent(base64_data=scenario.pdf, mime_type="application/pdf", filename="invoice.pdf"))
    return ChatMessage.from_user(content_parts=parts)


def converse(scenario: Scenario, seen: Seen) -> None:
    def listen(chunk: Any) -> None:
        seen.pieces.append(chunk.content)

    generator = opened(scenario)
    given: dict[str, Any] = {"streaming_callback": listen} if scenario.streamed else {}
    messages: list[Any] = [ChatMessage.from_system(SYSTEM)]
    tools: Any = [create_tool_from_function(seen.weather)]
    agent: Any = Agent(chat_generator=generator, tools=tools) if scenario.tools else None
    for text in scenario.questions:
        messages.append(question(text, scenario, first=len(messages) == 1))
        before = len(messages)
        messages = (
            agent.run(messages, **given)["messages"]
            if agent
            else messages + generator.run(messages, **given)["replies"]
        )
        seen.reasoning += [said.reasoning.reasoning_text for said in messages[before:] if said.reasoning]
        if scenario.schema:
            seen.reading = Reading.model_validate_json(messages[-1].text).model_dump()
        else:
            seen.answers.append(messages[-1].text)


if __name__ == "__main__":
    serve(converse)
