"""What every test shares: the `--golden` option, the policy for real components, and the watch over leaks.

Rules: a test that needs a real component asks the fixture `real_component` for it by name and gets a path; a component
that is not installed skips the test and says what installs it, and under `CI=true` it fails the test instead. An
asynchronous test that leaves a task behind, drops an unclosed session or blocks the event loop fails.
"""

import asyncio
import gc
import os
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from dragoman.backends.chat.backend import TRANSPORTS
from tests.real.components import COMPONENTS

if TYPE_CHECKING:
    from tests.real.postgres import Postgres

RealComponent = Callable[[str], Path]

BOTH = dict(TRANSPORTS)

# How long tasks that are already ending may take to end.
GRACE_SECONDS = 0.5


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--golden", action="store_true", help="rewrite the golden files instead of comparing with them")
    parser.addoption("--http-client", choices=sorted(TRANSPORTS), help="what reads the answers of chat servers")


@pytest.fixture(autouse=True, scope="session")
def chosen_http_client(pytestconfig: pytest.Config) -> None:
    """The client of gateways in this process, where a test does not choose."""
    if chosen := pytestconfig.getoption("--http-client"):
        TRANSPORTS["direct"] = TRANSPORTS[chosen]


@pytest.fixture(params=sorted(TRANSPORTS))
def each_http_client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test once with each client: what is asked for as `direct` is the one of this run."""
    if (chosen := request.config.getoption("--http-client")) not in (None, request.param):
        pytest.skip(f"this run is for {chosen}")
    monkeypatch.setitem(TRANSPORTS, "direct", BOTH[request.param])
    return str(request.param)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests run first, and whatever asks for a real component is marked `real`."""
    for item in items:
        if "real_component" in getattr(item, "fixturenames", ()):
            item.add_marker("real")
    items.sort(
        key=lambda item: (item.get_closest_marker("real") is not None, item.get_closest_marker("slow") is not None)
    )


def pytest_collection_finish() -> None:
    # What the imports left is permanent: freezing it makes the collection after each test cheap.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def rewrite_golden(pytestconfig: pytest.Config) -> bool:
    """True when the golden files are to be written, not compared."""
    return bool(pytestconfig.getoption("--golden"))


@pytest.fixture(scope="session")
def real_component() -> RealComponent:
    """A function from a component's name to its path: an interpreter, a program or a model file.

    The names and what their paths are: `tests/real/components.py`.
    """
    return find_component


def find_component(name: str) -> Path:
    component = COMPONENTS[name]
    if component.installed():
        return component.path
    reason = f"{name} is not installed: `{component.install_command}` installs it ({component.what})"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def postgres(real_component: RealComponent) -> Iterator["Postgres"]:
    """A server that runs; each test makes a database of its own in it."""
    from tests.real.postgres import Postgres

    server = Postgres(real_component("postgres"))
    server.start()
    yield server
    server.remove()


@pytest.fixture(autouse=True)
def no_leaks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Watch asynchronous tests; the others pay nothing."""
    if isinstance(request.node, pytest.Function) and pytest_asyncio.is_async_test(request.node):
        _refuse_blocking_calls(monkeypatch)
        request.getfixturevalue("no_task_left_behind")


@pytest.fixture
async def no_task_left_behind() -> AsyncIterator[None]:
    before = asyncio.all_tasks()
    yield
    own = asyncio.current_task()
    leaked = {task for task in asyncio.all_tasks() - before if task is not own}
    if leaked:
        _, leaked = await asyncio.wait(leaked, timeout=GRACE_SECONDS)
    # Sessions, sockets and tasks that nobody holds warn as they are collected, and warnings are errors.
    gc.collect()
    gc.freeze()  # what is still held need not be looked at again after each later test
    if leaked:
        pytest.fail("tasks were left behind: " + "; ".join(sorted(_describe(task) for task in leaked)))


def _describe(task: asyncio.Task[Any]) -> str:
    coroutine = task.get_coro()
    return f"{task.get_name()} ({getattr(coroutine, '__qualname__', coroutine)})"


def _refuse_blocking_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls that stop the event loop raise when they are made on it; in other threads they work."""
    blocking: list[tuple[Any, str]] = [
        (time, "sleep"),
        (socket, "getaddrinfo"),
        (subprocess.Popen, "wait"),
        (subprocess.Popen, "communicate"),
    ]
    for owner, name in blocking:
        monkeypatch.setattr(owner, name, _refuse_on_loop(f"{owner.__name__}.{name}", getattr(owner, name)))


def _refuse_on_loop(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return original(*args, **kwargs)
        raise AssertionError(f"{name} was called on the event loop and blocks it")

    return call


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without our own variables, so that a developer's settings do not reach the tests."""
    for name in list(os.environ):
        if name.startswith("DRAGOMAN_"):
            monkeypatch.delenv(name)
    return monkeypatch
