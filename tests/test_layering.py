"""Which package may import which, read from the syntax trees, and what no tracked file may hold.

Imports point one way: gateway to backends to translators. The rules are the first table; a failure names the file, the
line, the import and the reason. Translators and some modules of backends are pure: no I/O, clock, randomness or log.
The second half checks the rules themselves on sources that break them.
"""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("gateway", "translators", "backends")
KNOWN_PROTOCOLS = frozenset({"responses", "messages", "chat_completions"})

# Modules of the standard library that reach outside, by what they reach.
REACH = {
    "files": ("fileinput", "glob", "io", "mmap", "os", "pathlib", "pickle", "shelve", "shutil", "sqlite3", "tempfile"),
    "the network": (
        "asyncio",
        "ftplib",
        "http",
        "select",
        "selectors",
        "smtplib",
        "socket",
        "socketserver",
        "ssl",
        "urllib",
    ),
    "the clock": ("datetime", "sched", "time", "zoneinfo"),
    "randomness": ("random", "secrets", "uuid"),
    "the log": ("logging", "warnings"),
    "the process and its threads": ("concurrent", "contextvars", "ctypes", "multiprocessing", "platform", "queue"),
    "the system": ("getpass", "signal", "subprocess", "sys", "threading"),
}
IMPURE = {module: reached for reached, modules in REACH.items() for module in modules}
PURE_EXCEPTIONS = frozenset({"urllib.parse", "io.StringIO"})  # the latter is a buffer in memory
IMPURE_CALLS = frozenset({"open", "print", "input", "breakpoint", "__import__"})
PURE_THIRD_PARTY = frozenset({"orjson", "pydantic", "pydantic_core", "annotated_types", "typing_extensions"})
# The modules of `backends` that are as pure as translators; a package stands for all of its modules.
PURE_BACKENDS = (
    "backends.markup",
    "backends.prompts",
    "backends.base",
    "backends.efforts",
    "backends.enforce",
    "backends.max_tokens",
    "backends.numeric_fields",
    "backends.reader",
    "backends.refusal",
    "backends.sensitive",
    "backends.usage",
    "backends.chat.answer",
    "backends.chat.call_deltas",
    "backends.chat.changing_numbers",
    "backends.chat.decoder",
    "backends.chat.known_frame",
    "backends.chat.logprobs",
    "backends.chat.split_characters",
    "backends.chat.encode",
    "backends.chat.errors",
    "backends.chat.finish_reasons",
    "backends.chat.overflow",
    "backends.chat.forward",
    "backends.chat.prepared",
    "backends.chat.usage",
    "backends.chat.settings",
    "backends.pool.breaker",
    "backends.triton.answer",
    "backends.triton.client",
    "backends.triton.errors",
    "backends.triton.output",
    "backends.triton.prepared",
    "backends.triton.profiles",
    "backends.triton.reader",
    "backends.triton.settings",
)
# Pure as they are used there.
PURE_BY_CARE = {
    # With an empty registry, so that no reference is ever fetched.
    "translators.constraints.schema_check": frozenset({"attrs", "jsonschema", "referencing"}),
    # The time is given.
    "translators.messages.models": frozenset({"datetime"}),
    "translators.rate_headers": frozenset({"datetime"}),
    # `ast.literal_eval` warns of odd escapes in what a model wrote; the warnings are suppressed.
    "backends.markup.values": frozenset({"warnings"}),
    # Without a loader of files. The clock only limits how long a template runs; the date comes in as an argument.
    "backends.prompts.sandbox": frozenset({"jinja2", "time"}),
    "backends.prompts.template": frozenset({"jinja2", "time"}),  # a date long past, for probes
    # The content of tokenizer.json comes in as bytes.
    "backends.prompts.tokenizer": frozenset({"tokenizers"}),
}

# The kinds of backends. What stands beside them in `backends` is shared by them.
KINDS = ("backends.chat", "backends.local", "backends.pool", "backends.triton")

# The rooms of the gateway: which of the others each may import, and why no more.
ROOMS = {
    "nearest": ("", "words alone, for the command line too, which loads nothing heavy"),
    "config": ("nearest", "the configuration is what everything else is built from"),
    "telemetry": ("config", "it takes values: what a call or a key is, its callers know"),
    "keys": ("config telemetry", "keys are checked before there is a call"),
    "store": ("config telemetry", "it keeps values: what a call or an answer is, its callers know"),
    "calls": ("config telemetry keys store", "a call is the same whether a process, a test or the doctor runs it"),
    "factory": ("config telemetry keys", "backends are built before there is anything to serve"),
    "effective": ("config keys factory", "it prints the configuration and what would be opened"),
    "doctor": ("first_prompts config telemetry keys factory calls", "it examines backends without serving"),
    "shipped": ("", "it only finds files"),
    "launch": ("first_prompts nearest keys shipped", "it starts a gateway as a process and asks it as clients do"),
    "serve": ("config telemetry keys store factory calls", "the process serves; commands start it"),
    "command_line": ("nearest", "a table of words, read before anything heavy is loaded"),
    "completion": ("command_line", "made from the table of words alone"),
    "cli": (
        "nearest config telemetry keys store factory effective calls doctor serve launch command_line completion "
        "shipped",
        "the command is at the top",
    ),
    "__main__": ("cli", "it only starts the command"),
}


