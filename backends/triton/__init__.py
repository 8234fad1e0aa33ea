"""Triton Inference Server with TensorRT-LLM, over gRPC and HTTP: the engine profile (`ensemble`, `tensorrt_llm_bls`,
`tensorrt_llm`) and the llmapi profile.

`client` is the wire, `profiles` which model wants which tensors, `output` and `answer` what comes back, `backend` the
whole.
"""
