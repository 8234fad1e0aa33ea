"""One real Triton server for the session, with every stand-in model loaded."""

from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def triton(
    real_component: RealComponent, tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Triton]:
    python = real_component("triton")
    folder = tmp_path_factory.mktemp("triton")
    (folder / "models").mkdir()
    repository.write(folder / "models")
    with running(python, tokenizer_folder, folder) as server:
        server.load(*MODELS)
        yield server
