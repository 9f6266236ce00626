"""What must be the same in the trainer and in the engine that generates: prompts, image tokens, log-probs.

Letters: B responses, T response tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError


def single_placeholders(token_ids: list[int], image_token_id: int) -> list[int]:
    """A prompt with one placeholder per image, which vLLM expands itself.

    TRL 1.16 gives vLLM prompts that the processor has expanded already, and vLLM 0.31 expands the first placeholder
    of each image again: an image of n tokens becomes one of 2n - 1 in the engine, without a word.

    >>> single_placeholders([1, 7, 7, 7, 2, 7, 7, 3], 7)
    [1, 7, 2, 7, 3]
    """
    return [token for place, token in enumerate(token_ids)
            if token != image_token_id or place == 0 or token_ids[place - 1] != image_token_id]  # fmt: skip


def refuse_other_prompts(trainers: Sequence[Sequence[int]], engines: Sequence[Sequence[int]]) -> None:
    """Stop when the engine saw other prompts than the trainer will compute log-probs for.

    Raises:
        UserError: which prompt differs, and from where on.
    """
    for number, (ours, its) in enumerate(zip(trainers, engines, strict=True)):
        if list(ours) == list(its):
            continue
        differing = (i for i, (a, b) in enumerate(zip(ours, its, strict=False)) if a != b)
        place = next(differing, min(len(ours), len(its)))
        raise UserError(
            f"Prompt {number} has {len(ours)} tokens in the trainer and {len(its)} in vLLM, and differs from token "
            f"{place} on: they would see different prompts. Set rollout: hf, and report this with the policy's name."
        )


def check_image_tokens(batch: dict[str, Any], image_token_id: int, merge_size: int) -> None:
    """Each row must have as many image tokens as its images have merged patches.

    Args:
        batch: of a rollout: prompt_ids (B, P), image_grid_thw (images, 3) and num_images, a count for each row.

    Raises:
        UserError: a row has more or fewer; the next forward pass would fail, or take features of another row.
    """
    if batch.get("image_grid_thw") is None or batch.get("num_images") is None:
        return
    patches = (batch["image_grid_thw"].prod(dim=1) // merge_size**2).tolist()
    found = (batch["prompt_ids"] == image_token_id).sum(dim=1).tolist()
    start = 0
    for row, count in enumerate(int(number) for number in batch["num_images"]):
        expected = sum(patches[start : start + count])
        if expected != found[row]:
            raise UserError(
                f"Row {row} of the first rollout has {found[row]} image tokens for {expected} merged patches of its "
                f"{count} image(s). Its prompt was built or cut wrongly; see it with `rlfr preview`."
            )
        start += count


def gap_rows(engine_logps: Tensor, trainer_logps: Tensor, mask: Tensor) -> Tensor:
    """(B, 4): sum and count of absolute log-prob differences, the largest one, and the log weight, of each response.

    Args:
        engine_logps, trainer_logps, mask: (B, T). Tokens that the engine could not score (NaN) do not count.
    """
    known = mask.bool() & ~engine_logps.isnan()
    difference = torch.where(known, trainer_logps - engine_logps, 0.0)
    return torch.stack(
        [difference.abs().sum(1), known.sum(1), difference.abs().amax(1), difference.sum(1)], dim=1
    ).float()


def gap_metrics(rows: Tensor) -> dict[str, float]:
    """Mean and largest difference, and the effective share of responses when weighted to the trainer's policy.

    With weights w = exp(trainer - engine) of whole responses the share is (sum w)^2 / (n sum w^2): 1 when both are
    the same policy.

    Args:
        rows: `gap_rows` of all processes.
    """
    weights = (rows[:, 3] - rows[:, 3].max()).exp()
    return {
        "rollout/logp_gap_mean": (rows[:, 0].sum() / rows[:, 1].sum().clamp(min=1)).item(),
        "rollout/logp_gap_max": rows[:, 2].max().item(),
        "rollout/effective_share": (weights.sum() ** 2 / (len(weights) * (weights**2).sum())).item(),
    }


def refuse_gap(metrics: dict[str, float], limit: float) -> None:
    """Stop when engine and trainer are no longer the same policy.

    Raises:
        UserError: the mean difference is above the limit, or not a number.
    """
    gap = metrics["rollout/logp_gap_mean"]
    if not gap <= limit:
        raise UserError(
            f"vLLM's log-probs differ from the trainer's by {gap:.3f} on average, more than rollout_gap_limit "
            f"({limit:g}): the responses are not this policy's. Compare with rollout: hf; if the difference is only "
            "the engine's precision, raise the limit."
        )
