"""report.md of a run: the table, its notes, published values, how it was made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlfr_eval.report.table import HEADER, markdown, mean_line, notes, over_samples_lines, percent, score_rows
from rlfr_vlm.files import write_text

REPORT_FILE = "report.md"


def write_report(folder: Path, run: Mapping[str, Any], scores: Mapping[str, Any]) -> Path:
    """Write the report beside the answers; returns its path."""
    path = folder / REPORT_FILE
    write_text(path, report_text(run, scores))
    return path


def report_text(run: Mapping[str, Any], scores: Mapping[str, Any]) -> str:
    """The report in Markdown."""
    made = run["benchmarks"]
    parts = [
        f"# {_plain(run['model']['name'])}",
        f"Judge: {_plain(scores['judge'] or 'none (rules only)')}. Grader {scores['grader']}. "
        "Scores, bounds and shares in percent. Bounds: all undecided answers wrong, all of them right. "
        "Interval: Wilson for one sample per problem, else bootstrap over problems.",
        markdown([HEADER, *score_rows(scores)]),
        mean_line(scores),
        *over_samples_lines(scores),
        *(f"- {note}" for note in notes(scores)),
        "## Cost",
        markdown([
            ("benchmark", "answers", "prompt tokens", "answer tokens", "mean", "longest", "seconds", "answers/s"),
            *(_cost(name, one) for name, one in scores["benchmarks"].items()),
        ]),
        "## Published values",
        _published(scores),
        "## How it was made",
        markdown([
            ("benchmark", "prompt", "hash", "data", "sampling"),
            *(_how(name, one) for name, one in made.items()),
        ]),
        "## Sessions",
        markdown([
            ("started", "command", "versions", "commit"),
            *(_session(one) for one in run.get("sessions", [])),
        ]),
        f"Context of the model: {run['context'] or 'not said by the server'}.",
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _session(one: Mapping[str, Any]) -> tuple[str, ...]:
    versions = ", ".join(f"{name} {value}" for name, value in one["versions"].items())
    return (one["started"], " ".join(one["command"]), versions, one["commit"] or "not a checkout")


def _plain(text: str) -> str:
    return " ".join(str(text).split()).replace("<", "&lt;")


def _cost(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    tokens = one["completion_tokens"]
    mean = "-" if tokens["mean"] is None else f"{tokens['mean']:.0f}"
    longest = "-" if tokens["max"] is None else str(tokens["max"])
    speed = "-" if one["answers_per_second"] is None else f"{one['answers_per_second']:.2f}"
    return (name, str(one["answered"]), str(one["prompt_tokens_total"]), str(tokens["total"]), mean, longest,
            f"{one['active_seconds']:.0f}", speed)  # fmt: skip


def _published(scores: Mapping[str, Any]) -> str:
    rows = [
        (name, reference["model"], reference["method"], f"{reference['value']:.1f}", reference["metric"],
         _this_run(one), reference["source"])
        for name, one in scores["benchmarks"].items()
        for reference in one["reference"]
    ]  # fmt: skip
    header = ("benchmark", "model", "method", "published", "metric", "this run", "source")
    return markdown([header, *rows]) if rows else "None are known for these benchmarks, or these data."


def _this_run(one: Mapping[str, Any]) -> str:
    if not one["headline"] or one["partial"]:
        return "partial" if one["partial"] else "undecided"
    return f"{percent(one['accuracy'])} ({one['metric']})"


def _how(name: str, one: Mapping[str, Any]) -> tuple[str, ...]:
    sampling = ", ".join(f"{key} {value}" for key, value in one["sampling"].items())
    prompt = one["prompt"]
    return (name, f"{prompt['name']} v{prompt['version']}", prompt["hash"], one["data_sha256"][:12], sampling)
