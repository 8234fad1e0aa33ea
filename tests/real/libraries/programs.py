"""Agents as clients: each plays a scenario as its user would, with files, flags and an MCP server with the tool.

A program gets a home of its own for every scenario. What it prints of an answer, a thought or a failure is what its
user sees; the tool's calls are what the MCP server was called for.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path

from tests.real.aider import Aider
from tests.real.claude import Claude
from tests.real.codex import Codex, configuration
from tests.real.libraries.drivers.scenario import Reading, Scenario, Seen
from tests.real.mcp_server import command, mcp_server
from tests.real.opencode import Opencode
from tests.scripted import Json

Play = Callable[[Path, Path, Scenario, Seen], Awaitable[None]]
FREELY = "--dangerously-bypass-approvals-and-sandbox"
SECONDS = 110.0


async def played(play: Play, program: Path, home: Path, asked: Json) -> Json:
    """What the user saw, with the fields of `Seen`."""
    seen, called = Seen(), home / "called"
    await play(program, home, Scenario(**asked), seen)
    seen.called = called.read_text("utf-8").split() if called.exists() else []
    return asdict(seen)


def attached(scenario: Scenario, home: Path) -> list[Path]:
    """The user's image and PDF as files."""
    files = {"picture.png": scenario.image, "invoice.pdf": scenario.pdf}
    for name, data in files.items():
        if data:
            (home / name).write_bytes(base64.b64decode(data))
    return [home / name for name, data in files.items() if data]


# ---------------------------------------------------------------------------------------------------------- the agents

QUICK = "request_max_retries = 0\nstream_max_retries = 0\n"


async def codex_cli(program: Path, home: Path, scenario: Scenario, seen: Seen) -> None:
    codex = Codex(program, home)
    codex.variables["OPENAI_API_KEY"] = scenario.key
    tools = mcp_server(codex, str(home / "called")) if scenario.tools else ""
    codex.configure(configuration(scenario.url) + 'env_key = "OPENAI_API_KEY"\n' + QUICK + tools)
    flags: list[str] = [FREELY]
    if scenario.schema:
        schema = home / "schema.json"
        schema.write_text(json.dumps(Reading.model_json_schema()), "utf-8")
        flags += ["--output-schema", str(schema)]
    for place, question in enumerate(scenario.questions):
        images = [f"--image={path}" for path in attached(scenario, home)] if place == 0 else []
        turn = await codex.exec(question, *flags, *images, *(("resume", "--last") if place else ()), within=SECONDS)
        seen.reasoning += [item["text"] for item in turn.items("reasoning")]
        if turn.status:
            seen.raised = turn.complaints[-1]
            return
        seen.answers.append(turn.answers[-1])
    if scenario.schema:
        seen.reading = json.loads(seen.answers.pop())


async def claude_code(program: Path, home: Path, scenario: Scenario, seen: Seen) -> None:
    claude = Claude(program, home)
    settings = {"ANTHROPIC_AUTH_TOKEN": scenario.key, "CLAUDE_CODE_MAX_RETRIES": "0"}
    flags: list[str] = ["--include-partial-messages"]
    if scenario.tools:
        server, *arguments = command(home, str(home / "called"))
        servers = {"mcpServers": {"demo": {"command": server, "args": arguments}}}
        flags += ["--mcp-config", json.dumps(servers), "--strict-mcp-config", "--allowedTools", "mcp__demo__weather"]
    if scenario.schema:
        flags += ["--json-schema", json.dumps(Reading.model_json_schema())]
    for place, question in enumerate(scenario.questions):
        files = attached(scenario, claude.work) if place == 0 else []
        prompt = " ".join([question, *(f"@{path}" for path in files)])
        ask = claude.go_on if place else claude.ask
        turn = await ask(scenario.url, prompt, *flags, within=SECONDS, **settings)
        deltas = [event["event"]["delta"] for event in turn.events if is_delta(event)]
        seen.pieces += [delta["text"] for delta in deltas if "text" in delta]
        seen.reasoning += [delta["thinking"] for delta in deltas if "thinking" in delta]
        if turn.status:
            seen.raised = turn.answer
            return
        seen.answers.append(turn.answer)
    if scenario.schema:
        seen.reading = turn.last["structured_output"]


def is_delta(event: Json) -> bool:
    return event["type"] == "stream_event" and bool(event["event"]["type"] == "content_block_delta")


async def opencode(program: Path, home: Path, scenario: Scenario, seen: Seen) -> None:
    agent = Opencode(program, home, scenario.key)
    server = {"type": "local", "command": command(home, str(home / "called"))}
    agent.configure(
        {
            "permission": "allow",
            "mcp": {"demo": server} if scenario.tools else {},
            "provider": {"dragoman": {"models": {scenario.model: scenario.settings}}},
        }
    )
    for place, question in enumerate(scenario.questions):
        files = [f"--file={path}" for path in attached(scenario, home)] if place == 0 else []
        again = ["--continue"] if place else []
        words = ("run", "--format", "json", "--thinking", *files, *again, "--", question)
        _, output, _ = await agent.run(scenario.url, *words)
        events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        seen.reasoning += [event["part"]["text"] for event in events if event["type"] == "reasoning"]
        if failures := [event["error"]["data"]["message"] for event in events if event["type"] == "error"]:
            seen.raised = failures[-1]
            return
        seen.answers += [event["part"]["text"] for event in events if event["type"] == "text"]


async def aider(program: Path, home: Path, scenario: Scenario, seen: Seen) -> None:
    """It works in a repository, and has tools of its own kind only: edits, which it reads out of the text."""
    agent = Aider(program, home, scenario.url, scenario.key)
    await agent.git("init", "--quiet")
    windows = agent.work / "windows.json"
    model = f"{'anthropic' if scenario.protocol == 'messages' else 'openai'}/{scenario.model}"
    windows.write_text(json.dumps({model: scenario.settings}), "utf-8")
    flags = ["--no-stream"] if not scenario.streamed else []
    for place, question in enumerate(scenario.questions):
        files = [str(path) for path in attached(scenario, agent.work)] if place == 0 else []
        again = ["--restore-chat-history"] if place else []
        given = (*flags, *again, "--model-metadata-file", str(windows), *files)
        _, shown = await agent.ask(model, question, *given, edits="ask")
        said = re.split(r"^(?:Added .* to the chat|Restored previous conversation history)\.\n\n", shown, flags=re.M)[
            -1
        ]
        answer, end, _ = said.partition("\nTokens: ")
        if not end or "Retrying in " in said:
            seen.raised = " ".join(said.split())
            return
        seen.answers.append(answer)
