"""A stand-in for `docker build` where there is no engine: reads a Dockerfile and carries out its instructions.

Each stage gets a directory as its root. COPY copies through `.dockerignore`, RUN runs with the absolute paths of the
Dockerfile mapped into that root and with this machine's Python as the base image's, and the instructions that only
describe the image are collected. What it does not know raises; it isolates nothing, so it must be given a Dockerfile
that is trusted.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

RUN_SECONDS = 300.0
# What a RUN line may name as it is: the base image's own places, which are this machine's.
SYSTEM = r"(?:usr|bin|sbin|lib\w*|etc|dev|proc|sys|tmp|var)"
ABSOLUTE = re.compile(rf"(?<![\w./:-])/(?!{SYSTEM}\b)(?=\w)")
VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True, slots=True)
class Instruction:
    name: str
    value: str
    flags: dict[str, str]
    line: int

    @property
    def exec_form(self) -> list[str] | None:
        """The words of a JSON array; None for the form that needs a shell."""
        try:
            words = json.loads(self.value)
        except json.JSONDecodeError:
            return None
        return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def read(text: str) -> list[Instruction]:
    """Comments and blank lines are left out, also between continued lines, as the builder does."""
    found: list[Instruction] = []
    logical, begun = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begun = begun or number
        if line.rstrip().endswith("\\"):
            logical += line.rstrip()[:-1] + " "
            continue
        found.append(_instruction(logical + line, begun))
        logical, begun = "", 0
    if logical:
        raise ValueError(f"line {begun}: nothing follows the backslash")
    return found


def _instruction(text: str, line: int) -> Instruction:
    name, _, rest = text.strip().partition(" ")
    flags: dict[str, str] = {}
    while match := re.match(r"\s*--([a-z-]+)(?:=(\S+))?\s+", rest):
        flags[match[1]] = match[2] or ""
        rest = rest[match.end() :]
    return Instruction(name.upper(), rest.strip(), flags, line)


# ------------------------------------------------------------------------------------------------------- .dockerignore


class Ignore:
    """The last pattern that fits a path or a folder above it decides; `!` takes it back in."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        self._rules = [
            (not line.startswith("!"), line.removeprefix("!").strip("/"))
            for line in lines
            if line and not line.startswith("#")
        ]

    def ignored(self, path: str) -> bool:
        parts = PurePosixPath(path).parts
        above = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        verdict = False
        for ignore, pattern in self._rules:
            if any(_fits(pattern, each) for each in above):
                verdict = ignore
        return verdict


def _fits(pattern: str, path: str) -> bool:
    expression = "".join(
        {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece, re.escape(piece))
        for piece in re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]*\])", pattern)
    )
    if "[" in pattern:  # a set of characters is only supported within one name
        return len(PurePosixPath(path).parts) == 1 + pattern.count("/") and fnmatch.fnmatchcase(path, pattern)
    return re.fullmatch(expression, path) is not None


# --------------------------------------------------------------------------------------------------------------- stages


@dataclass(slots=True)
class Image:
    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    settings: dict[str, Instruction] = field(default_factory=dict)

    def inside(self, path: str) -> Path:
        return self.root / str(PurePosixPath(self.workdir, path)).lstrip("/")

    def command(self, name: str) -> list[str]:
        """The words of ENTRYPOINT, CMD or HEALTHCHECK, mapped into this root."""
        instruction = self.settings[name]
        if name == "HEALTHCHECK":
            instruction = _instruction(instruction.value, instruction.line)
        words = instruction.exec_form
        assert words is not None, f"{name} needs a shell"
        return [ABSOLUTE.sub(f"{self.root}/", word) if word.startswith("/") else word for word in words]


