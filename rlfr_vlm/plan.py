"""Estimate the memory of each GPU by part for a training configuration.

Letters: P parameters of the policy, D hidden width, S positions of a row.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rlfr_vlm.flow import FlowSpec, build_field
from rlfr_vlm.flow.path import UPDATE_TOKENS
from rlfr_vlm.models import family_of
from rlfr_vlm.models.towers import find_language_tower, unwrap

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

FLOAT32, BFLOAT16 = 4, 2
ADAM_MOMENTS = 2
HEAD_TENSORS = 3  # tensors of one tile's size alive at once when TRL applies the LM head in tiles (its torch path)
ADAPTER = ".lora_"  # part of the names of PEFT's adapter weights
# Bytes of a weight in NF4: 4 bits, an 8-bit constant for 64 weights, a float32 for 256 constants (arXiv 2305.14314).
FOUR_BITS = 0.5 + 1 / 64 + 4 / (64 * 256)
SHARDING = ("none", "zero1", "zero2", "zero3", "fsdp2")


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one GPU by part."""

    weights: float
    gradients: float
    optimiser: float
    flow: float
    activations: float
    lm_head: float
    engine: float = 0.0

    @property
    def total(self) -> float:
        return sum(vars(self).values())


@dataclass(frozen=True)
class MemorySettings:
    """Settings that determine the memory of a run.

    Attributes:
        processes: number of processes that share sharded tensors.
        sharding: one of `SHARDING`.
        weight_bytes: bytes of one stored weight; 4 for float32.
        bf16: compute in bfloat16, by autocast or by DeepSpeed.
        checkpointing: gradient checkpointing.
        rows: rows of one micro-batch.
        positions: S, positions of a row.
        response: response tokens among the positions.
        flow: spec of the flow field, or None.
        flow_repeats: noise copies of each token in the field's update.
        engine: bytes that vLLM holds during an update.
        four_bits: the linear layers of the decoder blocks are stored in 4 bits, under adapters (QLoRA).
    """

    processes: int = 1
    sharding: str = "none"
    weight_bytes: int = FLOAT32
    bf16: bool = False
    checkpointing: bool = True
    rows: int = 1
    positions: int = 1024
    response: int = 512
    flow: FlowSpec | None = None
    flow_repeats: int = 1
    engine: float = 0.0
    four_bits: bool = False


def estimate_memory(policy: nn.Module, settings: MemorySettings) -> MemoryEstimate:
    """Estimate the bytes of an update by part. The policy may be on the meta device.

    Gradients and optimiser states follow the weights with `requires_grad`. Activations are measured: a block runs on
    the meta device, and the sizes of the tensors that autograd saves are added up.
    """
    count = sum(parameter.numel() for parameter in policy.parameters())
    trained = sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)
    share, deepspeed = 1 / settings.processes, settings.sharding.startswith("zero")
    weight_share = share if settings.sharding in ("zero3", "fsdp2") else 1
    stored = BFLOAT16 if deepspeed and settings.bf16 else settings.weight_bytes
    adapters = sum(weight.numel() for name, weight in policy.named_parameters() if ADAPTER in name)
    adapter_bytes = stored if deepspeed else FLOAT32  # PEFT keeps adapters in float32
    packed = _linear_weights(policy) if settings.four_bits else 0
    weights = (count - adapters - packed) * stored + adapters * adapter_bytes + packed * FOUR_BITS
    if settings.bf16 and not deepspeed:  # autocast caches bfloat16 copies of float32 weights during a pass
        weights += (count - packed if settings.weight_bytes == FLOAT32 else adapters) * BFLOAT16
    weights *= weight_share
    gradient_share = share if settings.sharding in ("zero2", "zero3", "fsdp2") else 1
    gradients = ((trained - adapters) * stored + adapters * adapter_bytes) * gradient_share
    state_bytes = ADAM_MOMENTS * FLOAT32 + (FLOAT32 if deepspeed and settings.bf16 else 0)  # DeepSpeed's float32 copy
    optimiser = trained * state_bytes * (1 if settings.sharding == "none" else share)
    return MemoryEstimate(
        weights=weights,
        gradients=gradients,
        optimiser=optimiser,
        flow=_flow_bytes(settings),
        activations=activation_bytes(policy, settings),
        lm_head=_head_bytes(policy, settings),
        engine=settings.engine,
    )


def _linear_weights(policy: nn.Module) -> int:
    """Number of weights of the decoder blocks' linear layers, without adapters."""
    layers = find_language_tower(policy).layers
    linear = {id(module.weight) for module in layers.modules() if isinstance(module, nn.Linear)}
    return sum(
        weight.numel() for name, weight in layers.named_parameters() if id(weight) in linear and ADAPTER not in name
    )


