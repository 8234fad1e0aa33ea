"""Runs inside the environment of openai-agents: an agent with two tools against the gateway, streamed and not.

    python agents_driver.py BASE_URL > report.json

Needs the standard library and openai-agents; none of the gateway's code can be imported there.
"""

import asyncio
import json
import sys
from typing import Any

import agents
import openai
from pydantic import BaseModel


class Verdict(BaseModel):
    warm: bool
    why: str


CALLED: list[str] = []


def weather(city: str) -> str:
    """The weather in a city."""
    CALLED.append(city)
    return f"sunny in {city}"


def agent(client: openai.AsyncOpenAI, **more: Any) -> agents.Agent[None]:
    model = agents.OpenAIResponsesModel(model="any", openai_client=client)
    return agents.Agent(
        name="guide", instructions="Answer after asking.", model=model, tools=[agents.function_tool(weather)], **more
    )


async def looped(client: openai.AsyncOpenAI) -> dict[str, Any]:
    result = await agents.Runner.run(agent(client), "Rome and Oslo?")
    used = result.context_wrapper.usage
    return {
        "answer": result.final_output,
        "items": [type(item).__name__ for item in result.new_items],
        "usage": [used.requests, used.input_tokens, used.output_tokens],
    }


async def looped_in_a_stream(client: openai.AsyncOpenAI) -> dict[str, Any]:
    result = agents.Runner.run_streamed(agent(client), "Rome and Oslo?")
    deltas = [
        event.data.delta
        async for event in result.stream_events()
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta"
    ]
    return {
        "answer": result.final_output,
        "items": [type(item).__name__ for item in result.new_items],
        "deltas": deltas,
    }


async def typed(client: openai.AsyncOpenAI) -> dict[str, Any]:
    """A second turn of the same conversation, with an answer after a schema."""
    first = await agents.Runner.run(agent(client), "Rome and Oslo?")
    question = [*first.to_input_list(), {"role": "user", "content": "Is it warm?"}]
    result = await agents.Runner.run(agent(client, output_type=Verdict), question)
    return {"verdict": result.final_output.model_dump()}


async def main(url: str) -> None:
    agents.set_tracing_disabled(True)
    report: dict[str, Any] = {}
    async with openai.AsyncOpenAI(base_url=url, api_key="dummy", max_retries=0, timeout=60) as client:
        for name, loop in (("whole", looped), ("streamed", looped_in_a_stream), ("typed", typed)):
            CALLED.clear()
            report[name] = {**await loop(client), "called": sorted(CALLED)}
    json.dump(report, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
