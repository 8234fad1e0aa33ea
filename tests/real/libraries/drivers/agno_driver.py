"""Agno. The settings are more arguments of its model class."""

from typing import Any

from agno.agent import Agent, RunOutput
from agno.db.in_memory import InMemoryDb
from agno.media import File, Image
from agno.models.anthropic import Claude
from agno.models.openai import OpenAIChat, OpenAIResponses
from agno.run.agent import RunErrorEvent
from agno.run.base import RunStatus
from scenario import SYSTEM, Reading, Scenario, Seen, serve


def opened(scenario: Scenario) -> Any:
    given = {"id": scenario.model, "api_key": scenario.key, **scenario.settings}
    if scenario.protocol == "messages":
        return Claude(client_params={"base_url": scenario.base, "max_retries": 0}, **given)
    kind: Any = OpenAIResponses if scenario.protocol == "responses" else OpenAIChat
    return kind(base_url=scenario.base, max_retries=0, **given)


class RunFailed(Exception):
    """Its runs do not raise: a status or an event has the error's text."""


def answer(agent: Any, text: str, files: dict[str, Any], scenario: Scenario, seen: Seen) -> Any:
    """The run's output."""
    if not scenario.streamed:
        said = agent.run(text, **files)
        if said.status is RunStatus.error:
            raise RunFailed(said.content)
        return said
    said = None
    for event in agent.run(text, stream=True, stream_events=True, yield_run_output=True, **files):
        if isinstance(event, RunErrorEvent):
            raise RunFailed(event.content)
        if isinstance(event, RunOutput):
            said = event
        elif event.event == "RunContent" and isinstance(event.content, str):
            seen.pieces.append(event.content)
    return said


def converse(scenario: Scenario, seen: Seen) -> None:
    agent: Any = Agent(
        model=opened(scenario),
        instructions=SYSTEM,
        tools=[seen.weather] if scenario.tools else None,
        output_schema=Reading if scenario.schema else None,
        db=InMemoryDb(),
        session_id="one",
        add_history_to_context=True,
        telemetry=False,
    )
    files: dict[str, Any] = {}
    if scenario.image:
        files["images"] = [Image(content=scenario.image_bytes, mime_type="image/png")]
    if scenario.pdf:
        files["files"] = [File(content=scenario.pdf_bytes, mime_type="application/pdf", filename="invoice.pdf")]
    for text in scenario.questions:
        said = answer(agent, text, files, scenario, seen)
        seen.reasoning += [each.reasoning_content or "" for each in said.messages if not each.from_history]
        if isinstance(said.content, Reading):
            seen.reading = said.content.model_dump()
        else:
            seen.answers.append(str(said.content))


if __name__ == "__main__":
    serve(converse)
