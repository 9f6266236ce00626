"""Tokens and keys: set or not. No part of a value leaves this file."""

import os

from rlfr_vlm.doctor.checks import Check, ok, warn

KEYS = {
    "HF_TOKEN": "private or gated models and data",
    "WANDB_API_KEY": "--report_to wandb",
    "OPENAI_API_KEY": "a judge at OpenAI",
    "JUDGE_API_KEY": "a judge behind JUDGE_BASE_URL",
    "RLFR_EVAL_API_KEY": "rlfr-eval --base-url",
}


def check_keys() -> list[Check]:
    """One line for each key; one that is not set is fine until something asks for it."""
    return [_check_key(name, use) for name, use in KEYS.items()]


def _check_key(name: str, use: str) -> Check:
    value = os.environ.get(name)
    if value is None:
        return ok(name, f"not set; needed for {use}")
    if not value.strip():
        return warn(name, "set, but empty", f"unset it, or give it the key for {use}")
    if value != value.strip():
        return warn(name, "set, with blanks or line ends around it", "set it again without them; servers refuse it so")
    return ok(name, "set")
