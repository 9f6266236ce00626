"""Write the HTML page of evaluation runs: scores, bars with intervals, paired differences, answers with verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlfr_eval.report.page_figure import MAX_BARS, PagedRun, score_figure
from rlfr_eval.report.page_samples import Samples
from rlfr_eval.report.table import (
    count_text,
    mean_line,
    no_score_reason,
    notes,
    over_samples_lines,
    percent,
    reference_rows,
    reportable_score,
)
from rlfr_eval.score.compare import Difference
from rlfr_vlm import __version__
from rlfr_vlm.files import JsonMapping, JsonObject, write_text
from rlfr_vlm.page.figures import for_both_schemes
from rlfr_vlm.page.html import render

PAGE_FILE = "report.html"
SCRIPTS = ("page.js", "samples.js")


@dataclass(frozen=True)
class Pairing:
    """Comparison of one run with the first one.

    Attributes:
        differences: one per benchmark that both runs have.
        adjusted: benchmark -> p-value after Holm's correction.
        notes: what a reader needs to know before quoting a difference.
    """

    name: str
    differences: Sequence[Difference]
    adjusted: Mapping[str, float]
    notes: Sequence[str]


def write_page(
    runs: Sequence[PagedRun], pairings: Sequence[Pairing], samples: Samples, out: Path, created: str
) -> Path:
    """Write the page. Returns its path.

    Args:
        pairings: one per run except the first.
        out: file of the page.
        created: date and time of the page.
    """
    too_many = any(len(run.scores["benchmarks"]) > MAX_BARS for run in runs)
    sections = [("scores", "Scores")]
    sections += [("differences", "Differences")] if pairings else []
    sections += [("answers", "Answers"), ("cost", "Cost"), ("how", "How it was made")]
    text = render(
        "evaluation.html",
        samples.data([run.name for run in runs]),
        scripts=SCRIPTS,
        title=" and ".join(run.name for run in runs),
        sections=sections,
        several=len(runs) > 1,
        rows=[row for run in runs for row in score_table(run)],
        remarks=[(run.name, remarks(run)) for run in runs],
        bars=for_both_schemes(lambda ink: score_figure(runs, ink)),
        cut_bars=MAX_BARS if too_many else None,
        pairings=[pairing_rows(pairing) for pairing in pairings],
        first=runs[0].name,
        shown=samples.shown(),
        costs=[row for run in runs for row in cost_table(run)],
        made_rows=[row for run in runs for row in settings_table(run)],
        sessions=session_table(runs),
        percent=percent,
        made=f"Made by rlfr-vlm {__version__}, {created}.",
    )
    write_text(out, text)
    return out


def score_table(run: PagedRun) -> list[JsonObject]:
    """Return one row per benchmark; a score that may not be reported is None, with the reason in `why`."""
    return [_score_row(run.name, name, score) for name, score in run.scores["benchmarks"].items()]


def _score_row(run: str, benchmark: str, score: JsonMapping) -> JsonObject:
    accuracy = reportable_score(score)
    return {
        "run": run,
        "benchmark": benchmark,
        "metric": score["metric"],
        "score": accuracy,
        "why": no_score_reason(score),
        "interval": score["ci95"] if accuracy is not None else None,
        "n": count_text(score),
        "coverage": score["coverage"],
        "lower": score["lower"],
        "upper": score["upper"],
        "bounded": not score.get("unscoreable"),
        "truncated": score["truncated"],
        "judge": score.get("judge") or "none (rules only)",
        "partial": score["partial"],
        "problems": score["problems"],
        "planned": score["problems_planned"],
        "references": reference_rows(score),
    }


def remarks(run: PagedRun) -> list[str]:
    """Return the lines below the score table: mean, scores over several samples, notes."""
    return [text for text in (mean_line(run.scores), *over_samples_lines(run.scores), *notes(run.scores)) if text]


def pairing_rows(pairing: Pairing) -> JsonObject:
    """Return the differences in points with the ids of the problems whose verdict changed."""
    return {
        "name": pairing.name,
        "notes": list(pairing.notes),
        "rows": [
            {
                "benchmark": difference.name,
                "pairs": difference.pairs,
                "value": 100 * difference.value,
                "low": 100 * difference.low,
                "high": 100 * difference.high,
                "p": difference.p,
                "holm": pairing.adjusted.get(difference.name),
                "test": difference.test,
                "won": list(difference.won),
                "lost": list(difference.lost),
                "left_out": difference.left_out,
            }
            for difference in pairing.differences
        ],
    }


def cost_table(run: PagedRun) -> list[JsonObject]:
    """Return tokens and seconds of each benchmark."""
    return [
        {
            "run": run.name,
            "benchmark": name,
            "answered": score["answered"],
            "prompt": score["prompt_tokens_total"],
            "tokens": score["completion_tokens"],
            "seconds": score["active_seconds"],
            "speed": score["answers_per_second"],
        }
        for name, score in run.scores["benchmarks"].items()
    ]


def settings_table(run: PagedRun) -> list[JsonObject]:
    """Return prompt, data and sampling of each benchmark."""
    return [
        {
            "run": run.name,
            "benchmark": name,
            "prompt": f"{config['prompt']['name']} v{config['prompt']['version']}",
            "hash": config["prompt"]["hash"],
            "data": config["data_sha256"][:12],
            "sampling": ", ".join(f"{key} {value}" for key, value in config["sampling"].items()),
        }
        for name, config in run.run["benchmarks"].items()
    ]


def session_table(runs: Sequence[PagedRun]) -> list[dict[str, str]]:
    """Return start, command, versions and commit of each session of the runs."""
    return [
        {
            "run": run.name,
            "started": str(session["started"]),
            "command": " ".join(session["command"]),
            "versions": ", ".join(f"{name} {value}" for name, value in session["versions"].items()),
            "commit": str(session["commit"] or "not a checkout"),
        }
        for run in runs
        for session in run.run.get("sessions", [])
    ]
