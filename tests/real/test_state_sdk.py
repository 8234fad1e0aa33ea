"""The openai SDK keeps its conversations at the gateway: the script of docs/state.md, every endpoint, a WebSocket."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real import program
from tests.real.components import ROOT
from tests.real.postgres import Postgres
from tests.real.serving import serving
from tests.scripted import Json, Script, ScriptedServer, text_stream

pytestmark = pytest.mark.real
DRIVER = Path(__file__).with_name("state_driver.py")
(SCRIPT,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "state.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'answers.db'}"
    server: Postgres = request.getfixturevalue("postgres")
    return server.database()


def hello() -> ScriptedServer:
    return ScriptedServer(default=Script(text_stream("hello")))


@pytest.mark.parametrize("version", ["sdk-openai-2", "sdk-openai-3"])
async def test_the_script_of_the_docs_runs_as_written(
    version: str, store: str, real_component: RealComponent, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    async with hello() as server, serving("--backend", server.url, store__url=store) as url:
        variables = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "any"}
        command = (str(real_component(version)), str(script))
        status, output, errors = await program.run(command, tmp_path, variables, program.DRIVER_SECONDS)
    assert status == 0, errors.decode()
    assert output.decode().splitlines() == ["hello", "['message']", "response_not_found"]


@pytest.mark.parametrize("version", ["sdk-openai-2", "sdk-openai-3"])
async def test_every_endpoint(version: str, store: str, real_component: RealComponent) -> None:
    async with hello() as server, serving("--backend", server.url, store__url=store) as url:
        report: Json = await program.report(real_component(version), DRIVER, f"{url}/v1", "endpoints")
        asked = [seen.body for seen in server.chats if seen.body is not None]
    assert report["retrieved"] == [True, True]
    assert report["metadata"] == {"a": "b"}
    assert report["listed"] == [str(number) for number in range(45)]
    assert report["newest"] == "44"
    assert report["counted"] > 45
    assert [message["content"] for message in asked[1]["messages"][-3:]] == ["44", "hello", "go on"]
    assert [message["content"] for message in asked[2]["messages"]] == ["hello", "and?"]


async def test_what_cannot_be_done_is_an_error_of_the_right_kind(real_component: RealComponent) -> None:
    async with hello() as server, serving("--backend", server.url, store__url="memory") as url:
        report = await program.report(real_component("sdk-openai-3"), DRIVER, f"{url}/v1", "errors")
    assert report == {
        "retrieve": [404, "response_not_found"],
        "delete": [404, "response_not_found"],
        "input_items": [404, "response_not_found"],
        "continue": [400, "previous_response_not_found"],
        "cancel": [400, "invalid_value"],
        "stream": [400, "unsupported_parameter"],
        "conversation": [400, "unsupported_parameter"],
    }


async def test_over_a_websocket_with_nothing_kept(real_component: RealComponent) -> None:
    async with hello() as server, serving("--backend", server.url, store__url="off") as url:
        report = await program.report(real_component("sdk-openai-3"), DRIVER, f"{url}/v1", "socket")
        asked = [seen.body for seen in server.chats if seen.body is not None]
    assert {report[text] for text in ("one", "two", "three")} == {"hello"}
    assert report["error"]["error"]["code"] == "previous_response_not_found"
    assert [message["content"] for message in asked[1]["messages"]] == ["one", "hello", "two"]


async def test_over_a_websocket_each_question_has_its_own_answer_after_a_failure(real_component: RealComponent) -> None:
    cut = Script(text_stream("half", done=False), cut_at=len(text_stream("half")) // 2)
    second = Script(text_stream("second"))
    server = ScriptedServer(cut, second, default=Script(text_stream("third")))
    async with server, serving("--backend", server.url, store__url="off") as url:
        report = await program.report(real_component("sdk-openai-3"), DRIVER, f"{url}/v1", "session")
        asked = [seen.body for seen in server.chats if seen.body is not None]
    assert report["lanes"] == ["completed", "completed"]
    assert [message["content"] for message in asked[-2]["messages"]] == ["left one", "third", "left two"]
    assert report["ends"] == [["failed", "half"], ["completed", "second"], ["completed", "third"]]


async def test_a_restart_between_two_turns_loses_nothing(
    store: str, real_component: RealComponent, tmp_path: Path
) -> None:
    turn = tmp_path / "turn.py"
    turn.write_text(
        "import openai, sys\n"
        "given = {'previous_response_id': sys.argv[1]} if len(sys.argv) > 1 else {}\n"
        "print(openai.OpenAI(max_retries=0).responses.create(model='m', input='hi', **given).id)\n"
    )
    said: list[str] = []
    async with hello() as server:
        for _ in range(2):
            async with serving("--backend", server.url, store__url=store) as url:
                variables = {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "any"}
                command = (str(real_component("sdk-openai-3")), str(turn), *said)
                status, output, errors = await program.run(command, tmp_path, variables, program.DRIVER_SECONDS)
                assert status == 0, errors.decode()
                said = [output.decode().strip()]
        asked = server.chats[-1].body
    assert asked is not None
    assert [message["content"] for message in asked["messages"]] == ["hi", "hello", "hi"]
