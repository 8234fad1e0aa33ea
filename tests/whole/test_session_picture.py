"""The picture of a session in the README: what a terminal shows of a real run, recorded and drawn as SVG.

`dragoman serve` runs in a pseudo-terminal before a server that reads a long prompt, and curl asks it. Only what differs
between two runs (ports, ids, times) is replaced; everything else in the picture is what was printed. With `--golden`
the picture is drawn anew.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import sys
import termios
from pathlib import Path

import pytest
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.scripted import Script, ScriptedServer, chunk, sse, text_stream, usage
from tests.waiting import until

pytestmark = pytest.mark.slow

PICTURE = Path(__file__).parents[2] / "docs" / "images" / "session.svg"
COLUMNS = 118
PAUSE = 6.0  # seconds: more than those between two lines about one prompt
BODY = '{"model": "any", "messages": [{"role": "user", "content": "Say hello."}]}'
# What a run never repeats, and what stands for it; the clock goes on from line to line.
REPLACED = [
    (r"127\.0\.0\.1:\d+(?=/v1 --preset)", "gpu-host:8000"),
    (r"(?<=127\.0\.0\.1:)\d+", "8080"),
    (r"(?<=req_)[0-9a-f]{24}", "5f0c9be2a7d14836"),
    (r"(?<=[ m]id=)(\x1b\[0m)?[0-9a-f]{24,32}", r"\g<1>8d2e41b7c6"),
    (r"(first_event_ms=(?:\x1b\[0m)?)[\d.]+", r"\g<1>12041.7"),
    (r"(duration_ms=(?:\x1b\[0m)?)[\d.]+", r"\g<1>12043.2"),
    (r"((?:queue|overhead)_ms=(?:\x1b\[0m)?)[\d.]+", r"\g<1>0.4"),
    (r'(?<="id":"chatcmpl-)[^"]+', "8d2e41b7c6"),
    (r'(?<="created":)\d+', "1795740058"),
]
FRAME = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" xml:space="preserve">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def reading(tokens: int) -> bytes:
    progress = {"total": 3142, "cache": 0, "processed": tokens, "time_ms": 1}
    return sse(chunk({"role": "assistant", "content": None}, prompt_progress=progress), done=False)


class Terminal:
    """A pseudo-terminal with a process in it, and what that has written so far."""

    def __init__(self) -> None:
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        os.set_blocking(self.ours, False)
        self.written = b""
        asyncio.get_running_loop().add_reader(self.ours, self._read)

    def _read(self) -> None:
        try:
            self.written += os.read(self.ours, 65536)
        except OSError:  # its other end is closed
            asyncio.get_running_loop().remove_reader(self.ours)

    @property
    def text(self) -> str:
        return self.written.decode().replace("\r\n", "\n")

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.ours)
        os.close(self.ours)
        os.close(self.theirs)


async def recorded(curl: str) -> tuple[str, str]:
    """What the gateway's terminal shows, and what curl's does, each with the command that was given."""
    script = Script([reading(0), reading(1536), text_stream("Hello!", counts=usage(3142, 3))], gap=PAUSE)
    terminal = Terminal()
    environment = {"PATH": os.environ["PATH"], "TERM": "xterm", "HOME": "/nonexistent", "DRAGOMAN_STORE__URL": "off"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "DRAGOMAN_SEAL_KEYS": "0" * 64}
    async with ScriptedServer(script) as server:
        words = ("serve", "--backend", server.url, "--preset", "llama.cpp")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dragoman.gateway.cli", *words, "--port", "0"),
            stdin=terminal.theirs,
            stdout=terminal.theirs,
            stderr=terminal.theirs,
            env=environment,
        )
        try:
            await until(lambda: "codex -m" in terminal.text)
            (port,) = set(re.findall(r"ready on http://127\.0\.0\.1:(\d+)", terminal.text))
            url = f"127.0.0.1:{port}/v1/chat/completions"
            asked = await asyncio.create_subprocess_exec(curl, "-s", url, "-d", BODY, stdout=asyncio.subprocess.PIPE)
            answer, _ = await asked.communicate()
            await until(lambda: " request " in terminal.text)
            child.send_signal(signal.SIGINT)
            assert await child.wait() == 0
            await asyncio.sleep(0)
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
            terminal.close()
    asking = f"$ curl -s {url} -d '{BODY}'\n{answer.decode()}"
    return f"$ dragoman {' '.join(words)}\n{terminal.text}", asking


def repeatable(text: str) -> str:
    for pattern, replacement in REPLACED:
        text = re.sub(pattern, replacement, text)
    seconds = iter((2, 9, 15, 21, 34, 41, 48, 55))
    return re.sub(r"(?<=\x1b\[2m)\d\d:\d\d:\d\d(?=\x1b)", lambda _: f"14:02:{next(seconds):02}", text)


def drawn(*screens: str) -> str:
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    for screen in screens:
        for line in Text.from_ansi(screen.rstrip()).split("\n", allow_blank=True):
            for row in line.divide(range(COLUMNS, len(line), COLUMNS)):  # as a terminal breaks it, anywhere
                console.print(row, no_wrap=True, overflow="ignore", crop=False)
        console.print()
    console.file.close()
    return console.export_svg(title="dragoman", theme=MONOKAI, code_format=FRAME, unique_id="session")


async def test_the_picture_is_what_a_terminal_shows(request: pytest.FixtureRequest) -> None:
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("curl is not installed")
    picture = drawn(*map(repeatable, await recorded(curl)))
    if request.config.getoption("--golden"):
        PICTURE.write_text(picture, "utf-8")
    assert picture == PICTURE.read_text("utf-8")
    assert "http" not in re.sub(r"http://(?:127\.0\.0\.1:8080|gpu-host:8000|www\.w3\.org/2000/svg)", "", picture)
