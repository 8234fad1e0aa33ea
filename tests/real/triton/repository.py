"""The model repository: `config.pbtxt` files with the tensors of TensorRT-LLM's two profiles, around the stand-ins.

Names, types, dimensions and which inputs are optional are those of the profiles' own configurations; inputs for
images, prompt tuning, adapters and draft models are left out, as nothing here sends them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

BLS_INSTANCES = 4  # one may hang for ever, which is what this server makes of an engine error
STANDINS = Path(__file__).with_name("standins")
ONE = (1,)
ANY = (-1,)
Tensors = dict[str, tuple[str, tuple[int, ...]]]

_SAMPLING: Tensors = {
    "temperature": ("FP32", ONE),
    "repetition_penalty": ("FP32", ONE),
    "presence_penalty": ("FP32", ONE),
    "frequency_penalty": ("FP32", ONE),
    "min_tokens": ("INT32", ONE),
    "seed": ("UINT64", ONE),
    "end_id": ("INT32", ONE),
    "pad_id": ("INT32", ONE),
    "beam_width": ("INT32", ONE),
    "return_log_probs": ("BOOL", ONE),
    "return_num_input_tokens": ("BOOL", ONE),
    "return_num_output_tokens": ("BOOL", ONE),
    "exclude_input_in_output": ("BOOL", ONE),
    "guided_decoding_guide_type": ("STRING", ONE),
    "guided_decoding_guide": ("STRING", ONE),
}
_COUNTS: Tensors = {"num_input_tokens": ("INT32", ONE), "num_output_tokens": ("INT32", ONE)}
_TEXT: Tensors = _SAMPLING | {
    "bad_words": ("STRING", ANY),
    "stop_words": ("STRING", ANY),
    "top_k": ("INT32", ONE),
    "top_p": ("FP32", ONE),
    "length_penalty": ("FP32", ONE),
    "stream": ("BOOL", ONE),
}
_TEXT_REQUIRED: Tensors = {"text_input": ("STRING", ONE), "max_tokens": ("INT32", ONE)}
_TEXT_OUT: Tensors = {"text_output": ("STRING", ANY)} | _COUNTS
_IDS: Tensors = _SAMPLING | {
    "input_ids": ("INT32", ANY),
    "stop_words_list": ("INT32", (2, -1)),
    "bad_words_list": ("INT32", (2, -1)),
    "runtime_top_k": ("INT32", ONE),
    "runtime_top_p": ("FP32", ONE),
    "len_penalty": ("FP32", ONE),
    "stop": ("BOOL", ONE),
    "streaming": ("BOOL", ONE),
}
_IDS_REQUIRED: Tensors = {"input_lengths": ("INT32", ONE), "request_output_len": ("INT32", ONE)}
_IDS_OUT: Tensors = {"output_ids": ("INT32", (-1, -1)), "sequence_length": ("INT32", ANY)} | _COUNTS
_LLMAPI: Tensors = {
    "image_url": ("STRING", ANY),
    "streaming": ("BOOL", ONE),
    "sampling_param_best_of": ("INT32", ONE),
    "sampling_param_temperature": ("FP32", ONE),
    "sampling_param_top_k": ("INT32", ONE),
    "sampling_param_top_p": ("FP32", ONE),
    "sampling_param_frequency_penalty": ("FP32", ONE),
    "sampling_param_presence_penalty": ("FP32", ONE),
    "sampling_param_max_tokens": ("INT32", ONE),
    "sampling_param_stop": ("STRING", ANY),
    "sampling_param_seed": ("UINT64", ONE),
    "sampling_param_exclude_input_from_output": ("BOOL", ONE),
    "sampling_param_return_perf_metrics": ("BOOL", ONE),
    "return_finish_reason": ("BOOL", ONE),
    "return_stop_reason": ("BOOL", ONE),
    "return_cumulative_logprob": ("BOOL", ONE),
    "stop": ("BOOL", ONE),
    "lora_id": ("UINT64", ONE),
    "lora_name": ("STRING", ONE),
    "lora_path": ("STRING", ONE),
}
_LLMAPI_OUT: Tensors = {
    "text_output": ("STRING", ANY),
    "finish_reason": ("STRING", ANY),
    "stop_reason": ("STRING", ANY),
}


def write(folder: Path) -> None:
    """Every stand-in model of the tests."""
    engine = {"guided_decoding_backend": "xgrammar"}
    _python(folder, "tensorrt_llm", "engine", 16, True, _IDS_REQUIRED, _IDS, _IDS_OUT, engine)
    _python(folder, "tensorrt_llm_whole", "engine", 16, False, _IDS_REQUIRED, _IDS, _IDS_OUT, engine)
    before: Tensors = {"QUERY": ("STRING", ONE), "REQUEST_OUTPUT_LEN": ("INT32", ONE)}
    before_optional: Tensors = {"STOP_WORDS_DICT": ("STRING", ANY), "BAD_WORDS_DICT": ("STRING", ANY)}
    before_out: Tensors = {
        "INPUT_ID": ("INT32", ANY),
        "REQUEST_INPUT_LEN": ("INT32", ONE),
        "REQUEST_OUTPUT_LEN": ("INT32", ONE),
        "STOP_WORDS_IDS": ("INT32", (2, -1)),
    }
    told = {"add_special_tokens": "true"}
    _python(folder, "preprocessing", "preprocessing", 16, False, before, before_optional, before_out, told)
    after: Tensors = {"TOKENS_BATCH": ("INT32", (-1, -1)), "SEQUENCE_LENGTH": ("INT32", ANY)}
    told = {"skip_special_tokens": "false"}
    _python(folder, "postprocessing", "postprocessing", 16, False, after, {}, {"OUTPUT": ("STRING", ANY)}, told)
    for name, accumulate in (("tensorrt_llm_bls", "false"), ("tensorrt_llm_bls_whole_text", "true")):
        told = {"accumulate_tokens": accumulate, "tensorrt_llm_model_name": "tensorrt_llm"}
        _python(folder, name, "bls", 16, True, _TEXT_REQUIRED, _TEXT, _TEXT_OUT, told)
    _ensemble(folder)
    required: Tensors = {"text_input": ("STRING", ANY)}
    for name, decoupled in (("llmapi", True), ("llmapi_whole", False)):
        _python(folder, name, "llmapi", 0, decoupled, required, _LLMAPI, _LLMAPI_OUT, {})


def _python(
    folder: Path,
    name: str,
    standin: str,
    batch: int,
    decoupled: bool,
    required: Tensors,
    optional: Tensors,
    outputs: Tensors,
    parameters: Mapping[str, str],
) -> None:
    lines = _head(name, batch, required, optional, outputs)
    lines.append('backend: "python"')
    lines.append(f"model_transaction_policy {{ decoupled: {str(decoupled).lower()} }}")
    lines += [f'parameters {{ key: "{k}" value: {{ string_value: "{v}" }} }}' for k, v in parameters.items()]
    if standin == "bls":
        lines.append(f"instance_group [ {{ count: {BLS_INSTANCES} kind: KIND_CPU }} ]")
    version = _place(folder, name, lines)
    shutil.copyfile(STANDINS / f"{standin}.py", version / "model.py")
    shutil.copyfile(STANDINS / "script.py", version / "script.py")


def _ensemble(folder: Path) -> None:
    lines = _head("ensemble", 16, _TEXT_REQUIRED, _TEXT, _TEXT_OUT)
    lines.append('platform: "ensemble"')
    engine = {name: name for name in _SAMPLING} | {
        "input_ids": "_INPUT_ID",
        "input_lengths": "_REQUEST_INPUT_LEN",
        "request_output_len": "_REQUEST_OUTPUT_LEN",
        "stop_words_list": "_STOP_WORDS_IDS",
        "runtime_top_k": "top_k",
        "runtime_top_p": "top_p",
        "len_penalty": "length_penalty",
        "streaming": "stream",
    }
    steps = [
        _step(
            "preprocessing",
            {
                "QUERY": "text_input",
                "REQUEST_OUTPUT_LEN": "max_tokens",
                "STOP_WORDS_DICT": "stop_words",
                "BAD_WORDS_DICT": "bad_words",
            },
            {
                "INPUT_ID": "_INPUT_ID",
                "REQUEST_INPUT_LEN": "_REQUEST_INPUT_LEN",
                "REQUEST_OUTPUT_LEN": "_REQUEST_OUTPUT_LEN",
                "STOP_WORDS_IDS": "_STOP_WORDS_IDS",
            },
        ),
        _step(
            "tensorrt_llm",
            engine,
            {"output_ids": "_TOKENS", "sequence_length": "_LENGTH"} | {name: name for name in _COUNTS},
        ),
        _step("postprocessing", {"TOKENS_BATCH": "_TOKENS", "SEQUENCE_LENGTH": "_LENGTH"}, {"OUTPUT": "text_output"}),
    ]
    lines.append(f"ensemble_scheduling {{ step [ {', '.join(steps)} ] }}")
    _place(folder, "ensemble", lines)


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    maps = [f'input_map {{ key: "{k}" value: "{v}" }}' for k, v in inputs.items()]
    maps += [f'output_map {{ key: "{k}" value: "{v}" }}' for k, v in outputs.items()]
    return f'{{ model_name: "{model}" model_version: -1 {" ".join(maps)} }}'


def _head(name: str, batch: int, required: Tensors, optional: Tensors, outputs: Tensors) -> list[str]:
    lines = [f'name: "{name}"', f"max_batch_size: {batch}"]
    lines += [_tensor("input", item, *required[item]) for item in required]
    lines += [_tensor("input", item, *optional[item], "optional: true") for item in optional]
    lines += [_tensor("output", item, *outputs[item]) for item in outputs]
    return lines


def _tensor(side: str, name: str, kind: str, dims: Sequence[int], more: str = "") -> str:
    return f'{side} {{ name: "{name}" data_type: TYPE_{kind} dims: [ {", ".join(map(str, dims))} ] {more} }}'


def _place(folder: Path, name: str, lines: Sequence[str]) -> Path:
    version = folder / name / "1"
    version.mkdir(parents=True)
    (folder / name / "config.pbtxt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return version
