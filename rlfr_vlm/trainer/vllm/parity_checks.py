"""Check that trainer and vLLM agree on prompts, image tokens and log-probs.

Letters: B responses, T response tokens.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError
from rlfr_vlm.models import ModelFamily
from rlfr_vlm.trainer.trl_seams import Batch, response_mask

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass


def single_placeholders(token_ids: list[int], image_token_id: int) -> list[int]:
    """A prompt with one placeholder per image, which vLLM expands itself.

    TRL 1.16 passes prompts that the processor has expanded already, and vLLM 0.31 expands the first placeholder of
    each image again: an image of n tokens silently becomes one of 2n - 1 tokens.

    >>> single_placeholders([1, 7, 7, 7, 2, 7, 7, 3], 7)
    [1, 7, 2, 7, 3]
    """
    return [
        token
        for index, token in enumerate(token_ids)
        if token != image_token_id or index == 0 or token_ids[index - 1] != image_token_id
    ]


def refuse_other_prompts(trainer_prompts: Sequence[Sequence[int]], vllm_prompts: Sequence[Sequence[int]]) -> None:
    """Stop if vLLM got other prompts than the trainer will compute log-probs for.

    Raises:
        UserError: names the first prompt that differs, and its first token that differs.
    """
    for number, (trainer_ids, vllm_ids) in enumerate(zip(trainer_prompts, vllm_prompts, strict=True)):
        if list(trainer_ids) == list(vllm_ids):
            continue
        differing = (i for i, (a, b) in enumerate(zip(trainer_ids, vllm_ids, strict=False)) if a != b)
        first = next(differing, min(len(trainer_ids), len(vllm_ids)))
        raise UserError(
            f"Prompt {number} has {len(trainer_ids)} tokens in the trainer and {len(vllm_ids)} in vLLM, and differs "
            f"from token {first} on: they would see different prompts. Set rollout: hf, and report this with the "
            "policy's name."
        )


def check_image_tokens(
    batch: Batch, family: ModelFamily, image_token_id: int | None, processing_class: "ProcessingClass"
) -> None:
    """Check that each row has as many image tokens as its images need.

    Args:
        batch: of a rollout: prompt_ids (B, P), the family's image keys, and num_images, a count for each row.
        family: counts the image tokens of an image.
        image_token_id: token id of image positions.
        processing_class: gives the sizes of patches.

    Raises:
        UserError: a row has more or fewer; the next forward pass would fail, or use features of another row.
    """
    if batch.get("num_images") is None or all(batch.get(key) is None for key in family.image_keys):
        return
    counts = family.row_image_tokens(batch, processing_class)
    if counts is None:
        return
    tokens = sum((batch[key] == image_token_id).sum(dim=1) for key in ("prompt_ids", "completion_ids")).tolist()
    for row, (expected, found) in enumerate(zip(counts, tokens, strict=True)):
        if expected != found:
            raise UserError(
                f"Row {row} of the first rollout has {found} image tokens for {expected} merged patches of its "
                f"{int(batch['num_images'][row])} image(s). Its prompt was built or cut wrongly; see it with "
                "`rlfr preview`."
            )


def gap_rows(batch: Batch) -> Tensor | None:
    """`logp_gaps` of a rollout, between vLLM's log-probs and the trainer's; None where one of them is missing."""
    if "sampling_per_token_logps" not in batch or "old_per_token_logps" not in batch:
        return None
    return logp_gaps(batch["sampling_per_token_logps"], batch["old_per_token_logps"], response_mask(batch))


def logp_gaps(vllm_logps: Tensor, trainer_logps: Tensor, mask: Tensor) -> Tensor:
    """(B, 4): sum and count of absolute log-prob differences, the largest one, and the log weight of each response.

    Args:
        vllm_logps, trainer_logps, mask: (B, T). Tokens that vLLM could not score (NaN) do not count.
    """
    scored = mask.bool() & ~vllm_logps.isnan()
    difference = torch.where(scored, trainer_logps - vllm_logps, 0.0)
    return torch.stack(
        [difference.abs().sum(1), scored.sum(1), difference.abs().amax(1), difference.sum(1)], dim=1
    ).float()


def gap_metrics(rows: Tensor) -> dict[str, float]:
    """Mean and largest difference, and the effective share of responses when weighted to the trainer's policy.

    With weights w = exp(trainer - vLLM) of whole responses the share is (sum w)^2 / (n sum w^2): 1 if both are the
    same policy.

    Args:
        rows: `logp_gaps` of all ranks.
    """
    weights = (rows[:, 3] - rows[:, 3].max()).exp()
    return {
        "rollout/logp_gap_mean": (rows[:, 0].sum() / rows[:, 1].sum().clamp(min=1)).item(),
        "rollout/logp_gap_max": rows[:, 2].max().item(),
        "rollout/effective_share": (weights.sum() ** 2 / (len(weights) * (weights**2).sum())).item(),
    }


def refuse_gap(metrics: dict[str, float], limit: float) -> None:
    """Stop if vLLM and trainer are no longer the same policy.

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
