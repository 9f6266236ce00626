"""Embedded task `digits_video`: real handwritten digits that appear one after the other.

Three scans of scikit-learn (data/digits.py) are shown for two frames each, 28x28 pixels, which is one video token a
digit for Qwen2.5-VL. The question asks which digit came first, second or third. Training and test scans are disjoint.
"""

import io
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from rlfr_vlm.data.digits import SPLITS, label_of, scan_image, scan_indices
from rlfr_vlm.data.rows import Row

if TYPE_CHECKING:
    from datasets import Dataset

PLACES = ("first", "second", "third")
FRAMES_OF_A_DIGIT = 2


def digit_video_rows(split: str, size: int, seed: int) -> list[Row]:
    """Return `size` rows with prompt (messages), videos (a list of frames as PNG), answer and expert response."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    rng = np.random.default_rng([seed, SPLITS.index(split), len(PLACES)])
    scans = rng.choice(scan_indices(split), size=(size, len(PLACES)))
    places = rng.integers(len(PLACES), size=size)
    rows = []
    for shown, place in zip(scans, places, strict=True):
        digits = [label_of(int(scan)) for scan in shown]
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"{PLACES[place]}?"}],
                "videos": [[_png(int(scan)) for scan in shown for _ in range(FRAMES_OF_A_DIGIT)]],
                "answer": str(digits[place]),
                "response": f"{', '.join(map(str, digits))}. \\boxed{{{digits[place]}}}",
            }
        )
    return rows


@cache
def _png(scan: int) -> bytes:
    stream = io.BytesIO()
    scan_image(scan).save(stream, "PNG")
    return stream.getvalue()


def load_digit_videos(split: str, size: int = 4096, seed: int = 0) -> "Dataset":
    """Return the task as a dataset with the columns prompt, videos, answer and response."""
    from datasets import Dataset

    return Dataset.from_list(digit_video_rows(split, size, seed))
