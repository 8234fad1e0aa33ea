"""Agents as clients: each plays a scenario as its user would, with files, flags and an MCP server with the tool.

A program gets a home of its own for every scenario. What it prints of an answer, a thought or a failure is what its
user sees; the tool's calls are what the MCP server was called for.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.real.aider import Aider
from tests.real.claude import Claude
from tests.real.codex import Codex, configuration
from tests.real.components import newest_node
from tests.real.libraries.drivers.scenario import Reading, Scenario, Seen
from tests.real.mcp_server import command, mcp_server
from tests.real.opencode import Opencode
from tests.real.program import run
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


async def qwen_code(program: Path, home: Path, scenario: Scenario, seen: Seen) -> None:
    wire = {"responses": {"wireApi": "responses"}, "messages": {}, "chat": {}}[scenario.protocol]
    provider = "anthropic" if scenario.protocol == "messages" else "openai"
    quick: Json = {**scenario.settings["generationConfig"], "maxRetries": 0}
    model: Json = {"id": scenario.model, "envKey": "GATEWAY_KEY", "baseUrl": scenario.base, **wire}
    server, *arguments = command(home, str(home / "called"))
    settings: Json = {
        "security": {"auth": {"selectedType": provider}},
        "model": {"name": scenario.model},
        "modelProviders": {provider: [model | scenario.settings | {"generationConfig": quick}]},
        "privacy": {"usageStatisticsEnabled": False},
        "general": {"enableAutoUpdate": False},
        "memory": {"enableManagedAutoMemory": False, "enableManagedAutoDream": False, "enableAutoSkill": False},
        "tools": {"visible": ["mcp__demo__weather"]},
        "mcpServers": {"demo": {"command": server, "args": arguments}} if scenario.tools else {},
    }
    write(home / ".qwen" / "settings.json", settings)
    work = home / "work"  # it reads no files beside it
    work.mkdir()
    flags = ["--yolo", "--output-format", "stream-json", "--include-partial-messages"]
    if scenario.schema:
        flags += ["--json-schema", json.dumps(Reading.model_json_schema())]
    for place, question in enumerate(scenario.questions):
        files = attached(scenario, work) if place == 0 else []
        prompt = " ".join([question, *(f"@{path.name}" for path in files)])
        given = (str(program), *flags, *(["--continue"] if place else []), "--prompt", prompt)
        events = await told(given, home, {"GATEWAY_KEY": scenario.key})
        deltas = [event["event"]["delta"] for event in events if is_delta(event)]
        seen.pieces += [delta["text"] for delta in deltas if "text" in delta]
        seen.reasoning += [delta["thinking"] for delta in deltas if "thinking" in delta]
        last = events[-1]
        if last["is_error"]:
            seen.raised = last["error"]["message"]
            return
        if scenario.schema:
            seen.reading = last.get("structured_result")
        else:
            seen.answers.append(last["result"])


async def copilot(program: Path, home: Path, scenario: Scenario, seen: Seen) -> None:
    variables = copilot_variables(scenario)
    flags = ["--allow-all-tools", "--output-format", "json"]
    if scenario.tools:
        server, *arguments = command(home, str(home / "called"))
        demo = {"type": "local", "command": server, "args": arguments, "tools": ["*"]}
        flags += ["--additional-mcp-config", json.dumps({"mcpServers": {"demo": demo}})]
    for place, question in enumerate(scenario.questions):
        files = [f"--attachment={path}" for path in attached(scenario, home)] if place == 0 else []
        given = (str(program), *flags, *files, *(["--continue"] if place else []), "--prompt", question)
        events = await told(given, home, variables)
        said = {kind: [each["data"] for each in events if each["type"] == kind] for kind in COPILOT_SAYS}
        seen.pieces += [each["deltaContent"] for each in said["assistant.message_delta"]]
        seen.reasoning += [each["content"] for each in said["assistant.reasoning"]]
        if failures := said["session.error"]:
            seen.raised = failures[-1]["message"]
            return
        seen.answers += [each["content"] for each in said["assistant.message"] if each["content"]]


COPILOT_SAYS = ("assistant.message", "assistant.message_delta", "assistant.reasoning", "session.error")


def copilot_variables(scenario: Scenario) -> dict[str, str]:
    return {
        "COPILOT_PROVIDER_BASE_URL": scenario.base,
        "COPILOT_PROVIDER_TYPE": "anthropic" if scenario.protocol == "messages" else "openai",
        "COPILOT_PROVIDER_WIRE_API": "responses" if scenario.protocol == "responses" else "completions",
        "COPILOT_PROVIDER_API_KEY": scenario.key,
        "COPILOT_MODEL": scenario.model,
        "COPILOT_PROVIDER_MAX_PROMPT_TOKENS": "32768",
        "COPILOT_PROVIDER_MAX_OUTPUT_TOKENS": "4096",
        "COPILOT_OFFLINE": "true",
    }


async def pi(program: Path, home: Path, scenario: Scenario, seen: Seen) -> None:
    set_up_pi(home, scenario, retry={"enabled": False})
    for place, question in enumerate(scenario.questions):
        files = [f"@{path}" for path in attached(scenario, home)] if place == 0 else []
        events = await ask_pi(program, home, scenario, *(["--continue"] if place else []), *files, question)
        deltas = [event["assistantMessageEvent"] for event in events if event["type"] == "message_update"]
        seen.pieces += [delta["delta"] for delta in deltas if delta["type"] == "text_delta"]
        seen.reasoning += [delta["delta"] for delta in deltas if delta["type"] == "thinking_delta"]
        messages = [event["message"] for event in events if event["type"] == "message_end"]
        if failure := messages[-1].get("errorMessage"):
            seen.raised = failure
            return
        seen.answers += [part["text"] for part in messages[-1]["content"] if part["type"] == "text"]


def set_up_pi(home: Path, scenario: Scenario, **settings: Json) -> None:
    apis = {"responses": "openai-responses", "messages": "anthropic-messages", "chat": "openai-completions"}
    models = [{"id": scenario.model, **scenario.settings}]
    provider = {"baseUrl": scenario.base, "api": apis[scenario.protocol], "apiKey": scenario.key, "models": models}
    server, *arguments = command(home, str(home / "called"))
    demo = {"command": server, "args": arguments, "exposure": "direct"}
    folder = home / ".pi" / "agent"
    write(folder / "models.json", {"providers": {"gateway": provider}})
    write(folder / "settings.json", settings)
    write(folder / "mcp.json", {"mcpServers": {"demo": demo} if scenario.tools else {}})


async def ask_pi(program: Path, home: Path, scenario: Scenario, *words: str) -> list[Json]:
    flags = ("--provider", "gateway", "--model", scenario.model, "--mode", "json", "--print")
    return await told((str(program), *flags, *words), home, {"PI_OFFLINE": "1", "PI_TELEMETRY": "0"})


async def told(given: Sequence[str], home: Path, variables: Mapping[str, str]) -> list[Json]:
    """The JSON that the program prints, a line each. It runs on the newest Node and reaches nobody else."""
    nobody = "http://127.0.0.1:9"
    environment = {
        "PATH": f"{newest_node().parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "TMPDIR": str(home),
        "HTTPS_PROXY": nobody,
        "HTTP_PROXY": nobody,
        "NO_PROXY": "127.0.0.1",
        **variables,
    }
    work = home / "work"
    work.mkdir(exist_ok=True)
    _, output, errors = await run(given, work, environment, SECONDS)
    events: list[Json] = [json.loads(line) for line in output.decode().splitlines() if line.startswith("{")]
    assert events, errors.decode()
    return events


def write(file: Path, settings: Json) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings), "utf-8")


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
