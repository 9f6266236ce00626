"""The evaluation service: `rlfr-eval lm` and `rlfr-eval vlm` as jobs that a trainer requests over HTTP."""
