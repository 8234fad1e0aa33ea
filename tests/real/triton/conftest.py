"""One real Triton server for the session, with every stand-in model loaded."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from tests.conftest import RealComponent
from tests.real.triton import repository
from tests.real.triton.server import Triton, running

MODELS = (
    *("tensorrt_llm", "tensorrt_llm_whole", "preprocessing", "postprocessing", "ensemble"),
    *("tensorrt_llm_bls", "tensorrt_llm_bls_whole_text", "llmapi", "llmapi_whole"),
)


@pytest.fixture(scope="session")
def tokenizer_folder(real_component: RealComponent) -> Path:
    return real_component("chat-tokenizers") / "tokenizer-qwen3" / "models"


class Keeper:
    """The server of the session, and a new one where it died or `needed` models hang: Triton 2.51 does both at times
    after BLS models whose engine failed, and the tests after that one are none of its affair. `hung`: a test has left
    an instance that hangs for ever; a request that answers says nothing of the next one, which may get it."""

    def __init__(self, start: Callable[[], contextlib.AbstractContextManager[Triton]]) -> None:
        self._start = start
        self._server: Triton | None = None
        self.hung = False
        self.stack = contextlib.ExitStack()

    def server(self, needed: Sequence[str]) -> Triton:
        server = self._server
        hangs = any(self.hung or not server.answers(model) for model in needed) if server is not None else False
        if server is None or not server.alive or hangs:
            if server is not None and hangs:
                server.process.kill()  # it would wait for what hangs
            self.stack.close()
            self.hung = False
            self._server = server = self.stack.enter_context(self._start())
            server.load(*MODELS)
        return server


@pytest.fixture(scope="session")
def keeper(
    real_component: RealComponent, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Keeper]:
    python = real_component("triton")

    def start() -> contextlib.AbstractContextManager[Triton]:
        folder = tmp_path_factory.mktemp("triton")
        (folder / "models").mkdir()
        repository.write(folder / "models")
        return running(python, tokenizer_folder, folder)

    keeper = Keeper(start)
    with keeper.stack:
        yield keeper


@pytest.fixture
def triton(keeper: Keeper, request: pytest.FixtureRequest) -> Triton:
    fragile = ("tensorrt_llm_bls", "tensorrt_llm_bls_whole_text")
    return keeper.server(fragile if "bls" in request.node.name else ())
