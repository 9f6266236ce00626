"""The verifiable reward."""

from rlfr_vlm.grading import Reason
from rlfr_vlm.rewards import accuracy


def test_no_half_points_and_undecided_stays_open():
    completions = [
        [{"role": "assistant", "content": text}] for text in (r"\boxed{7}", r"\boxed{8}", "7", r"\boxed{7}")
    ]
    assert accuracy(completions=completions, answer=["7", "7", "7", ""], trainer_state=None) == [1.0, 0.0, 0.0, None]


def test_a_missing_answer_may_be_masked_instead():
    assert accuracy(completions=["7", r"\boxed{8}"], answer=["7", "7"], no_answer_is_wrong=False) == [None, 0.0]


def test_labels_that_are_not_text_do_not_shift_the_others():
    assert accuracy(completions=[r"\boxed{1}", r"\boxed{2}", r"\boxed{3}"], answer=["1", 2, 3.0]) == [1.0, 1.0, 1.0]


def test_equal_prompts_with_different_answers_are_told_apart():
    """The release looked rewards up by prompt text."""
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
    assert logged["grading/time-out"] == 0.0  # a mean over rollouts must know of those without
