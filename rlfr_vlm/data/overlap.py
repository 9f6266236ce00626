"""Rows of a benchmark that also stand in a training set: the same image, nearly, or the same words."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlfr_vlm.data.images import open_image
from rlfr_vlm.data.load import Rows
from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.data.rows import BadRow

BLOCK = 1 << 22  # pairs of hashes compared at a time
COMMON = 0.1  # n-grams that so many of a benchmark's rows share are its phrasing, not its questions
FEW = 5  # rows
FLAT = 2.0  # standard deviation of grey values below which an image has no features to compare


@dataclass(frozen=True)
class Overlap:
    """A training row and a benchmark row that are alike.

    Attributes:
        kind: `image` or `text`.
        value: for images the Hamming distance of their hashes (0 to 64), for texts the share of the benchmark row's
            n-grams that the training row holds.
    """

    train: int
    benchmark: int
    kind: str
    value: float


@dataclass
class Prints:
    """What is compared: for each row its words' n-grams, for each image its hash and row."""

    ngrams: list[frozenset[int]]
    hashes: np.ndarray
    rows_of_hashes: np.ndarray
    bad: int = 0


def words(text: str) -> list[str]:
    """Lower-case words and numbers; punctuation and LaTeX commands' backslashes do not count.

    >>> words(r"Find $x^2$ when \\\\alpha = 3.")
    ['find', 'x', '2', 'when', 'alpha', '3']
    """
    return re.findall(r"[^\W_]+", text.lower())


def ngrams(text: str, n: int) -> frozenset[int]:
    """Hashes of all runs of n words; of the whole text when it is shorter."""
    found = words(text)
    if not found:
        return frozenset()
    return frozenset(hash(tuple(found[i : i + n])) for i in range(max(1, len(found) - n + 1)))


def image_hash(image: Any) -> int | None:
    """64-bit perceptual hash (imagehash's DCT hash); None for an image without features, such as a blank page."""
    import imagehash

    if np.asarray(image.convert("L").resize((32, 32)), dtype=np.float64).std() < FLAT:
        return None
    return int(str(imagehash.phash(image)), 16)


def take_prints(rows: Rows, n: int, progress: str = "") -> Prints:
    """Prints of all rows. A row that cannot be opened has none, and is counted."""
    from tqdm import tqdm

    prints = Prints([], np.zeros(0, np.uint64), np.zeros(0, np.int64))
    hashes: list[int] = []
    owners: list[int] = []
    for number in tqdm(range(len(rows.raw.dataset)), desc=progress, unit="row", disable=not progress, leave=False):
        try:
            row = rows.described(number)
            own_words = [m["content"] for m in flatten_text(row["prompt"]) if m["role"] == "user"]  # not the system's
            own = [image_hash(open_image(image, rows.rules)) for image in row["images"]]
        except BadRow:
            prints.bad += 1
            prints.ngrams.append(frozenset())
            continue
        text = "\n".join(own_words)
        # "Find x." beside a picture says nothing without the picture.
        short = bool(row["images"]) and len(words(text)) < n
        prints.ngrams.append(frozenset() if short else ngrams(text, n))
        known = [value for value in own if value is not None]
        hashes += known
        owners += [number] * len(known)
    prints.hashes, prints.rows_of_hashes = np.array(hashes, np.uint64), np.array(owners, np.int64)
    return prints


def overlaps(train: Prints, benchmark: Prints, max_distance: int, min_share: float) -> list[Overlap]:
    """All pairs of rows that are alike, those with images first."""
    return [*_image_overlaps(train, benchmark, max_distance), *_text_overlaps(train, benchmark, min_share)]


def _image_overlaps(train: Prints, benchmark: Prints, max_distance: int) -> Iterator[Overlap]:
    best: dict[tuple[int, int], int] = {}
    rows = max(1, BLOCK // max(1, len(benchmark.hashes)))
    for start in range(0, len(train.hashes), rows):
        block = train.hashes[start : start + rows, None]
        distances = np.bitwise_count(block ^ benchmark.hashes[None, :])
        for i, j in zip(*np.nonzero(distances <= max_distance), strict=True):
            pair = (int(train.rows_of_hashes[start + i]), int(benchmark.rows_of_hashes[j]))
            best[pair] = min(best.get(pair, 64), int(distances[i, j]))
    for (row, other), distance in sorted(best.items()):
        yield Overlap(row, other, "image", distance)


def _text_overlaps(train: Prints, benchmark: Prints, min_share: float) -> Iterator[Overlap]:
    owners: dict[int, list[int]] = defaultdict(list)
    for number, own in enumerate(benchmark.ngrams):
        for gram in own:
            owners[gram].append(number)
    most = max(FEW, COMMON * len(benchmark.ngrams))
    owners = defaultdict(list, {gram: rows for gram, rows in owners.items() if len(rows) <= most})
    for number, own in enumerate(train.ngrams):
        shared: dict[int, int] = defaultdict(int)
        for gram in own:
            for other in owners.get(gram, ()):
                shared[other] += 1
        for other, count in sorted(shared.items()):
            share = count / len(benchmark.ngrams[other])
            if share >= min_share:
                yield Overlap(number, other, "text", share)


def counts(found: Sequence[Overlap]) -> dict[str, int]:
    """Benchmark rows and training rows that are concerned."""
    kinds = {kind: {o.benchmark for o in found if o.kind == kind} for kind in ("image", "text")}
    return {
        "benchmark_rows": len(kinds["image"] | kinds["text"]),
        "benchmark_rows_by_image": len(kinds["image"]),
        "benchmark_rows_by_text": len(kinds["text"]),
        "train_rows": len({o.train for o in found}),
    }
