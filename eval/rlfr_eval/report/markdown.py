"""Write report.md of a run: scores, notes, published values, settings, sessions."""

from pathlib import Path

from rlfr_eval.report.table import HEADER, markdown, mean_line, notes, over_samples_lines, percent, score_rows
from rlfr_vlm.files import JsonMapping, write_text

REPORT_FILE = "report.md"
COST_HEADER = ("benchmark", "answers", "prompt tokens", "answer tokens", "mean", "longest", "seconds", "answers/s")
SETTINGS_HEADER = ("benchmark", "prompt", "hash", "data", "sampling")
SESSION_HEADER = ("started", "command", "versions", "commit")
IMPORT_HEADER = ("benchmark", "asked by", "imported from", "sha256", "entries of all files", "problems with answers")
PUBLISHED_HEADER = ("benchmark", "model", "method", "published", "metric", "this run", "source")


def write_report(path: Path, run: JsonMapping, scores: JsonMapping) -> Path:
    """Write the report. Returns its path."""
    write_text(path, report_text(run, scores))
    return path


def report_text(run: JsonMapping, scores: JsonMapping) -> str:
    """Return the report in Markdown."""
    costs = [_cost_row(name, score) for name, score in scores["benchmarks"].items()]
    settings = [_settings_row(name, config) for name, config in run["benchmarks"].items()]
    sessions = [_session_row(session) for session in run.get("sessions", [])]
    parts = [
        f"# {_escape(run['model']['name'])}",
        f"Judge: {_escape(scores['judge'] or 'none (rules only)')}. Grader {scores['grader']}. "
        "Scores, bounds and shares in percent. Bounds: all undecided answers wrong, all of them right. "
        "Interval: Wilson, adjusted for clusters where a problem has several samples.",
        markdown([HEADER, *score_rows(scores)]),
        mean_line(scores),
        *over_samples_lines(scores),
        *(f"- {_escape(note)}" for note in notes(scores)),
        "## Cost",
        markdown([COST_HEADER, *costs]),
        "## Published values",
        _published(scores),
        "## How it was made",
        markdown([SETTINGS_HEADER, *settings]),
        _imported(run),
        "## Sessions",
        markdown([SESSION_HEADER, *sessions]),
        f"Context of the model: {run['context'] or 'not said by the server'}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _imported(run: JsonMapping) -> str:
    """Return the files that answers were imported from; "" if the model was asked here."""
    rows = [
        (
            name,
            _escape(record["tool"]),
            _escape(file["path"]),
            file["sha256"],
            str(record["entries"]),
            str(record["matched"]),
        )
        for name, record in run.get("imported", {}).items()
        for file in record["files"]
    ]
    return markdown([IMPORT_HEADER, *rows]) if rows else ""


def _session_row(session: JsonMapping) -> tuple[str, ...]:
    versions = ", ".join(f"{name} {value}" for name, value in session["versions"].items())
    return (session["started"], " ".join(session["command"]), versions, session["commit"] or "not a checkout")


def _escape(text: str) -> str:
    """Return text as one line that cannot open an HTML tag."""
    return " ".join(str(text).split()).replace("<", "&lt;")


def _cost_row(name: str, score: JsonMapping) -> tuple[str, ...]:
    tokens = score["completion_tokens"]
    return (
        name,
        str(score["answered"]),
        str(score["prompt_tokens_total"]),
        str(tokens["total"]),
        "-" if tokens["mean"] is None else f"{tokens['mean']:.0f}",
        "-" if tokens["max"] is None else str(tokens["max"]),
        f"{score['active_seconds']:.0f}",
        "-" if score["answers_per_second"] is None else f"{score['answers_per_second']:.2f}",
    )


def _published(scores: JsonMapping) -> str:
    rows = [
        (
            name,
            reference["model"],
            reference["method"],
            f"{reference['value']:.1f}",
            reference["metric"],
            _this_run(score),
            reference["source"],
        )
        for name, score in scores["benchmarks"].items()
        for reference in score["reference"]
    ]
    return markdown([PUBLISHED_HEADER, *rows]) if rows else "None are known for these benchmarks, or these data."


def _this_run(score: JsonMapping) -> str:
    if not score["headline"] or score["partial"]:
        return "partial" if score["partial"] else "undecided"
    return f"{percent(score['accuracy'])} ({score['metric']})"


def _settings_row(name: str, config: JsonMapping) -> tuple[str, ...]:
    sampling = ", ".join(f"{key} {value}" for key, value in config["sampling"].items())
    prompt = config["prompt"]
    return tuple(
        _escape(cell)
        for cell in (
            name,
            f"{prompt['name']} v{prompt['version']}",
            prompt["hash"],
            config["data_sha256"][:12],
            sampling,
        )
    )
