"""`tensorrt_llm` of the engine profile: token ids in, token ids out, decoupled or not, stoppable by id."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import numpy
import triton_python_backend_utils as pb

script: Any = importlib.import_module("script")  # beside it once it is copied

GIVEN = (
    *("temperature", "runtime_top_k", "runtime_top_p", "repetition_penalty", "presence_penalty", "frequency_penalty"),
    *("min_tokens", "seed", "end_id", "pad_id", "streaming", "guided_decoding_guide_type", "guided_decoding_guide"),
    "stop_words_list",
)


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        self.name = args["model_name"]
        self.decoupled = '"decoupled":true' in args["model_config"].replace(" ", "")
        self.tokens = script.tokenizer()
        self.running: dict[str, threading.Event] = {}

    def execute(self, requests: list[Any]) -> list[Any] | None:
        if self.decoupled:
            for request in requests:
                threading.Thread(target=self.answer, args=(request,)).start()
            return None
        return [self.whole(request) for request in requests]

    def answer(self, request: Any) -> None:
        sender, id = request.get_response_sender(), request.request_id()
        if flag(request, "stop"):
            script.trace(model=self.name, event="stop", id=id)
            self.running.get(id, threading.Event()).set()
            sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return
        self.running[id] = stopped = threading.Event()
        sent = 0
        try:
            for ids in self.generate(request, lambda: stopped.is_set() or request.is_cancelled()):
                sender.send(self.response(ids, request))
                sent += len(ids)
        except script.Cancelled:
            script.trace(model=self.name, event="cancelled", id=id, sent=sent)
        except Exception as error:
            end(sender, error)
            sender = None
        finally:
            del self.running[id]
            if sender is not None:
                sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            script.trace(model=self.name, event="end", id=id, sent=sent)

    def whole(self, request: Any) -> Any:
        try:
            ids = [id for group in self.generate(request, request.is_cancelled) for id in group]
        except Exception as error:
            return pb.InferenceResponse(error=pb.TritonError(str(error)))
        if not flag(request, "exclude_input_in_output"):
            ids = [*values(request, "input_ids"), *ids]
        return self.response(ids, request)

    def generate(self, request: Any, cancelled: Any) -> Any:
        prompt = [int(id) for id in values(request, "input_ids")]
        limit = int(values(request, "request_output_len")[0])
        given = {name: plain(values(request, name)) for name in GIVEN if values(request, name) is not None}
        text = self.tokens.decode(prompt, skip_special_tokens=False)
        script.trace(
            model=self.name,
            event="begin",
            id=request.request_id(),
            given=given,
            limit=limit,
            prompt=text,
            n=len(prompt),
        )
        assert int(values(request, "input_lengths")[0]) == len(prompt)
        wanted = script.find(text)
        script.fit(wanted, len(prompt), limit)
        return () if wanted.get("empty") else script.play(wanted, self.tokens, limit, cancelled)

    def response(self, ids: list[int], request: Any) -> Any:
        tensors = [
            pb.Tensor("output_ids", numpy.array([[ids]], numpy.int32)),
            pb.Tensor("sequence_length", numpy.array([[len(ids)]], numpy.int32)),
        ]
        if flag(request, "return_num_input_tokens"):
            tensors.append(
                pb.Tensor("num_input_tokens", numpy.array([[len(values(request, "input_ids"))]], numpy.int32))
            )
        if flag(request, "return_num_output_tokens"):
            tensors.append(pb.Tensor("num_output_tokens", numpy.array([[len(ids)]], numpy.int32)))
        return pb.InferenceResponse(tensors)


def end(sender: Any, error: Exception) -> None:
    """The error and the end in one response: with the end after it, this server crashes over HTTP."""
    failed = pb.InferenceResponse(error=pb.TritonError(str(error)))
    sender.send(failed, flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def values(request: Any, name: str) -> Any:
    tensor = pb.get_input_tensor_by_name(request, name)
    return None if tensor is None else tensor.as_numpy().reshape(-1)


def flag(request: Any, name: str) -> bool:
    found = values(request, name)
    return found is not None and bool(found[0])


def plain(array: Any) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value.item() for value in array]