class Build:
    """`arguments` are the build's; `context` is the folder that COPY copies from."""

    def __init__(self, dockerfile: Path, context: Path, scratch: Path, arguments: dict[str, str]) -> None:
        self._context = context
        self._scratch = scratch
        self._given = arguments
        self._ignore = Ignore((context / ".dockerignore").read_text("utf-8"))
        self._stages: dict[str, Image] = {}
        self._arguments: dict[str, str] = {}
        self._global: dict[str, str] = {}
        self._image: Image | None = None
        self._instructions = read(dockerfile.read_text("utf-8"))
        self._python = _python(scratch / "bin")

    def run(self) -> Image:
        for instruction in self._instructions:
            self._step(instruction)
        assert self._image is not None
        return self._image

    def _step(self, step: Instruction) -> None:
        if step.name == "FROM":
            return self._from(step)
        if step.name == "ARG":
            return self._arg(step)
        image = self._image
        assert image is not None, f"line {step.line}: {step.name} before FROM"
        match step.name:
            case "ENV":
                image.environment |= _pairs(self._expanded(step.value))
            case "LABEL":
                image.labels |= _pairs(self._expanded(step.value))
            case "WORKDIR":
                image.workdir = str(PurePosixPath(image.workdir, self._expanded(step.value)))
                image.inside(".").mkdir(parents=True, exist_ok=True)
            case "USER":
                image.user = step.value
            case "COPY":
                self._copy(image, step)
            case "RUN":
                self._run(image, step)
            case "ENTRYPOINT" | "CMD" | "HEALTHCHECK" | "EXPOSE" | "STOPSIGNAL" | "VOLUME":
                image.settings[step.name] = step
            case other:
                raise NotImplementedError(f"line {step.line}: {other}")

    def _from(self, step: Instruction) -> None:
        words = step.value.split()
        name = words[2] if len(words) == 3 else str(len(self._stages))
        self._image = Image(self._scratch / f"root-{name}")
        self._image.root.mkdir()
        self._stages[name] = self._image
        self._arguments = {}

    def _arg(self, step: Instruction) -> None:
        name, _, default = step.value.partition("=")
        scope = self._global if self._image is None else self._arguments
        scope[name] = self._given.get(name, default or self._global.get(name, ""))

    def _expanded(self, text: str) -> str:
        known = self._arguments | (self._image.environment if self._image else self._global)
        return VARIABLE.sub(lambda found: known.get(found[1] or found[2], ""), text)

    def _copy(self, image: Image, step: Instruction) -> None:
        *sources, target = self._expanded(step.value).split()
        stage = self._stages[step.flags["from"]] if "from" in step.flags else None
        destination = image.inside(target)
        for source in sources:
            origin = self._context / source if stage is None else stage.inside(source)
            if not origin.exists() or (stage is None and origin.is_file() and self._ignore.ignored(source)):
                raise FileNotFoundError(f"line {step.line}: COPY {source}")
            if origin.is_dir():
                ignore = self._left_out if stage is None else None
                shutil.copytree(origin, destination, symlinks=True, ignore=ignore, dirs_exist_ok=True)
            else:
                into = destination / origin.name if target.endswith(("/", ".")) or len(sources) > 1 else destination
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(origin, into)
        if (owner := step.flags.get("chown")) and os.geteuid() == 0:
            user, group = (int(number) for number in owner.split(":"))
            for path in (destination, *destination.rglob("*")):
                os.chown(path, user, group)

    def _left_out(self, folder: str, names: list[str]) -> set[str]:
        place = Path(folder).relative_to(self._context)
        return {
            name
            for name in names
            if not (Path(folder) / name).is_dir() and self._ignore.ignored((place / name).as_posix())
        }

    def _run(self, image: Image, step: Instruction) -> None:
        words = step.exec_form or ["/bin/sh", "-euc", step.value]
        command = [words[0], *(ABSOLUTE.sub(f"{image.root}/", word) for word in words[1:])]
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("DRAGOMAN_", "PYTHON"))}
        variables.pop("VIRTUAL_ENV", None)
        path = f"{self._python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        done = subprocess.run(
            command,
            cwd=image.inside("."),
            env={**variables, **self._arguments, **image.environment, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"line {step.line}: RUN ended with {done.returncode}:\n{done.stdout[-4000:]}")


def _pairs(text: str) -> dict[str, str]:
    return {
        name: json.loads(quoted) if quoted.startswith('"') else quoted
        for name, quoted in re.findall(r'([\w.-]+)=("(?:[^"\\]|\\.)*"|\S*)', text)
    }


def base_python() -> str:
    """The interpreter under this virtual environment, which stands for the one of the base image."""
    return str(getattr(sys, "_base_executable", sys.executable))


def _python(folder: Path) -> Path:
    """A program `python`: not every machine has one, and a link would not find its library."""
    folder.mkdir(parents=True)
    program = folder / "python"
    program.write_text(f'#!/bin/sh\nexec "{base_python()}" "$@"\n', "utf-8")
    program.chmod(0o755)
    return program
