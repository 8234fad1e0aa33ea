"""Which tensors a model wants and what its answers mean: TensorRT-LLM's engine profile, in three forms, and llmapi.

The form is read from the model's metadata and configuration, never from its name: both profiles call their model
`tensorrt_llm`. Names and types are checked against the metadata before anything is sent, because HTTP's `generate`
takes a wrong name for a parameter and says nothing. An `ensemble` is served through its `tensorrt_llm` step (ids in,
ids out), where characters stay whole and cancelling works; `via=text` keeps its text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, assert_never

from dragoman.backends.triton.client import Config, Metadata, Questions, Tensor
from dragoman.translators.constraints.guided import regex_of
from dragoman.translators.errors import GatewayError, Kind, invalid
from dragoman.translators.ir import Format, Guided, JsonObject, JsonSchema, Note, Sampling

Form = Literal["tensorrt_llm", "ensemble", "tensorrt_llm_bls", "llmapi"]


@dataclass(frozen=True, slots=True)
class Profile:
    """`asked` is the model that gets the requests, `stopper` the one that ends them by a request with their id; where
    there is none, cancelling on the wire must do. `models` must all be ready. `guided`: decoding can be held to a JSON
    schema or a regular expression, with `grammars` also to EBNF (xgrammar can, llguidance cannot)."""

    form: Form
    asked: Metadata
    decoupled: bool
    cumulative: bool
    stopper: Metadata | None
    guided: bool
    models: tuple[str, ...]
    window: int | None = None
    adds_bos: bool = False
    grammars: bool = False

    @property
    def by_ids(self) -> bool:
        return self.form == "tensorrt_llm"

    @property
    def stoppable(self) -> bool:
        """Whether a client that leaves frees the GPU at once. Nothing stops a BLS model; an ensemble goes on
        until its engine is stopped by id; what does not stream cannot be stopped at all over gRPC."""
        return self.form != "tensorrt_llm_bls" and (self.form != "ensemble" or self.stopper is not None)


@dataclass(frozen=True, slots=True)
class PromptRequest:
    """One request as far as a profile needs it. `ends`: token ids that end an answer, the first is the model's own."""

    text: str
    ids: Sequence[int]
    max_tokens: int
    sampling: Sampling
    ends: Sequence[int] = ()
    format: Format | None = None
    logprobs: int | None = None


# ------------------------------------------------------------------------------------------------------------ detection


async def discover(client: Questions, model: str, *, via_text: bool) -> Profile:
    """Raises `GatewayError` UNSUPPORTED for a model with other tensors, and for a server that is no Triton."""
    try:
        return await _discovered(client, model, via_text)
    except (AttributeError, KeyError, TypeError, ValueError):  # whatever answers in JSON may listen there
        message = f"what the server says about the model {model} is not what a Triton server says"
        raise GatewayError(Kind.UNSUPPORTED, message, "backend", source="backend") from None


async def _discovered(client: Questions, model: str, via_text: bool) -> Profile:
    served, config = await client.describe(model)
    names = served.inputs.keys()
    decoupled = is_decoupled(config)
    if "sampling_param_max_tokens" in names:
        stopper = served if "stop" in names else None
        return Profile("llmapi", served, decoupled, True, stopper, False, (model,), _window(config), adds_bos=True)
    if {"input_ids", "request_output_len"} <= names:
        return _direct(served, config, (model,))
    if not {"text_input", "max_tokens"} <= names:
        message = f"the model {model} has the tensors of neither the engine profile nor the llmapi profile"
        raise GatewayError(Kind.UNSUPPORTED, message, "backend", source="backend")
    if config.get("platform") != "ensemble":
        cumulative = is_true(_parameter(config, "accumulate_tokens"))
        guided = await _guided(client, _parameter(config, "tensorrt_llm_model_name") or "tensorrt_llm", served)
        adds_bos = _adds_bos(await _config_of(client, "preprocessing") or {})  # the name is fixed in its code
        return Profile(
            "tensorrt_llm_bls", served, decoupled, cumulative, None, guided, (model,), _window(config), adds_bos
        )
    return await _ensemble(client, served, config, via_text)


