"""Reward of reasoning-gym tasks."""

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.grading.gym.entry import pack
from rlfr_vlm.grading.verdict import Decision, Reason, Verdict, undecided
from rlfr_vlm.rewards.reasoning_gym import reasoning_gym

pytest.importorskip("reasoning_gym", reason="reasoning-gym is not installed")

SCORES = {"1": 1.0, "2": 0.5, "3": None}


class FakePool:
    """Scores answers by the table."""

    def compare(self, pairs):
        return [self.decide(pair) for pair in pairs]

    def decide(self, pair):
        score = SCORES[pair["answer"]] if pair["entry"] else None
        if score is None:
            return undecided("reasoning_gym", Reason.SCORER_FAILED)
        return Decision(Verdict.RIGHT if score == 1 else Verdict.WRONG, "reasoning_gym", "", score)


ENTRY = pack("t", {}, {"answer": "1"})
COMPLETIONS = ["<answer>1</answer>", r"\boxed{2}", r"\boxed{3}", "no idea", r"\boxed{1}"]
ENTRIES = [ENTRY, ENTRY, ENTRY, ENTRY, None]


def score(**options):
    return reasoning_gym(COMPLETIONS, ENTRIES, pool=FakePool(), answer=["1"] * 5, trainer_state=None, **options)


def test_scores_below_one_are_wrong_and_a_failed_scorer_is_undecided():
    assert score() == [1.0, 0.0, None, 0.0, None]


def test_partial_scores_stay_on_request():
    assert score(partial_scores=True) == [1.0, 0.5, None, 0.0, None]


def test_a_missing_answer_is_masked_on_request():
    assert score(no_answer_is_wrong=False) == [1.0, 0.0, None, None, None]


def test_reasons_are_logged_as_shares():
    logged = {}
    score(log_metric=logged.__setitem__)
    assert {name: value for name, value in logged.items() if value} == {
        "grading/scorer_failed": 0.4,
        "grading/no_answer": 0.2,
    }


def test_rows_without_entries_are_refused():
    with pytest.raises(UserError, match="needs the column reasoning_gym of a data set reasoning_gym:TASK"):
        reasoning_gym(COMPLETIONS, answer=["1"] * 5, pool=FakePool())


def test_accuracy_leaves_rows_with_an_entry_to_their_scorers(monkeypatch):
    """So do `rlfr inspect` and the held-out rows of RLPR, which grade with it."""
    from rlfr_vlm.rewards import accuracy

    monkeypatch.setattr("rlfr_vlm.grading.gym.grade.scoring_pool", lambda settings: FakePool())
    scores = accuracy(COMPLETIONS, ["9", "9", "9", "9", "1"], reasoning_gym=ENTRIES)
    assert scores == [1.0, 0.0, None, 0.0, 1.0]
