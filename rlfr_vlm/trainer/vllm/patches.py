"""Patch TRL's vLLM generation where colocate and server mode differ from the policy.

1. vLLM bans the vision tokens that the policy bans.
2. On a CPU, weights are loaded by vLLM's `reload_weights`: its CPU build repacks weights, which TRL cannot load into.
3. If the vision tower trains, vLLM's cached image features are dropped with each new policy.
4. A server gets weights through a folder where NCCL cannot be (server_client.py).
5. Colocated vLLM gets prompts with one placeholder per image (plain_prompts.py), which it expands itself.
6. Images are sent at the trainer's size, because vLLM has other pixel limits.
7. Checks stop the run if prompts differ, or if vLLM does not receive the policy's first change.
8. LoRA adapters are merged into new tensors, so that no sync changes the base weights.

Private names of TRL 1.16.0 are in trl_seams.py; those of vLLM 0.31.0 are tested by tests/trainer/vllm/test_patches.py.
"""

import importlib.util
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import nn

from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of
from rlfr_vlm.models.image_tokens import ImageGrid
from rlfr_vlm.models.towers import find_vision_tower, unwrap
from rlfr_vlm.trainer.trl_seams import engine_stream, is_fsdp_engine, replace_engine_stream, server_clients
from rlfr_vlm.trainer.vllm.follow_check import follow_colocated, follow_server
from rlfr_vlm.trainer.vllm.lora_sync import merged_parameters
from rlfr_vlm.trainer.vllm.parity_checks import refuse_other_prompts
from rlfr_vlm.trainer.vllm.plain_prompts import PlainPrompts
from rlfr_vlm.trainer.vllm.reload import reload_weights

if TYPE_CHECKING:
    from PIL.Image import Image
    from trl.generation.vllm_generation import VLLMGeneration

    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

Generate: TypeAlias = Callable[..., tuple[list[list[int]], ...]]  # `VLLMGeneration.generate`; the prompts come first

# On a CPU vLLM needs these variables: in-process engine, KV cache size in GB.
CPU_ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1"}


def engine_for_run(args: "RLFRConfig") -> AbstractContextManager[None]:
    """Check that the run's engine can work here, and prepare it: TRL starts it, or connects to it, in the context.

    Raises:
        UserError: vLLM is not installed, or weights cannot be sent in the way that is asked for.
    """
    if not args.use_vllm:
        return nullcontext()
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            f"rollout is vllm-{args.vllm_mode}, but vLLM is not installed. Run `bash scripts/setup.sh --extras vllm`, "
            "or set rollout: hf."
        )
    if args.vllm_mode == "server":
        folder = weights_folder(args)
        from rlfr_vlm.trainer.vllm.server_client import PolicyServer

        return server_clients(partial(PolicyServer, weights_folder=folder))
    if not torch.cuda.is_available():
        for name, value in CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    return nullcontext()


def weights_folder(args: "RLFRConfig") -> Path | None:
    """Folder that holds the weights while a server loads them; None is NCCL.

    Raises:
        UserError: NCCL is asked for and cannot be.
    """
    has_cuda = torch.cuda.is_available()
    if args.server_weights == "nccl" and not has_cuda:
        raise UserError(
            "server_weights is nccl, but this process has no CUDA device, which vLLM's NCCL weight transfer needs. "
            "Set server_weights: folder."
        )
    if args.server_weights == "nccl" or (args.server_weights == "auto" and has_cuda):
        return None
    if args.server_weights_folder is None:
        return Path(args.output_dir) / "server_weights"
    return Path(args.server_weights_folder) / f"rlfr-weights-{os.getpid()}"  # replaced, so none of the user's own


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
            follow_colocated(generation)
    elif check and generation.accelerator.is_main_process:
        follow_server(generation, generation.vllm_client)
    grid = family.image_grid(processing_class) if tower is not None else None
    generation.generate = _with_own_prompts(generation.generate, plain if is_colocated else None, grid, check)


def _synchronising(generation: "VLLMGeneration", sync: Callable[[], None], drop_features: bool) -> Callable[[], None]:
    from vllm.platforms import current_platform

    def reload() -> None:
        runner = generation.llm.llm_engine.model_executor.driver_worker.model_runner
        reload_weights(runner, engine_stream(generation)())
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
