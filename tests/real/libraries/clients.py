"""The clients: how each is installed, driven and set, and what does not hold for it by its own doing.

Most are libraries. An `Agent` is a program of its own, which is run as its user would; it asks in streams alone, and
some of what libraries do there is no way to ask it for.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.real.components import COMPONENTS, ROOT, Environment, Packages, newest_node
from tests.real.libraries.programs import (
    Play,
    aider,
    claude_code,
    codex_cli,
    copilot,
    opencode,
    pi,
    played,
    qwen_code,
)
from tests.real.libraries.scenarios import SCENARIOS, Scenario, Way
from tests.scripted import Json

Protocol = Literal["responses", "messages", "chat"]
DRIVERS = Path(__file__).with_name("drivers")


@dataclass(frozen=True, slots=True)
class Row:
    """A protocol that a client speaks. `settings` goes to the driver; `advice` is how its users write the same.

    `lacks` has the reason for each scenario that does not hold: its name, with `/streamed` or `/whole` where it holds
    the other way. `cannot` has it for those that there is no way to ask for, which are not run.
    """

    protocol: Protocol
    package: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    cannot: Mapping[str, str] = field(default_factory=dict)
    model: str = "any"


@dataclass(frozen=True, slots=True)
class Client:
    """`component` is its environment and `driver` what runs there, on Node from PyPI where `newest_node` says so."""

    name: str
    component: str
    driver: str
    rows: Sequence[Row]
    newest_node: bool = False

    def ways(self, scenario: Scenario) -> Sequence[Way]:
        return scenario.ways

    @property
    def components(self) -> tuple[str, ...]:
        """All that must be installed."""
        return (self.component, "node") if self.newest_node else (self.component,)

    def command(self) -> tuple[str, ...]:
        component, driver = COMPONENTS[self.component], str(DRIVERS / self.driver)
        if isinstance(component, Packages):
            return (str(self.node()), driver, str(component.folder))
        assert isinstance(component, Environment)
        return (str(component.path), driver)

    def node(self) -> Path:
        return newest_node() if self.newest_node else Path(shutil.which("node") or "node")

    def version(self, package: str) -> str:
        """As it is locked."""
        component = COMPONENTS[self.component]
        if isinstance(component, Packages):
            return dict(each.rsplit("@", 1) for each in component.packages)[package]
        assert isinstance(component, Environment)
        text = (ROOT / "requirements" / component.lock_file).read_text("utf-8")
        (version,) = re.findall(rf"^{re.escape(package)}==(\S+)", text, re.MULTILINE)
        return str(version)


@dataclass(frozen=True, slots=True)
class Agent(Client):
    """`play` runs its program, and there is no driver."""

    play: Play | None = None

    def ways(self, scenario: Scenario) -> Sequence[Way]:
        return scenario.ways[-1:]

    async def played(self, home: Path, asked: Json) -> Json:
        """What its user saw of a scenario, with a home that is empty."""
        assert self.play is not None
        return await played(self.play, COMPONENTS[self.component].path, home, asked)


NO_REASONING = (
    "Its class for Chat Completions reads no `reasoning_content`, so it has none to send back; Responses has it."
)
NOT_BACK = "It shows the reasoning of Chat Completions and does not send it back."
SHOWN, REPLAYED = "reasoning shown", "reasoning replayed"
NEITHER = {SHOWN: NO_REASONING, REPLAYED: NO_REASONING}

SUMMARY: Json = {"reasoning": {"summary": "auto"}}
THINKING: Json = {"thinking": {"type": "enabled", "budget_tokens": 1024}}
SEALED: Json = {"store": False, "include": ["reasoning.encrypted_content"]}


def written(settings: Mapping[str, Any]) -> str:
    """As arguments in Python."""
    return f"`{', '.join(f'{name}={value!r}' for name, value in settings.items())}`" if settings else ""


def plain(protocol: Protocol, package: str, settings: Json | None = None, **more: Any) -> Row:
    """A row whose settings are the client's own arguments."""
    settings = settings or {}
    return Row(protocol, package, **{"settings": settings, "advice": written(settings), **more})


def ai_sdk(major: int, newest_node: bool) -> Client:
    openai = {**SEALED, "reasoningSummary": "auto", "forceReasoning": True}
    anthropic = {"thinking": {"type": "enabled", "budgetTokens": 1024}}
    rows = (
        Row("responses", "@ai-sdk/openai", openai, f"`providerOptions: {{openai: {json.dumps(openai)}}}`"),
        Row("messages", "@ai-sdk/anthropic", anthropic, f"`providerOptions: {{anthropic: {json.dumps(anthropic)}}}`"),
        Row("chat", "@ai-sdk/openai", advice="`openai.chat(…)`", lacks=NEITHER),
    )
    return Client(f"AI SDK {major}", f"ai-sdk-{major}", "ai_sdk_driver.mjs", rows, newest_node)


