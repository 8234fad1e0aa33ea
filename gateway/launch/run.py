"""One launch from the words of the command line to the exit status of the client."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from dragoman.gateway.keys.reasoning_seal import state_directory
from dragoman.gateway.keys.secrets import API_KEYS, BACKEND_API_KEY, SEAL_KEYS
from dragoman.gateway.launch.agent import KEY_REFERENCE, KEY_VARIABLE, Agent, LaunchError, Served, Start
from dragoman.gateway.launch.claude_code import CLAUDE_CODE
from dragoman.gateway.launch.codex import CODEX
from dragoman.gateway.launch.gateway import LOOPBACK, Offer, choose, offered, started
from dragoman.gateway.launch.opencode import OPENCODE
from dragoman.gateway.launch.user_files import undo, write
from dragoman.gateway.nearest import nearest

AGENTS = {"codex": CODEX, "claude": CLAUDE_CODE, "opencode": OPENCODE}
PORT = "8080"
# An agent runs what its model writes: it needs no key but its own.
SECRETS = (API_KEYS, BACKEND_API_KEY, SEAL_KEYS)
NO_PROXY = ("NO_PROXY", "no_proxy")
MOST_NAMED = 5  # models, in one line
NOT_FOUND = 127  # as a shell says it


@dataclass(frozen=True, slots=True)
class Launch:
    """`serve` are the options for a gateway of its own: given, one is started even if another runs."""

    client: str
    arguments: Sequence[str] = ()
    url: str | None = None
    model: str | None = None
    window: int | None = None
    serve: Sequence[str] = ()
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def agent(self) -> Agent:
        return AGENTS[self.client]

    @property
    def key(self) -> str | None:
        """The client's own, or the first of those that a gateway on this machine takes."""
        own = self.environ.get(KEY_VARIABLE, "").strip()
        return own or self.environ.get(API_KEYS, "").split(",")[0].strip() or None

    @property
    def record(self) -> Path:
        return state_directory(None) / "launch" / f"{self.client}.json"

    @property
    def base(self) -> str:
        port = self.environ.get("DRAGOMAN_PORT", "")
        address = self.url or f"http://127.0.0.1:{port if port.isdecimal() and port != '0' else PORT}"
        address = address if "://" in address else f"http://{address}"  # localhost:8080
        try:
            parts = urlsplit(address)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise LaunchError(f"--url: {address} is no address of a gateway; it looks like http://127.0.0.1:{PORT}")
        return address.rstrip("/").removesuffix("/v1")

    def offer(self) -> Offer | None:
        offer = offered(self.base, self.key, named=self.url is not None)
        if offer is not None and not offer.ours:
            _say(f"{self.base} does not answer as dragoman does; if it is a model server, name it by --backend")
        return offer


def launch(given: Launch, action: str = "run") -> int:
    """`action` is run, print, write or undo."""
    try:
        match action:
            case "print":
                lines = show(given)
            case "write":
                lines = write_files(given)
            case "undo":
                lines = undo(given.record)
            case _:
                return run(given)
    except LaunchError as error:
        for line in str(error).splitlines():
            _say(line)
        return 1
    except OSError as error:  # a program that is none, a folder that may not be written
        _say(f"{error.filename or given.agent.program}: {error.strerror or error}")
        return 1
    print("\n".join(lines))
    return 0


def run(given: Launch) -> int:
    program = shutil.which(given.agent.program, path=given.environ.get("PATH"))
    if program is None:
        _say(f"{given.agent.program} is not installed: {given.agent.install}")
        return NOT_FOUND
    with _served(given) as served, tempfile.TemporaryDirectory(prefix="dragoman-launch-") as folder:
        start = given.agent.start(served, program, Path(folder))
        return _run(start, given, served)


@contextlib.contextmanager
def _served(given: Launch) -> Iterator[Served]:
    offer = None if given.serve else given.offer()
    if offer is not None:
        yield _chosen(given, given.base, offer)
        return
    if given.url:
        raise LaunchError(f"no gateway answers on {given.base}")
    _say("no gateway runs here; one is started for this client")
    with started(given.serve) as base:
        yield _chosen(given, base, offered(base, given.key) or Offer())


def _chosen(given: Launch, base: str, offer: Offer) -> Served:
    served = choose(base, offer, given.key, given.model, given.window)
    listed = [str(each.get("id")) for each in offer.models]
    if listed and served.model not in listed:  # which may be served all the same: by a prefix, or as any name is
        named = ", ".join(listed[:MOST_NAMED]) + (", …" if len(listed) > MOST_NAMED else "")
        _say(f"{base} lists {named}, and not {served.model}{nearest(served.model, listed)}")
    if served.window is None:
        _say(f"the window of {served.model} is not known; {given.client} will assume one, which --window sets")
    elif served.window < (needed := given.agent.first_prompt):
        _say(
            f"{served.model} has a window of {served.window:,} tokens, and the first prompt of {given.client} "
            f"{needed:,}: serve a model with a larger one{given.agent.smaller}"
        )
    return served


def _say(words: str) -> None:
    print(f"dragoman: {words}", file=sys.stderr)


def _run(start: Start, given: Launch, served: Served) -> int:
    environment = _environment(start, given, served)
    child = subprocess.Popen([*start.command, *given.arguments], env=environment)
    # ^C belongs to the client, which shares the terminal; what ends this process is passed on to it
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGQUIT)}
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, lambda passed, _: child.send_signal(passed))
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def _environment(start: Start, given: Launch, served: Served) -> dict[str, str]:
    left_out = {*start.without, *SECRETS}
    environment = {name: value for name, value in given.environ.items() if name not in left_out}
    environment |= {name: value.replace(KEY_REFERENCE, served.key or "") for name, value in start.environment.items()}
    # A proxy does not know this machine's loopback. Some programs read one spelling alone, some the first one set.
    around = ",".join(given.environ.get(name, "") for name in NO_PROXY).split(",")
    hosts = ",".join(dict.fromkeys([*filter(None, map(str.strip, around)), *LOOPBACK[:2]]))
    return environment | dict.fromkeys(NO_PROXY, hosts)


# --------------------------------------------------------------------------------------------------- print, write, undo


def show(given: Launch) -> list[str]:
    """What a shell would need to do the same, except for the catalogue of Codex; the key stays a variable."""
    start = given.agent.start(_now(given), given.agent.program, None)
    lines = [f"unset {' '.join(start.without)}"] if start.without else []
    for name, value in start.environment.items():
        if value == KEY_REFERENCE:
            lines.append(f"export {name}" if name == KEY_VARIABLE else f'export {name}="{value}"')
        else:
            lines.append(f"export {name}={shlex.quote(value)}")
    return [*lines, shlex.join([*start.command, *given.arguments])]


def write_files(given: Launch) -> list[str]:
    """Returns what was done, a line for each."""
    program = shutil.which(given.agent.program, path=given.environ.get("PATH"))
    told = write(given.agent.changes(_now(given), program, given.environ), given.record)
    return [*told, f"`dragoman launch {given.client} --undo` restores what was there"]


def _now(given: Launch) -> Served:
    """What the gateway's address gives now, without starting one."""
    offer = given.offer()
    if offer is None:
        _say(f"no gateway answers on {given.base} yet")
    return _chosen(given, given.base, offer or Offer())
