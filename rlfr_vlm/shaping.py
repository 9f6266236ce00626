"""From deviations to advantages: RLFR's flow reward as a chain of small pure functions.

    deviation -> min-max per row -> threshold -> top-k -> times -coef -> discounted return-to-go -> + outcome advantage

At the level of responses instead: one number a response -> standard score within its group -> times -coef -> +.

Letters: B samples, T response tokens. `mask` (B, T) is True at response tokens that have a partner; all functions
return exactly 0 elsewhere. Source: RLFR (arXiv 2510.10201), flow rewards and advantage shaping.
"""

import math

import torch
from torch import Tensor


def normalise_deviation(scores: Tensor, mask: Tensor, two_sided: bool = True) -> Tensor:
    """Min-max over each row's valid tokens: to [-1, 1] two-sided, to [0, 1] one-sided. Constant rows become 0.

    >>> scores, mask = torch.tensor([[1.0, 3.0, 5.0, 9.0]]), torch.tensor([[True, True, True, False]])
    >>> normalise_deviation(scores, mask).tolist()
    [[-1.0, 0.0, 1.0, 0.0]]
    >>> normalise_deviation(scores, mask, two_sided=False).tolist()
    [[0.0, 0.5, 1.0, 0.0]]
    """
    mask = mask.bool()
    low = scores.masked_fill(~mask, torch.inf).amin(dim=1, keepdim=True)
    span = scores.masked_fill(~mask, -torch.inf).amax(dim=1, keepdim=True) - low
    keep = mask & (span > 0)  # a row with no valid token has span -inf
    unit = (scores - low) / span
    scaled = 2 * unit - 1 if two_sided else unit
    return torch.where(keep, scaled, torch.zeros_like(scores))


def keep_above(relative: Tensor, threshold: float) -> Tensor:
    """Keep values whose magnitude exceeds `threshold`, else 0.

    >>> keep_above(torch.tensor([[-0.75, 0.5, 0.25]]), 0.5).tolist()
    [[-0.75, 0.0, 0.0]]
    """
    return torch.where(relative.abs() > threshold, relative, torch.zeros_like(relative))


def keep_top_k(relative: Tensor, k: int, two_sided: bool = True) -> Tensor:
    """Keep at most k values per row by magnitude; two-sided, at most k // 2 of each sign. k <= 0 keeps all.

    >>> keep_top_k(torch.tensor([[0.7, 1.0, -1.0, -0.8, 0.9]]), 2).tolist()
    [[0.0, 1.0, -1.0, 0.0, 0.0]]
    """
    if k <= 0:
        return relative
    if not two_sided:
        return _largest(relative, k)
    return _largest(relative.clamp(min=0), k // 2) - _largest((-relative).clamp(min=0), k // 2)


def _largest(values: Tensor, k: int) -> Tensor:
    k = min(k, values.shape[1])
    top = values.topk(k, dim=1)
    return torch.zeros_like(values).scatter(1, top.indices, top.values)


def flow_rewards(
    scores: Tensor, mask: Tensor, *, coef: float, threshold: float, top_k: int, two_sided: bool = True
) -> Tensor:
    """Token rewards r_k = -coef * (normalised, thresholded, top-k deviation), shape (B, T).

    Low deviation is rewarded (two-sided only), high deviation penalised.

    >>> scores, mask = torch.tensor([[1.0, 3.0, 5.0]]), torch.ones(1, 3, dtype=torch.bool)
    >>> flow_rewards(scores, mask, coef=1.0, threshold=0.6, top_k=2).tolist()
    [[1.0, 0.0, -1.0]]
    """
    relative = keep_above(normalise_deviation(scores, mask, two_sided), threshold)
    return -coef * keep_top_k(relative, top_k, two_sided) + 0.0  # + 0.0 turns -0.0 into 0.0


def returns_to_go(rewards: Tensor, gamma: float = 1.0) -> Tensor:
    """R_k = sum over s >= k of gamma^(s-k) r_s.

    >>> returns_to_go(torch.tensor([[1.0, 0.0, 2.0]]), 0.5).tolist()
    [[1.5, 1.0, 2.0]]
    """
    if gamma == 1.0:
        return rewards.flip(1).cumsum(dim=1).flip(1)
    returns = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for step in reversed(range(rewards.shape[1])):
        running = rewards[:, step] + gamma * running
        returns[:, step] = running
    return returns


def shape_advantages(outcome: Tensor, rewards: Tensor, completion_mask: Tensor, gamma: float = 1.0) -> Tensor:
    """A_k = A_outcome + return-to-go of the token rewards, (B, T); padding is exactly 0.

    Args:
        outcome: (B,) group-normalised outcome advantage, or (B, T) if it is weighted by token.
        rewards: (B, T) token rewards.
        completion_mask: (B, T), 1 at response tokens.

    >>> shape_advantages(torch.tensor([1.0]), torch.tensor([[0.5, -0.25, 0.0]]), torch.tensor([[1, 1, 0]])).tolist()
    [[1.25, 0.75, 0.0]]
    """
    shaped = (outcome.unsqueeze(1) if outcome.dim() == 1 else outcome) + returns_to_go(rewards, gamma)
    return torch.where(completion_mask.bool(), shaped, torch.zeros_like(shaped))


def response_rewards(
    statistic: Tensor, outcome: Tensor, group_size: int, *, coef: float, threshold: float, skip_uniform: bool
) -> Tensor:
    """Flow reward (N,) of whole responses: -coef * standard score of the statistic among its group's decided ones.

    A group with fewer than two decided responses, or with equal statistics, gets 0; an undecided response too.

    Args:
        statistic: (N,) one number of each response's deviations; those of a prompt are adjacent.
        outcome: (N,) outcome rewards, NaN where undecided.
        group_size: responses to a prompt.
        threshold: a response is right above it.
        skip_uniform: give 0 to groups whose decided responses are all right or all wrong.

    >>> statistic, outcome = torch.tensor([1.0, 3.0, 5.0, 5.0]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    >>> rewards = response_rewards(statistic, outcome, 2, coef=1.0, threshold=0.5, skip_uniform=False)
    >>> [round(value, 4) for value in rewards.tolist()]
    [0.7071, -0.7071, 0.0, 0.0]
    """
    # float64: responses to a prompt may differ little beside what they have in common
    values, results = statistic.double().view(-1, group_size), outcome.view(-1, group_size)
    decided = ~results.isnan()
    count = decided.sum(dim=1, keepdim=True)
    mean = torch.where(decided, values, 0.0).sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(decided, values - mean, 0.0)
    spread = (centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)).sqrt()
    usable = (count > 1) & (spread > 0)
    if skip_uniform:
        right = (decided & (results > threshold)).sum(dim=1, keepdim=True)
        usable = usable & (right > 0) & (right < count)
    scores = torch.where(usable, centred / spread, 0.0)
    return (-coef * scores).flatten().to(statistic.dtype) + 0.0


