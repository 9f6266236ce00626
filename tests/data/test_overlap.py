"""Overlap of training and benchmark rows, by image and by n-grams."""

import json

import numpy as np
import pytest
from PIL import Image

from rlfr_vlm.data.load import read_rows
from rlfr_vlm.data.overlap import Overlap, count_rows, fingerprint_rows, image_hash, ngrams, overlaps
from rlfr_vlm.options import DataOptions

LONG = "a train leaves the station at noon and travels north at sixty miles an hour for three hours then stops"


def picture(seed: int) -> Image.Image:
    """Return smooth random blobs that differ as much as photographs."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6), dtype=np.uint8)
    return Image.fromarray(noise).resize((96, 96), Image.Resampling.BICUBIC).convert("RGB")


def rows_of(folder, name, rows):
    folder.mkdir(exist_ok=True)
    for i, row in enumerate(rows):
        if image := row.pop("image", None):
            image.save(folder / f"{name}{i}.png")
            row["images"] = [f"{name}{i}.png"]
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return read_rows(DataOptions(dataset_name=str(folder / f"{name}.jsonl")))


@pytest.fixture
def pairs(tmp_path):
    smaller = picture(1).resize((60, 60))
    blank = Image.new("RGB", (50, 50), "white")
    train = rows_of(tmp_path, "train", [
        {"prompt": "what?", "image": picture(0)}, {"prompt": "which?", "image": smaller},
        {"prompt": f"Tell me: {LONG}."}, {"prompt": "blank", "image": blank}, {"prompt": "short one"},
    ])  # fmt: skip
    benchmark = rows_of(tmp_path, "benchmark", [
        {"prompt": "how many?", "image": picture(1)}, {"prompt": LONG.upper()}, {"prompt": "empty", "image": blank},
        {"prompt": "Short, one!"}, {"prompt": "something else entirely"}, {"prompt": "gone", "images": ["gone.png"]},
    ])  # fmt: skip
    return overlaps(fingerprint_rows(train, 13), fingerprint_rows(benchmark, 13), max_distance=4, min_share=0.5)


def test_pairs(pairs):
    assert [(o.train, o.benchmark, o.kind) for o in pairs] == [(1, 0, "image"), (2, 1, "text"), (4, 3, "text")]
    assert pairs[0].value <= 4 and pairs[1].value == pairs[2].value == 1.0


def test_phrasing_shared_by_all_rows_is_no_overlap(tmp_path):
    """All rows have the same opening, and short questions have different images."""
    start = "answer the following question carefully and give only the final number as your result please now"

    def fingerprints(name, shift):
        rows = [{"prompt": f"{start} {n + shift} {n} {n + 1}"} for n in range(40)]
        pictures = [{"prompt": "Find x.", "image": picture(shift + n)} for n in range(3)]
        return fingerprint_rows(rows_of(tmp_path, name, rows + pictures), 13)

    assert overlaps(fingerprints("train", 0), fingerprints("benchmark", 1000), max_distance=0, min_share=0.5) == []


def test_counts(pairs):
    assert count_rows(pairs) == {
        "benchmark_rows": 3, "benchmark_rows_by_image": 1, "benchmark_rows_by_text": 2, "train_rows": 3,
    }  # fmt: skip
    assert count_rows([Overlap(0, 1, "image", 0), Overlap(0, 1, "text", 1)])["benchmark_rows"] == 1


def test_share_of_ngrams():
    """20 words have 8 n-grams of 13 words; the first 15 words have 3 of them."""
    full, part = ngrams(LONG, 13), ngrams(" ".join(LONG.split()[:15]), 13)
    assert (len(full), len(full & part)) == (8, 3)
    assert ngrams("?!", 13) == frozenset()


def test_a_blank_image_has_no_hash():
    assert image_hash(Image.new("RGB", (40, 40), "white")) is None
    assert image_hash(picture(0)) == image_hash(picture(0)) != image_hash(picture(1))


def test_a_row_that_cannot_be_opened_is_counted(tmp_path):
    rows = rows_of(tmp_path, "train", [{"prompt": "gone", "images": ["gone.png"]}, {"prompt": "short one"}])
    fingerprints = fingerprint_rows(rows, 13)
    assert fingerprints.bad == 1 and len(fingerprints.ngrams) == 2
