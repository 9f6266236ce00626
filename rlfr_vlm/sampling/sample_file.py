"""The file of `rlfr sample`: rows are appended a batch at a time, and a killed run goes on where it stopped.

Beside `FILE.jsonl` stand `FILE.config.yaml`, the settings, and at the end `FILE.summary.json`.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from rlfr_vlm.config_file import Settings, changed_settings, read_settings, write_settings_file
from rlfr_vlm.data.read import SUMMARY_SUFFIX
from rlfr_vlm.data.stored_media import line_of
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, make_folder
from rlfr_vlm.sampling.rows import NO_RESPONSE

SUFFIX = ".jsonl"
# Settings in which a run that goes on may differ: they change no response.
MAY_DIFFER = ("out", "device", "grading_workers", "vllm_gpu_memory_utilization", "vllm_tensor_parallel_size")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is counted of a written row.

    Attributes:
        prompt, sample: number of the row in the data and of the response.
        verdict: right, wrong or undecided.
        truncated: the response reached the limit of tokens.
        reason: why the verdict is undecided.
        outside: an image file lies outside the folder of the rows.
    """

    prompt: int
    sample: int
    verdict: str
    truncated: bool
    reason: str
    outside: bool = False

    @classmethod
    def of(cls, row: JsonObject) -> "Outcome":
        """Read it from a row.

        Raises:
            KeyError, TypeError, ValueError: the row is none of `rlfr sample`.
        """
        numbers = int(row["prompt_index"]), int(row["sample_index"])
        outside = any(Path(image).is_absolute() for image in row["images"])
        return cls(*numbers, str(row["verdict"]), bool(row["truncated"]), str(row["reason"]), outside)

    @property
    def failed(self) -> bool:
        """Whether the engine gave no response."""
        return self.reason.startswith(NO_RESPONSE)


@dataclass
class SampleFile:
    """Rows on disk.

    Attributes:
        path: the file.
        samples: responses to each prompt.
        batch_size: rows that are appended together.
        outcomes: of the rows that are there, in order.
        last: the last row that was there when the file was opened; None without one.
    """

    path: Path
    samples: int
    batch_size: int
    outcomes: list[Outcome] = field(default_factory=list)
    last: JsonObject | None = None
    _lock: BinaryIO | None = None

    @property
    def config_path(self) -> Path:
        return self.path.with_suffix(".config.yaml")

    @property
    def summary_path(self) -> Path:
        return self.path.with_suffix(SUMMARY_SUFFIX)

    @property
    def position(self) -> tuple[int, int] | None:
        """Prompt and number of the last response that is there; None without one."""
        return (self.outcomes[-1].prompt, self.outcomes[-1].sample) if self.outcomes else None

    def open(self, settings: Settings) -> None:
        """Read the rows that a run with the same settings left, if there are any.

        Raises:
            UserError: there is another file of this name, or one of a run with other settings, or one that another
                process writes.
        """
        if not self.path.exists():
            return
        if not self.config_path.is_file() or self.path.is_dir():
            raise UserError(
                f"{self.path} exists and is no file of `rlfr sample`, which has its settings beside it in "
                f"{self.config_path.name}. Name another --out."
            )
        self._lock_out_others()
        ends = self._read()
        if self.outcomes and (changes := changed_settings(read_settings(self.config_path), settings, MAY_DIFFER)):
            raise UserError(
                f"{self.path} is of a run with other settings ({'; '.join(changes)}). A file keeps its settings: name "
                f"another --out, or give those of {self.config_path}."
            )
        self._keep_whole_batches(ends)

    def start(self, settings: Settings) -> None:
        """Write the settings beside a file without rows."""
        if not self.outcomes:
            make_folder(self.path.parent)
            write_settings_file(self.config_path, settings)
            self._lock_out_others()

    def close(self) -> None:
        """Let other processes write."""
        if self._lock is not None:
            self._lock.close()

    def is_finished(self) -> bool:
        """Whether all responses are there: the summary is written after the last one."""
        try:
            summary = json.loads(self.summary_path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return False
        return bool(self.outcomes) and summary.get("responses") == len(self.outcomes)

    def append(self, rows: Sequence[JsonObject]) -> None:
        """Append a batch of rows; they are on disk when the method returns."""
        with self.path.open("ab") as stream:
            stream.write(b"".join(map(line_of, rows)))
            stream.flush()
            os.fsync(stream.fileno())
        self.outcomes += map(Outcome.of, rows)

    def _lock_out_others(self) -> None:
        """Hold a lock on the settings until this process ends.

        Raises:
            UserError: another process holds it.
        """
        self.close()
        self._lock = self.config_path.open("rb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"Another process is writing {self.path}. Wait for it, or name another --out.") from None
        except OSError:  # a file system without locks
            pass

    def _read(self) -> list[int]:
        """Read what is counted of the rows that are there. Returns the places in the file between them."""
        ends = [0]
        for outcome, end in self._whole_lines():
            self.outcomes.append(outcome)
            ends.append(end)
        self._check_order()
        return ends

    def _keep_whole_batches(self, ends: Sequence[int]) -> None:
        """Cut off the rows of a batch that was not written whole: its responses have one seed together."""
        if not self.is_finished():
            del self.outcomes[len(self.outcomes) - len(self.outcomes) % self.batch_size :]
        count = len(self.outcomes)
        if self.path.stat().st_size > ends[count]:
            os.truncate(self.path, ends[count])
        if count:
            with self.path.open("rb") as stream:
                stream.seek(ends[count - 1])
                self.last = json.loads(stream.read())

    def _whole_lines(self) -> Iterator[tuple[Outcome, int]]:
        """Yield the outcome of each row and the place of its end, up to a line that was not written whole.

        Raises:
            UserError: a whole line is no row of `rlfr sample`.
        """
        end = 0
        with self.path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                end += len(line)
                if not line.endswith(b"\n"):
                    return
                try:
                    outcome = Outcome.of(json.loads(line))
                except (ValueError, KeyError, TypeError):
                    raise UserError(
                        f"Line {number} of {self.path} is no row of `rlfr sample`. Remove the lines from there on, or "
                        "name another --out."
                    ) from None
                yield outcome, end

    def _check_order(self) -> None:
        """Check that the rows are those of a run: all responses to a prompt, then those to the next one.

        Raises:
            UserError: rows were removed or moved.
        """
        prompt = -1
        for place, outcome in enumerate(self.outcomes):
            is_next = outcome.prompt > prompt if place % self.samples == 0 else outcome.prompt == prompt
            if outcome.sample != place % self.samples or not is_next:
                raise UserError(
                    f"Line {place + 1} of {self.path} is response {outcome.sample} to prompt {outcome.prompt}, which "
                    "does not follow on the line before it: lines were removed or moved. Name another --out."
                )
            prompt = outcome.prompt
