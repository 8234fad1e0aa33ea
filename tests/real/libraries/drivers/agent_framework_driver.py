"""Microsoft's Agent Framework. The settings are the agent's `default_options`."""

from typing import Any

from agent_framework import Agent, Content, Message
from agent_framework.openai import OpenAIChatClient, OpenAIChatCompletionClient
from openai import AsyncOpenAI
from scenario import SYSTEM, Reading, Scenario, Seen, serve


def question(text: str, scenario: Scenario, first: bool) -> Any:
    content: list[Any] = [Content.from_text(text)]
    if first and scenario.image:
        content.append(Content.from_data(scenario.image_bytes, "image/png"))
    if first and scenario.pdf:
        content.append(Content.from_data(scenario.pdf_bytes, "application/pdf"))
    return Message("user", content)


async def answer(agent: Any, session: Any, asked: Any, scenario: Scenario, seen: Seen) -> Any:
    if not scenario.streamed:
        return await agent.run(asked, session=session)
    stream = agent.run(asked, session=session, stream=True)
    async for update in stream:
        # what "replace" brings repeats the deltas
        seen.pieces += [
            str(each.text) for each in update.contents if each.type == "text" and each.merge_mode != "replace"
        ]
    return await stream.get_final_response()


async def converse(scenario: Scenario, seen: Seen) -> None:
    sdk = AsyncOpenAI(base_url=scenario.base, api_key=scenario.key, max_retries=0)
    kind: Any = OpenAIChatClient if scenario.protocol == "responses" else OpenAIChatCompletionClient
    options = dict(scenario.settings) | ({"response_format": Reading} if scenario.schema else {})
    agent: Any = Agent(
        client=kind(model=scenario.model, async_client=sdk),
        instructions=SYSTEM,
        tools=[seen.weather] if scenario.tools else None,
        default_options=options,
    )
    session = agent.create_session()
    for place, text in enumerate(scenario.questions):
        said = await answer(agent, session, question(text, scenario, first=place == 0), scenario, seen)
        contents = [content for message in said.messages for content in message.contents]
        seen.reasoning += [str(content.text) for content in contents if content.type == "text_reasoning"]
        if scenario.schema:
            seen.reading = said.value.model_dump()
        else:
            seen.answers.append(str(said.text))


if __name__ == "__main__":
    serve(converse)
