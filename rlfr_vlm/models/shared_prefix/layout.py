"""Order of the tokens of a packed row, and the way there and back.

Each group of rows with the same prompt becomes `[prefix | block 1 | ... | block n]`, without padding:

- prefix: the prompt without its last token,
- block: the prompt's last token and one response. Its first position predicts the first token of the response, so each
  position of the packed row predicts at most one token.

Letters: B rows, W columns of the padded batch, N tokens of the packed row, S columns that are wanted back, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedGroup:
    """Where one group lies in the packed row.

    Attributes:
        start: first position of the prefix.
        prefix: tokens of the prefix; 0 for a prompt of one token.
        blocks: tokens of each block.
        pad: (n * width,) positions within the blocks, which makes them equally wide; None if they are.
        unpad: positions of the blocks' tokens among the n * width ones; None if `pad` is None.
        mask: (1, 1, width, prefix + width) bool, True where a token of a block may attend.
    """

    start: int
    prefix: int
    blocks: tuple[int, ...]
    pad: Tensor | None
    unpad: Tensor | None
    mask: Tensor

    @property
    def width(self) -> int:
        """Tokens of the longest block."""
        return max(self.blocks)

    @property
    def middle(self) -> int:
        """First position of the blocks."""
        return self.start + self.prefix

    @property
    def end(self) -> int:
        """First position after the group."""
        return self.middle + sum(self.blocks)


@dataclass(frozen=True)
class PackedLayout:
    """Packed order of the tokens of a batch.

    Attributes:
        groups: in the order of the packed row.
        source: (N,) number, row * W + column, of each packed token in the batch.
        index: (B, W) packed position of each token; 0 at padding.
    """

    groups: tuple[PackedGroup, ...]
    source: Tensor
    index: Tensor

    def pack(self, batch: Tensor) -> Tensor:
        """Packed values (1, N, ...) of a batch (B, W, ...)."""
        return batch.flatten(0, 1)[self.source].unsqueeze(0)

    def source_in_groups(self, groups: Sequence[Sequence[int]]) -> Tensor:
        """(N,) number, group * W + column, of each packed token, where a batch has one row for each group."""
        rows, width = self.index.shape
        group_of_row = torch.zeros(rows, dtype=torch.long)
        for number, group in enumerate(groups):
            group_of_row[list(group)] = number
        return group_of_row.to(self.source.device)[self.source // width] * width + self.source % width

    def unpack(self, packed: Tensor, columns: slice) -> Tensor:
        """Values (B, S, ...) at these columns of the batch, from packed ones (1, N, ...).

        Padding gets the value of the first packed token.
        """
        index = self.index[:, columns]
        return packed[0].index_select(0, index.reshape(-1)).unflatten(0, index.shape)

    def mean(self, packed: Tensor, mask: Tensor) -> Tensor:
        """Mean (B, D) of packed values (1, N, D) over the True tokens of each row of `mask` (B, W); 0 without any."""
        shares = packed.new_zeros(len(mask), packed.shape[1])
        shares.scatter_add_(1, self.index, mask.to(packed.dtype))
        return shares @ packed[0] / mask.sum(dim=1, keepdim=True).clamp(min=1)


def packed_layout(attention_mask: Tensor, groups: Sequence[Sequence[int]], num_response: int) -> PackedLayout:
    """Lay out a batch whose last `num_response` columns are responses.

    Args:
        attention_mask: (B, W), 0 at padding, which is left of the prompts and right of the responses.
        groups: numbers of the rows that share a prompt.
        num_response: columns of responses.
    """
    mask = attention_mask.bool().cpu()  # index maths on the CPU; only its results go to the device
    device, width = attention_mask.device, mask.shape[1]
    prompt_lengths = mask[:, : width - num_response].sum(dim=1).tolist()
    response_lengths = mask[:, width - num_response :].sum(dim=1).tolist()
    first_response = width - num_response
    index = torch.zeros(mask.shape, dtype=torch.long)
    source: list[Tensor] = []
    placed: list[PackedGroup] = []
    position = 0
    for rows in groups:
        prefix = prompt_lengths[rows[0]] - 1
        start, first_column = position, first_response - 1 - prefix
        source.append(rows[0] * width + torch.arange(first_column, first_response - 1))
        for row in rows:
            index[row, first_column : first_response - 1] = torch.arange(start, start + prefix)
        position += prefix
        for row in rows:
            columns = torch.arange(first_response - 1, first_response + response_lengths[row])
            source.append(row * width + columns)
            index[row, columns] = torch.arange(position, position + len(columns))
            position += len(columns)
        placed.append(_group(start, prefix, [response_lengths[row] + 1 for row in rows], device))
    return PackedLayout(tuple(placed), torch.cat(source).to(device), index.to(device))


def _group(start: int, prefix: int, blocks: Sequence[int], device: torch.device) -> PackedGroup:
    width = max(blocks)
    mask = torch.ones(width, prefix + width, dtype=torch.bool, device=device).tril(diagonal=prefix)
    pad = unpad = None
    if any(length != width for length in blocks):
        columns, starts = torch.arange(width), torch.tensor([0, *blocks[:-1]]).cumsum(0).tolist()
        # a short block repeats its last token, which no other token of the block attends to and nobody reads
        pad = torch.cat([first + columns.clamp(max=length - 1) for first, length in zip(starts, blocks, strict=True)])
        unpad = torch.cat([number * width + columns[:length] for number, length in enumerate(blocks)])
        pad, unpad = pad.to(device), unpad.to(device)
    return PackedGroup(start, prefix, tuple(blocks), pad, unpad, mask[None, None])
