"""Multimodal benchmarks through VLMEvalKit: its data, prompts and scoring, in a separate process."""
