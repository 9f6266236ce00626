"""The commands of `rlfr-eval`, one per file."""
