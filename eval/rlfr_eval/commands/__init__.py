"""One command of `rlfr-eval` per file."""
