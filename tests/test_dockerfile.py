"""The container: what the Dockerfile says, that each of its RUN lines works, and that what results serves.

There is no engine here: `container_build` carries the instructions out in folders. The gateway is then started as the
image would start it, with the image's environment alone and, where the tests run as root, as the image's user, to whom
everything but the state directory is read-only.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from dragoman.gateway import __version__
from tests.conftest import RealComponent
from tests.container_build import Build, Ignore, Image, Instruction, base_python, read
from tests.lock_files import canonical
from tests.scripted import Script, ScriptedServer, text_stream
from tests.serving_command import serving

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "Dockerfile"
TEXT = DOCKERFILE.read_text("utf-8")
READY = re.compile(r"dragoman is ready on http://127\.0\.0\.1:(\d+) ")
USER = 65532


def last_stage(instructions: list[Instruction]) -> list[Instruction]:
    begins = [place for place, each in enumerate(instructions) if each.name == "FROM"]
    return instructions[begins[-1] :]


def told(name: str) -> Instruction:
    """The one instruction of that name in the stage that is shipped."""
    (found,) = [each for each in last_stage(read(TEXT)) if each.name == name]
    return found


def shell_steps(instructions: list[Instruction]) -> list[str]:
    """Every single command of the RUN lines."""
    lines = [each.value for each in instructions if each.name == "RUN"]
    return [re.sub(r"\s+", " ", command).strip() for line in lines for command in line.split("&&")]


# ------------------------------------------------------------------------------------------------------- what it says


def test_the_image_runs_as_a_numbered_user_who_is_not_root() -> None:
    user, group = told("USER").value.split(":")
    assert int(user) == int(group) == USER


def test_nothing_at_run_time_needs_a_shell() -> None:
    entrypoint, command = told("ENTRYPOINT").exec_form, told("CMD").exec_form
    assert entrypoint is not None
    assert entrypoint[0].endswith("/bin/python")
    assert command == ["serve"]
    health = read(told("HEALTHCHECK").value)[0]
    assert health.name == "CMD"
    assert (health.exec_form or [""])[0] == entrypoint[0]
    assert not [each for each in last_stage(read(TEXT)) if each.name in ("RUN", "SHELL")]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_the_check_asks_where_the_gateway_listens(host: str) -> None:
    command = read(told("HEALTHCHECK").value)[0].exec_form
    assert command is not None
    async with (
        ScriptedServer(models=("m",)) as server,
        serving("--backend", server.url, "--host", host, "--no-auth") as process,
    ):
        port = (await process.ready()).rpartition(":")[2]
        environment = {"DRAGOMAN_HOST": host, "DRAGOMAN_PORT": port}
        check = await asyncio.create_subprocess_exec(sys.executable, *command[1:], env=environment)
        assert await asyncio.wait_for(check.wait(), 20) == 0


def test_the_port_the_signal_and_the_place_to_write_are_declared() -> None:
    assert told("EXPOSE").value == "8080"
    assert told("STOPSIGNAL").value == "SIGTERM"
    assert told("VOLUME").exec_form == ["/state"]
    assert "XDG_STATE_HOME=/state" in told("ENV").value


def test_labels_name_this_version() -> None:
    assert f'org.opencontainers.image.version="{__version__}"' in told("LABEL").value


def test_nothing_is_fetched_but_by_hash() -> None:
    instructions = read(TEXT)
    assert not [each for each in instructions if each.name == "ADD"]
    installs = [step for step in shell_steps(instructions) if re.search(r"-m pip .*\binstall\b", step)]
    assert len(installs) == 4
    for step in installs:
        assert "--require-hashes --only-binary=:all: --requirement" in step or "--no-deps --no-index" in step, step
    (wheel,) = [step for step in shell_steps(instructions) if " pip wheel " in step]
    assert "--no-deps --no-build-isolation" in wheel
    assert not re.search(r"://|\b(curl|wget|apt-get|apk)\b", "\n".join(shell_steps(instructions)))


def test_base_images_come_from_where_the_operator_says() -> None:
    for each in read(TEXT):
        if each.name == "FROM":
            assert each.value.split()[0] == "${PYTHON_IMAGE}"
    (default,) = [each.value for each in read(TEXT) if each.name == "ARG" and each.value.startswith("PYTHON_IMAGE=")]
    assert "/" not in default  # no registry's name


@pytest.mark.parametrize("word", ["key", "secret", "token", "password"])
def test_no_secret_can_be_baked_in(word: str) -> None:
    assert not [each for each in read(TEXT) if each.name in ("ARG", "ENV") and word in each.value.lower()]


def test_what_is_copied_is_there_and_not_ignored() -> None:
    ignore = Ignore((ROOT / ".dockerignore").read_text("utf-8"))
    copies = [each for each in read(TEXT) if each.name == "COPY" and "from" not in each.flags]
    sources = [source for each in copies for source in each.value.split()[:-1]]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert not ignore.ignored(source), source
    inside = ["gateway/cli.py", "translators/responses/parse.py", "requirements/sbom.txt", "configs/gateway.yaml"]
    outside = [
        "tests/conftest.py",
        ".git/HEAD",
        ".real/x",
        ".venv/x",
        "requirements/dev.in",
        "gateway/__pycache__/a.pyc",
    ]
    assert [path for path in inside if ignore.ignored(path)] == []
    assert [path for path in outside if not ignore.ignored(path)] == []


@pytest.mark.real
def test_a_linter_has_nothing_to_say(real_component: RealComponent) -> None:
    hadolint = real_component("operations").with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


# ---------------------------------------------------------------------------------------------- that it works: building


@functools.cache
def can_become(user: int) -> bool:
    """Only root can, and only where the interpreter lies in a place that all may read."""
    if os.geteuid() != 0:
        return False
    try:
        return subprocess.run([base_python(), "-c", ""], user=user, group=user, cwd="/", check=False).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """Not below pytest's own folder, which no other user may enter."""
    folder = Path(tempfile.mkdtemp(prefix="dragoman-image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def image(scratch: Path) -> Image:
    return Build(DOCKERFILE, ROOT, scratch / "core", {}).run()


@pytest.fixture(scope="module")
def image_with_extras(scratch: Path) -> Image:
    return Build(DOCKERFILE, ROOT, scratch / "extras", {"LOCK": "extras"}).run()


@contextlib.asynccontextmanager
async def container(image: Image, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """ENTRYPOINT and CMD with the image's environment and nothing of ours; no program can be found by name."""
    user: dict[str, Any] = {"user": USER, "group": USER, "extra_groups": []} if can_become(USER) else {}
    child = await asyncio.create_subprocess_exec(
        *image.command("ENTRYPOINT"),
        *image.command("CMD"),
        cwd=image.inside("."),
        env={**variables(image), **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        **user,
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


def variables(image: Image) -> dict[str, str]:
    state = {"XDG_STATE_HOME": str(image.inside(image.environment["XDG_STATE_HOME"]))}
    return {**image.environment, **state, "PATH": str(image.inside("/no/such/folder"))}


async def port_of(child: asyncio.subprocess.Process) -> str:
    assert child.stdout is not None
    async with asyncio.timeout(20):
        while line := (await child.stdout.readline()).decode():
            if found := READY.match(line):
                return found[1]
    assert child.stderr is not None
    raise AssertionError((await child.stderr.read()).decode())


async def healthy(image: Image, port: str) -> int:
    environment = {**variables(image), "DRAGOMAN_PORT": port}
    check = await asyncio.create_subprocess_exec(
        *image.command("HEALTHCHECK"), env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    return await asyncio.wait_for(check.wait(), 20)


def files(image: Image) -> set[tuple[str, int]]:
    """All that lies in the image outside the place to write, with its time of change."""
    state = image.inside(image.environment["XDG_STATE_HOME"])
    return {(str(path), path.lstat().st_mtime_ns) for path in image.root.rglob("*") if not path.is_relative_to(state)}


@pytest.mark.real
def test_the_image_holds_the_gateway_and_nothing_that_builds_or_installs(image: Image) -> None:
    packages = next(image.inside("/opt/dragoman/lib").glob("python3.*/site-packages"))
    names = {path.name for path in packages.iterdir()}
    assert {"dragoman", "aiohttp", "uvloop"} <= names
    assert not names & {"pip", "setuptools", "hatchling", "pytest", "tests", "bench"}
    assert (packages / "dragoman" / "gateway" / "configs" / "gateway.yaml").is_file()
    assert {path.name for path in image.root.iterdir()} == {"opt", "state"}


@pytest.mark.real
@pytest.mark.parametrize("lock", ["core", "extras"])
def test_the_image_carries_a_bill_of_what_is_installed_in_it(lock: str, request: pytest.FixtureRequest) -> None:
    image: Image = request.getfixturevalue("image" if lock == "core" else "image_with_extras")
    bill = json.loads(image.inside("/opt/dragoman/sbom.cdx.json").read_text("utf-8"))
    listed = {canonical(each["name"]): each["version"] for each in bill["components"]}
    packages = next(image.inside("/opt/dragoman/lib").glob("python3.*/site-packages"))
    installed = {canonical(each.name): each.version for each in distributions(path=[str(packages)])}
    assert installed == listed | {"dragoman": __version__}
    assert bill["metadata"]["component"]["version"] == __version__


@pytest.mark.real
async def test_the_container_serves_as_an_unprivileged_user_on_a_read_only_root_until_it_is_told_to_stop(
    image: Image,
) -> None:
    before = files(image)
    settings = {"DRAGOMAN_HOST": "127.0.0.1", "DRAGOMAN_PORT": "0", "DRAGOMAN_API_KEYS": "sk-test"}
    async with (
        ScriptedServer(Script(text_stream("hel", "lo"))) as server,
        container(image, DRAGOMAN_BACKEND=server.url, **settings) as child,
        aiohttp.ClientSession(headers={"Authorization": "Bearer sk-test"}) as session,
    ):
        port = await port_of(child)
        assert await healthy(image, port) == 0
        ask = {"model": "m", "input": "hi", "stream": True}
        async with session.post(f"http://127.0.0.1:{port}/v1/responses", json=ask) as answer:
            assert "response.completed" in await answer.text()
        child.send_signal(getattr(signal, told("STOPSIGNAL").value))
        assert await asyncio.wait_for(child.wait(), 10) == 0
        assert await healthy(image, port) == 1
    assert files(image) == before


@pytest.mark.real
async def test_without_keys_the_container_refuses_to_listen_to_the_world(image: Image) -> None:
    async with container(image, DRAGOMAN_BACKEND="http://127.0.0.1:9/v1") as child:
        _, errors = await asyncio.wait_for(child.communicate(), 20)
    assert child.returncode == 2
    assert errors.decode().startswith(
        "dragoman: environment: DRAGOMAN_HOST: without client keys only a loopback address"
    )


@pytest.mark.real
def test_the_image_with_extras_can_speak_to_triton_count_tokens_read_pdfs_and_trace(image_with_extras: Image) -> None:
    needed = ["tritonclient.grpc.service_pb2", "h2", "tokenizers", "jinja2", "pypdf", "opentelemetry.sdk.trace"]
    python = image_with_extras.command("ENTRYPOINT")[0]
    program = "import importlib, json, sys; [importlib.import_module(name) for name in json.loads(sys.argv[1])]"
    subprocess.run([python, "-I", "-c", program, json.dumps(needed)], check=True, timeout=60)


# ------------------------------------------------------------------------------------------------- the stand-in itself


def test_instructions_are_read_across_lines_comments_and_flags() -> None:
    text = '# first\nFROM a AS b\nRUN one \\\n  # between\n  && two\nCOPY --from=b --chown=1:1 x y\nCMD ["serve"]\n'
    found = read(text)
    assert [(each.name, each.line) for each in found] == [("FROM", 2), ("RUN", 3), ("COPY", 6), ("CMD", 7)]
    assert found[1].value.split() == ["one", "&&", "two"]
    assert (found[2].flags, found[2].value) == ({"from": "b", "chown": "1:1"}, "x y")
    assert found[3].exec_form == ["serve"]
    assert found[1].exec_form is None


@pytest.mark.parametrize(
    ("path", "ignored"),
    [("a/b.py", False), ("a/c/b.pyc", True), ("other", True), ("docs/x.md", False), ("docs/deep/x.md", True)],
)
def test_the_last_pattern_decides_what_is_ignored(path: str, ignored: bool) -> None:
    assert Ignore("*\n!a\n!docs/*.md\n**/*.pyc\n").ignored(path) == ignored


def test_a_failing_line_and_a_missing_or_ignored_file_fail_the_build(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("hidden\n")
    (tmp_path / "hidden").write_text("x")
    for number, (line, error) in enumerate(
        [("RUN false", RuntimeError), ("COPY nothing .", FileNotFoundError), ("COPY hidden .", FileNotFoundError),
         ("ONBUILD RUN true", NotImplementedError)]
    ):  # fmt: skip
        dockerfile = tmp_path / "Dockerfile"
        dockerfile.write_text(f"FROM x\n{line}\n")
        with pytest.raises(error):
            Build(dockerfile, tmp_path, tmp_path / str(number), {}).run()


def test_run_lines_see_their_own_root_arguments_and_environment(tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("")
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE=x\nFROM ${BASE} AS first\nARG WHO=world\nENV GREETING=hello\nWORKDIR /place\n"
        "RUN mkdir /out && echo \"$GREETING ${WHO}\" > /out/told && python -c \"open('here', 'w')\"\n"
        "FROM y\nCOPY --from=first /out /kept\nCOPY --from=first /place/here /\n"
    )
    built = Build(tmp_path / "Dockerfile", tmp_path, tmp_path / "scratch", {"WHO": "you"}).run()
    assert built.inside("/kept/told").read_text() == "hello you\n"
    assert {path.name for path in built.root.iterdir()} == {"kept", "here"}
