"""Which profile a model has by its metadata and configuration, and what is sent to it; without a server."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dragoman.backends.triton.client import Config, Metadata, Tensor, metadata, wire_shape
from dragoman.backends.triton.profiles import Profile, PromptRequest, discover, encode, fitted, stop_inputs
from dragoman.translators.errors import GatewayError, Kind
from dragoman.translators.ir import JsonObject, JsonSchema, Note, Sampling

ENGINE = {
    "input_ids": "INT32",
    "input_lengths": "INT32",
    "request_output_len": "INT32",
    "end_id": "INT32",
    "pad_id": "INT32",
    "stop_words_list": "INT32",
    "temperature": "FP32",
    "runtime_top_k": "INT32",
    "runtime_top_p": "FP32",
    "seed": "UINT64",
    "min_tokens": "INT32",
    "streaming": "BOOL",
    "stop": "BOOL",
    "exclude_input_in_output": "BOOL",
    "guided_decoding_guide_type": "BYTES",
    "guided_decoding_guide": "BYTES",
}
OLDER = {
    "text_input": "BYTES",
    "max_tokens": "INT32",
    "stop_words": "BYTES",
    "bad_words": "BYTES",
    "stream": "BOOL",
    "random_seed": "UINT64",
    "min_length": "INT32",
    "top_p": "FP32",
    "temperature": "FP32",
}
LLMAPI = {"text_input": "BYTES", "sampling_param_max_tokens": "INT32", "sampling_param_stop": "BYTES", "stop": "BOOL"}
DECOUPLED = {"model_transaction_policy": {"decoupled": True}, "max_batch_size": 8}


def told(**parameters: str) -> dict[str, Any]:
    return {"parameters": {name: {"string_value": value} for name, value in parameters.items()}}


class Server:
    """Describes models, and does nothing else."""

    def __init__(self, **models: tuple[dict[str, str], Config]) -> None:
        self._models = models

    async def describe(self, model: str) -> tuple[Metadata, Config]:
        if model not in self._models:
            raise GatewayError(Kind.MODEL_NOT_FOUND, "no such model")
        inputs, config = self._models[model]
        return metadata(model, inputs, {}, config), config


async def found(model: str, via_text: bool = False, **models: tuple[dict[str, str], Config]) -> Profile:
    server: Any = Server(**models)
    return await discover(server, model, via_text=via_text)


@pytest.mark.parametrize(
    "config",
    [
        {"parameters": [1]},
        {"parameters": "none"},
        {"model_transaction_policy": "decoupled"},
        {"platform": "ensemble", "ensemble_scheduling": [1]},
        {"platform": "ensemble", "ensemble_scheduling": {"step": ["m"]}},
    ],
)
async def test_a_configuration_of_another_shape_is_no_tritons(config: Config) -> None:
    with pytest.raises(GatewayError, match="not what a Triton server says"):
        await found("m", m=(OLDER, config))


def steps(*names: str) -> dict[str, Any]:
    return {"platform": "ensemble", "ensemble_scheduling": {"step": [{"model_name": name} for name in names]}}


GUIDE = told(guided_decoding_backend="xgrammar")


async def test_an_ensemble_is_served_through_the_step_that_takes_ids() -> None:
    models: dict[str, Any] = {
        "mine": (OLDER, steps("before", "engine", "after")),
        "before": ({"QUERY": "BYTES"}, {}),
        "engine": (ENGINE, {**DECOUPLED, **GUIDE}),
        "after": ({"TOKENS_BATCH": "INT32"}, {}),
    }
    profile = await found("mine", **models)
    assert (profile.form, profile.asked.name, profile.decoupled) == ("tensorrt_llm", "engine", True)
    assert set(profile.models) == {"mine", "engine"}
    assert profile.stopper is not None
    by_text = await found("mine", via_text=True, **models)
    assert (by_text.form, by_text.asked.name, by_text.decoupled) == ("ensemble", "mine", True)
    assert by_text.stopper is not None
    assert by_text.stopper.name == "engine"  # an ensemble has no input to stop it


async def test_an_ensemble_around_another_engine_keeps_its_text() -> None:
    profile = await found("mine", mine=(OLDER, {**steps("other"), **DECOUPLED}), other=({"x": "FP32"}, {}))
    assert (profile.form, profile.stopper, profile.stoppable) == ("ensemble", None, False)


@pytest.mark.parametrize("value", ["true", "1", "Yes", "t", "false", "0", ""])
async def test_a_bls_model_accumulates_where_its_configuration_says_so(value: str) -> None:
    profile = await found("bls", bls=(OLDER, {**DECOUPLED, **told(accumulate_tokens=value)}))
    assert (profile.form, profile.stoppable) == ("tensorrt_llm_bls", False)
    assert profile.cumulative is (value in ("true", "1", "Yes", "t"))


@pytest.mark.parametrize(("value", "adds"), [("False", False), ("true", True), ("${add_special_tokens}", True)])
async def test_whether_a_second_bos_comes_is_in_the_configuration_of_the_preprocessing(value: str, adds: bool) -> None:
    before: Any = ({"QUERY": "BYTES"}, told(add_special_tokens=value))
    ensemble = await found("e", via_text=True, e=(OLDER, steps("preprocessing")), preprocessing=before)
    assert ensemble.adds_bos is adds
    assert (await found("bls", bls=(OLDER, DECOUPLED), preprocessing=before)).adds_bos is adds
    assert (await found("bls", bls=(OLDER, DECOUPLED))).adds_bos


async def test_a_bls_model_whose_engine_s_name_is_not_filled_in_has_the_usual_one() -> None:
    inputs = {**OLDER, "guided_decoding_guide_type": "BYTES", "guided_decoding_guide": "BYTES"}
    bls: Any = (inputs, {**DECOUPLED, **told(tensorrt_llm_model_name="${tensorrt_llm_model_name}")})
    assert not (await found("bls", bls=bls, tensorrt_llm=(ENGINE, DECOUPLED))).guided
    assert (await found("bls", bls=bls, tensorrt_llm=(ENGINE, {**DECOUPLED, **GUIDE}))).guided


async def test_both_profiles_call_their_model_the_same() -> None:
    old = await found("tensorrt_llm", tensorrt_llm=(ENGINE, DECOUPLED))
    new = await found("tensorrt_llm", tensorrt_llm=(LLMAPI, {}))
    assert (old.form, new.form) == ("tensorrt_llm", "llmapi")
    assert (new.decoupled, new.cumulative, new.guided) == (False, True, False)


@pytest.mark.parametrize("value", ["", "${guided_decoding_backend}"])
async def test_an_engine_without_a_grammar_backend_constrains_nothing(value: str) -> None:
    profile = await found("e", e=(ENGINE, {**DECOUPLED, **told(guided_decoding_backend=value)}))
    assert not profile.guided
    assert (await found("e", e=(ENGINE, {**DECOUPLED, **GUIDE}))).guided


@pytest.mark.parametrize(("value", "grammars"), [("xgrammar", True), ("llguidance", False), ("", False)])
async def test_grammars_are_for_engines_that_read_them(value: str, grammars: bool) -> None:
    profile = await found("e", e=(ENGINE, {**DECOUPLED, **told(guided_decoding_backend=value)}))
    assert profile.grammars is grammars


async def test_a_window_in_the_configuration_is_taken() -> None:
    assert (await found("e", e=(ENGINE, told(max_seq_len="8192")))).window == 8192
    assert (await found("e", e=(ENGINE, told(max_seq_len="${max_seq_len}")))).window is None


async def test_other_models_are_refused() -> None:
    with pytest.raises(GatewayError) as caught:
        await found("resnet", resnet=({"image": "FP32"}, {}))
    assert caught.value.kind is Kind.UNSUPPORTED


# -------------------------------------------------------------------------------------------------------------- sending


def profile(form: Any, inputs: dict[str, str], **more: Any) -> Profile:
    asked = Metadata("m", inputs, {}, batched=True)
    given: dict[str, Any] = {
        "decoupled": True,
        "cumulative": False,
        "stopper": asked,
        "guided": False,
        "models": ("m",),
    } | more
    return Profile(form, asked, **given)


def sent(target: Profile, **fields: Any) -> dict[str, Any]:
    ask = PromptRequest("prompt", [5, 6, 7], 9, fields.pop("sampling", Sampling()), **fields)
    return {name: list(tensor.values) for name, tensor in encode(target, ask)[0].items()}


def test_the_engine_gets_the_end_ids() -> None:
    inputs = sent(profile("tensorrt_llm", ENGINE), ends=[2, 3, 4])
    assert inputs["end_id"] == inputs["pad_id"] == [2]
    assert inputs["stop_words_list"] == [3, 4, 1, 2]
    assert inputs["input_ids"] == [5, 6, 7]
    assert inputs["input_lengths"] == [3]
    assert inputs["exclude_input_in_output"] == [True]
    assert "return_num_output_tokens" not in inputs  # this model does not know it


def test_older_names_are_used_where_the_model_has_them() -> None:
    inputs = sent(profile("ensemble", OLDER), sampling=Sampling(seed=7, min_tokens=3, stop=("a", "b")))
    assert (inputs["random_seed"], inputs["min_length"]) == ([7], [3])
    assert inputs["stop_words"] == ["a", "b"]
    assert inputs["bad_words"] == [""]
    assert "seed" not in inputs


def test_a_temperature_samples() -> None:
    """Neither top_k nor top_p set means greedy decoding to the engine, whatever the temperature."""
    assert sent(profile("tensorrt_llm", ENGINE), sampling=Sampling(temperature=0.5))["runtime_top_p"] == [1.0]
    assert "runtime_top_p" not in sent(profile("tensorrt_llm", ENGINE))
    greedy = sent(profile("tensorrt_llm", ENGINE), sampling=Sampling(temperature=0, top_p=0.9))
    assert greedy["runtime_top_k"] == [1]
    assert not {"temperature", "runtime_top_p"} & greedy.keys()


def test_what_the_model_cannot_take_is_said() -> None:
    sampling = Sampling(repetition_penalty=1.1, min_p=0.1, logit_bias={"1": 2.0}, min_tokens=3)
    _, notes = encode(profile("llmapi", LLMAPI), PromptRequest("p", [1], 9, sampling, logprobs=3))
    names = {"repetition_penalty", "min_p", "logit_bias", "min_tokens", "logprobs"}
    assert set(notes) == {Note("field", name) for name in names}


def test_constraints_are_sent_where_they_hold() -> None:
    guided = profile("tensorrt_llm", ENGINE, guided=True)
    assert sent(guided, format=JsonObject())["guided_decoding_guide_type"] == ["json"]
    inputs = sent(guided, format=JsonSchema("n", {"type": "object"}))
    assert inputs["guided_decoding_guide_type"] == ["json_schema"]
    assert inputs["guided_decoding_guide"] == ['{"type": "object"}']
    assert "guided_decoding_guide_type" not in sent(profile("tensorrt_llm", ENGINE), format=JsonObject())


@pytest.mark.parametrize(
    ("value", "kind"),
    [(2**31, "INT32"), (-1, "UINT64"), (2.5, "INT32"), (math.inf, "FP32"), (math.nan, "FP32"), (2**64, "UINT64")],
)
def test_what_does_not_fit_its_type_is_the_client_s_error(value: Any, kind: str) -> None:
    """HTTP would cut a large number in silence and answer 500 to a fraction."""
    with pytest.raises(GatewayError) as caught:
        fitted(value, kind, "top_k")
    assert (caught.value.kind, caught.value.param) == (Kind.INVALID, "top_k")


def test_numbers_become_what_the_type_wants() -> None:
    assert fitted(1, "FP32", "temperature") == 1.0
    assert isinstance(fitted(1, "FP32", "temperature"), float)
    assert fitted(3.0, "INT32", "top_k") == 3


def test_shapes_have_a_batch_only_where_the_model_batches() -> None:
    assert wire_shape(Tensor([1, 2, 3]), True) == [1, 3]
    assert wire_shape(Tensor([1, 2, 3]), False) == [3]
    assert wire_shape(Tensor([1, 2, 1, 2], (2, 2)), True) == [1, 2, 2]


def test_a_stop_request_holds_what_the_model_requires() -> None:
    assert stop_inputs(Metadata("m", ENGINE, {}, True)).keys() == {
        *("stop", "input_ids", "input_lengths", "request_output_len", "streaming")
    }
    assert stop_inputs(Metadata("m", LLMAPI, {}, False)).keys() == {"stop", "text_input"}
