"""Text part of the RLPR reward: splicing, validity, offsets, combination. The probabilities are fixed numbers."""

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards import ReferenceProbability
from rlfr_vlm.rewards.reference_probability import Spliced, mix, overlapping, splice, unreasoned


@pytest.mark.parametrize(
    ("mode", "response", "text"),
    [
        ("r1_nothink", "2+2 <answer>5</answer>", "2+2 <answer> 4 </answer>"),
        ("r1_nothink", "2+2 <answer>\n 5", "2+2 <answer>\n 4 </answer>"),  # the white space of the response is kept
        ("r1_nothink", "<answer>5</answer> and more", "<answer> 4 </answer>"),
        ("r1_nothink", "no tag", None),
        ("r1_nothink", "<answer>5 <answer>6", None),  # twice
        ("r1_nothink", "2+2 <answer>  ", None),  # no text after the tag
        ("r1", "<think>a</think><answer>5</answer>", "<think>a</think><answer> 4 </answer>"),
        ("r1", "<answer>5</answer>", None),
        ("r1", "<answer>5</answer><think></think>", None),  # out of order
        ("boxed", r"so \boxed{5}.", r"so \boxed{4}"),
        ("boxed", r"so \boxed{5} \boxed{6}", None),
    ],
)
def test_splice(mode, response, text):
    spliced = splice(response, "4", mode)
    assert (spliced and spliced.text) == text
    if spliced:
        assert spliced.text[spliced.start : spliced.end] == "4"


def test_r_and_its_baseline_share_the_template():
    assert unreasoned("4", "r1_nothink") == Spliced("<answer> 4 </answer>", 9, 10)
    assert unreasoned("4", "r1").text == "<think> </think> <answer> 4 </answer>"
    assert unreasoned("4", "boxed").text == r"\boxed{4}"
    assert splice("<think> </think> <answer>x", "4", "r1") == unreasoned("4", "r1")


def test_a_token_with_a_leading_space_overlaps_and_tags_do_not():
    """`>` `_4` `2` `_</` over characters 7..8, 8..10, 10..11, 11..14; the reference `42` is 9..11."""
    assert overlapping([(7, 8), (8, 10), (10, 11), (11, 14)], 9, 11) == [False, True, True, False]


@pytest.mark.parametrize(
    ("r", "base", "has_format", "expected"),
    [(0.75, 0.25, True, 0.9 * 0.5 + 0.1), (0.75, 0.25, False, 0.45), (0.2, 0.9, True, 0.1), (0.2, 0.9, False, 0.0)],
)
def test_mix(r, base, has_format, expected):
    assert mix(r, base, has_format, 0.1) == pytest.approx(expected)


class FixedProbabilities:
    """Returns the same probabilities for every row."""

    def current(self, rows, texts):
        return [0.0 if text is None else 0.8 for text in texts]

    def baseline(self, rows, references):
        return [0.3] * len(rows)


def test_reward():
    reward = ReferenceProbability(RewardOptions(rlpr_mode="r1_nothink"))
    reward.probabilities = FixedProbabilities()
    logged = {}
    phrase = "one two three four five six seven eight nine ten "
    completions = ["a <answer>5</answer>", "a <answer>5", "no tag", phrase * 10, phrase * 10 + "<answer>5</answer>"]
    values = reward(prompts=["q"] * 5, completions=completions, answer=["4"] * 5, log_metric=logged.__setitem__)
    # 0.9 * (0.8 - 0.3) + 0.1 * format; the penalty is subtracted also where the reward is 0
    assert values == pytest.approx([0.55, 0.45, 0.0, -1.0, 0.55 - 1.0])
    assert logged["rlpr/valid"] == pytest.approx(3 / 5) and logged["rlpr/baseline"] == pytest.approx(0.3)


def test_without_debiasing_and_penalty():
    options = RewardOptions(rlpr_mode="r1_nothink", rlpr_debias=False, rlpr_repetition_penalty=False)
    reward = ReferenceProbability(options)
    reward.probabilities = FixedProbabilities()
    assert reward(prompts=["q"], completions=["so " * 30 + "<answer>5"], answer=["4"]) == [pytest.approx(0.72)]


def test_a_row_without_a_reference_is_undecided():
    reward = ReferenceProbability(RewardOptions())
    reward.probabilities = FixedProbabilities()
    assert reward(prompts=["q"], completions=["<answer>5"], answer=[""]) == [None]


def test_invalid_settings_raise_an_error():
    with pytest.raises(UserError, match="rlpr_mode is 'r2'; choose one of r1, r1_nothink, boxed"):
        ReferenceProbability(RewardOptions(rlpr_mode="r2"))
    with pytest.raises(UserError, match="rlpr_format_weight is 2"):
        ReferenceProbability(RewardOptions(rlpr_format_weight=2.0))
    with pytest.raises(UserError, match="needs a trainer"):
        ReferenceProbability(RewardOptions())(prompts=["q"], completions=["a"], answer=["4"])
