"""Kinds of evaluation: text benchmarks, and VLMEvalKit's multimodal benchmarks."""
