"""What a configuration means before it runs: samples and updates, and the memory of each GPU by part.

Letters: P parameters of the policy, D hidden width, S positions of a row.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlfr_vlm.flow import FlowSpec, build_field
from rlfr_vlm.flow.path import UPDATE_TOKENS
from rlfr_vlm.models.towers import find_language_tower, unwrap

FLOAT32, BFLOAT16 = 4, 2
ADAM_MOMENTS = 2
# TRL scores tile by tile with the LM head; so many tensors of a tile's size live at once (its torch path, counted).
HEAD_TENSORS = 3
SHARDING = ("none", "zero1", "zero2", "zero3", "fsdp2")


@dataclass(frozen=True)
class Steps:
    """The arithmetic of a training run; tokens are upper bounds.

    Attributes:
        prompts: of one rollout.
        responses: of one rollout.
        updates: of one rollout.
        per_update: responses that one update sees.
        micro_batches: of one update, on each process.
        tokens: prompt and response tokens of one rollout, when all are as long as they may be.
        total: updates of the run, or None where the number of rows is not known.
    """

    prompts: int
    responses: int
    updates: int
    per_update: int
    micro_batches: int
    tokens: int | None
    total: int | None


def count_steps(args: Any, rows: int | None, max_prompt: int | None) -> Steps:
    """From a configuration to numbers. TRL has derived the sizes of a rollout from the number of processes.

    Args:
        args: an `RLFRConfig` whose `world_size` is the number of processes that will train.
        rows: of the training set.
        max_prompt: longest prompt in tokens.
    """
    responses = args.generation_batch_size
    per_update = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
    total = args.max_steps if args.max_steps > 0 else None
    if total is None and rows is not None:
        rollouts = rows // max(responses // args.num_generations, 1)
        total = math.ceil(args.num_train_epochs * (rollouts * responses * args.num_iterations // per_update))
    return Steps(
        prompts=responses // args.num_generations,
        responses=responses,
        updates=max(responses * args.num_iterations // per_update, 1),
        per_update=per_update,
        micro_batches=args.gradient_accumulation_steps,
        tokens=None if max_prompt is None else responses * (max_prompt + (args.max_completion_length or 0)),
        total=total,
    )


@dataclass(frozen=True)
class Memory:
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
class Setting:
    """What decides the memory of a run.

    Attributes:
        processes: how many share what is sharded.
        sharding: one of `SHARDING`.
        weight_bytes: of one stored weight; 4 for float32.
        bf16: compute in bfloat16, by autocast or by DeepSpeed.
        checkpointing: gradient checkpointing.
        rows, positions: of one micro-batch; `response` of the positions are response tokens.
        flow: the field's spec, or None; `flow_repeats` noise copies of each token are in its update.
        engine: bytes that vLLM holds during an update.
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


def estimate_memory(policy: nn.Module, setting: Setting) -> Memory:
    """Bytes by part in an update. The policy may be on the meta device; its trainable weights decide.

    Activations are counted, not guessed: a block runs on the meta device and what autograd keeps is added up.
    """
    count = sum(parameter.numel() for parameter in policy.parameters())
    trained = sum(parameter.numel() for parameter in policy.parameters() if parameter.requires_grad)
    share, deepspeed = 1 / setting.processes, setting.sharding.startswith("zero")
    whole = setting.sharding in ("zero3", "fsdp2")
    stored = BFLOAT16 if deepspeed and setting.bf16 else setting.weight_bytes
    weights = count * stored * (share if whole else 1)
    if setting.bf16 and not deepspeed and setting.weight_bytes == FLOAT32:
        weights += count * BFLOAT16 * (share if whole else 1)  # autocast keeps its copies during a pass
    gradients = trained * stored * (share if setting.sharding in ("zero2", "zero3", "fsdp2") else 1)
    states = ADAM_MOMENTS * FLOAT32 + (FLOAT32 if deepspeed and setting.bf16 else 0)  # DeepSpeed's float32 copy
    optimiser = trained * states * (1 if setting.sharding == "none" else share)
    return Memory(
        weights, gradients, optimiser, _flow_bytes(setting), activation_bytes(policy, setting),
        _head_bytes(policy, setting), setting.engine,
    )  # fmt: skip


