"""Find benchmark rows that also occur in a training set, by near-equal images or by shared n-grams."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlfr_vlm.data.images import open_image
from rlfr_vlm.data.load import Rows
from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.data.rows import BadRow

if TYPE_CHECKING:
    from PIL.Image import Image

BLOCK = 1 << 22  # pairs of hashes compared at a time
# n-grams in more benchmark rows than both limits are ignored, because they are phrasing common to the benchmark.
COMMON_SHARE = 0.1  # of the benchmark's rows
COMMON_ROWS = 5
MIN_STD = 2.0  # standard deviation of grey values; an image with less has no features to compare


@dataclass(frozen=True)
class Overlap:
    """A training row and a benchmark row that overlap.

    Attributes:
        train, benchmark: row numbers.
        kind: `image` or `text`.
        value: for images, the Hamming distance of the hashes (0 to 64); for texts, the share of the benchmark row's
            n-grams that occur in the training row.
    """

    train: int
    benchmark: int
    kind: str
    value: float


@dataclass
class Fingerprints:
    """Fingerprints of a data set.

    Attributes:
        ngrams: for each row, the hashes of its n-grams of words.
        hashes: perceptual hashes of all images.
        rows_of_hashes: row number of each hash.
        bad: number of rows that cannot be opened.
    """

    ngrams: list[frozenset[int]]
    hashes: np.ndarray
    rows_of_hashes: np.ndarray
    bad: int = 0


def words(text: str) -> list[str]:
    """Return the words and numbers of a text in lower case, without punctuation and backslashes.

    >>> words(r"Find $x^2$ when \\\\alpha = 3.")
    ['find', 'x', '2', 'when', 'alpha', '3']
    """
    return re.findall(r"[^\W_]+", text.lower())


def ngrams(text: str, n: int) -> frozenset[int]:
    """Return the hashes of all n-grams of words. A shorter text has one hash, of all its words."""
    tokens = words(text)
    if not tokens:
        return frozenset()
    return frozenset(hash(tuple(tokens[i : i + n])) for i in range(max(1, len(tokens) - n + 1)))


def image_hash(image: "Image") -> int | None:
    """Return the 64-bit perceptual hash (imagehash.phash); None for an image without features, e.g. a blank page."""
    import imagehash

    if np.asarray(image.convert("L").resize((32, 32)), dtype=np.float64).std() < MIN_STD:
        return None
    return int(str(imagehash.phash(image)), 16)


def fingerprint_rows(rows: Rows, n: int, progress: str = "") -> Fingerprints:
    """Compute the fingerprints of all rows. Rows that cannot be opened are counted and have no n-grams or hashes.

    Args:
        rows: the data set.
        n: words per n-gram.
        progress: description of the progress bar; empty for no bar.
    """
    from tqdm import tqdm

    fingerprints = Fingerprints([], np.zeros(0, np.uint64), np.zeros(0, np.int64))
    hashes: list[int] = []
    rows_of_hashes: list[int] = []
    for number in tqdm(range(rows.size), desc=progress, unit="row", disable=not progress, leave=False):
        try:
            row = rows.parse(number)
            user_texts = [m["content"] for m in flatten_text(row["prompt"]) if m["role"] == "user"]
            row_hashes = [image_hash(open_image(image, rows.rules_of(row))) for image in row["images"]]
        except BadRow:
            fingerprints.bad += 1
            fingerprints.ngrams.append(frozenset())
            continue
        text = "\n".join(user_texts)
        # A short question about an image, such as "Find x.", does not identify the row.
        short = bool(row["images"]) and len(words(text)) < n
        fingerprints.ngrams.append(frozenset() if short else ngrams(text, n))
        valid_hashes = [value for value in row_hashes if value is not None]
        hashes += valid_hashes
        rows_of_hashes += [number] * len(valid_hashes)
    fingerprints.hashes = np.array(hashes, np.uint64)
    fingerprints.rows_of_hashes = np.array(rows_of_hashes, np.int64)
    return fingerprints


def overlaps(train: Fingerprints, benchmark: Fingerprints, max_distance: int, min_share: float) -> list[Overlap]:
    """Return all overlapping pairs of rows, first by image, then by text.

    Args:
        train, benchmark: fingerprints of the two data sets.
        max_distance: largest Hamming distance of image hashes, in bits.
        min_share: smallest share of a benchmark row's n-grams.
    """
    return [*_image_overlaps(train, benchmark, max_distance), *_text_overlaps(train, benchmark, min_share)]


def _image_overlaps(train: Fingerprints, benchmark: Fingerprints, max_distance: int) -> Iterator[Overlap]:
    best: dict[tuple[int, int], int] = {}
    rows = max(1, BLOCK // max(1, len(benchmark.hashes)))
    for start in range(0, len(train.hashes), rows):
        block = train.hashes[start : start + rows, None]
        distances = np.bitwise_count(block ^ benchmark.hashes[None, :])
        for i, j in zip(*np.nonzero(distances <= max_distance), strict=True):
            pair = (int(train.rows_of_hashes[start + i]), int(benchmark.rows_of_hashes[j]))
            best[pair] = min(best.get(pair, 64), int(distances[i, j]))
    for (train_row, benchmark_row), distance in sorted(best.items()):
        yield Overlap(train_row, benchmark_row, "image", distance)


def _text_overlaps(train: Fingerprints, benchmark: Fingerprints, min_share: float) -> Iterator[Overlap]:
    rows_with: dict[int, list[int]] = defaultdict(list)  # benchmark rows by n-gram
    for benchmark_row, row_ngrams in enumerate(benchmark.ngrams):
        for ngram in row_ngrams:
            rows_with[ngram].append(benchmark_row)
    max_rows = max(COMMON_ROWS, COMMON_SHARE * len(benchmark.ngrams))
    distinctive = {ngram: rows for ngram, rows in rows_with.items() if len(rows) <= max_rows}
    for train_row, row_ngrams in enumerate(train.ngrams):
        shared: dict[int, int] = defaultdict(int)
        for ngram in row_ngrams:
            for benchmark_row in distinctive.get(ngram, ()):
                shared[benchmark_row] += 1
        for benchmark_row, count in sorted(shared.items()):
            share = count / len(benchmark.ngrams[benchmark_row])
            if share >= min_share:
                yield Overlap(train_row, benchmark_row, "text", share)


def count_rows(pairs: Sequence[Overlap]) -> dict[str, int]:
    """Return the numbers of benchmark rows and training rows in overlapping pairs."""
    kinds = {kind: {o.benchmark for o in pairs if o.kind == kind} for kind in ("image", "text")}
    return {
        "benchmark_rows": len(kinds["image"] | kinds["text"]),
        "benchmark_rows_by_image": len(kinds["image"]),
        "benchmark_rows_by_text": len(kinds["text"]),
        "train_rows": len({o.train for o in pairs}),
    }
