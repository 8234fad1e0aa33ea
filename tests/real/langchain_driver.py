"""Runs inside an environment that has LangChain: a conversation with a tool, whole and streamed.

    python langchain_driver.py BASE_URL SETTINGS QUESTION… > report.json

SETTINGS is a JSON object, more arguments of `ChatOpenAI`. The report gives the answers and the tool's calls of each
way, and, where it failed, what its user reads. None of the gateway's code can be imported there.
"""

import json
import sys
from functools import reduce
from operator import add
from typing import Any

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

CALLED: list[str] = []


def weather(city: str) -> str:
    """The weather in a city."""
    CALLED.append(city)
    return f"sunny in {city}"


TOOL: Any = tool(weather)


def answer(model: Any, messages: list[Any], streamed: bool) -> str:
    while True:
        said = reduce(add, model.stream(messages)) if streamed else model.invoke(messages)
        messages.append(said)
        if not said.tool_calls:
            return str(said.text)
        messages += [TOOL.invoke(call) for call in said.tool_calls]


def conversation(model: Any, questions: tuple[str, ...], streamed: bool) -> dict[str, Any]:
    CALLED.clear()
    messages: list[Any] = [SystemMessage("Answer after asking.")]
    answers: list[str] = []
    report: dict[str, Any] = {"answers": answers}
    try:
        for question in questions:
            messages.append(HumanMessage(question))
            answers.append(answer(model, messages, streamed))
    except Exception as error:  # whatever the user sees is what is asked for
        report["raised"] = str(error)
    return {**report, "called": list(CALLED)}


def main(url: str, settings: str, *questions: str) -> None:
    given = {"model": "any", "base_url": url, "api_key": "dummy", "use_responses_api": True, **json.loads(settings)}
    model = ChatOpenAI(**given).bind_tools([TOOL])
    ways = {"whole": False, "streamed": True}
    json.dump({way: conversation(model, questions, streamed) for way, streamed in ways.items()}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
