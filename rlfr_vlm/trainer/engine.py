"""Rollouts on vLLM in the trainer's own process: what TRL's colocate mode needs beside it.

1. The engine bans the vision tokens that the policy bans.
2. On a CPU, weights go through vLLM's own reloading: its CPU build packs weights away, and TRL's way finds none.
3. When the vision tower trains, features that the engine kept of images are dropped with each new policy.
4. The engine gets prompts that are not expanded yet, so that it does not expand them twice.
5. The first prompts must be the same on both sides, and the log-probs of every rollout nearly so.

Private names of TRL 1.16.0 and vLLM 0.31.0 used here stand under tests/trainer/test_engine.py.
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlfr_vlm.data.prompts import VISION_TOKENS
from rlfr_vlm.errors import UserError
from rlfr_vlm.latents import unwrap
from rlfr_vlm.vision import find_vision_tower

# On a CPU vLLM wants to be told: no process of its own, and a cache of so many GB.
CPU_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}


def prepare_engine() -> None:
    """Before TRL starts vLLM: is it there, and what must its environment say?

    Raises:
        UserError: vLLM is not installed.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "rollout is vllm-colocate, but vLLM is not installed. Run `bash scripts/setup.sh --extras vllm`, or set "
            "rollout: hf."
        )
    if not torch.cuda.is_available():
        for name, value in CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def guard_engine(generation: Any, policy: Any, tokenizer: Any, *, ban: bool, check_prompts: bool) -> None:
    """Make TRL's `VLLMGeneration` do what the policy does.

    Args:
        generation: the trainer's, after TRL has started the engine.
        policy: the model whose weights it gets.
        tokenizer: knows which vision tokens there are.
        ban: never sample vision tokens.
        check_prompts: compare the first prompts with what the engine made of them.
    """
    tower = find_vision_tower(policy)
    if ban and tower is not None:
        vocabulary = tokenizer.get_vocab()
        banned = [token for token in VISION_TOKENS if token in vocabulary]
        # as words, not as a bias: vLLM bounds a bias at 100 nats, and a policy may prefer a token by more
        generation.generation_kwargs = {**generation.generation_kwargs, "bad_words": banned}
    sees = tower is not None and any(weight.requires_grad for weight in tower.parameters())
    generation.sync_weights = _syncing(generation, generation.sync_weights, drop_features=sees)
    image_token_id = getattr(unwrap(policy).config, "image_token_id", None)
    generation.generate = _giving_prompts(generation.generate, image_token_id, check_prompts)


def _syncing(generation: Any, sync: Callable[[], None], drop_features: bool) -> Callable[[], None]:
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.platforms import current_platform

    def reload() -> None:
        runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
        runner.reload_weights(weights_iterator=generation._iter_named_params())
        for module in runner.get_model().modules():  # a head that is tied to the embedding keeps its old packed copy
            if isinstance(module, ParallelLMHead):
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)
        generation.llm.reset_prefix_cache()

    reloads = current_platform.is_cpu()

    def synchronise() -> None:
        (reload if reloads else sync)()
        # reloading empties the worker's cache of image features, which the scheduler must be told
        if drop_features or reloads:
            generation.llm.reset_mm_cache()
            generation.llm.llm_engine.reset_encoder_cache()

    return synchronise


def _giving_prompts(generate: Callable[..., Any], image_token_id: int | None, check: bool) -> Callable[..., Any]:
    checked = not check

    def give(prompts: list[list[int]], images: list[Any] | None, *args: Any, **kwargs: Any) -> Any:
        nonlocal checked
        given = prompts
        if images is not None and image_token_id is not None:
            given = [single_placeholders(ids, image_token_id) for ids in prompts]
        result = generate(given, images, *args, **kwargs)
        if not checked:
            refuse_other_prompts(prompts, result[0])
            checked = True
        return result

    return give


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