def pydantic_ai(component: str) -> Client:
    responses = {"openai_reasoning_summary": "auto"}
    profile = {"openai_supports_encrypted_reasoning_content": True}
    advice = f"{written(responses)}, and `profile={profile}` for the model"
    package = "pydantic-ai-slim"
    rows = (
        Row("responses", package, {**responses, "profile": profile}, advice),
        plain("messages", package, {"anthropic_thinking": THINKING["thinking"]}),
        plain("chat", package),
    )
    return Client("Pydantic AI", component, "pydantic_ai_driver.py", rows)


LANGCHAIN_JS = {"modelKwargs": SUMMARY}
LLAMA_INDEX = "llama-index-llms-openai"
BLANK = (
    "In streams it looks for the call in `additional_kwargs`, where its class for Responses does not put it, and "
    "returns an object without values."
)
FORGETS = "In streams it leaves its blocks of reasoning out of the next request, whatever `store` says."
LITELLM: Json = {"reasoning_effort": {"effort": "medium", "summary": "auto"}}


def codex(component: str) -> Agent:
    lacks = {
        "429": "It shows the status in place of our message.",
        "busy server": "It shows words of its own: the model is at capacity.",
    }
    cannot = {"streamed": WHOLE, "PDF": "It attaches images alone, and has no other way to a PDF than its commands."}
    row = Row("responses", "@openai/codex", advice="[above](#codex-cli-01690-and-01710)", lacks=lacks, cannot=cannot)
    return Agent("Codex CLI", component, "", (row,), play=codex_cli)


def claude(component: str) -> Agent:
    row = Row("messages", "@anthropic-ai/claude-code", advice="[above](#claude-code-21197-and-21332)")
    return Agent("Claude Code", component, "", (row,), play=claude_code)


def open_code() -> Agent:
    settings = {
        "reasoning": True,
        "options": {"reasoningSummary": "auto"},
        "attachment": True,
        "modalities": {"input": ["text", "image", "pdf"], "output": ["text"]},
    }
    lacks = {"429": WAITS}
    cannot = {"streamed": WHOLE, "schema": NO_SCHEMA, "cut object": NO_SCHEMA}
    advice = f"`dragoman launch opencode`, and of the model {written_json(settings)}"
    row = Row("responses", "opencode-ai", settings, advice, lacks, cannot, model="m")
    return Agent("opencode", "opencode", "", (row,), play=opencode)


def qwen_row(protocol: Protocol, profile: str) -> Row:
    settings: Json = {
        "capabilities": {"reasoning": {"profile": profile, "efforts": ["low", "medium"], "defaultEffort": "medium"}},
        "generationConfig": {"contextWindowSize": 32768, "modalities": {"image": True, "pdf": True}},
    }
    lacks = {"429": WAITS, **({"PDF": NO_PDF_THERE} if protocol == "responses" else {})}
    return Row(protocol, "@qwen-code/qwen-code", settings, f"of the model {written_json(settings)}", lacks)


def copilot_row(protocol: Protocol) -> Row:
    cannot = {"schema": NO_SCHEMA, "cut object": NO_SCHEMA, "PDF": NO_PDF}
    advice = "[above](#github-copilot-cli-10102)"
    return Row(protocol, "@github/copilot", advice=advice, lacks={"429": SAYS_AND_WAITS}, cannot=cannot)


def pi_row(protocol: Protocol) -> Row:
    settings: Json = {"reasoning": True, "input": ["text", "image"], "contextWindow": 32768}
    cannot = {"schema": NO_SCHEMA, "cut object": NO_SCHEMA, "PDF": NO_PDF}
    package = "@earendil-works/pi-coding-agent"
    return Row(protocol, package, settings, f"of the model {written_json(settings)}", cannot=cannot)


def aider_row(protocol: Protocol) -> Row:
    settings = {"supports_vision": True, "supports_pdf_input": True, "max_input_tokens": 32768}
    reason = "It offers no tools: edits are read out of the text."
    cannot = {"streamed": WHOLE, **{scenario.name: reason for scenario in SCENARIOS if scenario.tools}}
    cannot |= {"schema": NO_SCHEMA, "cut object": NO_SCHEMA}
    lacks = {"429": WAITS} if protocol == "chat" else {}
    return Row(
        protocol, "aider-chat", settings, f"`--model-metadata-file` with {written_json(settings)}", lacks, cannot
    )


def written_json(settings: Mapping[str, Any]) -> str:
    return f"`{json.dumps(settings)}`"


