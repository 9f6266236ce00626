"""Verifiable reward."""

from rlfr_vlm.grading import Reason
from rlfr_vlm.rewards import accuracy


def test_scores_are_1_0_or_none():
    completions = [
        [{"role": "assistant", "content": text}] for text in (r"\boxed{7}", r"\boxed{8}", "7", r"\boxed{7}")
    ]
    assert accuracy(completions=completions, answer=["7", "7", "7", ""], trainer_state=None) == [1.0, 0.0, 0.0, None]


def test_a_missing_answer_is_masked_on_request():
    assert accuracy(completions=["7", r"\boxed{8}"], answer=["7", "7"], no_answer_is_wrong=False) == [None, 0.0]


def test_labels_that_are_not_text_do_not_shift_the_others():
    assert accuracy(completions=[r"\boxed{1}", r"\boxed{2}", r"\boxed{3}"], answer=["1", 2, 3.0]) == [1.0, 1.0, 1.0]


def test_equal_prompts_may_have_different_answers():
    """The released code looked up rewards by prompt text."""
    assert accuracy(completions=[r"\boxed{1}"] * 2, answer=["1", "2"]) == [1.0, 0.0]


def test_columns_options_and_answer_type():
    scores = accuracy(
        completions=["so (B)", r"\boxed{4}", r"\boxed{there are none}"],
        answer=["B", "B", "no solution"],
        options=[None, ["3", "4"], None],
        answer_type=["option", None, "text"],
    )
    assert scores == [1.0, 1.0, 0.0]


def test_reasons_are_logged_as_shares():
    logged = {}
    accuracy(completions=["7", r"\boxed{8}"], answer=["7", ""], log_metric=logged.__setitem__)
    assert {name: value for name, value in logged.items() if value} == {
        f"grading/{Reason.NO_ANSWER.replace(' ', '_')}": 0.5, "grading/unreadable_gold": 0.5,
    }  # fmt: skip
    assert logged["grading/time-out"] == 0.0  # zeros are logged too, because the logged value is a mean over rollouts
