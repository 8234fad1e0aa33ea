"""The lines that `dragoman serve` prints for people to paste, pasted into a shell as they are, before real clients.

Each runs in an environment with nothing in it but a home that is empty.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.claude import CLAUDE_CODE_VERSIONS, QUIET
from tests.real.codex import CODEX_VERSIONS
from tests.real.program import run
from tests.real.scripted_model import says
from tests.real.serving import announced
from tests.scripted import ScriptedServer

pytestmark = pytest.mark.real

SECONDS = 90.0
KEY = "canary-key"
ASK_OPENAI = "import openai; print(openai.OpenAI().responses.create(model='any', input='Say hello.').output_text)"


async def pasted(tmp_path: Path, program: Path, script: str) -> str:
    """What a shell prints for the script; programs are looked for beside `program` first."""
    proxy = "http://127.0.0.1:9"  # nothing beside the gateway is asked
    environment = {
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "HTTPS_PROXY": proxy,
        "HTTP_PROXY": proxy,
        "NO_PROXY": "127.0.0.1",
    }
    status, output, errors = await run(("sh", "-c", script), tmp_path, environment, SECONDS)
    assert status == 0, errors.decode()
    return output.decode().strip()


@pytest.mark.parametrize("keys", [{}, {"api_keys": KEY}], ids=["open", "with keys"])
async def test_each_line_points_its_client_at_the_gateway(
    real_component: RealComponent, tmp_path: Path, keys: dict[str, str]
) -> None:
    codex, claude, sdk = (
        real_component(name) for name in (CODEX_VERSIONS[-1], CLAUDE_CODE_VERSIONS[-1], "sdk-openai-3")
    )
    quiet = " ".join(f"{name}={value}" for name, value in QUIET.items())
    # two models, so that a name of nobody's would be 404
    async with ScriptedServer(default=says("Hello."), models=("org/first model", "second")) as server:
        async with announced("--backend", server.url, **keys) as (_, lines):
            openai, anthropic, provider = lines
            assert KEY not in str(lines)
            first = f"export KEY={KEY}\n" if keys else ""
            ask = ASK_OPENAI.replace("any", "second")
            for program, script in (
                (sdk, f"{openai}\npython -c {shlex.quote(ask)}"),
                (claude, f"{anthropic}\n{quiet} claude -p 'Say hello.'"),
                (codex, f"{provider} exec --skip-git-repo-check 'Say hello.'"),
            ):
                assert await pasted(tmp_path, program, first + script) == "Hello."
        asked = [str(seen.body["model"]) for seen in server.chats if seen.body]
    assert asked == ["second", "org/first model", "org/first model"]


async def test_whoever_pastes_the_base_of_the_other_kind_of_client_is_served(
    real_component: RealComponent, tmp_path: Path
) -> None:
    codex, claude, sdk = (
        real_component(name) for name in (CODEX_VERSIONS[-1], CLAUDE_CODE_VERSIONS[-1], "sdk-openai-3")
    )
    quiet = " ".join(f"{name}={value}" for name, value in QUIET.items())
    async with ScriptedServer(default=says("Hello.")) as server, announced("--backend", server.url) as (url, lines):
        openai, anthropic, provider = lines
        for program, script in (
            (sdk, f"{openai.replace('/v1', '')}\npython -c {shlex.quote(ASK_OPENAI)}"),
            (claude, f"{anthropic.replace(url, f'{url}/v1')}\n{quiet} claude -p 'Say hello.'"),
            (codex, f"{provider.replace('/v1', '')} exec --skip-git-repo-check 'Say hello.'"),
        ):
            assert await pasted(tmp_path, program, script) == "Hello."
    assert len(server.chats) == 3
