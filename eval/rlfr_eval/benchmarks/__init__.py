"""Benchmark descriptions, prompt presets, problems and data files, for text and multimodal sets."""