async def _ensemble(client: Questions, served: Metadata, config: Config, via_text: bool) -> Profile:
    scheduling = config.get("ensemble_scheduling") or {}
    steps = [str(step["model_name"]) for step in scheduling.get("step", ()) if step.get("model_name")]
    engine: tuple[Metadata, Config] | None = None
    adds_bos = True
    for step in steps:
        described, step_config = await client.describe(step)
        if {"input_ids", "request_output_len"} <= described.inputs.keys():
            engine = (described, step_config)
        elif "QUERY" in described.inputs:
            adds_bos = _adds_bos(step_config)
    if engine is not None and not via_text:
        return _direct(*engine, (served.name, engine[0].name))
    # An ensemble is decoupled when its engine is; its own configuration says so only in newer versions.
    decoupled = is_decoupled(engine[1]) if engine is not None else is_decoupled(config)
    stopper = engine[0] if engine is not None and "stop" in engine[0].inputs else None
    guided = _guide_inputs(served) and (engine is None or _has_guide_backend(engine[1]))
    grammars = guided and engine is not None and _reads_ebnf(engine[1])
    return Profile(
        "ensemble", served, decoupled, False, stopper, guided, (served.name, *steps), None, adds_bos, grammars
    )


def _direct(served: Metadata, config: Config, models: tuple[str, ...]) -> Profile:
    stopper = served if "stop" in served.inputs else None
    guided = _guide_inputs(served) and _has_guide_backend(config)
    grammars, window = guided and _reads_ebnf(config), _window(config)
    decoupled = is_decoupled(config)
    return Profile("tensorrt_llm", served, decoupled, False, stopper, guided, models, window, grammars=grammars)


async def _guided(client: Questions, engine: str, served: Metadata) -> bool:
    if not _guide_inputs(served):
        return False
    config = await _config_of(client, engine)
    return config is None or _has_guide_backend(config)


async def _config_of(client: Questions, model: str) -> Config | None:
    """None where there is no such model."""
    try:
        return (await client.describe(model))[1]
    except GatewayError as error:
        if error.kind is not Kind.MODEL_NOT_FOUND:
            raise
        return None


def _adds_bos(preprocessing: Config) -> bool:
    return not is_false(_parameter(preprocessing, "add_special_tokens"))


def _guide_inputs(served: Metadata) -> bool:
    return {"guided_decoding_guide_type", "guided_decoding_guide"} <= served.inputs.keys()


def _has_guide_backend(config: Config) -> bool:
    """Without it the C++ engine decodes unconstrained and says nothing."""
    return bool(_parameter(config, "guided_decoding_backend"))


def _reads_ebnf(config: Config) -> bool:
    """The engine refuses a grammar where its backend is llguidance."""
    return _parameter(config, "guided_decoding_backend") == "xgrammar"


def is_decoupled(config: Config) -> bool:
    return bool((config.get("model_transaction_policy") or {}).get("decoupled"))


def _parameter(config: Config, name: str) -> str:
    """Empty also for a template's placeholder that was not filled in, which counts as not given."""
    value = (config.get("parameters") or {}).get(name)
    text = str(value.get("string_value", "")).strip() if isinstance(value, Mapping) else ""
    return "" if text.startswith("${") else text


def is_true(text: str) -> bool:
    return text.lower() in ("true", "yes", "1", "t")


def is_false(text: str) -> bool:
    return text.lower() in ("false", "no", "0", "f")


def _window(config: Config) -> int | None:
    for name in ("max_seq_len", "max_sequence_length", "context_window"):
        if (value := _parameter(config, name)).isdigit() and int(value) > 0:
            return int(value)
    return None


