"""Check every row of a data set in parallel: open it, and report why it cannot be used."""

import hashlib
import os
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.data.across_rows import RowKey, bad_across_rows, golds_of, prompt_text
from rlfr_vlm.data.images import ImageRules, image_source
from rlfr_vlm.data.load import Rows, read_rows
from rlfr_vlm.data.row_checks import describe_notes, notes_of
from rlfr_vlm.data.rows import MALFORMED, BadRow
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.options import LONG_PROMPT_RULES, DataOptions

if TYPE_CHECKING:
    from rlfr_vlm.data.lengths import TokenCounter

CHUNK = 64  # rows per task of a worker process
NOTED_ROWS = 2000  # rows that are read before training for notes
EXAMPLES = 5  # rows of each reason in the report
BUCKETS = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)  # upper bounds in prompt tokens


@dataclass(frozen=True)
class CheckedRow:
    """Outcome of checking a row, small enough to send between processes.

    Attributes:
        number: row number.
        reason: why the row cannot be used; empty for a good row.
        detail: details of the reason.
        digest: hash of prompt, response and images, to find duplicates.
        golds: acceptable gold answers.
        tokens: prompt tokens; None if they were not counted.
        images: number of images.
        notes: keys of `row_checks.NOTES`.
    """

    number: int
    reason: str = ""
    detail: str = ""
    digest: bytes = b""
    golds: tuple[str, ...] = ()
    tokens: int | None = None
    images: int = 0
    notes: tuple[str, ...] = ()


@dataclass
class DataReport:
    """Result of checking a data set.

    Attributes:
        rows: number of rows.
        kept: numbers of the rows that can be used.
        dropped: number of dropped rows by reason.
        examples: some rows with details by reason.
        tokens: histogram of the prompt tokens of kept rows; empty without a processor.
        longest: tokens of the longest kept prompt.
        images: number of images in kept rows.
        notes: number of kept rows by note, a key of `row_checks.NOTES`.
    """

    rows: int = 0
    kept: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    longest: int = 0
    images: int = 0
    notes: Counter[str] = field(default_factory=Counter)

    def drop(self, number: int, reason: str, detail: str, place: str = "") -> None:
        """Count a dropped row; `place` names it where a number does not."""
        self.dropped[reason] += 1
        if len(examples := self.examples.setdefault(reason, [])) < EXAMPLES:
            examples.append(f"{place or f'row {number}'}: {detail}"[:300])

    @property
    def dropped_share(self) -> float:
        return (self.rows - len(self.kept)) / self.rows if self.rows else 1.0


@dataclass
class RowChecker:
    """Checks rows of a data set.

    Attributes:
        rows: the data set.
        options: rules for rows and images.
        counter: counts prompt tokens; None without a model.
    """

    rows: Rows
    options: DataOptions
    counter: "TokenCounter | None" = None

    def check(self, numbers: Sequence[int]) -> list[CheckedRow]:
        """Check the rows with these numbers."""
        return [check_row(self.rows, number, self.counter, self.options) for number in numbers]


_worker_checker: RowChecker | None = None  # set in worker processes only


def _start_worker(options: DataOptions, needed: tuple[str, ...], model: str) -> None:
    """Initialise a worker process. It ignores Ctrl-C, because the parent process stops the workers."""
    from rlfr_vlm.library_output import silence_libraries

    global _worker_checker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    silence_libraries()
    _worker_checker = make_checker(options, needed, model)


def _check_in_worker(numbers: Sequence[int]) -> list[CheckedRow]:
    assert _worker_checker is not None
    return _worker_checker.check(numbers)


def make_checker(options: DataOptions, needed: tuple[str, ...], model: str) -> RowChecker:
    """Read the data set, and load the model's processor if a model is given."""
    checker = RowChecker(read_rows(options, needed), options)
    if model:
        from rlfr_vlm.data.lengths import TokenCounter
        from rlfr_vlm.policy import load_processor

        checker.counter = TokenCounter(load_processor(model, options))
        checker.rows.suit(checker.counter.processing_class)
    return checker


def check_row(rows: Rows, number: int, counter: "TokenCounter | None", options: DataOptions) -> CheckedRow:
    """Check one row. All its images are opened and released again."""
    try:
        converted = rows.converted(number)
        row = rows.checked(converted)
        content = [prompt_text(row), *(row["response"] for _ in range("response" in rows.needed))]
        digest = hashlib.sha256("\0".join(content).encode())
        sizes = rows.media_sizes(row, decode=True)
        for image in row["images"]:
            digest.update(_image_digest(image, rows.rules_of(row)))
        for video in row.get("videos") or []:
            for frame in video.frames:
                digest.update(frame.tobytes())
        tokens = counter.prompt_tokens([row], [sizes])[0] if counter else None
    except BadRow as error:
        return CheckedRow(number, error.reason, error.detail)
    except MALFORMED as error:  # templates and tokenizers raise many exception types
        return CheckedRow(number, "prompt", f"{type(error).__name__}: {error}"[:300])
    reason, detail = _check_length(counter, sizes, tokens, options)
    golds = golds_of(row) if "answer" in rows.needed else ()
    notes = tuple(notes_of(row, converted["answer"] if "answer" in rows.needed else None))
    return CheckedRow(number, reason, detail, digest.digest()[:16], golds, tokens, len(sizes), notes)


