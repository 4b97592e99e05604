"""CUDA 13 for FloatLLM: the backend of ggml in this folder, which floatllm finds by its entry point."""
