"""Each dog barks once at its trouble, and not at a healthy run."""

import pytest

from rlfr_vlm.trainer.records.alerts import Watchdogs

HEALTHY = {
    "outcome/mean": 0.5, "rewards/format_boxed/mean": 0.9, "completions/repetitive": 0.0, "entropy": 0.6,
    "completions/clipped_ratio": 0.1, "rollout/effective_share": 0.99, "frac_reward_zero_std": 0.3,
    "flow/auc_wrong_above_correct_mean": 0.55, "outcome/undecided": 0.01,
}  # fmt: skip


def bark(steps, window=1):
    dogs = Watchdogs(window=window)
    return [(number, *said) for number, metrics in enumerate(steps) for said in dogs.observe(metrics)]


def test_a_healthy_run_is_left_alone():
    assert bark([HEALTHY] * 20) == []


@pytest.mark.parametrize(
    ("dog", "changes", "says"),
    [
        (
            "format",
            {"outcome/mean": 0.3, "rewards/format_boxed/mean": 1.0},
            "fell from 0.50 to 0.30 while format_boxed",
        ),
        ("repetition", {"completions/repetitive": 0.25}, "25% of the responses repeat themselves"),
        ("truncation", {"completions/clipped_ratio": 0.75}, "75% of the responses reach max_completion_length"),
        ("entropy", {"entropy": 0.05}, "entropy fell from 0.600 to 0.050"),
        ("gap", {"rollout/effective_share": 0.5}, "count only 50% when weighted"),
        ("flat", {"frac_reward_zero_std": 1.0}, "in all groups all responses got the same reward"),
        ("flow", {"flow/auc_wrong_above_correct_mean": 0.4}, "(AUC 0.40)"),
        ("undecided", {"outcome/undecided": 0.2}, "20% of the answers cannot be judged"),
    ],
)
def test_trouble_is_said_once_and_again_after_it_has_gone(dog, changes, says):
    trouble = HEALTHY | changes
    said = bark([HEALTHY] * 6 + [trouble] * 3)
    assert [entry[1] for entry in said] == [dog] and says in said[0][2]
    if dog not in ("format", "entropy"):  # those compare with earlier steps
        assert len(bark(([HEALTHY] * 6 + [trouble] * 6) * 2)) == 2


def test_a_dog_judges_only_a_full_window():
    trouble = HEALTHY | {"outcome/undecided": 1.0}
    assert bark([trouble] * 3, window=4) == []
    assert [said[0] for said in bark([trouble] * 9, window=4)] == [3]
    assert [said[0] for said in bark([HEALTHY] * 4 + [HEALTHY | {"outcome/undecided": 0.17}] * 4, window=4)] == [5]


def test_metrics_that_are_missing_or_not_a_number_are_no_trouble():
    assert bark([{"loss": 1.0, "flow/auc_wrong_above_correct_mean": float("nan")}] * 20) == []
