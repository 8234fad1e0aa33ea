"""`tensorrt_llm_bls` of the engine profile: calls the three others itself, and reports errors as whole tracebacks."""

from __future__ import annotations

import json
import traceback
from typing import Any

import numpy
import triton_python_backend_utils as pb

PASSED = {
    "temperature": "temperature",
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "guided_decoding_guide_type": "guided_decoding_guide_type",
    "guided_decoding_guide": "guided_decoding_guide",
    "return_num_input_tokens": "return_num_input_tokens",
    "return_num_output_tokens": "return_num_output_tokens",
    "stream": "streaming",
}


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.accumulate = config["parameters"]["accumulate_tokens"]["string_value"] == "true"

    def execute(self, requests: list[Any]) -> None:
        """One at a time in each instance, as the real one: calls from threads of its own hang or crash the server."""
        for request in requests:
            self.answer(request)

    def answer(self, request: Any) -> None:
        sender = request.get_response_sender()
        try:
            for response in self.responses(request):
                sender.send(response)
        except Exception:
            failed = pb.InferenceResponse(error=pb.TritonError(traceback.format_exc()))
            sender.send(failed, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
        else:
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def responses(self, request: Any) -> Any:
        limit = tensor(request, "max_tokens").as_numpy().astype(numpy.int32)
        words = tensor(request, "stop_words")
        query = [pb.Tensor("QUERY", tensor(request, "text_input").as_numpy()), pb.Tensor("REQUEST_OUTPUT_LEN", limit)]
        if words is not None:
            query.append(pb.Tensor("STOP_WORDS_DICT", words.as_numpy()))
        before = call("preprocessing", query, ["INPUT_ID", "REQUEST_INPUT_LEN", "STOP_WORDS_IDS"])
        asked = [
            pb.Tensor("input_ids", out(before, "INPUT_ID")),
            pb.Tensor("input_lengths", out(before, "REQUEST_INPUT_LEN")),
            pb.Tensor("request_output_len", limit),
            pb.Tensor("stop_words_list", out(before, "STOP_WORDS_IDS")),
        ]
        asked += [pb.Tensor(b, t.as_numpy()) for a, b in PASSED.items() if (t := tensor(request, a)) is not None]
        step = pb.InferenceRequest(
            model_name="tensorrt_llm",
            inputs=asked,
            requested_output_names=["output_ids", "sequence_length", "num_input_tokens", "num_output_tokens"],
        )
        ids: list[int] = []
        for part in step.exec(decoupled=True):
            if part.has_error():
                raise pb.TritonModelException(part.error().message())
            if not part.output_tensors():
                continue
            new = out(part, "output_ids").reshape(-1).tolist()
            ids = ids + new if self.accumulate else new
            after = call(
                "postprocessing",
                [
                    pb.Tensor("TOKENS_BATCH", numpy.array([[ids]], numpy.int32)),
                    pb.Tensor("SEQUENCE_LENGTH", numpy.array([[len(ids)]], numpy.int32)),
                ],
                ["OUTPUT"],
            )
            counts = [t for t in part.output_tensors() if t.name().startswith("num_")]
            counted = [pb.Tensor(t.name(), t.as_numpy()) for t in counts]
            yield pb.InferenceResponse([pb.Tensor("text_output", out(after, "OUTPUT")), *counted])


def tensor(request: Any, name: str) -> Any:
    return pb.get_input_tensor_by_name(request, name)


def out(response: Any, name: str) -> Any:
    return pb.get_output_tensor_by_name(response, name).as_numpy()


def call(model: str, inputs: list[Any], outputs: list[str]) -> Any:
    response = pb.InferenceRequest(model_name=model, inputs=inputs, requested_output_names=outputs).exec()
    if response.has_error():
        raise pb.TritonModelException(response.error().message())
    return response
