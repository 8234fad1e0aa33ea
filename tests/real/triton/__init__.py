"""A real Triton server on the CPU, and stand-in models with the true tensors of TensorRT-LLM's two profiles."""
