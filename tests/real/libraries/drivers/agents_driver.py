"""The OpenAI Agents SDK. The settings are the agent's `ModelSettings`."""

from typing import Any

import agents
from agents import OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner
from agents.items import ReasoningItem
from openai import AsyncOpenAI
from scenario import SYSTEM, Reading, Scenario, Seen, serve


def opened(scenario: Scenario) -> Any:
    client = AsyncOpenAI(base_url=scenario.base, api_key=scenario.key, max_retries=0)
    if scenario.protocol == "responses":
        return OpenAIResponsesModel(scenario.model, client)
    return OpenAIChatCompletionsModel(scenario.model, client, should_replay_reasoning_content=lambda _: True)


def question(text: str, scenario: Scenario, first: bool) -> dict[str, Any]:
    content: list[Any] = [{"type": "input_text", "text": text}]
    if first and scenario.image:
        content.append({"type": "input_image", "image_url": scenario.image_url, "detail": "auto"})
    if first and scenario.pdf:
        content.append({"type": "input_file", "filename": "invoice.pdf", "file_data": scenario.pdf_url})
    return {"role": "user", "content": content}


async def converse(scenario: Scenario, seen: Seen) -> None:
    agents.set_tracing_disabled(True)
    agent: Any = agents.Agent(
        name="forecaster",
        instructions=SYSTEM,
        model=opened(scenario),
        model_settings=agents.ModelSettings(**scenario.settings),
        tools=[agents.function_tool(seen.weather)] if scenario.tools else [],
        output_type=Reading if scenario.schema else None,
    )
    items: list[Any] = []
    for text in scenario.questions:
        items.append(question(text, scenario, first=not items))
        result: Any
        if scenario.streamed:
            result = Runner.run_streamed(agent, items)
            async for event in result.stream_events():
                if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                    seen.pieces.append(event.data.delta)
        else:
            result = await Runner.run(agent, items)
        items = result.to_input_list()
        thoughts = [item.raw_item for item in result.new_items if isinstance(item, ReasoningItem)]
        seen.reasoning += [part.text for item in thoughts for part in item.summary or item.content or ()]
        if scenario.schema:
            seen.reading = result.final_output.model_dump()
        else:
            seen.answers.append(result.final_output)


if __name__ == "__main__":
    serve(converse)