def schedule_factor(step: int, *, schedule: str, first: int, last: int, end_share: float) -> float:
    """Share of the flow coefficient at an update.

    constant: 1 from update `first` to update `last`, 0 outside. linear, cosine: 0 before `first`, then from 1 down (or
    up) to `end_share` at `last`, and that from then on.

    >>> [schedule_factor(s, schedule="linear", first=2, last=6, end_share=0.0) for s in (1, 2, 4, 6, 9)]
    [0.0, 1.0, 0.5, 0.0, 0.0]
    >>> round(schedule_factor(4, schedule="cosine", first=0, last=8, end_share=0.5), 6)
    0.75
    """
    if step < first or (schedule == "constant" and step > last):
        return 0.0
    if schedule == "constant":
        return 1.0
    progress = min(1.0, (step - first) / max(last - first, 1))
    remaining = 1 - progress if schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return end_share + (1 - end_share) * remaining


def entropy_bonus(advantages: Tensor, entropies: Tensor, *, alpha: float, kappa: float) -> Tensor:
    """Entropy-advantage shaping (arXiv 2506.14758): A_k + min(alpha * H_k, |A_k| / kappa), (B, T).

    H is detached, so it scales the policy's gradient and has no gradient itself. The bonus never flips a sign, and a
    token without advantage gets none.

    Args:
        advantages: (B,) or (B, T).
        entropies: (B, T) of the current policy, over the full vocabulary, in nats.
        alpha: weight of the entropy.
        kappa: the bonus is at most |A| / kappa.

    >>> advantages, entropies = torch.tensor([[1.0, 1.0, -1.0, 0.0]]), torch.tensor([[1.0, 5.0, 1.0, 3.0]])
    >>> entropy_bonus(advantages, entropies, alpha=0.25, kappa=2.0)
    tensor([[ 1.2500,  1.5000, -0.7500,  0.0000]])
    """
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1)
    return advantages + torch.minimum(alpha * entropies.detach(), advantages.abs() / kappa)


def group_spread(rewards: Tensor, group_size: int) -> Tensor:
    """(G,) standard deviation of each group's rewards (B,), undecided ones left out; 0 with fewer than two.

    >>> group_spread(torch.tensor([0.0, 2.0, torch.nan, 1.0]), 2).tolist()
    [1.4142135381698608, 0.0]
    """
    groups = rewards.view(-1, group_size)
    decided = ~groups.isnan()
    count = decided.sum(dim=1)
    values = groups.nan_to_num()
    mean = values.sum(dim=1) / count.clamp(min=1)
    squares = torch.where(decided, (values - mean.unsqueeze(1)) ** 2, 0.0).sum(dim=1)
    return torch.where(count > 1, squares / (count - 1).clamp(min=1), 0.0).sqrt()
