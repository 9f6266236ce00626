"""Every loss of TRL with an advantage for each token, as flow rewards give it, against a loop over the tokens."""

import pytest
import torch

from rlfr_vlm.trainer.rlfr_config import LOSS_TYPES

LENGTHS = (5, 1, 3)
T, LARGEST = max(LENGTHS), 8
LOW, HIGH = 0.2, 0.3
PER_TOKEN = [name for name in LOSS_TYPES if name != "vespo"]  # vespo is refused with token rewards


def numbers(seed):
    """Log-probs now and then, advantages and mask, (B, T); some ratios leave the range of clipping."""
    generator = torch.Generator().manual_seed(seed)
    now, moved, advantages = (torch.randn(len(LENGTHS), T, generator=generator, dtype=torch.double) for _ in range(3))
    mask = torch.tensor([[1] * length + [0] * (T - length) for length in LENGTHS])
    return (now - 2).requires_grad_(), (now - 2 + 0.4 * moved).detach(), advantages, mask


def slow_loss(loss_type, level, now, then, advantages, args):
    """The loss by its definition, one token after the other."""
    rows = []
    for row, length in enumerate(LENGTHS):
        ratios = [(now[row, t] - then[row, t]).exp() for t in range(length)]
        if level == "sequence":  # GSPO: the geometric mean of the response's ratios
            mean = sum(now[row, t] - then[row, t] for t in range(length)) / length
            ratios = [mean.exp()] * length
        losses = []
        for t, ratio in enumerate(ratios):
            advantage = advantages[row, t]
            clipped = ratio.clamp(1 - LOW, 1 + HIGH)
            if loss_type == "cispo":
                losses.append(-ratio.clamp(max=HIGH).detach() * advantage * now[row, t])
            elif loss_type == "sapo":
                heat = args.sapo_temperature_pos if advantage > 0 else args.sapo_temperature_neg
                losses.append(-torch.sigmoid(heat * (ratio - 1)) * 4 / heat * advantage)
            else:
                losses.append(-torch.minimum(ratio * advantage, clipped * advantage))
        rows.append(losses)
    tokens = sum(LENGTHS)
    if loss_type in ("grpo", "sapo"):  # means of responses
        return sum(sum(losses) / len(losses) for losses in rows) / len(rows)
    total = sum(sum(losses) for losses in rows)
    divisor = {"bnpo": tokens, "dapo": tokens, "cispo": tokens, "dr_grpo": len(rows) * LARGEST, "luspo": len(rows)}
    return total / divisor[loss_type]


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", PER_TOKEN)
def test_token_advantages(loss_type, level, make_trainer, make_text_policy, text_tokenizer, text_digits):
    trainer = make_trainer(
        make_text_policy(), processing_class=text_tokenizer, dataset=text_digits, loss_type=loss_type,
        importance_sampling_level=level, epsilon=LOW, epsilon_high=HIGH, max_completion_length=LARGEST,
        steps_per_generation=1, rollout_log_groups=0,
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    now, then, advantages, mask = numbers(seed=1)
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (now, torch.zeros_like(now), None)
    trainer.model.train()
    batch = {
        "prompt_ids": torch.ones(3, 2, dtype=torch.long), "prompt_mask": torch.ones(3, 2, dtype=torch.long),
        "completion_ids": mask, "completion_mask": mask, "advantages": advantages, "old_per_token_logps": then,
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    loss = trainer._compute_loss(trainer.model, batch)
    [gradient] = torch.autograd.grad(loss, now)
    expected = slow_loss(loss_type, level, now, then, advantages, trainer.args)
    [expected_gradient] = torch.autograd.grad(expected, now)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    assert (gradient[mask == 0] == 0).all() and gradient.abs().max() > 1e-3
    # Not the loss of the response's mean advantage: a token's own advantage counts.
    means = ((advantages * mask).sum(dim=1, keepdim=True) / mask.sum(dim=1, keepdim=True)).expand(-1, T)
    plain = slow_loss(loss_type, level, now, then, means, trainer.args)
    assert not torch.isclose(loss, plain)
