"""Read, convert and check data sets, build prompts, and encode them as tensors."""
