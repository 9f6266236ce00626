"""Run a micro-batch above a budget of tokens in pieces: the forward and backward pass of one after the other.

Only one piece's activations are in memory, and the gradients add up to those of the whole micro-batch.

Letters: B rows, T response tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from accelerate import DistributedType
from torch import Tensor, nn

from rlfr_vlm.models.shared_prefix.prompts import RowImages, rows_by_prompt
from rlfr_vlm.trainer.batches import select_rows
from rlfr_vlm.trainer.packing import trim
from rlfr_vlm.trainer.trl_seams import Batch, response_mask

if TYPE_CHECKING:
    from accelerate import Accelerator

# Losses that TRL divides by a number of the whole update; read in TRL 1.16's `_compute_loss`, as the others are.
SUMS_OVER_THE_UPDATE = ("dapo", "cispo", "vespo")
MEANS_OF_TOKENS = ("bnpo",)  # all others are means over rows


def pieces_of(batch: Batch, budget: int, *, shares_prompts: bool, accelerator: "Accelerator") -> list[Batch]:
    """Split a micro-batch into pieces of at most `budget` tokens, its rows in their order; equally many on each rank.

    A row above the budget is a piece of its own.

    Args:
        batch: B rows.
        budget: tokens of one forward pass.
        shares_prompts: a prompt counts once for the rows of a piece; without, rows count with their padding.
        accelerator: ranks run collective operations in each piece.
    """
    tokens = _shared_tokens(batch) if shares_prompts else _padded_tokens(batch)
    rows = len(batch["prompt_ids"])
    pieces = _filled(rows, lambda chosen: tokens(chosen) <= budget)
    number = torch.tensor([len(pieces)], device=accelerator.device)
    pieces = _at_least(pieces, int(accelerator.gather(number).max()))
    return [batch] if len(pieces) == 1 else [trim(select_rows(batch, chosen)) for chosen in pieces]


def share_of_loss(piece: Batch, batch: Batch, loss_type: str) -> float | Tensor:
    """Weight of a piece's loss in the loss of its micro-batch.

    >>> whole = {"completion_mask": torch.tensor([[1, 1, 1], [1, 0, 0]])}
    >>> piece = {"completion_mask": torch.tensor([[1, 1, 1]])}
    >>> share_of_loss(piece, whole, "grpo"), share_of_loss(piece, whole, "dapo")
    (0.5, 1.0)
    >>> share_of_loss(piece, whole, "bnpo")
    tensor(0.7500)
    """
    if loss_type in SUMS_OVER_THE_UPDATE:
        return 1.0
    if loss_type in MEANS_OF_TOKENS:
        return response_mask(piece).sum() / response_mask(batch).sum().clamp(min=1)
    return len(piece["completion_mask"]) / len(batch["completion_mask"])


def loss_of_pieces(
    pieces: Sequence[Batch], loss_of: Callable[[Batch], Tensor], accelerator: "Accelerator", model: nn.Module
) -> Tensor:
    """Sum of the losses of pieces, with the gradient of the last one; backward passes of the others have run here.

    Args:
        pieces: at least one.
        loss_of: runs the forward pass of a piece.
        model: as `loss_of` runs it, wrapped or not.
    """
    # as transformers 5.17 calls it: TRL's loss is scaled already
    options = {"scale_wrt_gas": False} if accelerator.distributed_type == DistributedType.DEEPSPEED else {}
    *before, last = pieces
    total: float | Tensor = 0.0
    for piece in before:
        with _gradients_kept_local(accelerator, model):
            loss = loss_of(piece)
            accelerator.backward(loss, **options)
        total = total + loss.detach()
    return loss_of(last) + total


@contextmanager
def _gradients_kept_local(accelerator: "Accelerator", model: nn.Module) -> Iterator[None]:
    """Inside the context, backward passes add up gradients on each rank; a later one exchanges their sum.

    Sets the flag that accelerate hands to DeepSpeed, whose engine would step otherwise (read in accelerate 1.15,
    under a contract test).
    """
    if not accelerator.sync_gradients:  # within an accumulation, which keeps them local already
        yield
        return
    accelerator.gradient_state._set_sync_gradients(False)
    try:
        with accelerator.no_sync(model):
            yield
    finally:
        accelerator.gradient_state._set_sync_gradients(True)


def _filled(rows: int, fits: Callable[[Sequence[int]], bool]) -> list[list[int]]:
    """Fill one piece after the other with rows, as long as `fits` is true.

    >>> _filled(5, lambda chosen: len(chosen) <= 2)
    [[0, 1], [2, 3], [4]]
    """
    pieces = [[0]]
    for row in range(1, rows):
        if fits([*pieces[-1], row]):
            pieces[-1].append(row)
        else:
            pieces.append([row])
    return pieces


def _at_least(pieces: list[list[int]], number: int) -> list[list[int]]:
    """Halve pieces, those with the most rows first, until there are `number`.

    >>> _at_least([[0, 1, 2], [3]], 3)
    [[0], [1, 2], [3]]
    """
    pieces = list(pieces)
    while len(pieces) < number:
        largest = max(range(len(pieces)), key=lambda place: len(pieces[place]))
        rows = pieces[largest]
        pieces[largest : largest + 1] = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return pieces


def _padded_tokens(batch: Batch) -> Callable[[Sequence[int]], int]:
    """Function that counts the positions of rows padded to the longest prompt and response among them."""
    prompts, responses = (batch[key].sum(dim=1).tolist() for key in ("prompt_mask", "completion_mask"))

    def tokens(rows: Sequence[int]) -> int:
        return len(rows) * (max(prompts[row] for row in rows) + max(responses[row] for row in rows))

    return tokens


def _shared_tokens(batch: Batch) -> Callable[[Sequence[int]], int]:
    """Function that counts the tokens of rows whose equal prompts run once, but for the prompt's last token."""
    prompts, responses = (batch[key].sum(dim=1).tolist() for key in ("prompt_mask", "completion_mask"))
    images = RowImages.of_batch(batch, len(prompts))
    groups = rows_by_prompt(batch["prompt_ids"], batch["prompt_mask"], images)
    first_of = {row: group[0] for group in groups for row in group}

    def tokens(rows: Sequence[int]) -> int:
        prefixes = {first_of[row] for row in rows}
        return sum(prompts[row] - 1 for row in prefixes) + sum(responses[row] + 1 for row in rows)

    return tokens
