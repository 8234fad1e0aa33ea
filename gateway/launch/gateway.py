"""The gateway that a client is pointed at: one that runs, or one that is started for this client and ended with it."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

import orjson

from dragoman.gateway.launch.agent import KEY_VARIABLE, LaunchError, Served

SECONDS = 10.0  # for the list of models
READY = re.compile(r"dragoman is ready on (https?://\S+)")
RUNS = "x-dragoman-runs"  # header of the list: the tools that the gateway runs itself
WEB_SEARCH = "web_search"
LAST_WORDS = 5  # lines of its log that are shown of a gateway that did not start
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Offer:
    """What a gateway lists: its models, and the tools that it runs itself. `ours`: by its headers it is dragoman."""

    models: Sequence[Mapping[str, Any]] = ()
    runs: frozenset[str] = frozenset()
    ours: bool = True


def offered(base: str, key: str | None, named: bool = True) -> Offer | None:
    """What a gateway lists; None where none answers: without `named`, another kind of server counts as none, since
    others listen on the same port. Raises `LaunchError` for whoever wants another key."""
    request = urllib.request.Request(f"{base}/v1/models")
    if key is not None:
        request.add_header("Authorization", f"Bearer {key}")
    # a proxy of the environment does not know this machine's loopback
    direct = [urllib.request.ProxyHandler({})] if urlsplit(base).hostname in LOOPBACK else []
    try:
        with urllib.request.build_opener(*direct).open(request, timeout=SECONDS) as answer:
            return _read(answer) if _is_gateway(answer, named) else None
    except urllib.error.HTTPError as error:
        with error:
            if not _is_gateway(error, named):
                return None
            if error.code == 401:
                wrong = "does not accept the key in" if key is not None else "wants a key, and there is none in"
                raise LaunchError(f"the gateway on {base} {wrong} {KEY_VARIABLE}") from None
            return Offer(ours=_is_ours(error))  # it runs, but its servers do not answer
    except TimeoutError:
        raise LaunchError(f"{base} did not answer within {SECONDS:.0f} s") from None
    except (OSError, ValueError, http.client.HTTPException):  # the last of what does not speak HTTP
        return None


def _read(answer: Any) -> Offer | None:
    content = orjson.loads(answer.read())
    runs = (answer.headers.get(RUNS) or "").split(",")
    listed = (content.get("data") or []) if isinstance(content, dict) else None
    if not isinstance(listed, list):
        return None
    models = [each for each in listed if isinstance(each, dict)]
    return Offer(models, frozenset(map(str.strip, runs)), _is_ours(answer))


def _is_gateway(answer: Any, named: bool) -> bool:
    return named or answer.headers.get("Server") == "dragoman"


def _is_ours(answer: Any) -> bool:
    """A proxy in front writes its own `Server` and leaves Anthropic's `request-id`, which no model server sends."""
    return answer.headers.get("Server") == "dragoman" or "request-id" in answer.headers


def choose(base: str, offer: Offer, key: str | None, name: str | None, window: int | None) -> Served:
    """The model of that name, or the first one that is listed."""
    listed = {str(each.get("id")): each.get("context_window") for each in offer.models}
    chosen = name or next(iter(listed), "any")
    known = listed.get(chosen)
    return Served(base, chosen, window or (known if isinstance(known, int) else None), key, WEB_SEARCH in offer.runs)


@contextlib.contextmanager
def started(arguments: Sequence[str]) -> Iterator[str]:
    """A gateway of our own on a free port, by its address. Its log is shown only where it does not start."""
    command = [sys.executable, "-m", "dragoman", "serve", "--host", "127.0.0.1", "--port", "0", "--workers", "1"]
    with tempfile.TemporaryFile() as log:
        # in a session of its own, so that ^C in the client does not reach it
        child = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True
        )
        try:
            yield _until_ready(child, log)
        finally:
            _end(child)


def _until_ready(child: subprocess.Popen[bytes], log: IO[bytes]) -> str:
    assert child.stdout is not None
    for line in child.stdout:
        if found := READY.match(line.decode()):
            return found[1]
        print(f"dragoman: {line.decode().strip().removeprefix('dragoman ')}", file=sys.stderr)
    child.wait()
    log.seek(0)
    told = log.read().decode(errors="replace").strip().splitlines()[-LAST_WORDS:]
    reason = "\n".join(line.removeprefix("dragoman: ") for line in told)
    raise LaunchError(f"the gateway did not start: {reason}")


def _end(child: subprocess.Popen[bytes]) -> None:
    """The second signal ends the wait for answers that nobody reads any more."""
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
        if child.poll() is None:
            os.kill(child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(5)
    if child.stdout is not None:
        child.stdout.close()