# -------------------------------------------------------------------------------------------------------------- inputs

_ENGINE_SAMPLING: dict[str, tuple[str, ...]] = {
    "temperature": ("temperature",),
    "repetition_penalty": ("repetition_penalty",),
    "presence_penalty": ("presence_penalty",),
    "frequency_penalty": ("frequency_penalty",),
    "min_tokens": ("min_tokens", "min_length"),  # the second name is the older one
    "seed": ("seed", "random_seed"),
}
_SAMPLING: Mapping[Form, Mapping[str, tuple[str, ...]]] = {
    "tensorrt_llm": _ENGINE_SAMPLING | {"top_k": ("runtime_top_k",), "top_p": ("runtime_top_p",)},
    "ensemble": _ENGINE_SAMPLING | {"top_k": ("top_k",), "top_p": ("top_p",)},
    "tensorrt_llm_bls": _ENGINE_SAMPLING | {"top_k": ("top_k",), "top_p": ("top_p",)},
    "llmapi": {
        name: (f"sampling_param_{name}",)
        for name in ("temperature", "top_k", "top_p", "presence_penalty", "frequency_penalty", "seed")
    },
}
# Fields that no profile takes from a request; `stop` and `include_stop_str_in_output` are handled by the gateway.
_NEVER = ("min_p", "ignore_eos", "skip_special_tokens", "logit_bias")


def encode(profile: Profile, ask: PromptRequest) -> tuple[dict[str, Tensor], list[Note]]:
    """The tensors of a request, and what of it the model cannot take."""
    known = profile.asked.inputs
    inputs = {name: tensor for name, tensor in _required(profile, ask) if name in known}
    notes: list[Note] = []
    sampling = _effective(ask.sampling, engine=profile.form != "llmapi")
    names = _SAMPLING[profile.form]
    for field in ("temperature", "top_p", "top_k", *_ENGINE_SAMPLING):
        value = sampling[field]
        if value is None or field in inputs:
            continue
        name = next((name for name in names.get(field, ()) if name in known), None)
        if name is None:
            notes.append(Note("field", field))
        else:
            inputs[name] = Tensor([fitted(value, known[name], field)])
    notes += [Note("field", field) for field in _NEVER if getattr(ask.sampling, field) is not None]
    if ask.logprobs is not None:
        notes.append(Note("field", "logprobs"))
    return inputs, list(dict.fromkeys(notes))


def _effective(sampling: Sampling, *, engine: bool) -> dict[str, Any]:
    """As the client means it. The engine takes no temperature of zero, and decodes greedily whatever the temperature
    is as long as neither top_k nor top_p is set."""
    found = {name: getattr(sampling, name) for name in ("temperature", "top_p", "top_k", *_ENGINE_SAMPLING)}
    if sampling.temperature == 0 and engine:
        return found | {"temperature": None, "top_p": None, "top_k": 1}
    if sampling.temperature is not None and sampling.top_p is None and sampling.top_k is None and engine:
        found["top_p"] = 1.0
    if sampling.seed is not None:
        found["seed"] = sampling.seed % 2**64
    return found


def _required(profile: Profile, ask: PromptRequest) -> Iterator[tuple[str, Tensor]]:
    """What is always sent, where the model knows the name."""
    match profile.form:
        case "tensorrt_llm":
            yield from _by_ids(profile, ask)
        case "llmapi":
            yield from _by_llmapi(profile, ask)
        case "ensemble" | "tensorrt_llm_bls":
            yield "text_input", Tensor([ask.text])
            yield "max_tokens", Tensor([ask.max_tokens])
            yield "stream", Tensor([profile.decoupled])
            # Older versions require both. The stop words are a hint: cutting is done here.
            yield "stop_words", Tensor(list(ask.sampling.stop or ("",)))
            yield "bad_words", Tensor([""])
    if profile.form != "llmapi":
        yield "exclude_input_in_output", Tensor([True])
        yield "return_num_input_tokens", Tensor([True])
        yield "return_num_output_tokens", Tensor([True])
        if ask.format is not None and profile.guided:
            yield from _guide(ask.format)


