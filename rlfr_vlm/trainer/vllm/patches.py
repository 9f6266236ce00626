"""Rollouts on vLLM: what TRL's colocate and server modes need beside it.

1. The engine bans the vision tokens that the policy bans.
2. On a CPU, weights go through vLLM's own reloading: its CPU build packs weights away, and TRL's way finds none.
3. When the vision tower trains, features that the engine kept of images are dropped with each new policy.
4. A colocated engine gets prompts that are not expanded yet, so that it does not expand them twice.
5. It gets images in the trainer's size: it knows nothing of the trainer's pixel limits.
6. Prompts must be the same on both sides, and the engine must follow the policy's first change.
7. LoRA adapters are added in tensors of their own, so that no sync wears the base weights.

Private names of TRL 1.16.0 and vLLM 0.31.0 used here stand under tests/trainer/vllm/test_patches.py.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from rlfr_vlm.data.encode import tokenizer_of
from rlfr_vlm.data.lengths import ImageGrid, image_grid
from rlfr_vlm.data.prompts import VISION_TOKENS
from rlfr_vlm.errors import UserError
from rlfr_vlm.models.latents import unwrap
from rlfr_vlm.models.vision import find_vision_tower
from rlfr_vlm.trainer.lora import merged_parameters
from rlfr_vlm.trainer.vllm.follow_check import FollowCheck
from rlfr_vlm.trainer.vllm.parity_checks import refuse_other_prompts, single_placeholders

# On a CPU vLLM wants to be told: no process of its own, and a cache of so many GB.
CPU_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}


def prepare_engine(mode: str, freeze_vision: bool) -> None:
    """Before TRL starts or reaches vLLM: can it work here, and what must its environment say?

    Raises:
        UserError: vLLM is not installed, or the mode cannot work here.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"rollout is vllm-{mode}, but vLLM is not installed. Run `bash scripts/setup.sh --extras vllm`, or set "
            "rollout: hf."
        )
    if mode == "server":
        if not torch.cuda.is_available():
            raise UserError(
                "rollout is vllm-server, but this process has no CUDA device: TRL sends weights to a server through "
                "vLLM's NCCL weight-transfer engine, which needs one. Set rollout: vllm-colocate or hf."
            )
        if not freeze_vision:
            raise UserError(
                "freeze_vision is false and rollout vllm-server: a server keeps features of images that the trained "
                "vision tower would see otherwise, and cannot be told to drop them. Set rollout: vllm-colocate, or "
                "freeze_vision: true."
            )
    elif not torch.cuda.is_available():
        for name, value in CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def guard_engine(generation: Any, policy: Any, processing_class: Any, *, ban: bool, check: bool) -> None:
    """Make TRL's `VLLMGeneration` do what the policy does.

    Args:
        generation: the trainer's, after TRL has started or reached the engine.
        policy: the model whose weights it gets.
        processing_class: knows which vision tokens there are and how large images may be.
        ban: never sample vision tokens.
        check: compare prompts with what the engine made of them, and see that it follows the policy.
    """
    tower = find_vision_tower(policy)
    if ban and tower is not None:
        vocabulary = tokenizer_of(processing_class).get_vocab()
        banned = [token for token in VISION_TOKENS if token in vocabulary]
        # as words, not as a bias: vLLM bounds a bias at 100 nats, and a policy may prefer a token by more
        generation.generation_kwargs = {**generation.generation_kwargs, "bad_words": banned}
    if hasattr(generation.model, "peft_config"):
        if generation._dist.is_fsdp:
            raise UserError(
                "LoRA with vLLM under FSDP is not supported: TRL merges adapters into the sharded base weights there "
                "and wears them. Use zero2 or ddp, or set rollout: hf."
            )
        generation._iter_named_params = partial(merged_parameters, generation)
    colocated = generation.mode == "colocate"
    if colocated:
        sees = tower is not None and any(weight.requires_grad for weight in tower.parameters())
        generation.sync_weights = _syncing(generation, generation.sync_weights, drop_features=sees)
        if check:
            FollowCheck(generation)
    grid = image_grid(processing_class) if tower is not None else None
    image_token_id = getattr(unwrap(policy).config, "image_token_id", None) if colocated else None
    generation.generate = _giving_prompts(generation.generate, image_token_id, grid, check)


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


def _giving_prompts(
    generate: Callable[..., Any], image_token_id: int | None, grid: ImageGrid | None, check: bool
) -> Callable[..., Any]:
    def give(prompts: list[list[int]], images: list[Any] | None, *args: Any, **kwargs: Any) -> Any:
        given = prompts
        if images is not None:
            if image_token_id is not None:
                given = [single_placeholders(ids, image_token_id) for ids in prompts]
            if grid is not None:
                images = [own and [grid.resized(image) for image in own] for own in images]
        result = generate(given, images, *args, **kwargs)
        if check:
            refuse_other_prompts(prompts, result[0])
        return result

    return give
