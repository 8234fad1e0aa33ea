"""Pydantic AI. The settings are the agent's `model_settings`, beside `profile`."""

from typing import Any

from anthropic import AsyncAnthropic
from openai import AsyncOpenAI
from pydantic_ai import Agent, BinaryContent, NativeOutput, ThinkingPart
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from scenario import SYSTEM, Reading, Scenario, Seen, serve


def opened(scenario: Scenario) -> Any:
    given: dict[str, Any] = {"base_url": scenario.base, "api_key": scenario.key, "max_retries": 0}
    if scenario.protocol == "messages":
        return AnthropicModel(scenario.model, provider=AnthropicProvider(anthropic_client=AsyncAnthropic(**given)))
    provider = OpenAIProvider(openai_client=AsyncOpenAI(**given))
    kind: Any = OpenAIResponsesModel if scenario.protocol == "responses" else OpenAIChatModel
    return kind(scenario.model, provider=provider, profile=scenario.settings.pop("profile", None))


def question(text: str, scenario: Scenario, first: bool) -> list[Any]:
    content: list[Any] = [text]
    if first and scenario.image:
        content.append(BinaryContent(scenario.image_bytes, media_type="image/png"))
    if first and scenario.pdf:
        content.append(BinaryContent(scenario.pdf_bytes, media_type="application/pdf"))
    return content


async def converse(scenario: Scenario, seen: Seen) -> None:
    # its models of Messages accept a format only for names that they know
    typed: Any = Reading if scenario.protocol == "messages" else NativeOutput(Reading)
    agent: Any = Agent(
        opened(scenario),
        instructions=SYSTEM,
        output_type=typed if scenario.schema else str,
        tools=[seen.weather] if scenario.tools else [],
        model_settings=scenario.settings,
    )
    history: list[Any] = []
    for place, text in enumerate(scenario.questions):
        asked = question(text, scenario, first=place == 0)
        if scenario.streamed:
            async with agent.run_stream(asked, message_history=history) as result:
                if not scenario.schema:
                    seen.pieces += [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
                output = await result.get_output()
        else:
            result = await agent.run(asked, message_history=history)
            output = result.output
        history = result.all_messages()
        parts = [part for message in result.new_messages() for part in message.parts]
        seen.reasoning += [part.content for part in parts if isinstance(part, ThinkingPart)]
        if isinstance(output, Reading):
            seen.reading = output.model_dump()
        else:
            seen.answers.append(output)


if __name__ == "__main__":
    serve(converse)