def _check_length(
    counter: "TokenCounter | None", sizes: list[tuple[int, int]], tokens: int | None, options: DataOptions
) -> tuple[str, str]:
    """Return reason and detail if training would drop the prompt as too long, else two empty texts."""
    limit = options.max_prompt_tokens
    if limit is None or counter is None or tokens is None or tokens <= limit:
        return "", ""
    text = tokens - counter.image_tokens(sizes)
    if options.long_prompts == "downscale" and counter.pixels_that_fit(text, sizes, limit) is not None:
        return "", ""
    return "prompt too long", f"{tokens} tokens, max_prompt_tokens {limit}"


def _image_digest(image: object, rules: ImageRules) -> bytes:
    source = image_source(image, rules)
    return hashlib.sha256(source.read_bytes() if isinstance(source, Path) else source).digest()


def check_rows(
    options: DataOptions, needed: Sequence[str], model: str = "", workers: int = 0, progress: bool = True
) -> DataReport:
    """Check every row of a data set.

    Args:
        options: data set, and rules for rows and images.
        needed: columns that every row must have.
        model: policy whose processor counts prompt tokens; empty to skip counting.
        workers: number of processes; 0 means one per core, at most 8.
        progress: show a progress bar.

    Raises:
        UserError: the data set or model does not exist, or a setting is invalid.
    """
    from tqdm import tqdm

    _check_settings(options, model, workers)
    # Reading the data set in this process first reports a mistake once, not once per worker.
    checker = make_checker(options, tuple(needed), model)
    report = DataReport(rows=checker.rows.size)
    usable: dict[int, CheckedRow] = {}
    bar = tqdm(total=report.rows, desc="checking", unit="row", disable=not progress)
    for row in _check_all(checker, tuple(needed), model, report.rows, workers):
        bar.update()
        if row.reason:
            report.drop(row.number, row.reason, row.detail, checker.rows.place(row.number))
        else:
            usable[row.number] = row
    bar.close()
    keys = {n: RowKey(row.digest, row.golds) for n, row in usable.items()}
    for number, bad in bad_across_rows(keys, place=checker.rows.place).items():
        report.drop(number, bad.reason, bad.detail, checker.rows.place(number))
        del usable[number]
    report.kept = sorted(usable)
    report.images = sum(row.images for row in usable.values())
    report.notes = Counter(note for row in usable.values() for note in row.notes)
    _count_tokens(report, usable)
    return report


def notes_of_rows(rows: Rows, limit: int = NOTED_ROWS) -> list[str]:
    """Return lines about the first rows of a data set that a reader should know before training."""
    counts: Counter[str] = Counter()
    numbers = rows.first(limit)
    for number in numbers:
        try:
            converted = rows.converted(number)
            counts.update(notes_of(rows.checked(converted), converted.get("answer")))
        except BadRow:
            continue  # counted when it is loaded
    of_all = len(numbers) == len(rows.indices)
    return describe_notes(counts, "rows" if of_all else f"of the first {len(numbers)} rows")


def _check_settings(options: DataOptions, model: str, workers: int) -> None:
    if workers < 0:
        raise UserError(f"workers is {workers}; set it to a number of processes, or to 0 for one per core.")
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


def _check_all(
    checker: RowChecker, needed: tuple[str, ...], model: str, count: int, workers: int
) -> Iterator[CheckedRow]:
    """Yield the checked rows in order. Only a few chunks are pending at a time, which bounds the memory."""
    workers = workers or available_cores()
    chunks = [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
    if workers == 1 or count <= CHUNK:
        for chunk in chunks:
            yield from checker.check(chunk)
        return
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(checker.options, needed, model)
    )
    try:
        pending = deque(pool.submit(_check_in_worker, list(chunk)) for chunk in chunks[: 4 * workers])
        for index in range(len(chunks)):
            yield from pending.popleft().result()
            if index + 4 * workers < len(chunks):
                pending.append(pool.submit(_check_in_worker, list(chunks[index + 4 * workers])))
    finally:
        pool.shutdown(cancel_futures=True)


def available_cores() -> int:
    """Return the number of cores this process may use, at most 8, because each worker needs about 200 MB."""
    return min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def _count_tokens(report: DataReport, usable: dict[int, CheckedRow]) -> None:
    counts = [row.tokens for row in usable.values() if row.tokens is not None]
    report.longest = max(counts, default=0)
    low = 0
    for high in BUCKETS:
        in_bucket = sum(low < count <= high for count in counts)
        if in_bucket:
            report.tokens[f"{low + 1}-{high}"] = in_bucket
        low = high
    if beyond := sum(count > low for count in counts):
        report.tokens[f"above {low}"] = beyond
