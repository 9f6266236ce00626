"""Capture the latents of a policy's language tower: the raw outputs of chosen decoder blocks at chosen positions.

Hooks exist only inside `capture_latents`. They slice and copy within the forward pass, so that prompt, image and
padding positions are not stored. Close the context before the backward pass: gradient checkpointing runs the blocks
again there, and the hooks would record them twice.

Letters: L captured layers, B samples, P sequence length, S captured positions (the last S), D hidden width.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlfr_vlm.flow.pairing import context_lead
from rlfr_vlm.flow.spec import FlowSpec
from rlfr_vlm.models import family_of
from rlfr_vlm.models.shared_prefix.attention import LAYOUT
from rlfr_vlm.models.shared_prefix.layout import PackedLayout
from rlfr_vlm.models.towers import find_language_tower, unwrap


@dataclass
class Latents:
    """Captured hidden states.

    Attributes:
        hidden: (L, B, S, D).
        image, prompt: (L, B, D) means over image tokens and over the prompt's tokens; None if not captured.
    """

    hidden: Tensor
    image: Tensor | None = None
    prompt: Tensor | None = None

    @staticmethod
    def cat(chunks: Sequence["Latents"]) -> "Latents":
        """Join captures of successive row chunks of one batch."""

        def joined(parts: Sequence[Tensor | None]) -> Tensor | None:
            present = [part for part in parts if part is not None]
            return torch.cat(present, dim=1) if present else None

        hidden = torch.cat([chunk.hidden for chunk in chunks], dim=1)
        return Latents(hidden, joined([c.image for c in chunks]), joined([c.prompt for c in chunks]))


class _Recorder:
    """Collects the latents of one chunk of rows, and passes them to `consume` after the last hooked block."""

    def __init__(
        self,
        num_layers: int,
        last: int,
        rows: Tensor | None,
        image_mask: Tensor | None,
        prompt_mask: Tensor | None,
        consume: Callable[[int, Latents], None],
    ) -> None:
        self.num_layers = num_layers
        self.last = last
        self.rows = rows
        self.image_mask = image_mask
        self.prompt_mask = prompt_mask
        self.consume = consume
        self.start = 0
        self.hidden: list[Tensor] = []
        self.image: list[Tensor] = []
        self.prompt: list[Tensor] = []

    def record(self, output: Tensor | tuple[Tensor, ...], layout: PackedLayout | None) -> None:
        # Blocks of older transformers releases return a tuple.
        hidden = (output[0] if isinstance(output, tuple) else output).detach()
        rows = len(hidden) if layout is None else len(layout.index)
        chunk = slice(self.start, self.start + rows)
        selected = slice(None) if self.rows is None else self.rows[chunk].to(hidden.device)
        # Copy, or the slice would keep the whole (B, P, D) tensor alive.
        self.hidden.append(last_positions(hidden, self.last, layout)[selected].clone())
        for mask, means in ((self.image_mask, self.image), (self.prompt_mask, self.prompt)):
            if mask is not None:
                mask = mask[chunk].to(hidden.device)
                mean = masked_mean(hidden, mask) if layout is None else layout.mean(hidden, mask)
                means.append(mean[selected])
        if len(self.hidden) == self.num_layers:
            image, prompt = (torch.stack(means) if means else None for means in (self.image, self.prompt))
            latents = Latents(torch.stack(self.hidden), image, prompt)
            first, self.start = self.start, chunk.stop
            self.hidden, self.image, self.prompt = [], [], []
            self.consume(first, latents)


def layout_of(arguments: Mapping[str, object]) -> PackedLayout | None:
    """The layout among the keyword arguments of a decoder block or tower; None in a row-wise pass."""
    layout = arguments.get(LAYOUT)
    return layout if isinstance(layout, PackedLayout) else None


def last_positions(hidden: Tensor, last: int, layout: PackedLayout | None) -> Tensor:
    """Hidden states (B, S, D) at the last S positions of each row.

    Args:
        hidden: (B, P, D), or (1, N, D) of a packed row.
        last: S.
        layout: of the packed row; None for rows.
    """
    return hidden[:, -last:] if layout is None else layout.unpack(hidden, slice(-last, None))


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Return the mean (B, D) of `hidden` (B, P, D) over the True positions of `mask` (B, P); 0 without any."""
    weights = mask.to(hidden.dtype)
    return torch.einsum("bp,bpd->bd", weights, hidden) / weights.sum(dim=1, keepdim=True).clamp(min=1)


