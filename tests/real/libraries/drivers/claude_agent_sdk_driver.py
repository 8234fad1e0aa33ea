"""The Claude Agent SDK, with the Claude Code that it brings along. The settings are variables of its environment.

A folder of its own for every scenario, so that no session knows another.
"""

import tempfile
from collections.abc import AsyncIterator
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    StreamEvent,
    ThinkingBlock,
    create_sdk_mcp_server,
    tool,
)
from scenario import SYSTEM, Reading, Scenario, Seen, serve


def options(scenario: Scenario, seen: Seen, folder: str) -> ClaudeAgentOptions:
    async def weather(arguments: dict[str, Any]) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": seen.weather(arguments["city"])}]}

    made = tool("weather", "The weather in a city.", {"city": str})(weather)
    more: dict[str, Any] = {}
    if scenario.tools:
        more["mcp_servers"] = {"demo": create_sdk_mcp_server("demo", tools=[made])}
        more["allowed_tools"] = ["mcp__demo__weather"]
    if scenario.schema:
        more["output_format"] = {"type": "json_schema", "schema": Reading.model_json_schema()}
    return ClaudeAgentOptions(
        system_prompt=SYSTEM,
        include_partial_messages=scenario.streamed,
        model=scenario.model,
        cwd=folder,
        setting_sources=[],
        env={
            "ANTHROPIC_BASE_URL": scenario.url,
            "ANTHROPIC_AUTH_TOKEN": scenario.key,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            "CLAUDE_CODE_MAX_RETRIES": "0",
            **scenario.settings,
        },
        **more,
    )


async def question(scenario: Scenario, text: str, first: bool) -> AsyncIterator[dict[str, Any]]:
    content: list[dict[str, Any]] = [{"type": "text", "text": text}]
    for kind, media, data in (("image", "image/png", scenario.image), ("document", "application/pdf", scenario.pdf)):
        if first and data:
            content.append({"type": kind, "source": {"type": "base64", "media_type": media, "data": data}})
    yield {"type": "user", "message": {"role": "user", "content": content}, "parent_tool_use_id": None}


async def converse(scenario: Scenario, seen: Seen) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        async with ClaudeSDKClient(options(scenario, seen, folder)) as client:
            for place, text in enumerate(scenario.questions):
                await client.query(question(scenario, text, place == 0))
                async for message in client.receive_response():
                    read(message, scenario, seen)


def read(message: Any, scenario: Scenario, seen: Seen) -> None:
    match message:
        case StreamEvent() if message.event["type"] == "content_block_delta":
            delta = message.event["delta"]
            seen.pieces.append(delta.get("text", ""))
            seen.reasoning.append(delta.get("thinking", ""))
        case AssistantMessage() if not scenario.streamed:
            seen.reasoning += [block.thinking for block in message.content if isinstance(block, ThinkingBlock)]
        case ResultMessage() if message.is_error:
            seen.raised = f"{message.subtype}: {message.result}"
        case ResultMessage() if scenario.schema:
            seen.reading = message.structured_output
        case ResultMessage():
            seen.answers.append(message.result or "")
        case _:
            pass


if __name__ == "__main__":
    serve(converse)
