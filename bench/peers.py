"""Gateways of others in the same table: `make bench-peers` installs them from the registry and measures them too.

Each is started as its own documentation says, with its settings for telemetry and retries off. They listen on a port
that was free a moment ago. None of them keeps what ours promises (DESIGN: one terminal event that is true, no silent
loss), and both of those in Rust join fragments of tool calls, so that only streams of text compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from bench.scripts import MODELS
from bench.systems import Launch, Process, System
from tests.real.components import COMPONENTS

# Has the form that LiteLLM asks of a key; it opens nothing.
LITELLM_KEY = "sk-1234567890"
_SWITCHYARD = (
    "import sys, threading; from switchyard_rust.server import Server; "
    "server = Server(sys.argv[1], int(sys.argv[2])); threading.Event().wait()"
)


def _program(component: str, name: str = "python") -> str:
    return str(COMPONENTS[component].path.with_name(name))


def _codex_relay(launch: Launch) -> Sequence[str]:
    program = _program("peer-codex-relay", "codex-relay")
    return [program, "--port", str(launch.port), "--upstream", launch.upstream, "--api-key", "x"]


def _switchyard(launch: Launch) -> Sequence[str]:
    lines = ["schema_version = 1", "[llm_clients.up]", 'format = "openai_chat"']
    lines += [f'base_url = "{launch.upstream}"', "max_retries = 0"]
    for place, model in enumerate(MODELS):
        lines += [f"[targets.t{place}]", f'id = "{model}"', 'llm_client = "up"']
        lines += [f"[routes.r{place}]", f'id = "{model}"', 'type = "passthrough"', f'target = "t{place}"']
    routes = launch.folder / "routes.toml"
    routes.write_text("\n".join(lines) + "\n", "utf-8")
    return [_program("peer-switchyard"), "-c", _SWITCHYARD, str(routes), str(launch.port)]


def _litellm(launch: Launch) -> Sequence[str]:
    models = [
        {
            "model_name": model,
            "litellm_params": {
                "model": f"hosted_vllm/{model}",
                "api_base": launch.upstream,
                "api_key": "x",
                "use_chat_completions_api": True,
            },
        }
        for model in MODELS
    ]
    settings = {"telemetry": False, "num_retries": 0}
    config = {
        "model_list": models,
        "litellm_settings": settings,
        "router_settings": {"disable_cooldowns": True},  # an error of one call must not refuse the next
        "general_settings": {"disable_spend_logs": True},
    }
    path = launch.folder / "litellm.yaml"
    path.write_bytes(orjson.dumps(config))  # JSON is YAML
    # by its interpreter: the script names the folder in which it was installed, which may have moved since
    script = [_program("peer-litellm"), _program("peer-litellm", "litellm")]
    words = [*script, "--config", str(path), "--host", "127.0.0.1"]
    return [*words, "--port", str(launch.port), "--telemetry", "False"]


def _litellm_environment(launch: Launch) -> dict[str, str]:
    return {
        "LITELLM_MASTER_KEY": LITELLM_KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOG": "ERROR",
    }


_RELAY = Process("codex-relay", _codex_relay, announces=False)
_YARD = Process("switchyard", _switchyard, announces=False)
_LITELLM = Process("litellm", _litellm, _litellm_environment, announces=False, start_seconds=120.0)
_KEY = (f"authorization: Bearer {LITELLM_KEY}",)
_ANY_KEY = ("authorization: Bearer x",)

PEERS = (
    System("codex-relay", "codex-relay, Responses", "responses", _RELAY, _ANY_KEY, ours=False, main=True),
    System("switchyard", "Switchyard, Responses", "responses", _YARD, _ANY_KEY, ours=False, main=True),
    System("switchyard-messages", "Switchyard, Messages", "messages", _YARD, ("x-api-key: x",), ours=False),
    System("litellm", "LiteLLM, Responses", "responses", _LITELLM, _KEY, ours=False, main=True),
)
COMPONENT_OF = {"codex-relay": "peer-codex-relay", "switchyard": "peer-switchyard", "litellm": "peer-litellm"}
DISTRIBUTIONS = {"codex-relay": "codex_relay", "switchyard": "nemo_switchyard", "litellm": "litellm"}


def installed() -> tuple[list[System], list[str]]:
    """The peers that are installed, and the names of those that are not."""
    present = {name for name, component in COMPONENT_OF.items() if COMPONENTS[component].installed()}
    systems = [each for each in PEERS if each.process is not None and each.process.name in present]
    return systems, sorted(COMPONENT_OF.keys() - present)


def versions(systems: Sequence[System]) -> list[str]:
    """Names and versions, from what lies in the peers' folders."""
    found = []
    for name in dict.fromkeys(each.process.name for each in systems if each.process is not None):
        libraries: Path = COMPONENTS[COMPONENT_OF[name]].path.parents[1] / "lib"
        for path in libraries.glob(f"python*/site-packages/{DISTRIBUTIONS[name]}-*.dist-info"):
            found.append(f"{name} {path.name.removesuffix('.dist-info').rpartition('-')[2]}")
    return found