def _flow_bytes(settings: MemorySettings) -> float:
    """Estimate the field's weights, gradients, gradient bucket, moments (sharded) and saved activations.

    The field's update runs on chunks of response tokens while the policy's graph is alive.
    """
    if settings.flow is None:
        return 0.0
    with torch.device("meta"):
        field = build_field(settings.flow)
        chunk = min(settings.rows * settings.response, UPDATE_TOKENS)
        tokens = (settings.flow_repeats, len(settings.flow.layer_indices), chunk)
        x_t, cond = (torch.zeros(*tokens, settings.flow.hidden_size) for _ in range(2))
        with _record_saved_tensors(field) as saved:
            velocity = field(x_t, torch.zeros(tokens), cond, torch.zeros(tokens[1]).unsqueeze(-1), None)
            (velocity - x_t).square().mean(dim=-1)
    count = sum(parameter.numel() for parameter in field.parameters())
    state = count * FLOAT32 * (3 + ADAM_MOMENTS / settings.processes)
    if settings.bf16:  # autocast caches a copy of the weights, and saved tensors are half as large
        return state + count * BFLOAT16 + _bytes_of(saved) / 2
    return state + _bytes_of(saved)


def _head_bytes(policy: nn.Module, settings: MemorySettings) -> float:
    """Estimate the LM head's logits, one tile at a time, and its float32 gradient accumulator (TRL 1.16.0)."""
    from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE

    from rlfr_vlm.trainer.trl_seams import LOGPROB_CHUNK_COLUMNS

    config = find_language_tower(policy).config
    tokens = min(settings.rows * settings.positions, TOKEN_CHUNK_SIZE)
    tile = tokens * min(config.vocab_size, LOGPROB_CHUNK_COLUMNS) * FLOAT32 * HEAD_TENSORS
    head = unwrap(policy).get_output_embeddings()  # type: ignore[operator]
    return float(tile + head.weight.requires_grad * config.vocab_size * config.hidden_size * FLOAT32)


def activation_bytes(policy: nn.Module, settings: MemorySettings) -> float:
    """Return the bytes that autograd saves of one micro-batch.

    With gradient checkpointing these are the inputs of all blocks and the activations of one block.
    """
    config = find_language_tower(policy).config
    blocks = config.num_hidden_layers
    one_block, two_blocks = (_saved_by_blocks(policy, number, settings) for number in (1, 2))
    per_block, rest = two_blocks - one_block, 2 * one_block - two_blocks
    if not settings.checkpointing:
        return rest + blocks * per_block
    block_input = settings.rows * settings.positions * config.hidden_size * (BFLOAT16 if settings.bf16 else FLOAT32)
    return rest + per_block + blocks * block_input


def _saved_by_blocks(policy: nn.Module, number: int, settings: MemorySettings) -> float:
    """Return the bytes that autograd saves when the first `number` blocks run on a micro-batch, without weights."""
    tower = find_language_tower(policy)
    # grouped matrix products of experts have a meta kernel for bfloat16 alone
    in_bf16 = settings.bf16 or has_experts(tower.config)
    dtype = torch.bfloat16 if in_bf16 else torch.float32
    with _copy_on_meta(tower.module, dtype) as copy:
        setattr(copy, tower.blocks, getattr(copy, tower.blocks)[:number])
        shape = (settings.rows, settings.positions, copy.config.hidden_size)
        embeddings = torch.zeros(shape, device="meta", dtype=dtype, requires_grad=True)
        further = family_of(policy).block_inputs(copy.config, embeddings)
        with _record_saved_tensors(copy) as saved:
            copy(
                inputs_embeds=embeddings,
                attention_mask=_mask(copy.config, settings, dtype),
                use_cache=False,
                **further,
            )
    return _bytes_of(saved) * (2 if in_bf16 and not settings.bf16 else 1)


def has_experts(config: "PreTrainedConfig") -> bool:
    """Whether blocks have experts (mixture of experts)."""
    return any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))


@contextmanager
def _record_saved_tensors(module: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Yield storage id -> tensor of what autograd saves in the module's passes, without the module's weights."""
    weights = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    saved: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in weights:
            saved[tensor.untyped_storage()._cdata] = tensor  # the reference keeps the storage id from being reused
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def _bytes_of(saved: dict[int, Tensor]) -> float:
    return float(sum(tensor.untyped_storage().nbytes() for tensor in saved.values()))


def _mask(
    config: "PreTrainedConfig", settings: MemorySettings, dtype: torch.dtype
) -> Tensor | dict[str, Tensor | None]:
    """Return a ready attention mask (rows, 1, S, S), for each kind of block if there are several.

    Building one reads tensor values, which the meta device lacks.
    """
    mask = torch.zeros(settings.rows, 1, settings.positions, settings.positions, device="meta", dtype=dtype)
    kinds = getattr(config, "layer_types", None)
    if not kinds:
        return mask
    return {kind: mask if kind.endswith("_attention") and kind != "linear_attention" else None for kind in kinds}


@contextmanager
def _copy_on_meta(tower: nn.Module, dtype: torch.dtype) -> Iterator["PreTrainedModel"]:
    """Yield a copy of the tower on the meta device; frozen weights stay frozen, and checkpointing is off.

    Under an adapter a weight has another name and counts as trained: autograd saves its layer's input for the adapter.
    """
    with torch.device("meta"):
        copy = type(tower)._from_config(tower.config, dtype=dtype)  # type: ignore[attr-defined]
    trained = {name: parameter.requires_grad for name, parameter in tower.named_parameters()}
    for name, parameter in copy.named_parameters():
        parameter.requires_grad_(trained.get(name, True))
    yield copy.train()
