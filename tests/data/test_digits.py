"""Embedded task `digits`: real scans, disjoint splits, rows determined by the seed."""

import numpy as np
import pytest

from rlfr_vlm.data.digits import Problem, digit_rows, scan_indices
from rlfr_vlm.grading import Verdict, grade


@pytest.mark.parametrize(
    ("problem", "response"),
    [
        (Problem(5, 2, "sum"), r"5 + 2 = 7. \boxed{7}"),
        (Problem(2, 5, "difference"), r"2 - 5 = -3. \boxed{-3}"),
        (Problem(9, 9, "product"), r"9 * 9 = 81. \boxed{81}"),
    ],
)
def test_expert_responses_by_hand(problem, response):
    assert problem.response == response
    assert grade(gold=problem.answer, response=response).verdict is Verdict.RIGHT


def test_train_and_test_scans_are_disjoint_and_complete():
    train, test = scan_indices("train"), scan_indices("test")
    assert len(test) == 397
    assert sorted([*train, *test]) == list(range(1797))


def test_rows_are_deterministic_and_differ_between_seeds_and_splits():
    def key(split: str, seed: int) -> list[tuple[str, bytes]]:
        return [(row["response"], row["images"][0].tobytes()) for row in digit_rows(split, 20, seed)]

    assert key("train", 0) == key("train", 0)
    assert key("train", 0) != key("train", 1)
    assert key("train", 0) != key("test", 0)


def test_images_show_the_two_scans_side_by_side():
    from sklearn.datasets import load_digits

    row = digit_rows("test", 1, 5)[0]
    image = np.asarray(row["images"][0].convert("L"), dtype=float)
    assert image.shape == (28, 56)
    left, right = (
        int(part) for part in row["response"].split(" = ")[0].replace("*", "+").replace(" - ", " + ").split(" + ")
    )
    scans = load_digits()
    for half, digit in ((image[:, :28], left), (image[:, 28:], right)):
        # shrink back to 8x8 and find the nearest scan, whose label must be the digit of the row
        small = np.array([[half[int(y * 3.5) + 1, int(x * 3.5) + 1] for x in range(8)] for y in range(8)]) * 16 / 255
        test_scans = scan_indices("test")
        nearest = test_scans[np.argmin(((scans.images[test_scans] - small) ** 2).sum(axis=(1, 2)))]
        assert scans.target[nearest] == digit


def test_all_operations_occur_about_equally():
    questions = [row["prompt"][0]["content"] for row in digit_rows("train", 600, 0)]
    for name in ("sum?", "difference?", "product?"):
        assert 150 < questions.count(name) < 250  # 200 expected, standard deviation 11.5


def test_unknown_split():
    with pytest.raises(ValueError, match="'dev'"):
        digit_rows("dev", 1, 0)
