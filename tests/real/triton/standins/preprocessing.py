"""`preprocessing` of the engine profile: a prompt into token ids."""

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
        self.add_special_tokens = parameters["add_special_tokens"]["string_value"] == "true"
        self.tokens = script.tokenizer()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        query = pb.get_input_tensor_by_name(request, "QUERY").as_numpy().reshape(-1)[0].decode()
        limit = pb.get_input_tensor_by_name(request, "REQUEST_OUTPUT_LEN").as_numpy()
        ids = self.tokens.encode(query, add_special_tokens=self.add_special_tokens).ids
        words = pb.get_input_tensor_by_name(request, "STOP_WORDS_DICT")
        listed = [] if words is None else [word.decode() for word in words.as_numpy().reshape(-1)]
        return pb.InferenceResponse(
            [
                pb.Tensor("INPUT_ID", numpy.array([ids], numpy.int32)),
                pb.Tensor("REQUEST_INPUT_LEN", numpy.array([[len(ids)]], numpy.int32)),
                pb.Tensor("REQUEST_OUTPUT_LEN", limit.astype(numpy.int32)),
                pb.Tensor("STOP_WORDS_IDS", numpy.array([self.listed(listed)], numpy.int32)),
            ]
        )

    def listed(self, words: list[str]) -> list[list[int]]:
        """Row 0 the ids one word after another, row 1 where each ends, filled with -1."""
        ids, ends = list[int](), list[int]()
        for word in words:
            ids += self.tokens.encode(word, add_special_tokens=False).ids
            ends.append(len(ids))
        return [ids or [0], (ends + [-1] * len(ids))[: len(ids)] or [-1]]