NO_SCHEMA = "It takes no schema."
NO_PDF = "It attaches images alone."
WAITS = "It waits the minute that we name, without a word, and answers then."
SAYS_AND_WAITS = "It says that it tries again, waits the minute that we name, and answers then."
NO_PDF_THERE = "It sends PDFs over the other protocols alone."
WHOLE = "Without a terminal it prints whole messages."
CLIENTS = (
    codex("codex"),
    codex("codex-0.171"),
    claude("claude"),
    claude("claude-2.1.332"),
    open_code(),
    Agent(
        "Qwen Code",
        "qwen-code",
        "",
        (
            qwen_row("responses", "openai-reasoning"),
            qwen_row("messages", "anthropic-manual"),
            qwen_row("chat", "openai-effort"),
        ),
        newest_node=True,
        play=qwen_code,
    ),
    Agent(
        "Copilot CLI",
        "copilot",
        "",
        (copilot_row("responses"), copilot_row("messages"), copilot_row("chat")),
        play=copilot,
    ),
    Agent("pi", "pi", "", (pi_row("responses"), pi_row("messages"), pi_row("chat")), newest_node=True, play=pi),
    Agent("aider", "aider", "", (aider_row("chat"), aider_row("messages")), play=aider),
    Client(
        "Claude Agent SDK",
        "claude-agent-sdk",
        "claude_agent_sdk_driver.py",
        (plain("messages", "claude-agent-sdk"),),
    ),
    Client(
        "openai for Python",
        "sdk-openai-3",
        "sdk_driver.py",
        (plain("responses", "openai"), plain("chat", "openai")),
    ),
    Client(
        "anthropic for Python",
        "sdk-anthropic-2",
        "sdk_driver.py",
        (plain("messages", "anthropic", THINKING),),
    ),
    Client(
        "OpenAI Agents SDK",
        "agents",
        "agents_driver.py",
        (
            plain("responses", "openai-agents"),
            plain("chat", "openai-agents", advice="`should_replay_reasoning_content=lambda _: True` for the model"),
        ),
    ),
    ai_sdk(6, newest_node=False),
    ai_sdk(7, newest_node=True),
    Client(
        "LangChain",
        "langchain-py",
        "langchain_driver.py",
        (
            plain("responses", "langchain-openai", {**SUMMARY, "output_version": "responses/v1"}),
            plain("messages", "langchain-anthropic", {**THINKING, "max_tokens": 4096}),
            plain("chat", "langchain-openai", lacks=NEITHER),
        ),
    ),
    Client(
        "LangChain for JavaScript",
        "langchain-js",
        "langchain_js_driver.mjs",
        (
            Row("responses", "@langchain/openai", LANGCHAIN_JS, f"`modelKwargs: {json.dumps(SUMMARY)}`"),
            Row("chat", "@langchain/openai", lacks=NEITHER),
        ),
    ),
    pydantic_ai("pydantic-ai"),
    pydantic_ai("pydantic-ai-2.38"),
    Client(
        "Agent Framework",
        "agent-framework",
        "agent_framework_driver.py",
        (
            Row("responses", "agent-framework-openai", {"store": False}, "`default_options={'store': False}`"),
            Row("chat", "agent-framework-openai", lacks=NEITHER),
        ),
    ),
    Client(
        "LlamaIndex",
        "llama-index",
        "llama_index_driver.py",
        (
            plain(
                "responses",
                LLAMA_INDEX,
                {"context_window": 32768, "store": True},
                lacks={"schema/streamed": BLANK, f"{REPLAYED}/streamed": FORGETS},
            ),
            plain(
                "chat",
                LLAMA_INDEX,
                model="gpt-4o",
                advice="a model's name that it knows, such as `gpt-4o`",
                lacks={REPLAYED: NOT_BACK},
            ),
        ),
    ),
    Client(
        "Haystack",
        "haystack",
        "haystack_driver.py",
        (plain("responses", "haystack-ai"), plain("chat", "haystack-ai", lacks=NEITHER)),
    ),
    Client(
        "Agno",
        "agno",
        "agno_driver.py",
        (
            plain("responses", "agno", {"reasoning_effort": "medium", "reasoning_summary": "auto", "store": False}),
            plain("messages", "agno"),
            plain("chat", "agno", lacks={REPLAYED: NOT_BACK}),
        ),
    ),
    Client(
        "LiteLLM",
        "litellm",
        "litellm_driver.py",
        (
            Row(
                "responses",
                "litellm",
                {"provider": "openai/responses", **LITELLM},
                f"`openai/responses/MODEL`, {written(LITELLM)}",
            ),
            Row("messages", "litellm", {"provider": "anthropic", "max_tokens": 4096}, "`anthropic/MODEL`"),
            Row("chat", "litellm", {"provider": "openai"}, "`openai/MODEL`"),
        ),
    ),
)
