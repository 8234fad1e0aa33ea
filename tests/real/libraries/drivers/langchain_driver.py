"""LangChain for Python. The settings are more arguments of `ChatOpenAI` or `ChatAnthropic`."""

from functools import reduce
from operator import add
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from scenario import SYSTEM, Reading, Scenario, Seen, serve


def opened(scenario: Scenario) -> Any:
    given = {"model": scenario.model, "base_url": scenario.base, "api_key": scenario.key, "max_retries": 0}
    if scenario.protocol == "messages":
        return ChatAnthropic(**given, **scenario.settings)
    return ChatOpenAI(**given, **scenario.settings, use_responses_api=scenario.protocol == "responses")


def question(text: str, scenario: Scenario, first: bool) -> HumanMessage:
    content: list[Any] = [{"type": "text", "text": text}]
    if first and scenario.image:
        content.append({"type": "image", "base64": scenario.image, "mime_type": "image/png"})
    if first and scenario.pdf:
        file = {"type": "file", "base64": scenario.pdf, "mime_type": "application/pdf", "filename": "invoice.pdf"}
        content.append(file)
    return HumanMessage(content)


def answer(model: Any, messages: list[Any], scenario: Scenario, seen: Seen) -> Any:
    if scenario.streamed:
        parts = list(model.stream(messages))
        seen.pieces += [str(part.text) for part in parts]
        said = reduce(add, parts)
    else:
        said = model.invoke(messages)
    seen.reasoning += [block.get("reasoning", "") for block in said.content_blocks if block["type"] == "reasoning"]
    return said


def converse(scenario: Scenario, seen: Seen) -> None:
    model = opened(scenario)
    messages: list[Any] = [SystemMessage(SYSTEM)]
    if scenario.schema:
        messages.append(HumanMessage(scenario.questions[0]))
        typed = model.with_structured_output(Reading.model_json_schema(), method="json_schema")
        seen.reading = list(typed.stream(messages))[-1] if scenario.streamed else typed.invoke(messages)
        return

    made: Any = tool(seen.weather)
    if scenario.tools:
        model = model.bind_tools([made])
    for text in scenario.questions:
        messages.append(question(text, scenario, first=len(messages) == 1))
        while True:
            said = answer(model, messages, scenario, seen)
            messages.append(said)
            if not said.tool_calls:
                break
            messages += [made.invoke(call) for call in said.tool_calls]
        seen.answers.append(str(said.text))


if __name__ == "__main__":
    serve(converse)
