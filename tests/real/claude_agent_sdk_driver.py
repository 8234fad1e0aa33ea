"""Runs inside the environment of claude-agent-sdk: two turns of one session, with a tool of this process.

    python claude_agent_sdk_driver.py BASE_URL FOLDER > report.json

It runs the Claude Code that the SDK brings along, in FOLDER. Needs claude-agent-sdk alone; none of the gateway's code
can be imported there.
"""

import asyncio
import json
import sys
from typing import Any

from claude_agent_sdk import (
    AssistantMessage,
    ClaudeAgentOptions,
    ClaudeSDKClient,
    ResultMessage,
    StreamEvent,
    TextBlock,
    create_sdk_mcp_server,
    tool,
)

CALLED: list[str] = []


async def weather(arguments: dict[str, Any]) -> dict[str, Any]:
    CALLED.append(arguments["city"])
    return {"content": [{"type": "text", "text": f"sunny in {arguments['city']}"}]}


WEATHER = tool("weather", "The weather in a city.", {"city": str})(weather)


def options(url: str, folder: str) -> ClaudeAgentOptions:
    return ClaudeAgentOptions(
        system_prompt="Answer after asking.",
        mcp_servers={"sky": create_sdk_mcp_server("sky", tools=[WEATHER])},
        allowed_tools=["mcp__sky__weather"],
        include_partial_messages=True,
        model="any",
        cwd=folder,
        setting_sources=[],
        env={
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_AUTH_TOKEN": "any",
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        },
    )


async def turn(client: ClaudeSDKClient, prompt: str) -> dict[str, Any]:
    """What the messages of one turn say, by kind."""
    said: list[str] = []
    deltas: list[str] = []
    await client.query(prompt)
    async for message in client.receive_response():
        match message:
            case AssistantMessage():
                said += [block.text for block in message.content if isinstance(block, TextBlock)]
            case StreamEvent() if message.event["type"] == "content_block_delta":
                deltas.append(message.event["delta"].get("text", ""))
            case ResultMessage():
                return {"said": said, "deltas": deltas, "failed": message.is_error, "result": message.result}
            case _:
                pass
    raise SystemExit("the turn has no result")


async def main() -> None:
    url, folder = sys.argv[1:]
    async with ClaudeSDKClient(options(url, folder)) as client:
        turns = [await turn(client, prompt) for prompt in ("How is the weather in Rome?", "Is that certain?")]
    print(json.dumps({"turns": turns, "called": CALLED}))


asyncio.run(main())
