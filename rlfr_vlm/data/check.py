"""Open every row of a data set once, in parallel, and say what is wrong with it."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rlfr_vlm.data.images import image_size, open_image, read_bytes
from rlfr_vlm.data.load import Rows, read_rows
from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.data.rows import BadRow, Row
from rlfr_vlm.grading import gold_list, unreadable_golds
from rlfr_vlm.options import DataOptions

CHUNK = 64
EXAMPLES = 5  # of each reason, kept for the report
BUCKETS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)


@dataclass(frozen=True)
class CheckedRow:
    """What is kept of a row: no text, no pixels."""

    number: int
    reason: str = ""
    detail: str = ""
    digest: bytes = b""
    golds: tuple[str, ...] = ()
    tokens: int | None = None
    images: int = 0


@dataclass
class DataReport:
    """The outcome of a check.

    Attributes:
        rows: how many there are.
        kept: numbers of the rows that can be used.
        dropped: how many rows each reason cost.
        examples: for each reason, some rows and details.
        duplicates: rows with the prompt and images of an earlier one; they are dropped.
        tokens: prompt tokens of the kept rows, in buckets; empty without a processor.
        longest: the longest kept prompt in tokens.
        images: images in kept rows.
    """

    rows: int = 0
    kept: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    duplicates: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    longest: int = 0
    images: int = 0

    def drop(self, number: int, reason: str, detail: str) -> None:
        self.dropped[reason] += 1
        if len(found := self.examples.setdefault(reason, [])) < EXAMPLES:
            found.append(f"row {number}: {detail}"[:300])

    @property
    def dropped_share(self) -> float:
        return 1 - len(self.kept) / self.rows if self.rows else 1.0


_worker: dict[str, Any] = {}


def _start_worker(options: DataOptions, needed: tuple[str, ...], model: str) -> None:
    from rlfr_vlm.terminal import calm

    calm()
    _worker["rows"] = read_rows(options, needed)
    _worker["counter"] = _counter(options, model)


def _counter(options: DataOptions, model: str) -> Any:
    if not model:
        return None
    from rlfr_vlm.data.tokens import TokenCounter
    from rlfr_vlm.policy import load_processor

    return TokenCounter(load_processor(model, options))


def _check_numbers(numbers: Sequence[int]) -> list[CheckedRow]:
    return [check_row(_worker["rows"], number, _worker["counter"]) for number in numbers]


def check_row(rows: Rows, number: int, counter: Any = None) -> CheckedRow:
    """Open one row with all its images, and let go of them again."""
    try:
        row = rows.described(number)
        digest = hashlib.sha256(_text(row).encode("utf-8", "replace"))
        sizes = []
        for image in row["images"]:
            open_image(image, rules=rows.rules)
            sizes.append(image_size(image, rows.rules))
            digest.update(_bytes(image, rows))
    except BadRow as error:
        return CheckedRow(number, error.reason, error.detail)
    golds = tuple(gold_list(row["answer"])) if row.get("answer") is not None else ()
    tokens = counter.count([row], [sizes])[0] if counter else None
    return CheckedRow(number, "", "", digest.digest()[:16], golds, tokens, len(sizes))


def _text(row: Row) -> str:
    return "\n".join(message["content"] for message in flatten_text(row["prompt"]))


def _bytes(image: Any, rows: Rows) -> bytes:
    source = read_bytes(image, rows.rules)
    return hashlib.sha256(source.read_bytes() if isinstance(source, Path) else source).digest()


def check_rows(
    options: DataOptions, needed: Sequence[str], model: str = "", workers: int = 0, progress: bool = True
) -> DataReport:
    """Check every row.

    Args:
        options: which data set, and the rules for its rows.
        needed: columns every row must have.
        model: a policy whose processor counts the tokens; empty: they are not counted.
        workers: processes; 0 is one per core.

    Raises:
        UserError: no such data set.
    """
    from tqdm import tqdm

    report = DataReport(rows=len(read_rows(options, needed).raw.dataset))
    seen: set[bytes] = set()
    golds: dict[str, list[int]] = {}
    usable: dict[int, CheckedRow] = {}
    bar = tqdm(total=report.rows, desc="checking", unit="row", disable=not progress)
    for row in _checked(options, tuple(needed), model, report.rows, workers):
        bar.update()
        if row.reason:
            report.drop(row.number, row.reason, row.detail)
        elif row.digest in seen:
            report.duplicates += 1
            report.drop(row.number, "duplicate", "the prompt and images of an earlier row")
        else:
            seen.add(row.digest)
            usable[row.number] = row
            for gold in row.golds:
                golds.setdefault(gold, []).append(row.number)
    bar.close()
    _drop_unreadable(report, usable, golds)
    _drop_long(report, usable, options)
    report.kept = sorted(usable)
    report.images = sum(row.images for row in usable.values())
    _count_tokens(report, usable)
    return report


def _checked(
    options: DataOptions, needed: tuple[str, ...], model: str, count: int, workers: int
) -> Iterator[CheckedRow]:
    """Rows in order. Only a few chunks are on the way at a time, so memory does not grow with the data set."""
    workers = workers or os.cpu_count() or 1
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    if workers == 1 or count <= CHUNK:
        _start_worker(options, needed, model)
        for chunk in chunks:
            yield from _check_numbers(chunk)
        return
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(options, needed, model)
    ) as pool:
        waiting = [pool.submit(_check_numbers, list(chunk)) for chunk in chunks[: 4 * workers]]
        for number in range(len(chunks)):
            yield from waiting.pop(0).result()
            if number + 4 * workers < len(chunks):
                waiting.append(pool.submit(_check_numbers, list(chunks[number + 4 * workers])))


def _drop_unreadable(report: DataReport, usable: dict[int, CheckedRow], golds: dict[str, list[int]]) -> None:
    """A row is dropped when none of its acceptable golds can be read by the grader."""
    unreadable = unreadable_golds(list(golds))
    for number in {number for gold in unreadable for number in golds[gold]}:
        own = usable[number].golds
        if all(gold in unreadable for gold in own):
            report.drop(number, "gold answer", f"{own[0]!r}: {unreadable[own[0]]}")
            del usable[number]


def _drop_long(report: DataReport, usable: dict[int, CheckedRow], options: DataOptions) -> None:
    limit = options.max_prompt_tokens
    if limit is None or options.long_prompts == "downscale":
        return
    for number, row in list(usable.items()):
        if row.tokens is not None and row.tokens > limit:
            report.drop(number, "prompt too long", f"{row.tokens} tokens, limit {limit}")
            del usable[number]


def _count_tokens(report: DataReport, usable: dict[int, CheckedRow]) -> None:
    counts = [row.tokens for row in usable.values() if row.tokens is not None]
    report.longest = max(counts, default=0)
    low = 0
    for high in BUCKETS:
        inside = sum(low < count <= high for count in counts)
        if inside:
            report.tokens[f"{low + 1}-{high}"] = inside
        low = high
    if beyond := sum(count > low for count in counts):
        report.tokens[f"above {low}"] = beyond
