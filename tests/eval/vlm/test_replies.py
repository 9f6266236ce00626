"""A judge's reply becomes the one thing that was asked for, or nothing."""

import pytest

from rlfr_eval.vlm.replies import reader

ABCD = {"A": "cat", "B": "dog", "C": "cow", "D": "a hen"}


@pytest.mark.parametrize(
    ("reads", "reply", "value"),
    [
        ("answer", "14", "14"),
        ("answer", "Extracted answer: 14", "14"),
        ("answer", "Sure! Here it is.\n\nExtracted Answer: 14\n", "14"),
        ("answer", "**\\frac{1}{2}**", "\\frac{1}{2}"),
        ("answer", "No answer", ""),
        ("answer", "Extracted answer: none", ""),
        ("answer", "The model thinks that\nit may be 3, or 4.", None),
        ("answer", "It is a long story. " * 20, None),
        ("answer", "<think>maybe 7</think>14", "14"),
        ("integer", "14.0", "14"),
        ("integer", "The answer is 1,400 apples.", "1400"),
        ("integer", "between 3 and 4", None),
        ("integer", "many", None),
        ("integer", "14.5", "14.5"),
        ("float", "about 0.6", "0.6"),
        ("float", "-1.5e3", "-1500.0"),
        ("letter", "B", "B"),
        ("letter", " (b). ", "B"),
        ("letter", "Your output: B", "B"),
        ("letter", "**B. dog**", "B"),
        ("letter", "<<B>>", "B"),
        ("letter", "The answer is A", "A"),
        ("letter", "The correct option is B because it barks", "B"),
        ("letter", "A dog is an animal", None),
        ("letter", "either B or C", None),
        ("letter", "Z", "Z"),
        ("letter", "None", "Z"),
        ("letter", "X", None),
        ("letter", "I cannot help with this", None),
        ("option", "dog", "B"),
        ("option", "Extracted answer: D", "D"),
        ("option", "none", ""),
        ("option", "a horse", None),
        ("letters", "AD", "AD"),
        ("letters", "D, A", "DA"),
        ("letters", "Your output: B", "B"),
        ("letters", "none", "Z"),
        ("letters", "The second one", None),
        ("binary", "1", "1"),
        ("binary", "Judgement: 0", "0"),
        ("binary", "They are the same.\nJudgement: 1", "1"),
        ("binary", "0 or 1", None),
        ("binary", "10", None),
        ("binary", "0.5", None),
        ("binary", "yes", None),
        ("raw", "whatever it is", "whatever it is"),
        ("raw", "", None),
    ],
)
def test_replies(reads, reply, value):
    assert reader(reads, ABCD)(reply, "stop").value == value


def test_a_reply_that_was_cut_off_says_nothing():
    assert reader("binary", {})("1", "length").reason == "judge cut off"
    assert reader("answer", {})("<think>so it is 14", "stop").value is None
    assert reader("letter", ABCD)("hm", "stop").reason == "judge gave no verdict"
