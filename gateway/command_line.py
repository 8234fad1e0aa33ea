"""The words of the command line: its commands, and the options that each takes.

One table serves the parser, `--help` and the completion of shells (`completion`). Only the standard library is loaded
here, so that `--version`, `--help` and a mistyped word cost next to nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dragoman.gateway.nearest import nearest

PRESETS = ("generic", "trtllm-serve", "triton-openai", "vllm", "sglang", "lmdeploy", "llama.cpp")
CLIENTS = ("codex", "claude", "sdk")
SHELLS = ("bash", "zsh", "fish")
TOLD_ABOUT_VARIABLES = "Each key of the file has an environment variable: DRAGOMAN_PORT, DRAGOMAN_TIMEOUTS__DRAIN …"


@dataclass(frozen=True, slots=True)
class Option:
    """Without a `metavar` it is a switch; `words` are what a shell offers for its value."""

    name: str
    help: str
    metavar: str = ""
    parse: Callable[[str], Any] | None = None
    words: tuple[str, ...] = ()
    several: bool = False

    @property
    def is_file(self) -> bool:
        return self.metavar in ("FILE", "DIR")


@dataclass(frozen=True, slots=True)
class Command:
    """`words` are what its one argument may be, `word` how help calls it."""

    name: str
    summary: str
    status: str
    options: tuple[Option, ...] = ()
    word: str = ""
    words: tuple[str, ...] = ()
    configured: bool = True  # whether it reads the configuration


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port; ports are 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes; write 1 or more")
    return int(text)


def _tokens(text: str) -> int:
    if not text.isdecimal() or int(text) < 256:
        raise argparse.ArgumentTypeError(f"{text!r} is no window; write a number of tokens, 256 or more")
    return int(text)


def _client(text: str) -> str:
    return _one_of(CLIENTS)(text)


CONFIG = Option("--config", "YAML; `dragoman config example` explains every key", "FILE", Path)
BACKEND = Option(
    "--backend",
    "http(s)://host:port/v1, triton+grpc://host:8001/MODEL, triton+http://host:8000/MODEL or local: "
    "(the default, a small model on the CPU); given several times: servers of one pool",
    "URL",
    several=True,
)
MODEL = Option("--model", "name sent to the backend, whatever name a client asks for", "NAME")
PRESET = Option("--preset", "kind of chat server: trtllm-serve, vllm, sglang, … or generic", "NAME", words=PRESETS)
HOST = Option("--host", "address to listen on (127.0.0.1)", "ADDRESS")
PORT = Option("--port", "port to listen on (8080); 0 takes any free one", "N", _port)
WORKERS = Option("--workers", "processes that share the port (1)", "N", _count)
KEYS = Option("--api-keys-file", "clients' keys, one a line; also DRAGOMAN_API_KEYS, with commas", "FILE", Path)
NO_AUTH = Option("--no-auth", "listen beyond this machine without keys: whoever reaches the port may ask")
NO_SECRETS = Option("--no-secrets", "do not read keys, certificates and model folders, which are on another machine")
SERVED = (CONFIG, BACKEND, MODEL, PRESET, HOST, PORT, WORKERS, KEYS, NO_AUTH)

LAUNCHED = (
    Option("--url", "address of a gateway that runs (http://127.0.0.1:8080); without one, a gateway is started", "URL"),
    Option("--model", "name that the client asks for (the first one that the gateway lists)", "NAME"),
    Option("--window", "the model's context window in tokens, where the gateway does not know it", "TOKENS", _tokens),
    Option("--config", "the configuration of a gateway that is started for this client", "FILE", Path),
    Option("--backend", "the model server of a gateway that is started for this client", "URL", several=True),
    PRESET,
    Option("--print", "show what would be started, and start nothing"),
    Option("--write", "put the same into the client's own files, for good"),
    Option("--undo", "take that out of them again"),
)

EXAMINED = (
    CONFIG,
    BACKEND,
    Option("--model", "judge this model: a name of the models table, or the name sent to the backend", "NAME"),
    PRESET,
    Option(
        "--client",
        "the status is about this client (codex, claude or sdk); may be given several times",
        "NAME",
        _client,
        CLIENTS,
        several=True,
    ),
    Option("--deep", "also find out whether the context window is true, with prompts as long as it"),
    Option("--write", "put the settings that helped into this configuration file; its comments stay", "FILE", Path),
    Option("--json", "print one JSON document in place of lines"),
)

COMMANDS = (
    Command("serve", "start the gateway", "0 after a signal, 1 where the port is in use or no backend starts", SERVED),
    Command(
        "check",
        "validate the configuration and print the effective one, secrets masked",
        "0 where it is valid",
        (*SERVED, NO_SECRETS),
    ),
    Command(
        "doctor",
        "ask the backends for what agents need, say what came, and find the settings that help",
        "0 where for each model that was judged an agent works (with --client, each of those); 1 where none does, also "
        "where settings would help that are not configured; with --write, what was written counts as configured",
        EXAMINED,
    ),
    Command(
        "launch",
        "start a client (codex, claude or opencode) against this gateway, with what comes after `--` as its arguments",
        "the client's own; 1 where there is no gateway for it, 127 where it is not installed",
        LAUNCHED,
        word="CLIENT",
        words=("codex", "claude", "opencode"),
        configured=False,
    ),
    Command(
        "config",
        "print the explained configuration (example), its JSON schema for editors (schema), or what a client needs in "
        "its own files (codex, claude-code, codex-catalogue, which is a script)",
        "0",
        word="WHAT",
        words=("example", "schema", "codex", "codex-catalogue", "claude-code"),
        configured=False,
    ),
    Command(
        "completion",
        "print what makes a shell complete this command",
        "0",
        word="SHELL",
        words=SHELLS,
        configured=False,
    ),
)


def _one_of(words: Sequence[str]) -> Callable[[str], str]:
    def parsed(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(words)}{nearest(text, words)}")
        return text

    return parsed


def _formatter(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, max_help_position=28)


class Parser(argparse.ArgumentParser):
    """Its errors are in the words of the other messages, and point to help. Help that cannot be written is an error, as
    any other output: the library says nothing of it."""

    def _print_message(self, message: str, file: Any = None) -> None:
        print(message, end="", file=file, flush=True)

    def error(self, message: str) -> NoReturn:
        print(f"dragoman: {message}\n`{self.prog} --help` shows what it takes", file=sys.stderr)
        raise SystemExit(2)


def parse(arguments: Sequence[str], version: Callable[[], str]) -> argparse.Namespace:
    """The command's name is `command`, its argument `word`; options have the names of their keys, None if not given.
    Ends the process with status 2 for words that mean nothing, and with 0 after help and version."""
    given, after = _split(list(arguments))
    parser, commands = _parser()
    if given[:1] == ["--version"]:
        print(f"dragoman {version()}", flush=True)
        raise SystemExit(0)
    if not given:
        parser.print_help(sys.stderr)
        raise SystemExit(2)
    named = {each.name: each for each in COMMANDS}
    if given and not given[0].startswith("-") and given[0] not in named:
        parser.error(f"there is no command {given[0]!r}{nearest(given[0], named)}")
    options, unknown = parser.parse_known_args(given)
    if unknown:
        command = named[options.command]
        known = [each.name for each in command.options] + ["--help"]
        word = unknown[0].partition("=")[0]
        hint = _option_hint(word, known)
        if command.name == "launch" and not hint:
            hint = f"; what is for the client comes after `--`: {parser.prog} launch {options.word} -- {word} …"
        commands[command.name].error(f"{command.name} takes no {word}{hint}")
    if after and options.command != "launch":
        commands[options.command].error(f"{options.command} takes nothing after `--`")
    options.after = after
    return options


def _option_hint(word: str, known: Sequence[str]) -> str:
    if not word.startswith("-"):
        return ""
    takers = [each.name for each in COMMANDS if any(option.name == word for option in each.options)]
    if takers:
        return f"; {' and '.join(takers)} {'do' if len(takers) > 1 else 'does'}"
    import difflib  # for those who make a mistake

    found = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before `--`, and what stands after it."""
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def _parser() -> tuple[Parser, dict[str, Parser]]:
    parser = Parser(
        prog="dragoman",
        description="A gateway between agents and GPU model servers.",
        epilog="`dragoman COMMAND --help` shows what a command takes.",
        allow_abbrev=False,
        formatter_class=_formatter,
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")
    made: dict[str, Parser] = {}
    for command in COMMANDS:
        wrong = "the configuration" if command.configured else "a word"
        told = f"Exit status: {command.status}; 2 where {wrong} is wrong."
        made[command.name] = commands.add_parser(
            command.name,
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=f"{told} {TOLD_ABOUT_VARIABLES}" if command.configured else told,
            allow_abbrev=False,
            formatter_class=_formatter,
        )
        _add(made[command.name], command)
    return parser, made


def _add(parser: argparse.ArgumentParser, command: Command) -> None:
    if command.words:
        parser.add_argument("word", metavar=command.word, type=_one_of(command.words), help=", ".join(command.words))
    for option in command.options:
        name = option.name.removeprefix("--").replace("-", "_")
        if not option.metavar:
            parser.add_argument(option.name, dest=name, action="store_true", default=None, help=option.help)
            continue
        parser.add_argument(
            option.name,
            dest=name,
            metavar=option.metavar,
            type=option.parse or str,
            action="append" if option.several else "store",
            help=option.help,
        )