@dataclass(frozen=True)
class Import:
    """`module` imports `name`, a dotted name as far down as the statement says. Names of our own are without the
    package `dragoman`, in which they are installed."""

    module: str
    name: str
    line: int


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Every import of a source, wherever it stands; relative ones are resolved."""
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name.removeprefix("dragoman."), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(module, f"{base}.{alias.name}".removeprefix("dragoman."), node.lineno)


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def protocol_of(name: str, protocols: frozenset[str]) -> str | None:
    parts = name.split(".")
    return parts[1] if parts[0] == "translators" and len(parts) > 1 and parts[1] in protocols else None


def objection(found: Import, protocols: frozenset[str]) -> str | None:
    """Why this import is not allowed, or None."""
    match found.module.split(".")[0]:
        case "translators":
            return _objection_to_translator(found, protocols)
        case "backends":
            return _objection_to_backend(found, protocols)
        case "gateway":
            return _objection_to_gateway(found, protocols)
        case _:
            return None


def _objection_to_translator(found: Import, protocols: frozenset[str]) -> str | None:
    top = found.name.split(".")[0]
    if top in ("gateway", "backends"):
        return "imports point one way: translators are what gateway and backends stand on"
    if top == "translators":
        other, own = protocol_of(found.name, protocols), protocol_of(found.module, protocols)
        if other is None or other == own or found.module == "translators.registry":
            return None
        if own is None:
            return "what protocols share knows none of them; only translators.registry lists them"
        return "protocols meet in the representation and never know each other: what two of them need is shared"
    return _impurity(found)


def _impurity(found: Import) -> str | None:
    """Why a pure module may not import this package from outside of the repository, or None."""
    top = found.name.split(".")[0]
    if top in PURE_BY_CARE.get(found.module, frozenset()):
        return None
    if top in sys.stdlib_module_names:
        if top in IMPURE and not any(within(found.name, pure) for pure in PURE_EXCEPTIONS):
            return f"it reaches {IMPURE[top]}; this module is pure: ids and time are arguments, facts are returned"
        return None
    if top not in PURE_THIRD_PARTY:
        return "pure modules stand on the standard library, orjson and pydantic alone"
    return None


def is_pure(name: str) -> bool:
    """Whether a dotted name is a pure module, or something in one."""
    return any(within(name, pure) for pure in ("translators", *PURE_BACKENDS))


def _objection_to_backend(found: Import, protocols: frozenset[str]) -> str | None:
    if within(found.name, "gateway"):
        return "imports point one way: a backend is used by the gateway and does not know it"
    if protocol_of(found.name, protocols) or within(found.name, "translators.registry"):
        return "a backend speaks the representation: knowing a client protocol would make pairs of the two"
    if kind_of(found.name) and not kind_of(found.module) and found.module != "backends.registry":
        return "what the kinds of backends share knows none of them; only backends.registry lists them"
    if not is_pure(found.module) or is_pure(found.name):
        return None
    if within(found.name, "backends"):
        return "a pure module stands on pure modules alone"
    return _impurity(found)


def kind_of(name: str) -> str | None:
    return next((kind for kind in KINDS if within(name, kind)), None)


def _objection_to_gateway(found: Import, protocols: frozenset[str]) -> str | None:
    if protocol_of(found.name, protocols):
        return "the gateway knows protocols only by translators.registry, so that a new one changes nothing here"
    own, other = room_of(found.module), room_of(found.name)
    if own is None or other is None or own == other:
        return None
    if own not in ROOMS:
        return f"gateway.{own} has no row in the table of rooms"
    allowed, reason = ROOMS[own]
    return None if other in allowed.split() else f"gateway.{own} may not import gateway.{other}: {reason}"


def room_of(name: str) -> str | None:
    """A module or package directly below `gateway`; names of `gateway` itself, such as its version, are in none."""
    parts = name.split(".")
    rooms = {path.stem for path in (ROOT / "gateway").iterdir()} | ROOMS.keys()
    return parts[1] if parts[0] == "gateway" and len(parts) > 1 and parts[1] in rooms else None


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def declared_protocols() -> frozenset[str]:
    """The known protocols, and every other module below `translators` that sets a top-level `PROTOCOL`."""
    found = set(KNOWN_PROTOCOLS)
    for path in sources("translators"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            targets = node.targets if isinstance(node, ast.Assign) else []
            if any(isinstance(target, ast.Name) and target.id == "PROTOCOL" for target in targets):
                found.add(module_name(path).split(".")[1])
    return frozenset(found)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_one_way(package: str) -> None:
    protocols = declared_protocols()
    objections = []
    for path in sources(package):
        source = path.read_text(encoding="utf-8")
        for found in imports(source, module_name(path), path.name == "__init__.py"):
            reason = objection(found, protocols)
            if reason:
                objections.append(f"{path.relative_to(ROOT)}:{found.line} imports {found.name}: {reason}")
    assert not objections, "\n" + "\n".join(objections)


def impure_calls(source: str) -> list[tuple[int, str]]:
    return [
        (node.lineno, node.func.id)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS
    ]


def test_pure_modules_touch_nothing_outside() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line} calls {name}(): pure modules have no I/O"
        for path in (*sources("translators"), *sources("backends"))
        if is_pure(module_name(path))
        for line, name in impure_calls(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n" + "\n".join(found)


def test_every_pure_module_of_backends_exists() -> None:
    modules = {module_name(path) for path in sources("backends")}
    assert set(PURE_BACKENDS) <= modules
    assert PURE_BY_CARE.keys() <= modules | {module_name(path) for path in sources("translators")}


@pytest.mark.parametrize(
    ("module", "statement", "word"),
    [
        ("translators.parts", "import asyncio", "the network"),
        ("translators.parts", "def f():\n    from time import monotonic", "the clock"),
        ("translators.parts", "import urllib.request", "the network"),
        ("translators.parts", "import aiohttp", "standard library"),
        ("translators.parts", "from dragoman.translators import responses", "knows none"),
        ("translators.parts", "from dragoman.backends.base import Sink", "one way"),
        ("translators.responses.parse", "from dragoman.translators.messages.parse import x", "never know each other"),
        ("translators.responses.parse", "from ..messages import parse", "never know each other"),
        ("translators.messages", "import dragoman.translators.chat_completions", "never know each other"),
        ("translators.registry", "from dragoman.gateway import app", "one way"),
        ("backends.pool", "from dragoman.translators.responses.stream import Stream", "pairs"),
        ("backends.pool", "from dragoman.translators import registry", "pairs"),
        ("backends.chat.decoder", "import asyncio", "the network"),
        ("backends.markup.hermes", "import logging", "the log"),
        ("backends.prompts.prompt", "from datetime import datetime", "the clock"),
        ("backends.prompts.prompt", "import jinja2", "standard library"),
        ("backends.prompts.prompt", "from dragoman.backends.chat.settings import Settings", "knows none of them"),
        ("backends.model_folder", "from dragoman.backends.chat.settings import Settings", "knows none of them"),
        ("backends.chat.encode", "from dragoman.backends.json_body import JsonBody", "pure modules"),
        ("backends.triton.client", "from dragoman.gateway.config import Config", "one way"),
        ("gateway.websocket", "import dragoman.translators.responses", "registry"),
        ("gateway.store.memory", "from dragoman.translators.messages import PROTOCOL", "registry"),
        ("gateway.store.store", "from dragoman.gateway.calls.call import Call", "keeps values"),
        ("gateway.config.schema", "from dragoman.gateway.telemetry.logs import log", "built from"),
        ("gateway.telemetry.tracing", "from dragoman.gateway.calls.call import Call", "takes values"),
        ("gateway.telemetry.tracing", "if TYPE_CHECKING:\n    from ..calls.call import Call", "takes values"),
        ("gateway.keys.auth", "from dragoman.gateway.calls.handler import CLIENT", "before there is a call"),
        ("gateway.calls.handler", "from dragoman.gateway import serve", "may not import gateway.serve"),
        ("gateway.calls.health", "from dragoman.gateway.factory import open_backends", "gateway.factory"),
        ("gateway.factory", "from dragoman.gateway.serve.tls import for_clients", "before there is anything to serve"),
        ("gateway.doctor.examine", "import dragoman.gateway.serve.app", "without serving"),
        ("gateway.serve.app", "from dragoman.gateway.cli import main", "commands start it"),
    ],
)
def test_the_rules_object(module: str, statement: str, word: str) -> None:
    (found,) = imports(statement, module)
    assert word in (objection(found, KNOWN_PROTOCOLS) or "")


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("translators.parts", "import orjson"),
        ("translators.parts", "import dataclasses"),
        ("translators.parts", "from urllib.parse import quote"),
        ("translators.parts", "from dragoman.translators.ir import Event"),
        ("translators.registry", "from dragoman.translators.responses import PROTOCOL"),
        ("translators.responses.parse", "from . import tools"),
        ("translators.responses.parse", "from dragoman.translators.responses.schema import Body"),
        ("backends.pool", "import asyncio"),
        ("backends.pool", "from dragoman.translators.ir import Request"),
        ("backends.prompts.template", "import jinja2"),
        ("backends.prompts.prompt", "from dragoman.backends.efforts import nearest_effort"),
        ("backends.registry", "from dragoman.backends.chat.settings import resolve"),
        ("backends.triton.errors", "from dragoman.backends.chat.errors import classify"),
        ("backends.chat_completions", "from dragoman.backends.prompts.messages import render"),
        ("gateway.handler", "from dragoman.translators.registry import PROTOCOLS"),
        ("gateway.handler", "from dragoman.backends.registry import open_backend"),
        ("gateway.config.sources", "from dragoman.gateway.config.schema import Config"),
        ("gateway.keys.auth", "from dragoman.gateway.telemetry.logs import log"),
        ("gateway.calls.call", "from dragoman.gateway.telemetry.tracing import Span"),
        ("gateway.serve.app", "from dragoman.gateway.calls.handler import Handler"),
        ("gateway.cli", "from dragoman.gateway.serve.server import run"),
        ("gateway.serve.openapi", "from dragoman.gateway import __version__"),
    ],
)
def test_the_rules_allow(module: str, statement: str) -> None:
    (found,) = imports(statement, module)
    assert objection(found, KNOWN_PROTOCOLS) is None


def test_a_relative_import_of_a_package_counts_from_the_package() -> None:
    (found,) = imports("from .stream import Stream", "translators.responses", is_package=True)
    assert found.name == "translators.responses.stream.Stream"


def class_names(source: str) -> list[str]:
    return [node.name for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_class_name_stands_twice_in_a_package(package: str) -> None:
    files: dict[str, list[str]] = {}
    for path in sources(package):
        for name in class_names(path.read_text(encoding="utf-8")):
            files.setdefault(name, []).append(str(path.relative_to(ROOT)))
    twice = [f"{name} stands in {' and '.join(paths)}" for name, paths in files.items() if len(paths) > 1]
    assert not twice, "\n" + "\n".join(twice)


def test_only_classes_at_the_top_of_a_module_have_names_of_their_own() -> None:
    assert class_names("class A:\n    class B: ...\ndef f():\n    class C: ...") == ["A"]


def test_calls_that_reach_outside_are_seen() -> None:
    assert impure_calls("def f(context):\n    context.open('x')\n    return open('y')") == [(3, "open")]


# What would tie the repository to the machine or the registry mirror that it was written on. Put together here, so that
# this file does not hold what it looks for.
UNWANTED = re.compile(
    "|".join(
        [
            rf"(?<![\w.}})-])/{'wo' + 'rk'}(?![\w-])",
            # Only with a hidden folder below it: the bare name is what Codex calls its first agent.
            rf"(?<![\w.}})-])/{'ro' + 'ot'}/\.\w",
            re.escape("py" + "pi.org"),
            re.escape("python" + "hosted.org"),
            re.escape("registry." + "npm" + "js"),
            re.escape("py" + "pi.nvi" + "dia"),
        ]
    )
)


def tracked_files() -> list[Path]:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("needs git and a clone: what is tracked is asked of git")
    listing = subprocess.run(
        [git, "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, text=True
    ).stdout
    return [ROOT / name for name in listing.split("\0") if name]


def test_no_tracked_file_is_tied_to_a_machine() -> None:
    tied = []
    for path in tracked_files():
        if path.is_file():
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if match := UNWANTED.search(line):
                    tied.append(f"{path.relative_to(ROOT)}:{number} holds {match.group()}")
    assert not tied, "\n" + "\n".join(tied)


def test_no_tracked_file_was_written_by_a_package_manager() -> None:
    assert [path.name for path in tracked_files() if path.name == "package" + "-lock.json"] == []


@pytest.mark.parametrize(
    "text", ["cd /" + "work/main", "'/" + "root/.cache'", "https://py" + "pi.org/simple", "=/" + "work"]
)
def test_what_ties_to_a_machine_is_seen(text: str) -> None:
    assert UNWANTED.search(text)


@pytest.mark.parametrize("text", ["/workspace/app.py", "/v1/root", "'/root/reviewer'", "a/work/b", "/rootless"])
def test_what_does_not_tie_to_a_machine_is_left(text: str) -> None:
    assert not UNWANTED.search(text)
