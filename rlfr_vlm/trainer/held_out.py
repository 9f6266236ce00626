"""Accuracy on held-out rows during training: greedy and sampled, with the trainer's own prompts, engine and grader.

With rollout hf, sampling is seeded and leaves the run's random state as it was, so a run with evaluations trains as
one without; vLLM's own random state goes on.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from trl.data_utils import prepare_multimodal_messages

from rlfr_vlm.rewards import ReferenceProbability, build_rewards
from rlfr_vlm.stats import wilson_interval

MODES = ("greedy", "sampled")


def evaluate_held_out(trainer: Any, dataset: Any, prefix: str = "eval") -> dict[str, float]:
    """Accuracy of the policy, in all processes together.

    Args:
        trainer: an `RLFRTrainer`.
        dataset: rows as the trainer takes them.
        prefix: of the metrics' names.

    Returns:
        For each mode `<prefix>_<mode>` (accuracy among decided answers), `_low` and `_high` of its 95 % Wilson
        interval and `_undecided` (share); `<prefix>_rows`. An accuracy of nothing decided is NaN.
    """
    training, per_prompt = trainer.model.training, trainer.num_generations_eval
    trainer.model.eval()
    trainer.num_generations_eval = 1  # a server is asked once for so many equal prompts; here all are different
    metrics: dict[str, float] = {f"{prefix}_rows": float(len(dataset))}
    try:
        for mode in MODES:
            with _sampling(trainer, greedy=mode == "greedy"):
                right, wrong, undecided = _judge(trainer, dataset)
            low, high = wilson_interval(right, right + wrong) if right + wrong else (math.nan, math.nan)
            metrics |= {
                f"{prefix}_{mode}": right / (right + wrong) if right + wrong else math.nan,
                f"{prefix}_{mode}_low": low,
                f"{prefix}_{mode}_high": high,
                f"{prefix}_{mode}_undecided": undecided / max(len(dataset), 1),
            }
        trainer._metrics["eval"].clear()  # what TRL has noted of these rollouts
        trainer.log(dict(metrics))  # still in evaluation: the training metrics wait for their own step
    finally:
        trainer.model.train(training)
        trainer.num_generations_eval = per_prompt
    return metrics


def describe_evaluation(metrics: Mapping[str, float], prefix: str = "eval") -> str:
    """Held-out accuracy in one line; undecided answers are counted apart."""
    parts = []
    for mode in MODES:
        value, low, high, undecided = (metrics[f"{prefix}_{mode}{end}"] for end in ("", "_low", "_high", "_undecided"))
        shown = "nothing decided" if math.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
        parts.append(f"{mode} {shown}" + (f", {undecided:.1%} undecided" if undecided else ""))
    return f"held-out accuracy (n = {metrics[f'{prefix}_rows']:.0f}): {'; '.join(parts)}"


def _judge(trainer: Any, dataset: Any) -> tuple[int, int, int]:
    """Right, wrong and undecided answers. All processes generate equally often; repeated rows do not count."""
    accelerator, size = trainer.accelerator, trainer.args.per_device_eval_batch_size
    share = math.ceil(len(dataset) / accelerator.num_processes)
    start = accelerator.process_index * share
    right = wrong = undecided = 0
    for first in range(0, share, size):
        places = range(first, min(first + size, share))
        rows = dataset.__getitems__([min(start + place, len(dataset) - 1) for place in places])
        outcome = _outcome(trainer, rows)
        counts = torch.tensor([rank * share + place < len(dataset) for rank in range(accelerator.num_processes)
                               for place in places], device=outcome.device)  # fmt: skip
        decided = counts & ~outcome.isnan()
        right += int((decided & (outcome > trainer.args.flow_accept_threshold)).sum())
        wrong += int((decided & (outcome <= trainer.args.flow_accept_threshold)).sum())
        undecided += int((counts & outcome.isnan()).sum())
    return right, wrong, undecided


def _outcome(trainer: Any, rows: Sequence[dict[str, Any]]) -> torch.Tensor:
    """The outcome of one response to each row, of all processes in their order; NaN where undecided.

    That is the run's first reward; where it is the reference probability, which judges nothing, it is the grader's.
    """
    prompts = [prepare_multimodal_messages(row["prompt"], images=row.get("images") or []) if trainer._is_vlm
               else row["prompt"] for row in rows]  # fmt: skip
    _, completion_ids, _, completions, *_ = trainer._generate(prompts)
    if isinstance(trainer.reward_funcs[0], ReferenceProbability):
        [grade] = build_rewards(["accuracy"], trainer.args, trainer.args.max_completion_length or 0)
        columns = {name: [row.get(name) for row in rows] for name in rows[0]}
        scores = grade(completions=completions, completion_ids=completion_ids, **columns)
        local = [math.nan if score is None else score for score in scores]
        return trainer.accelerator.gather(torch.tensor(local, device=trainer.accelerator.device))
    trainer._rollout_logps = None
    return trainer._calculate_rewards(list(rows), prompts, completions, completion_ids)[:, 0]


@contextmanager
def _sampling(trainer: Any, greedy: bool) -> Iterator[None]:
    """Decode greedily, or sample at the run's temperature."""
    if trainer.use_vllm:
        generation = trainer.vllm_generation
        temperature = generation.temperature
        if greedy:
            generation.temperature = 0.0
        try:
            yield
        finally:
            generation.temperature = temperature
        return
    kept_config = trainer.generation_config
    if greedy:
        trainer.generation_config = type(kept_config)(**(kept_config.to_diff_dict() | {"do_sample": False}))
    cuda = [trainer.accelerator.device] if trainer.accelerator.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(trainer.args.seed + trainer.accelerator.process_index)
            yield
    finally:
        trainer.generation_config = kept_config
