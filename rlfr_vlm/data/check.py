"""Open every row of a data set once, in parallel, and say what is wrong with it."""

import hashlib
import os
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rlfr_vlm.data.images import open_image, read_bytes
from rlfr_vlm.data.load import Rows, read_rows
from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.data.rows import MALFORMED, BadRow, Row
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.grading import gold_list, unreadable_golds
from rlfr_vlm.options import LONG_PROMPT_RULES, DataOptions

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
        tokens: prompt tokens of the kept rows, in buckets; empty without a processor.
        longest: the longest kept prompt in tokens.
        images: images in kept rows.
    """

    rows: int = 0
    kept: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
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
    """In a worker process. Ctrl-C is for the parent, which then ends the workers."""
    from rlfr_vlm.library_output import calm

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    calm()
    _prepare(options, needed, model)


def _prepare(options: DataOptions, needed: tuple[str, ...], model: str) -> None:
    _worker["rows"], _worker["counter"] = read_rows(options, needed), None
    if model:
        from rlfr_vlm.data.lengths import TokenCounter
        from rlfr_vlm.policy import load_processor

        _worker["counter"] = TokenCounter(load_processor(model, options))
        _worker["rows"].for_text_policy = _worker["counter"].grid is None
    _worker["options"] = options


def _check_numbers(numbers: Sequence[int]) -> list[CheckedRow]:
    return [check_row(_worker["rows"], number, _worker["counter"], _worker["options"]) for number in numbers]


def check_row(rows: Rows, number: int, counter: Any, options: DataOptions) -> CheckedRow:
    """Open one row with all its images, and let go of them again."""
    try:
        row = rows.described(number)
        content = [_text(row), *(row["response"] for _ in range("response" in rows.needed))]
        digest = hashlib.sha256("\0".join(content).encode())
        sizes = []
        for image in row["images"]:
            sizes.append(open_image(image, rows.rules).size)
            digest.update(_bytes(image, rows))
        tokens = counter.count([row], [sizes])[0] if counter else None
    except BadRow as error:
        return CheckedRow(number, error.reason, error.detail)
    except MALFORMED as error:  # of the chat template or the tokenizer, whose errors know no bounds
        return CheckedRow(number, "prompt", f"{type(error).__name__}: {error}"[:300])
    reason, detail = _length(counter, row, sizes, tokens, options)
    golds = tuple(gold_list(row["answer"])) if "answer" in rows.needed else ()
    return CheckedRow(number, reason, detail, digest.digest()[:16], golds, tokens, len(sizes))


def _length(
    counter: Any, row: Row, sizes: list[tuple[int, int]], tokens: int | None, options: DataOptions
) -> tuple[str, str]:
    """Training's own decision on a prompt that is too long."""
    limit = options.max_prompt_tokens
    if limit is None or tokens is None or tokens <= limit:
        return "", ""
    text = tokens - counter.images(sizes)
    if options.long_prompts == "downscale" and counter.pixels_that_fit(text, sizes, limit) is not None:
        return "", ""
    return "prompt too long", f"{tokens} tokens, max_prompt_tokens {limit}"


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
        workers: processes; 0 is one per core, at most 8.

    Raises:
        UserError: no such data set or model, or settings that cannot work.
    """
    from tqdm import tqdm

    _check_settings(options, model, workers)
    _prepare(options, tuple(needed), model)  # here, so that a mistake is one message and not one of each worker
    report = DataReport(rows=len(_worker["rows"].raw.dataset))
    usable: dict[int, CheckedRow] = {}
    bar = tqdm(total=report.rows, desc="checking", unit="row", disable=not progress)
    for row in _checked(options, tuple(needed), model, report.rows, workers):
        bar.update()
        if row.reason:
            report.drop(row.number, row.reason, row.detail)
        else:
            usable[row.number] = row
    bar.close()
    _drop_unreadable(report, usable)
    _drop_duplicates(report, usable)
    report.kept = sorted(usable)
    report.images = sum(row.images for row in usable.values())
    _count_tokens(report, usable)
    return report


def _check_settings(options: DataOptions, model: str, workers: int) -> None:
    if workers < 0:
        raise UserError(f"workers is {workers}; it is a number of processes, or 0 for one per core.")
    if options.long_prompts not in LONG_PROMPT_RULES:
        raise UserError(
            f"long_prompts is {options.long_prompts!r}; choose one of {', '.join(LONG_PROMPT_RULES)}."
            f"{nearest(options.long_prompts, LONG_PROMPT_RULES)}"
        )
    if options.max_prompt_tokens is not None and not model:
        raise UserError(
            f"max_prompt_tokens is {options.max_prompt_tokens}, but tokens are only counted with a model. Set "
            "model_name_or_path."
        )


def _checked(
    options: DataOptions, needed: tuple[str, ...], model: str, count: int, workers: int
) -> Iterator[CheckedRow]:
    """Rows in order. Only a few chunks are on the way at a time, so memory does not grow with the data set."""
    workers = workers or available_cores()
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    if workers == 1 or count <= CHUNK:
        for chunk in chunks:
            yield from _check_numbers(chunk)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(options, needed, model)
    )
    try:
        waiting = deque(pool.submit(_check_numbers, list(chunk)) for chunk in chunks[: 4 * workers])
        for number in range(len(chunks)):
            yield from waiting.popleft().result()
            if number + 4 * workers < len(chunks):
                waiting.append(pool.submit(_check_numbers, list(chunks[number + 4 * workers])))
    finally:
        pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """Cores this process may use, at most 8: each worker holds libraries of some 200 MB."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _drop_unreadable(report: DataReport, usable: dict[int, CheckedRow]) -> None:
    """A row is dropped when none of its acceptable golds can be read by the grader."""
    unreadable = unreadable_golds([gold for row in usable.values() for gold in row.golds])
    for number, row in list(usable.items()):
        if row.golds and all(gold in unreadable for gold in row.golds):
            report.drop(number, "gold answer", f"{row.golds[0]!r}: {unreadable[row.golds[0]]}")
            del usable[number]


def _drop_duplicates(report: DataReport, usable: dict[int, CheckedRow]) -> None:
    """Of rows with the same prompt and images (and response, where one is needed) the first stays."""
    seen: dict[bytes, int] = {}
    for number, row in sorted(usable.items()):
        if row.digest in seen:
            report.drop(number, "duplicate", f"the prompt and images of row {seen[row.digest]}")
            del usable[number]
        else:
            seen[row.digest] = number


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