def _guide(wanted: Format) -> Iterator[tuple[str, Tensor]]:
    match wanted:
        case JsonObject():
            kind, guide = "json", None
        case JsonSchema():
            kind, guide = "json_schema", json.dumps(wanted.schema, ensure_ascii=False, default=dict)
        case Guided(kind="grammar"):
            kind, guide = "ebnf_grammar", str(wanted.rule)
        case Guided():
            kind, guide = "regex", regex_of(wanted)
        case _:
            assert_never(wanted)
    yield "guided_decoding_guide_type", Tensor([kind])
    if guide is not None:
        yield "guided_decoding_guide", Tensor([guide])


def _by_ids(profile: Profile, ask: PromptRequest) -> Iterator[tuple[str, Tensor]]:
    yield "input_ids", Tensor(list(ask.ids))
    yield "input_lengths", Tensor([len(ask.ids)])
    yield "request_output_len", Tensor([ask.max_tokens])
    yield "streaming", Tensor([profile.decoupled])
    if ask.ends:
        # This step has no tokenizer: without an end token it would go on until the limit.
        yield "end_id", Tensor([ask.ends[0]])
        yield "pad_id", Tensor([ask.ends[0]])
    if more := list(ask.ends[1:]):
        # two rows: the ids one word after another, and where each word ends
        yield "stop_words_list", Tensor([*more, *range(1, len(more) + 1)], (2, len(more)))


def _by_llmapi(profile: Profile, ask: PromptRequest) -> Iterator[tuple[str, Tensor]]:
    yield "text_input", Tensor([ask.text])
    yield "streaming", Tensor([profile.decoupled])
    yield "sampling_param_max_tokens", Tensor([ask.max_tokens])
    yield "sampling_param_exclude_input_from_output", Tensor([True])
    yield "return_finish_reason", Tensor([True])
    yield "return_stop_reason", Tensor([True])
    if ask.sampling.stop and not ask.sampling.include_stop_str_in_output:
        yield "sampling_param_stop", Tensor(list(ask.sampling.stop))


_RANGES = {"INT32": (-(2**31), 2**31 - 1), "INT64": (-(2**63), 2**63 - 1), "UINT32": (0, 2**32 - 1)}
_RANGES["UINT64"] = (0, 2**64 - 1)


def fitted(value: Any, kind: str, field: str) -> Any:
    """As the type on the wire; HTTP would take a number that is too large and cut it, or fail with a 500."""
    if kind in ("FP32", "FP64", "FP16"):
        if not math.isfinite(value):
            raise invalid(f"{field} must be a finite number.", field)
        return float(value)
    if kind in _RANGES:
        low, high = _RANGES[kind]
        if value != int(value) or not low <= value <= high:
            raise invalid(f"{field} must be an integer from {low} to {high}.", field)
        return int(value)
    return value


def stop_inputs(stopper: Metadata) -> dict[str, Tensor]:
    """A request that ends the one with the same id. It is answered by an error or by nothing."""
    wanted = {
        "stop": Tensor([True]),
        "text_input": Tensor([""]),
        "input_ids": Tensor([1]),
        "input_lengths": Tensor([1]),
        "request_output_len": Tensor([0]),
        "streaming": Tensor([True]),
    }
    if "input_ids" in stopper.inputs:
        wanted.pop("text_input")
    return {name: tensor for name, tensor in wanted.items() if name in stopper.inputs}


def wanted_outputs(profile: Profile) -> list[str]:
    wanted = ("text_output", "output_ids", "sequence_length", "finish_reason", "stop_reason")
    return [name for name in (*wanted, "num_input_tokens", "num_output_tokens") if name in profile.asked.outputs]
