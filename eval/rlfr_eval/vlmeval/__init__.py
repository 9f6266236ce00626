"""VLMEvalKit's multimodal benchmarks: its data, prompts and scoring, our client, store, judge and statistics."""
