"""Embedded task `digits`: arithmetic on two real handwritten digits.

scikit-learn ships 1,797 real 8x8 scans. Two scans are enlarged to 28x28 and placed side by side in a 56x28 image,
which is two image tokens for Qwen2.5-VL. The question asks for their sum, difference or product. Training and test
scans are disjoint. The rows are determined by the seed and need no network.
"""

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from rlfr_vlm.data.rows import Row

if TYPE_CHECKING:
    from datasets import Dataset

SPLITS = ("train", "test")
TEST_SCANS = 397
SPLIT_SEED = 0  # the split of the scans must not depend on the run's seed
CELL = 28  # pixels; one image token of Qwen2.5-VL covers 28x28
OPERATIONS = {"sum": "+", "difference": "-", "product": "*"}


@dataclass(frozen=True)
class Problem:
    """A question about the digits of two scans."""

    left: int
    right: int
    operation: str

    @property
    def question(self) -> str:
        return f"{self.operation}?"

    @property
    def answer(self) -> str:
        results = {
            "sum": self.left + self.right,
            "difference": self.left - self.right,
            "product": self.left * self.right,
        }
        return str(results[self.operation])

    @property
    def response(self) -> str:
        """The expert response.

        >>> Problem(5, 2, "sum").response
        '5 + 2 = 7. \\\\boxed{7}'
        """
        return f"{self.left} {OPERATIONS[self.operation]} {self.right} = {self.answer}. \\boxed{{{self.answer}}}"


@cache
def _scans() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    scans = load_digits()
    return (scans.images * (255 / 16)).astype(np.uint8), scans.target


def scan_indices(split: str) -> np.ndarray:
    """Return the indices of the scans in a split."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(_scans()[1]))
    return order[TEST_SCANS:] if split == "train" else order[:TEST_SCANS]


def label_of(scan: int) -> int:
    """Return the digit of a scan."""
    return int(_scans()[1][scan])


@cache
def scan_image(scan: int) -> Image.Image:
    """Return a scan as an RGB image of `CELL` x `CELL` pixels."""
    return Image.fromarray(_scans()[0][scan]).resize((CELL, CELL), Image.Resampling.BILINEAR).convert("RGB")


def pair_image(left: int, right: int) -> Image.Image:
    """Return two scans side by side: two image tokens of Qwen2.5-VL."""
    image = Image.new("RGB", (2 * CELL, CELL))
    image.paste(scan_image(left), (0, 0))
    image.paste(scan_image(right), (CELL, 0))
    return image


def digit_rows(split: str, size: int, seed: int) -> list[Row]:
    """Return `size` rows with prompt (messages), images, answer and expert response."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    _, labels = _scans()
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    pairs = rng.choice(scan_indices(split), size=(size, 2))
    operations = rng.choice(list(OPERATIONS), size=size)
    rows = []
    for (left, right), operation in zip(pairs, operations, strict=True):
        problem = Problem(int(labels[left]), int(labels[right]), str(operation))
        rows.append(
            {
                "prompt": [{"role": "user", "content": problem.question}],
                "images": [pair_image(left, right)],
                "answer": problem.answer,
                "response": problem.response,
            }
        )
    return rows


def load_digits_task(split: str, size: int = 4096, seed: int = 0) -> "Dataset":
    """Return the task as a dataset with the columns prompt, images, answer and response."""
    from datasets import Dataset

    return Dataset.from_list(digit_rows(split, size, seed))
