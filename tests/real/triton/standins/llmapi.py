"""`tensorrt_llm` of the llmapi profile: text in, the whole text so far out, with a finish reason."""

from __future__ import annotations

import importlib
import json
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy
import triton_python_backend_utils as pb

script: Any = importlib.import_module("script")  # beside it once it is copied


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
        if value(request, "stop"):
            script.trace(model=self.name, event="stop", id=id)
            self.running.get(id, threading.Event()).set()
            error = pb.TritonError("Request cancelled by client")
            sender.send(pb.InferenceResponse(error=error), flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return
        self.running[id] = stopped = threading.Event()
        try:
            for text, reason, stop in self.generate(request, lambda: stopped.is_set() or request.is_cancelled()):
                sender.send(response(text, reason, stop, request))
        except script.Cancelled:
            script.trace(model=self.name, event="cancelled", id=id)
        except Exception as error:
            sender.send(failure(error), flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            sender = None
        finally:
            del self.running[id]
            if sender is not None:
                sender.send(flags=pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            script.trace(model=self.name, event="end", id=id)

    def whole(self, request: Any) -> Any:
        if value(request, "streaming"):
            return pb.InferenceResponse(error=pb.TritonError("Streaming is only supported in decoupled mode."))
        try:
            said = [("", "stop", "None"), *self.generate(request, request.is_cancelled)]
            return response(*said[-1], request)
        except Exception as error:
            return failure(error)

    def generate(self, request: Any, cancelled: Any) -> Iterator[tuple[str, str, str]]:
        """The text so far, finish reason and stop reason, with Python's "None" for those that are not known yet."""
        prompt = value(request, "text_input").decode()
        limit = int(value(request, "sampling_param_max_tokens") or 16)
        stops = [word.decode() for word in values(request, "sampling_param_stop")]
        temperature = value(request, "sampling_param_temperature")
        script.trace(
            model=self.name,
            event="begin",
            id=request.request_id(),
            limit=limit,
            prompt=prompt,
            given={"stop": stops},
            temperature=None if temperature is None else float(temperature),
        )
        wanted = script.find(prompt)
        script.fit(wanted, len(self.tokens.encode(prompt).ids), limit)
        if wanted.get("empty"):
            return
        if "ask" in wanted:
            yield from self.asked(wanted["ask"], prompt, limit)
            return
        ids: list[int] = []
        for group in script.play(wanted, self.tokens, limit, cancelled):
            ids += group
            text = self.tokens.decode(ids, skip_special_tokens=True)
            text = text.rstrip("\ufffd")
            for stop in stops:
                if (at := text.find(stop)) >= 0:
                    yield text[:at], "stop", stop
                    return
            yield text, "None", "None"
        yield self.tokens.decode(ids, skip_special_tokens=True), "length" if len(ids) >= limit else "stop", "None"

    def asked(self, url: str, prompt: str, limit: int) -> Iterator[tuple[str, str, str]]:
        """The small local model's text."""
        asked = script.SCRIPT.sub("", prompt)
        body = json.dumps({"prompt": asked, "n_predict": limit, "stream": True, "temperature": 0}).encode()
        call = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        text = ""
        with urllib.request.urlopen(call, timeout=60) as lines:
            for line in lines:
                if line.startswith(b"data: {"):
                    text += json.loads(line[6:])["content"]
                    yield text, "None", "None"
        yield text, "stop", "None"


def response(text: str, reason: str, stop: str, request: Any) -> Any:
    told = {"text_output": text}
    if value(request, "return_finish_reason"):
        told["finish_reason"] = reason
    if value(request, "return_stop_reason"):
        told["stop_reason"] = stop
    return pb.InferenceResponse([pb.Tensor(k, numpy.array([v.encode()], numpy.object_)) for k, v in told.items()])


def failure(error: Exception) -> Any:
    text = pb.Tensor("text_output", numpy.array([b"N/A"], numpy.object_))
    return pb.InferenceResponse([text], error=pb.TritonError(f"Error generating request: {error}"))


def values(request: Any, name: str) -> Any:
    tensor = pb.get_input_tensor_by_name(request, name)
    return [] if tensor is None else tensor.as_numpy().reshape(-1)


def value(request: Any, name: str) -> Any:
    found = values(request, name)
    return found[0] if len(found) else None
