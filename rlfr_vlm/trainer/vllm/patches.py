"""Patch TRL's vLLM generation where colocate and server mode differ from the policy.

1. vLLM bans the vision tokens that the policy bans.
2. On a CPU, weights are loaded by vLLM's `reload_weights`: its CPU build repacks weights, which TRL cannot load into.
3. If the vision tower trains, vLLM's cached image features are dropped with each new policy.
4. Colocated vLLM gets prompts with one placeholder per image (plain_prompts.py), which it expands itself.
5. Images are sent at the trainer's size, because vLLM has other pixel limits.
6. Checks stop the run if prompts differ, or if vLLM does not receive the policy's first change.
7. LoRA adapters are merged into new tensors, so that no sync changes the base weights.

Private names of TRL 1.16.0 are in trl_seams.py; those of vLLM 0.31.0 are tested by tests/trainer/vllm/test_patches.py.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of
from rlfr_vlm.models.image_tokens import ImageGrid
from rlfr_vlm.models.towers import find_vision_tower, unwrap
from rlfr_vlm.trainer.trl_seams import engine_stream, is_fsdp_engine, replace_engine_stream
from rlfr_vlm.trainer.vllm.follow_check import FollowCheck
from rlfr_vlm.trainer.vllm.lora_sync import merged_parameters
from rlfr_vlm.trainer.vllm.parity_checks import refuse_other_prompts
from rlfr_vlm.trainer.vllm.plain_prompts import PlainPrompts

if TYPE_CHECKING:
    from PIL.Image import Image
    from trl.generation.vllm_generation import VLLMGeneration

    from rlfr_vlm.data.encode import ProcessingClass

Generate: TypeAlias = Callable[..., tuple[list[list[int]], ...]]  # `VLLMGeneration.generate`; the prompts come first

# On a CPU vLLM needs these variables: in-process engine, KV cache size in GB.
CPU_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}


def prepare_engine(mode: str, freeze_vision: bool) -> None:
    """Check that vLLM can work here and set its environment variables, before TRL starts it or connects to it.

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
                "vision tower would encode differently, and has no call that drops them. Set rollout: vllm-colocate, "
                "or freeze_vision: true."
            )
    elif not torch.cuda.is_available():
        for name, value in CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)


def patch_engine(
    generation: "VLLMGeneration",
    policy: nn.Module,
    processing_class: "ProcessingClass",
    *,
    ban: bool,
    check: bool,
    plain: PlainPrompts,
) -> None:
    """Make TRL's `VLLMGeneration` agree with the policy.

    Args:
        generation: of the trainer, after TRL has started vLLM or connected to it.
        policy: the model whose weights vLLM gets.
        processing_class: gives vision tokens and pixel limits.
        ban: never sample vision tokens.
        check: compare prompts with vLLM's, and check that vLLM receives the policy's first change.
        plain: makes the prompts that colocated vLLM gets.

    Raises:
        UserError: LoRA under FSDP.
    """
    family, tower = family_of(policy), find_vision_tower(policy)
    if ban and tower is not None:
        # bad_words, not logit_bias: vLLM clips the bias at +-100, which a policy can exceed
        banned = family.vision_token_texts(unwrap(policy).config, processing_class)
        generation.generation_kwargs = {**generation.generation_kwargs, "bad_words": banned}
    if hasattr(generation.model, "peft_config"):
        if is_fsdp_engine(generation):
            raise UserError(
                "LoRA with vLLM under FSDP is not supported: TRL merges adapters into the sharded base weights there "
                "and rounds them at each sync. Use zero2 or ddp, or set rollout: hf."
            )
        replace_engine_stream(generation, partial(merged_parameters, generation))
    is_colocated = generation.mode == "colocate"
    if is_colocated:
        trains_tower = tower is not None and any(weight.requires_grad for weight in tower.parameters())
        generation.sync_weights = _synchronising(generation, generation.sync_weights, drop_features=trains_tower)
        if check:
            FollowCheck(generation)
    grid = family.image_grid(processing_class) if tower is not None else None
    generation.generate = _with_own_prompts(generation.generate, plain if is_colocated else None, grid, check)


def _synchronising(generation: "VLLMGeneration", sync: Callable[[], None], drop_features: bool) -> Callable[[], None]:
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.platforms import current_platform

    def reload() -> None:
        runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
        runner.reload_weights(weights_iterator=engine_stream(generation)())
        for module in runner.get_model().modules():  # a head tied to the embedding keeps its packed copy
            if isinstance(module, ParallelLMHead):
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)
        generation.llm.reset_prefix_cache()

    reloads = current_platform.is_cpu()

    def synchronise() -> None:
        (reload if reloads else sync)()
        # reloading empties the worker's cache of image features; the scheduler's own record must be reset too
        if drop_features or reloads:
            generation.llm.reset_mm_cache()
            generation.llm.llm_engine.reset_encoder_cache()

    return synchronise


def _with_own_prompts(generate: Generate, plain: PlainPrompts | None, grid: ImageGrid | None, check: bool) -> Generate:
    def generate_checked(
        prompts: list[list[int]], images: "list[list[Image] | None] | None", *args: object, **kwargs: object
    ) -> tuple[list[list[int]], ...]:
        vllm_prompts = prompts
        if images is not None:
            if plain is not None:
                vllm_prompts = plain.plain(prompts)
            if grid is not None:
                images = [row and [grid.resized(image) for image in row] for row in images]
        result = generate(vllm_prompts, images, *args, **kwargs)
        if check:
            refuse_other_prompts(prompts, result[0])
        return result

    return generate_checked
