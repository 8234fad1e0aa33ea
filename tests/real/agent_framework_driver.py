"""Runs inside the environment of Microsoft's Agent Framework: a session with a tool, whole and streamed.

    python agent_framework_driver.py BASE_URL SETTINGS QUESTION… > report.json

SETTINGS is a JSON object, the agent's `default_options`. A question that fails is asked once more. The report gives the
answers and the tool's calls of each way, and, where it failed twice, what its user reads. None of the gateway's code
can be imported there.
"""

import asyncio
import json
import sys
from typing import Any

from agent_framework import Agent, AgentSession
from agent_framework.openai import OpenAIChatClient

CALLED: list[str] = []


def weather(city: str) -> str:
    """The weather in a city."""
    CALLED.append(city)
    return f"sunny in {city}"


async def answer(agent: Agent, session: AgentSession, question: str, streamed: bool) -> str:
    if not streamed:
        return str((await agent.run(question, session=session)).text)
    stream = agent.run(question, session=session, stream=True)
    async for _ in stream:  # the texts of the updates repeat themselves; the final response puts them together
        pass
    return str((await stream.get_final_response()).text)


async def conversation(agent: Agent, questions: tuple[str, ...], streamed: bool) -> dict[str, Any]:
    CALLED.clear()
    session = agent.create_session()
    answers: list[str] = []
    report: dict[str, Any] = {"answers": answers}
    try:
        for question in questions:
            try:
                answers.append(await answer(agent, session, question, streamed))
            except Exception:
                answers.append(await answer(agent, session, question, streamed))
    except Exception as error:  # whatever the user sees is what is asked for
        report["raised"] = str(error)
    return {**report, "called": list(CALLED)}


async def main(url: str, settings: str, *questions: str) -> None:
    agent = Agent(
        client=OpenAIChatClient(model="any", base_url=url, api_key="dummy"),
        instructions="Answer after asking.",
        tools=[weather],
        default_options=json.loads(settings),
    )
    ways = {"whole": False, "streamed": True}
    json.dump({way: await conversation(agent, questions, streamed) for way, streamed in ways.items()}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
