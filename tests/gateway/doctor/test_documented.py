"""The page about the doctor shows what it prints: `pytest --golden` writes its two runs anew."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from dragoman.gateway.config import Config, load
from tests.gateway.doctor import servers
from tests.gateway.doctor.asked import printed
from tests.scripted import Json, Script, ScriptedServer, model_list

PAGE = Path(__file__).parents[3] / "docs/doctor.md"
URL = "http://127.0.0.1:8000/v1"
TIMES = re.compile(r"\d+\.\d\d s|\d+ ms|in \d+ reads")


def block(name: str, page: str) -> re.Match[str]:
    found = re.search(
        rf"(?<=<!-- {name} -->\n```\n)(?P<commands>(?:\$ .*\n)+)(?P<output>(?:(?!```).*\n)*)(?=```)", page
    )
    assert found is not None
    return found


def steady(text: str) -> str:
    return TIMES.sub("…", text)


def slow(body: Json) -> Script:
    """So that the page shows times that a person believes."""
    return replace(servers.tools_need_a_flag(body), first_delay=0.3)


async def test_the_page_shows_what_is_printed(
    rewrite_golden: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "gateway.yaml"
    async with ScriptedServer(default=slow if rewrite_golden else servers.tools_need_a_flag) as server:
        server.on("GET", "/v1/models", model_list("Qwen/Qwen2.5-32B-Instruct", max_model_len=32_768, owned_by="vllm"))
        server.on("GET", "/version", Script.json({"version": "0.11.2"}))
        server.on("POST", "/tokenize", Script.json({"count": servers.PLAIN}))
        config = Config(backends=[{"url": server.url}])
        _, first = await printed(capsys, config)
        await printed(capsys, config, write=file)
        _, second = await printed(capsys, load(file), source=file)
    for name, output in (("doctor", first), ("doctor again", second)):
        output = output.replace(server.url, URL)
        page = PAGE.read_text("utf-8")
        shown = block(name, page)
        if rewrite_golden:
            PAGE.write_text(page[: shown.start("output")] + output + page[shown.end("output") :], "utf-8")
        else:
            assert steady(shown["output"]) == steady(output)