def prompt_tokens(attention_mask: Tensor, num_response: int) -> Tensor:
    """Return the mask (B, P) of the prompt's tokens, images included: those before the last `num_response` ones."""
    mask = attention_mask.bool().clone()
    mask[:, mask.shape[1] - num_response :] = False
    return mask


@contextmanager
def capture_latents(
    model: nn.Module,
    layers: Sequence[int],
    last: int,
    *,
    rows: Tensor | None = None,
    image_mask: Tensor | None = None,
    prompt_mask: Tensor | None = None,
    consume: Callable[[int, Latents], None] | None = None,
) -> Iterator[list[Latents]]:
    """Capture the outputs of decoder blocks during forward passes inside the context.

    A batch may be passed in several chunks of rows, in order.

    Args:
        model: the policy, wrapped or not.
        layers: blocks, counted from 1, in increasing order.
        last: S, the number of last positions to keep.
        rows: (B,) bool, keep only these rows of the batch.
        image_mask, prompt_mask: (B, P) bool, True at image tokens, and at all tokens of the prompt; their mean latents
            are captured as well.
        consume: called with (index of the chunk's first row, latents) instead of storing, so that only one chunk is
            in memory.

    Yields:
        A list to which each forward pass appends one `Latents` (empty with `consume`).
    """
    stored: list[Latents] = []
    blocks = find_language_tower(model).layers
    recorder = _Recorder(
        len(layers), last, rows, image_mask, prompt_mask, consume or (lambda _, latents: stored.append(latents))
    )
    hooks = []
    try:
        for index in layers:
            hooks.append(
                blocks[index - 1].register_forward_hook(
                    lambda _m, _i, arguments, output: recorder.record(output, layout_of(arguments)), with_kwargs=True
                )
            )
        yield stored
    finally:
        for hook in hooks:
            hook.remove()


def vision_mask(model: nn.Module, input_ids: Tensor) -> Tensor | None:
    """True at image and video tokens of `input_ids` (B, P); None for a text-only policy."""
    family, config = family_of(model), unwrap(model).config
    image_token, video_token = family.image_token_id(config), family.video_token_id(config)
    if image_token is None:
        return None
    mask = input_ids == image_token
    return mask if video_token is None else mask | (input_ids == video_token)


def capture_for_field(
    model: nn.Module,
    spec: FlowSpec,
    input_ids: Tensor,
    attention_mask: Tensor,
    num_response: int,
    *,
    rows: Tensor | None = None,
    consume: Callable[[int, Latents], None] | None = None,
) -> AbstractContextManager[list[Latents]]:
    """Capture what a field needs of a batch: the response and its context lead, and the means that the spec names.

    Args:
        input_ids, attention_mask: (B, P).
        num_response: T.
        rows, consume: as for `capture_latents`.
    """
    image_mask = prompt_mask = None
    if spec.image_context:
        image_mask = vision_mask(model, input_ids)
    if spec.needs_prompt_mean:
        prompt_mask = prompt_tokens(attention_mask, num_response)
    positions = num_response + context_lead(spec.context_mode, spec.shift)
    return capture_latents(
        model,
        spec.layer_indices,
        positions,
        rows=rows,
        image_mask=image_mask,
        prompt_mask=prompt_mask,
        consume=consume,
    )


@contextmanager
def only_first_blocks(model: nn.Module, depth: int) -> Iterator[nn.Module]:
    """Yield the policy's backbone (no LM head), whose language tower stops after block `depth`.

    A forward pass inside the context ends at the deepest hooked block. Use the captured latents only: the output of
    the backbone has no meaning.
    """
    tower = find_language_tower(model)
    blocks = tower.layers
    tower.layers = blocks[:depth]
    try:
        yield unwrap(model).base_model  # type: ignore[misc]
    finally:
        tower.layers = blocks
