"""Post-training of vision-language models with GRPO and flow rewards."""

__version__ = "0.1.0"
