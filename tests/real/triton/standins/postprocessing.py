"""`postprocessing` of the engine profile: each group of token ids is decoded alone, which is what breaks characters."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy
import triton_python_backend_utils as pb

script: Any = importlib.import_module("script")  # beside it once it is copied


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self.skip_special_tokens = parameters["skip_special_tokens"]["string_value"] == "true"
        self.tokens = script.tokenizer()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        ids = pb.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy().reshape(-1).tolist()
        text = self.tokens.decode(ids, skip_special_tokens=self.skip_special_tokens)
        return pb.InferenceResponse([pb.Tensor("OUTPUT", numpy.array([text.encode()], numpy.object_))])
