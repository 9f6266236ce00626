"""What the service says of a job: its state, progress, the end of its log, and its scores with intervals."""

import json
from pathlib import Path

from rlfr_eval.service.state import FAILED, FINISHED, INCOMPLETE, LOG_FILE, RUNNING, Job
from rlfr_vlm.benchmark_scores import describe, metrics_of
from rlfr_vlm.env_settings import SETTINGS, Settings, redact, without_secrets
from rlfr_vlm.errors import printable
from rlfr_vlm.files import JsonObject

LAST_LINES = 15  # of a log
LAST_BYTES = 1 << 14  # of a log, in which the last lines are looked for
BLOCK = 1 << 20  # bytes read at a time when counting lines


class AnswerCounts:
    """Number of answers in each `samples.jsonl`, counted on from where the last count ended."""

    def __init__(self) -> None:
        self._counted: dict[Path, tuple[int, int]] = {}  # bytes read, lines in them

    def count(self, path: Path) -> int:
        """Return the number of lines that end; 0 if there is no file."""
        try:
            size = path.stat().st_size
            position, lines = self._counted.get(path, (0, 0))
            if size < position:  # an incomplete last line was cut off
                position, lines = 0, 0
            with path.open("rb") as stream:
                stream.seek(position)
                while block := stream.read(BLOCK):
                    position, lines = position + len(block), lines + block.count(b"\n")
        except OSError:
            return 0
        self._counted[path] = position, lines
        return lines


def summary(job: Job) -> JsonObject:
    """Return a job in a list of jobs."""
    return {
        "name": job.name,
        "state": job.state,
        "command": job.request.command,
        "submitted": job.submitted,
        "started": job.started,
        "ended": job.ended,
    }


def details(job: Job, folder: Path, settings: Settings, counts: AnswerCounts) -> JsonObject:
    """Return all that is known of a job.

    Args:
        folder: the job's.
        settings: their secrets are masked in lines of the log.
    """
    told: JsonObject = {
        **summary(job),
        "options": job.request.options,
        "hold_model": job.request.hold_model,
        "folder": str(folder.resolve()),
        "exit_code": job.exit_code,
        "progress": progress(folder, counts),
    }
    scores = scores_of(folder) if job.state in (FINISHED, INCOMPLETE) else None
    if scores is not None:
        told |= {
            "scores": scores,
            "metrics": metrics_of(scores["benchmarks"]),
            "summary": describe(scores["benchmarks"]),
        }
    if job.state in (FAILED, INCOMPLETE):
        told |= {"reason": job.reason, "log": log_end(job, folder, settings)}
    elif job.state == RUNNING:
        told["log"] = log_end(job, folder, settings)[-1:]
    return told


def progress(folder: Path, counts: AnswerCounts) -> JsonObject | None:
    """Return how many answers are there and wanted; None before the model is asked."""
    from rlfr_eval.run.folder import RUN_FILE, SAMPLES

    try:
        wanted = sum(json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))["planned"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None
    return {"answered": min(counts.count(folder / SAMPLES), wanted), "wanted": wanted}


def scores_of(folder: Path) -> JsonObject | None:
    """Return the content of scores.json; None when it is missing or broken."""
    from rlfr_eval.score.scores import read_scores

    return read_scores(folder)


def log_end(job: Job, folder: Path, settings: Settings) -> list[str]:
    """Return the last lines that the last call of `rlfr-eval` printed, with secrets masked."""
    try:
        with (folder / LOG_FILE).open("rb") as stream:
            size = stream.seek(0, 2)
            start = max(job.log_start, size - LAST_BYTES)
            stream.seek(start)
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    whole = lines if start == job.log_start else lines[1:]  # half a key could remain of a cut line
    secrets = [value.text for values in settings.by_origin.values() for value in values if SETTINGS[value.name].secret]
    return [printable(without_secrets(redact(line, secrets))) for line in whole[-LAST_LINES:]]
