"""One number for a response, from the deviations of its tokens.

Letters: B responses, T response tokens.
"""

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError, nearest

STATISTICS = ("mean", "max", "last", "before_answer", "end_minus_start")
EDGE_TOKENS = 3  # tokens at the end (or start) of a response that `last` and `end_minus_start` average


def check_statistic(name: str) -> None:
    """Refuse a statistic that does not exist.

    Raises:
        UserError: names it and the nearest.
    """
    if name not in STATISTICS:
        raise UserError(
            f"flow_statistic is {name!r}; choose one of {', '.join(STATISTICS)}.{nearest(name, STATISTICS)}"
        )


def response_statistic(scores: Tensor, mask: Tensor, name: str, before_answer: Tensor | None = None) -> Tensor:
    """One number (B,) for each response: of its tokens in `mask`; 0 for a response without any.

    - mean, max: over the tokens.
    - last: mean of the last `EDGE_TOKENS` tokens.
    - end_minus_start: that of the last minus that of the first `EDGE_TOKENS` tokens.
    - before_answer: the last token at or before the one that precedes the answer's marker.

    Args:
        scores: (B, T) deviations.
        mask: (B, T) bool, tokens that have one.
        before_answer: (B,) index of the token before the answer's marker (see `rlfr_vlm.answer_position`); needed by
            before_answer.

    >>> scores, mask = torch.tensor([[1.0, 2.0, 3.0, 10.0, 99.0]]), torch.tensor([[True, True, True, True, False]])
    >>> [response_statistic(scores, mask, name).item() for name in ("mean", "max", "last", "end_minus_start")]
    [4.0, 10.0, 5.0, 3.0]
    >>> response_statistic(scores, mask, "before_answer", torch.tensor([1])).item()
    2.0
    """
    check_statistic(name)
    mask = mask.bool()
    if name == "mean":
        return _mean(scores, mask)
    if name == "max":
        largest = scores.masked_fill(~mask, -torch.inf).amax(dim=1)
        return torch.where(mask.any(dim=1), largest, torch.zeros_like(largest))
    rank = mask.cumsum(dim=1)  # 1 at the first token of the mask
    from_end = rank[:, -1:] - rank
    last = mask & (from_end < EDGE_TOKENS)
    if name == "last":
        return _mean(scores, last)
    if name == "end_minus_start":
        return _mean(scores, last) - _mean(scores, mask & (rank <= EDGE_TOKENS))
    assert before_answer is not None
    until = mask & (torch.arange(mask.shape[1], device=mask.device) <= before_answer.unsqueeze(1))
    until = torch.where(until.any(dim=1, keepdim=True), until, mask & (rank == 1))
    chosen = until & (until.cumsum(dim=1) == until.sum(dim=1, keepdim=True))
    return _mean(scores, chosen)


def _mean(scores: Tensor, mask: Tensor) -> Tensor:
    total = torch.where(mask, scores, torch.zeros_like(scores)).sum(dim=1)
    return total / mask.sum(dim=1).clamp(min=1)
