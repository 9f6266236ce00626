"""Accuracy of a policy on a set of rows, greedy or sampled, with its interval."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rlfr_vlm.data.encode import encode_prompts, tokenizer_of
from rlfr_vlm.stats import wilson_interval

Reward = Callable[..., list[float | None]]


@dataclass
class Accuracy:
    """Right answers among the judged ones; undecided answers are counted apart, never scored."""

    right: int
    wrong: int
    undecided: int

    @property
    def n(self) -> int:
        return self.right + self.wrong

    def to_dict(self) -> dict[str, Any]:
        return {
            "acc": self.right / self.n if self.n else math.nan,
            "n": self.n,
            "undecided": self.undecided,
            "ci95": list(wilson_interval(self.right, self.n)),
        }


@torch.no_grad()
def generate(
    policy: Any, processing_class: Any, rows: Sequence[dict[str, Any]], *, sampled: bool, max_new_tokens: int
) -> list[list[int]]:
    """Token ids of one response per row, up to and including the end token."""
    batch = encode_prompts(processing_class, rows).to(policy.device)
    output = policy.generate(
        **batch.model_inputs(),
        do_sample=sampled,
        temperature=1.0 if sampled else None,
        top_k=0 if sampled else None,
        top_p=1.0 if sampled else None,
        max_new_tokens=max_new_tokens,
    )
    end = tokenizer_of(processing_class).eos_token_id
    responses = []
    for ids in output[:, batch.input_ids.shape[1] :].tolist():
        responses.append(ids[: ids.index(end) + 1] if end in ids else ids)
    return responses


def evaluate_policy(
    policy: Any,
    processing_class: Any,
    dataset: Sequence[dict[str, Any]],
    reward: Reward,
    *,
    sampled: bool,
    seed: int = 0,
    batch_size: int = 256,
    max_new_tokens: int = 32,
) -> Accuracy:
    """Generate one response per row and judge it with the reward's own grader.

    A policy in training mode is put back into it afterwards. Sampling is at temperature 1 from the full vocabulary.
    """
    training = policy.training
    policy.eval()
    judged: list[float | None] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(dataset), batch_size):
            rows = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
            ids = generate(policy, processing_class, rows, sampled=sampled, max_new_tokens=max_new_tokens)
            texts = tokenizer_of(processing_class).batch_decode(ids, skip_special_tokens=True)
            judged += reward(completions=texts, answer=[row["answer"] for row in rows])
    policy.train(training)
    right = sum(value == 1.0 for value in judged)
    undecided = sum(value is None for value in judged)
    return Accuracy(right, len(judged) - right - undecided, undecided)
