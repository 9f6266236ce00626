"""The summary of sampled responses by hand."""

import pytest

from rlfr_vlm.sampling.sample_file import Outcome
from rlfr_vlm.sampling.summary import Summary, render
from rlfr_vlm.stats import clustered_interval

# four responses to each prompt: right, wrong, undecided
VERDICTS = {0: "RRRR", 1: "WWWW", 2: "RWWW", 3: "RRWU", 5: "UUUU"}
NAMES = {"R": "right", "W": "wrong", "U": "undecided"}


def outcomes(verdicts):
    return [
        Outcome(prompt, number, NAMES[letter], letter == "W" and number == 3, "time-out" if letter == "U" else "")
        for prompt, letters in verdicts.items()
        for number, letter in enumerate(letters)
    ]


@pytest.fixture
def values():
    return Summary.of(outcomes(VERDICTS), 4, {"image missing": 1}).to_dict()


def test_counts(values):
    assert (values["prompts"], values["responses"], values["truncated"], values["failed"]) == (5, 20, 2, 0)
    assert (values["right"], values["wrong"], values["undecided"]) == (4 + 1 + 2, 4 + 3 + 1, 5)
    assert values["undecided_reasons"] == {"time-out": 5} and values["left_out_rows"] == {"image missing": 1}


def test_accuracy_is_the_mean_over_prompts_with_a_decided_response(values):
    shares = [1.0, 0.0, 1 / 4, 2 / 3]
    assert values["accuracy"]["acc"] == pytest.approx(sum(shares) / 4) and values["accuracy"]["prompts"] == 4
    assert values["accuracy"]["ci95"] == list(clustered_interval(shares, 4))


def test_pass_at_k_counts_prompts_with_k_decided_responses(values):
    # 2 of prompt 2's four: 1 - C(3,2)/C(4,2) = 1/2; of prompt 3's three with one wrong: 1
    assert {k: found["prompts"] for k, found in values["pass_at"].items()} == {"1": 4, "2": 4, "4": 3}
    assert values["pass_at"]["1"]["pass"] == pytest.approx((1 + 0 + 1 / 4 + 2 / 3) / 4)
    assert values["pass_at"]["2"]["pass"] == pytest.approx((1 + 0 + 1 / 2 + 1) / 4)
    assert values["pass_at"]["4"]["pass"] == pytest.approx((1 + 0 + 1) / 3)


@pytest.mark.parametrize(("samples", "sizes"), [(1, "1"), (2, "1 2"), (6, "1 2 4 6"), (8, "1 2 4 8")])
def test_k_is_a_power_of_two_or_all_samples(samples, sizes):
    assert list(Summary.of([], samples, {}).pass_at()) == sizes.split()


def test_prompts_by_what_grpo_learns_from_them(values):
    assert values["groups"] == {"all_right": 1, "all_wrong": 1, "mixed": 2, "undecided": 1}


def test_histogram_of_difficulty(values):
    expected = {"0 %": 1, "0-20 %": 0, "20-40 %": 1, "40-60 %": 0, "60-80 %": 1, "80-100 %": 0, "100 %": 1}
    assert values["share_right"] == expected
    # 4 of 5 right is 80 %, the lower edge of the last bin
    assert Summary.of(outcomes({0: "RRRRW"}), 5, {}).histogram()["80-100 %"] == 1


def test_text(values):
    lines = render(values).split("\n")
    assert lines.pop(1) == "  10.0% are cut off, and count as wrong without an answer: raise --max_new_tokens"
    assert lines[:4] == [
        "20 responses to 5 prompts: 7 right, 8 wrong, 5 undecided; 2 reached the limit of tokens",
        "  undecided: 5 time-out",
        "  rows left out: 1 image missing; `rlfr check-data` shows them",
        "accuracy 0.479 [{:.3f}, {:.3f}], over 4 prompts".format(*values["accuracy"]["ci95"]),
    ]
    assert lines[4] == "pass@1 0.479 (4 prompts), pass@2 0.625 (4 prompts), pass@4 0.667 (3 prompts)"
    assert lines[5] == "prompts: 2 mixed, which GRPO learns from; 1 all right, 1 all wrong, 1 undecided"
    assert lines[7] == f"       0 %       1  {'#' * 40}" and lines[8] == "    0-20 %       0"


def test_responses_that_an_engine_did_not_give_are_counted_apart():
    failed = [Outcome(0, number, "undecided", False, f"no response: HTTP 400: {number}") for number in range(2)]
    values = Summary.of(failed, 2, {}).to_dict()
    assert values["failed"] == 2 and values["undecided_reasons"] == {"no response": 2}
    assert values["accuracy"]["acc"] is None and values["pass_at"]["1"] == {"pass": None, "prompts": 0}
    assert render(values).endswith("nothing is decided, so there is no accuracy")
