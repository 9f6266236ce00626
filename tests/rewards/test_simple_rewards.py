"""Format, repetition, length and language rewards, with expected values derived by hand."""

import sys
from collections import Counter

import pytest

from rlfr_vlm.errors import UserError
from rlfr_vlm.rewards.format import FORMATS, pattern_format
from rlfr_vlm.rewards.language import language_mix
from rlfr_vlm.rewards.length import length_reward, overlong_penalty
from rlfr_vlm.rewards.repetition import is_repetitive, repetition


@pytest.mark.parametrize(
    ("name", "text", "fits"),
    [
        ("boxed", r"so \boxed{7}", True),
        ("boxed", "so 7", False),
        ("boxed", r"\boxed{}", False),
        ("r1", "<think>a</think> <answer>7</answer>", True),
        ("r1", "<answer>7</answer> <think>a</think>", False),  # wrong order
        ("r1", "<think>a</think> <answer>7</answer> <answer>8</answer>", False),  # twice
        ("r1", "<think>a</think> <answer>7", False),
        ("r1_nothink", "a <answer>7</answer>", True),
        ("r1_nothink", "</answer>7<answer>", False),
    ],
)
def test_formats(name, text, fits):
    assert FORMATS[name](text) is fits


def test_custom_format():
    fits = pattern_format(r"Answer: \d+")
    assert fits("Answer: 12") and not fits("Answer: 12.") and not fits("the Answer: 12")
    with pytest.raises(UserError, match=r"format_pattern '\(' is not a regular expression"):
        pattern_format("(")


def test_repetition_needs_ten_equal_windows_of_ten_words():
    phrase = "one two three four five six seven eight nine ten "
    assert not is_repetitive(phrase * 9)
    assert is_repetitive(phrase * 10)  # the window starting at `one` occurs ten times
    assert is_repetitive((phrase + "something else ") * 10)
    assert not is_repetitive(" ".join(map(str, range(1000))))
    assert repetition(completions=[[{"content": phrase * 10}], "7"]) == [-1.0, 0.0]


@pytest.mark.timeout(60)  # 200,000 words in quadratic time would take hours
def test_repetition_is_linear(monkeypatch):
    """Each window of words is counted once, and nothing else is done with the words."""
    counted = []

    def counter(windows):
        counted.append(0)

        def each():
            for window in windows:
                counted[-1] += 1
                yield window

        return Counter(each())

    monkeypatch.setattr(sys.modules["rlfr_vlm.rewards.repetition"], "Counter", counter)
    for size in (20_000, 200_000):
        is_repetitive(" ".join(str(i % 1000) for i in range(size)))
    assert counted == [20_000 - 9, 200_000 - 9]


def test_soft_overlong_penalty():
    """DAPO: limit 100, buffer 20. At 85 tokens: (80 - 85) / 20."""
    assert [overlong_penalty(n, 100, 20) for n in (1, 80, 85, 100, 101)] == [0.0, 0.0, -0.25, -1.0, -1.0]
    assert overlong_penalty(100, 100, 0) == 0.0 and overlong_penalty(101, 100, 0) == -1.0
    assert length_reward(10, 4)(completions=["", ""], completion_ids=[[1] * 6, [1] * 9]) == [0.0, -0.75]


def test_language_mix():
    """`sum 和 是` has 3 Latin and 2 Chinese letters."""
    prompts = [[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]] * 2
    answers = ["sum 和 是", r"\frac{\pi}{2} = α"]
    assert language_mix(completions=answers, prompts=prompts) == [-0.4, 0.0]
    assert language_mix(completions=["和 是 sum"], prompts=["多少？"]) == [0.0]
    assert language_mix(completions=["123"], prompts=["?"]) == [0.0]
