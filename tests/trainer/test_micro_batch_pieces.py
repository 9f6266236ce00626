"""A micro-batch that runs in pieces has the loss and the gradients of the whole, and no piece is above the budget."""

import inspect
from types import SimpleNamespace

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.micro_batch_pieces import pieces_of
from rlfr_vlm.trainer.rlfr_config import LOSS_TYPES, RLFRConfig
from tests.trainer.test_packing import batch

ONE_RANK = SimpleNamespace(device="cpu", gather=lambda values: values)
# two prompts of 3 and 5 tokens; rows 0, 1 and 2, 3 share one
PROMPTS, RESPONSES = [3, 3, 5, 5], [2, 4, 1, 6]


def group_batch():
    own = batch(PROMPTS, RESPONSES)
    own["prompt_ids"] = torch.tensor([[1], [1], [2], [2]]) * own["prompt_mask"]
    return own


def rows_of(pieces):
    return [piece["advantages"].int().tolist() for piece in pieces]


@pytest.mark.parametrize(
    ("budget", "shares", "expected"),
    [
        # with shared prompts: 2 + 3 + 5 = 10 for rows 0 and 1, then + 4 + 2 = 16, then + 7 = 23
        (23, True, [[0, 1, 2, 3]]),
        (22, True, [[0, 1, 2], [3]]),
        (10, True, [[0, 1], [2], [3]]),  # rows 2 and 3: 4 + 2 + 7 = 13
        (9, True, [[0], [1], [2], [3]]),
        # padded: rows 0 and 1 are 2 x (3 + 4) = 14, with row 2 3 x (5 + 4) = 27, with row 3 4 x (5 + 6) = 44
        (44, False, [[0, 1, 2, 3]]),
        (43, False, [[0, 1, 2], [3]]),
        (26, False, [[0, 1], [2, 3]]),  # rows 2 and 3: 2 x 11 = 22
        (1, False, [[0], [1], [2], [3]]),
    ],
)
def test_pieces_by_hand(budget, shares, expected):
    pieces = pieces_of(group_batch(), budget, shares_prompts=shares, accelerator=ONE_RANK)
    assert rows_of(pieces) == expected
    for piece in pieces:  # trimmed to its own longest rows
        assert piece["completion_mask"].shape[1] == piece["completion_mask"].sum(dim=1).max()


def test_a_rank_makes_as_many_pieces_as_the_others():
    other = SimpleNamespace(device="cpu", gather=lambda values: torch.cat([values, torch.tensor([3])]))
    assert rows_of(pieces_of(group_batch(), 23, shares_prompts=True, accelerator=other)) == [[0], [1], [2, 3]]


def trained(make_trainer, policy, **changes):
    """A trainer after two updates, and the largest number of positions of its passes with gradients."""
    trainer = make_trainer(
        policy, steps_per_generation=2, gradient_accumulation_steps=2, learning_rate=0.3, optim="sgd", **changes
    )
    sizes = []

    def note(_module, _inputs, keywords):
        if torch.is_grad_enabled():
            sizes.append(keywords["inputs_embeds"].shape[:2].numel())

    hook = trainer.model.base_model.language_model.register_forward_pre_hook(note, with_kwargs=True)
    trainer.train()
    hook.remove()
    return trainer, max(sizes)


def check_same(make_trainer, make_policy, budget, **changes):
    start = {name: weight.detach().clone() for name, weight in make_policy().named_parameters()}
    whole, size = trained(make_trainer, make_policy(), **changes)
    cut, piece_size = trained(make_trainer, make_policy(), micro_batch_tokens=budget, **changes)
    assert piece_size <= budget < size
    logs = [[log for log in trainer.state.log_history if "loss" in log] for trainer in (whole, cut)]
    assert min(log["micro_batch_pieces"] for log in logs[1]) > 1
    for one, other in zip(*logs, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3, abs=1e-5)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
    weights = [dict(trainer.model.named_parameters()) for trainer in (whole, cut)]
    way, apart = (
        sum((one[name] - other[name]).square().sum() for name in start).sqrt().item()
        for one, other in ((start, weights[0]), weights)
    )
    assert way > 1e-2 and apart < 1e-3 * way


@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_every_loss(loss_type, make_trainer, make_policy):
    check_same(make_trainer, make_policy, 40, method="rlvr", loss_type=loss_type)


def test_row_by_row_with_flow_rewards(make_trainer, make_policy):
    check_same(make_trainer, make_policy, 90, flow="new", flow_update=False, share_prefix="false")


def test_a_field_learns_from_every_piece(make_trainer, make_policy, monkeypatch):
    trainer, _ = trained(make_trainer, make_policy(), flow="new", micro_batch_tokens=40, max_steps=1)
    tokens, accumulate = [], trainer.flow.accumulate

    def noted(latents, valid, weights, is_right=None):
        tokens.append(int((weights > 0).sum()))
        return accumulate(latents, valid, weights, is_right)

    monkeypatch.setattr(trainer.flow, "accumulate", noted)
    whole = next(batch for batch in trainer.buffered_batches if (batch["flow_weight"] > 0).sum() > 1)
    trainer.model.train()
    trainer.compute_loss(trainer.model, whole)
    assert len(tokens) > 1
    accepted = whole["completion_mask"][whole["flow_weight"] > 0]
    assert sum(tokens) == accepted.sum()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"micro_batch_tokens": -1}, "micro_batch_tokens is -1; it must be at least 0"),
        ({"top_entropy_quantile": 0.2}, "64 and top_entropy_quantile is 0.2, which is a quantile"),
        ({"flow_accept": "entropy"}, "flow_accept is entropy, which is a quantile of a whole micro-batch"),
        ({"entropy_coef": 0.1}, "entropy_coef is 0.1, which acts on means"),
        ({"optim": "lomo"}, "optim is .*lomo, which changes weights within a backward pass"),
    ],
)
def test_settings_that_are_no_sums_are_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        RLFRConfig(
            **({"output_dir": str(tmp_path), "use_cpu": True, "report_to": [], "micro_batch_tokens": 64} | changes)
        )


def test_a_quantile_that_the_method_does_not_read_is_no_reason(tmp_path):
    changes = {"micro_batch_tokens": 64, "method": "rlvr", "flow_accept": "entropy"}
    made = RLFRConfig(output_dir=str(tmp_path), use_cpu=True, report_to=[], **changes)
    assert made.micro_batch_tokens == 64


def test_names_of_accelerate_and_transformers_as_read():
    """Read in accelerate 1.15 and transformers 5.17."""
    from accelerate import Accelerator
    from accelerate.state import GradientState
    from transformers import Trainer

    assert "sync_gradients=self.sync_gradients" in inspect.getsource(Accelerator.backward)
    assert "gradient_state.sync_gradients" in inspect.getsource(Accelerator.sync_gradients.fget)
    assert list(inspect.signature(GradientState._set_sync_gradients).parameters) == ["self", "sync_gradients"]
    step = inspect.getsource(Trainer.training_step)
    assert 'kwargs["scale_wrt_gas"] = False' in step
    assert step.index("self.compute_loss(") < step.index("self.accelerator.backward(")
