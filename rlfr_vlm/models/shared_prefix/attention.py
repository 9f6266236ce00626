"""Attention over a packed row: prefixes causally, and each block to its prefix and to itself.

The layout travels as a keyword argument of the forward pass. transformers hands such arguments on to the attention
function of every layer, also when gradient checkpointing runs the layer again (read in transformers 5.17, under a
contract test), so nothing is stored on the model. A pass without a layout runs the policy's own attention.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from rlfr_vlm.models.shared_prefix.layout import PackedGroup, PackedLayout
from rlfr_vlm.models.towers import unwrap

LAYOUT = "packed_layout"  # keyword argument of the forward pass
SUFFIX = "_packed"  # of the names of attention functions that know layouts
Attention: TypeAlias = Callable[..., tuple[Tensor, Tensor | None]]


def packed_attention(
    base: Attention, module: nn.Module, layout: PackedLayout, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any
) -> Tensor:
    """Attention output (1, N, H, d) of a packed row, in two calls of the policy's attention for each group.

    Args:
        base: the policy's attention function, as transformers calls it.
        query: (1, H, N, d).
        key, value: (1, H_kv, N, d).
        kwargs: further arguments of the attention function.
    """
    kwargs = {name: value for name, value in kwargs.items() if name not in ("is_causal", "position_ids")}
    parts: list[Tensor] = []
    for group in layout.groups:
        if group.prefix:
            own = slice(group.start, group.middle)
            prefix = (query[:, :, own], key[:, :, own], value[:, :, own])
            parts.append(base(module, *prefix, None, is_causal=True, **kwargs)[0][0])
        # The causal flag of scaled_dot_product_attention is aligned to the first key, so blocks bring a mask.
        blocks = (_blocks(query, group), _behind_prefix(key, group), _behind_prefix(value, group))
        output = _without_repeats(base, module, *blocks, group.mask, **kwargs).flatten(0, 1)
        parts.append(output if group.unpad is None else output.index_select(0, group.unpad))
    return torch.cat(parts).unsqueeze(0)


def _without_repeats(
    base: Attention, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, **kwargs: Any
) -> Tensor:
    """Attention output (n, width, H, d) of masked blocks, without copies of a key for the heads that share it.

    transformers repeats keys and values wherever there is a mask (`repeat_kv`, read in transformers 5.17). Here each
    key-value head is an element of the batch, and its query heads see the same memory.

    Args:
        query: (n, H, width, d).
        key, value: (n, H_kv, K, d).
        mask: (1, 1, width, K).
    """
    repeats = query.shape[1] // key.shape[1]
    if repeats == 1:
        return base(module, query, key, value, mask, is_causal=False, **kwargs)[0]

    def per_head(states: Tensor) -> Tensor:
        return states.flatten(0, 1).unsqueeze(1).expand(-1, repeats, -1, -1)

    query = query.unflatten(1, (-1, repeats)).flatten(0, 1)
    output = base(_Ungrouped(module), query, per_head(key), per_head(value), mask, is_causal=False, **kwargs)[0]
    return output.unflatten(0, (-1, key.shape[1])).transpose(1, 2).flatten(2, 3)


class _Ungrouped:
    """An attention module whose keys need no repeating."""

    num_key_value_groups = 1

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _blocks(states: Tensor, group: PackedGroup) -> Tensor:
    """States (n, H, width, d) of a group's blocks, from those (1, H, N, d) of the packed row."""
    own = states[0, :, group.middle : group.end]
    own = own if group.pad is None else own.index_select(1, group.pad)
    return own.unflatten(1, (len(group.blocks), group.width)).transpose(0, 1)


def _behind_prefix(states: Tensor, group: PackedGroup) -> Tensor:
    """States (n, H, prefix + width, d) that a group's blocks attend to."""
    prefix = states[:, :, group.start : group.middle].expand(len(group.blocks), -1, -1, -1)
    return torch.cat([prefix, _blocks(states, group)], dim=2)


def learn_layouts(policy: nn.Module) -> None:
    """Let the attention of a policy's language tower know layouts; the vision tower keeps its own. Does it once."""
    model: Any = unwrap(policy)
    text = model.config.get_text_config()
    if text._attn_implementation.endswith(SUFFIX):
        return
    name = _registered(text._attn_implementation)
    if text is model.config:
        model.set_attn_implementation(name)
        return
    [part] = [part for part in model.config.sub_configs if getattr(model.config, part) is text]
    model.set_attn_implementation({part: name})


def _registered(base_name: str) -> str:
    """Register an attention function that knows layouts beside one of transformers; returns its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    base: Attention = ALL_ATTENTION_FUNCTIONS[base_name]

    def attention(
        module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        layout = kwargs.pop(LAYOUT, None)
        if layout is None:
            return base(module, query, key, value, attention_mask, **kwargs)
        return packed_attention(base, module, layout, query, key, value, **kwargs), None

    name = base_name + SUFFIX
    AttentionInterface.register(name, attention)
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[base_name])
    return name


def packed_mask(device: torch.device) -> Tensor:
    """The mask of a packed pass, which the layout replaces.

    transformers hands a mask of four dimensions on as it is. This one is NaN, so that a layer that does not know the
    layout gives NaN instead of wrong numbers.
    """
    return torch.full((1, 1, 1, 1), torch.nan, device=device)
