"""What a backend is made of, by which a reload sees whether it is another one now."""

from __future__ import annotations

from pathlib import Path

import pytest

from dragoman.gateway.config import BackendConfig, Config
from dragoman.gateway.factory import ingredients
from dragoman.gateway.keys.secrets import Secrets


@pytest.mark.parametrize("named", ["url", "setting"])
def test_a_model_folder_whose_template_has_changed_makes_another_backend(named: str, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    if named == "url":
        backend = BackendConfig(url=f"triton+grpc://127.0.0.1:8001/m?tokenizer={tmp_path}")
    else:
        backend = BackendConfig(url="http://127.0.0.1:8000/v1", settings={"tokenizer": str(tmp_path)})
    config = Config(backends=(backend,))

    def made() -> tuple[object, ...]:
        return ingredients(config, Secrets(), config.groups[0])

    first = made()
    (tmp_path / "model.safetensors").write_text("other weights")
    assert made() == first
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert made() != first