def _flow_bytes(setting: Setting) -> float:
    """Field, its gradients and their bucket whole on each process, its two moments sharded; and what its update keeps.

    The update runs on a few response tokens at a time, while the policy's graph lives.
    """
    if setting.flow is None:
        return 0.0
    with torch.device("meta"):
        field = build_field(setting.flow)
        chunk = min(setting.rows * setting.response, UPDATE_TOKENS)
        tokens = (setting.flow_repeats, len(setting.flow.layer_indices), chunk)
        x_t, cond = (torch.zeros(*tokens, setting.flow.hidden_size) for _ in range(2))
        with _kept_tensors(field) as kept:
            velocity = field(x_t, torch.zeros(tokens), cond, torch.zeros(tokens[1]).unsqueeze(-1), None)
            (velocity - x_t).square().mean(dim=-1)
    numbers = sum(parameter.numel() for parameter in field.parameters())
    state = numbers * FLOAT32 * (3 + ADAM_MOMENTS / setting.processes)
    if setting.bf16:  # autocast keeps a copy of the weights, and what autograd keeps is half as large
        return state + numbers * BFLOAT16 + _bytes_of(kept) / 2
    return state + _bytes_of(kept)


def _head_bytes(policy: nn.Module, setting: Setting) -> float:
    """A tile of logits, and the head's gradient in float32 while it is added up (read in TRL 1.16.0)."""
    from trl.kernels.chunked_logprob import TOKEN_CHUNK_SIZE

    from rlfr_vlm.trainer.trl_seams import LOGPROB_CHUNK_COLUMNS

    config = find_language_tower(policy).config
    tokens = min(setting.rows * setting.positions, TOKEN_CHUNK_SIZE)
    tile = tokens * min(config.vocab_size, LOGPROB_CHUNK_COLUMNS) * FLOAT32 * HEAD_TENSORS
    head: Any = unwrap(policy).get_output_embeddings()  # type: ignore[operator]
    return float(tile + head.weight.requires_grad * config.vocab_size * config.hidden_size * FLOAT32)


def activation_bytes(policy: nn.Module, setting: Setting) -> float:
    """What autograd keeps of one micro-batch: of all blocks, or of all blocks' inputs and one block."""
    config = find_language_tower(policy).config
    blocks = config.num_hidden_layers
    one, two = (_kept_by_blocks(policy, number, setting) for number in (1, 2))
    block, rest = two - one, 2 * one - two
    if not setting.checkpointing:
        return rest + blocks * block
    entry = setting.rows * setting.positions * config.hidden_size * (BFLOAT16 if setting.bf16 else FLOAT32)
    return rest + block + blocks * entry


def _kept_by_blocks(policy: nn.Module, number: int, setting: Setting) -> float:
    """Bytes that autograd keeps when the first blocks run on a micro-batch, weights not counted."""
    tower = find_language_tower(policy).module
    dtype = torch.bfloat16 if setting.bf16 else torch.float32
    with _on_meta(tower, dtype) as copy:
        copy.layers = copy.layers[:number]
        shape = (setting.rows, setting.positions, copy.config.hidden_size)
        entry = torch.zeros(shape, device="meta", dtype=dtype, requires_grad=True)
        with _kept_tensors(copy) as kept:
            copy(inputs_embeds=entry, attention_mask=_mask(copy.config, setting, dtype), use_cache=False)
    return _bytes_of(kept)


@contextmanager
def _kept_tensors(module: nn.Module) -> Iterator[dict[int, Tensor]]:
    """Yields what autograd keeps of the block's passes, by storage; the module's weights do not count."""
    own = {parameter.untyped_storage()._cdata for parameter in module.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor  # held, so that its number is not given to another
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _bytes_of(kept: dict[int, Tensor]) -> float:
    return float(sum(tensor.untyped_storage().nbytes() for tensor in kept.values()))


def _mask(config: Any, setting: Setting, dtype: torch.dtype) -> Any:
    """The mask of padded rows (rows, 1, S, S), as the tower takes a ready one; making it would look at its values."""
    mask = torch.zeros(setting.rows, 1, setting.positions, setting.positions, device="meta", dtype=dtype)
    kinds = getattr(config, "layer_types", None)
    return dict.fromkeys(kinds, mask) if kinds else mask


@contextmanager
def _on_meta(tower: nn.Module, dtype: torch.dtype) -> Iterator[Any]:
    """A copy of the tower without weights; frozen ones stay frozen, and checkpointing is off.

    Under an adapter a weight has another name, and counts as trained: its layer's input is kept for the adapter.
    """
    with torch.device("meta"):
        copy = type(tower)._from_config(tower.config, dtype=dtype)  # type: ignore[attr-defined]
    trained = {name: parameter.requires_grad for name, parameter in tower.named_parameters()}
    for name, parameter in copy.named_parameters():
        parameter.requires_grad_(trained.get(name, True))
    yield copy.train()
