"""The page of evaluation runs: scores, bars with intervals, paired differences, every answer with its verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlfr_eval.report.page_figure import WIDEST, score_figure
from rlfr_eval.report.page_samples import Samples
from rlfr_eval.report.table import mean_line, notes, over_samples_lines, percent
from rlfr_eval.score.compare import Difference
from rlfr_vlm import __version__
from rlfr_vlm.files import write_text
from rlfr_vlm.page.figures import for_both_schemes
from rlfr_vlm.page.html import render

PAGE_FILE = "report.html"
SCRIPTS = ("page.js", "samples.js")


@dataclass(frozen=True)
class PagedRun:
    """One run: its name on the page, run.json and scores.json."""

    name: str
    run: Mapping[str, Any]
    scores: Mapping[str, Any]


@dataclass(frozen=True)
class Pairing:
    """One run against the first: differences of the benchmarks, their p-values adjusted, what must be known."""

    name: str
    differences: Sequence[Difference]
    adjusted: Mapping[str, float]
    notes: Sequence[str]


def write_page(runs: Sequence[PagedRun], pairings: Sequence[Pairing], samples: Samples, out: Path, made: str) -> Path:
    """Write the page; returns its path.

    Args:
        pairings: of each run but the first.
        out: the folder.
        made: when.
    """
    several = len(runs) > 1
    sections = [("scores", "Scores"), *([("differences", "Differences")] if pairings else []),
                ("answers", "Answers"), ("cost", "Cost"), ("how", "How it was made")]  # fmt: skip
    text = render(
        "evaluation.html", samples.data([run.name for run in runs]), scripts=SCRIPTS,
        title=" and ".join(run.name for run in runs), sections=sections, several=several,
        rows=[row for run in runs for row in score_table(run)], remarks=[(run.name, remarks(run)) for run in runs],
        bars=for_both_schemes(lambda ink: score_figure(runs, ink)),
        cut_bars=WIDEST if any(len(run.scores["benchmarks"]) > WIDEST for run in runs) else None,
        pairings=[pairing_rows(one) for one in pairings],
        first=runs[0].name, shown=samples.shown(), costs=[row for run in runs for row in cost_table(run)],
        made_rows=[row for run in runs for row in made_table(run)], sessions=sessions(runs), percent=percent,
        made=f"Made by rlfr-vlm {__version__}, {made}.",
    )  # fmt: skip
    write_text(out / PAGE_FILE, text)
    return out / PAGE_FILE


def score_table(run: PagedRun) -> list[dict[str, Any]]:
    """One row per benchmark, numbers in percent; a score that may not be quoted is None, and why stands beside it."""
    return [
        {
            "run": run.name, "benchmark": name, "metric": one["metric"], "score": quotable(one), "why": why_not(one),
            "interval": one["ci95"] if quotable(one) is not None else None, "answered": one["answered"],
            "expected": one["answers_expected"], "coverage": one["coverage"], "lower": one["lower"],
            "upper": one["upper"], "bounded": not one.get("unscoreable"), "truncated": one["truncated"],
            "judge": one.get("judge") or "none (rules only)", "partial": one["partial"],
            "problems": one["problems"], "planned": one["problems_planned"],
            "references": references(one),
        }
        for name, one in run.scores["benchmarks"].items()
    ]  # fmt: skip


def quotable(one: Mapping[str, Any]) -> float | None:
    """The score, unless too much is undecided or the subset cannot be scored."""
    return one["accuracy"] if one["headline"] and not one.get("unscoreable") else None


def why_not(one: Mapping[str, Any]) -> str:
    if one.get("unscoreable"):
        return str(one["unscoreable"])
    return "" if one["headline"] else f"{percent(1 - one['coverage'])} % undecided"


def references(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Published values, and this run's difference from each in points; None where there is nothing to compare."""
    score = None if one["partial"] else quotable(one)
    return [
        {**reference, "difference": None if score is None else 100 * score - reference["value"]}
        for reference in one["reference"]
    ]


def remarks(run: PagedRun) -> list[str]:
    """What must be known before quoting a number, and the scores over several samples."""
    return [text for text in (mean_line(run.scores), *over_samples_lines(run.scores), *notes(run.scores)) if text]


def pairing_rows(pairing: Pairing) -> dict[str, Any]:
    """Differences in points, with the problems that flipped."""
    return {
        "name": pairing.name, "notes": list(pairing.notes),
        "rows": [
            {
                "benchmark": one.name, "pairs": one.pairs, "value": 100 * one.value, "low": 100 * one.low,
                "high": 100 * one.high, "p": one.p, "holm": pairing.adjusted.get(one.name), "test": one.test,
                "won": list(one.won), "lost": list(one.lost), "left_out": one.left_out,
            }
            for one in pairing.differences
        ],
    }  # fmt: skip


def cost_table(run: PagedRun) -> list[dict[str, Any]]:
    return [
        {
            "run": run.name, "benchmark": name, "answered": one["answered"], "prompt": one["prompt_tokens_total"],
            "tokens": one["completion_tokens"], "seconds": one["active_seconds"], "speed": one["answers_per_second"],
        }
        for name, one in run.scores["benchmarks"].items()
    ]  # fmt: skip


def made_table(run: PagedRun) -> list[dict[str, Any]]:
    """How each benchmark was asked."""
    return [
        {
            "run": run.name, "benchmark": name, "prompt": f"{one['prompt']['name']} v{one['prompt']['version']}",
            "hash": one["prompt"]["hash"], "data": one["data_sha256"][:12],
            "sampling": ", ".join(f"{key} {value}" for key, value in one["sampling"].items()),
        }
        for name, one in run.run["benchmarks"].items()
    ]  # fmt: skip


def sessions(runs: Sequence[PagedRun]) -> list[dict[str, str]]:
    """Who worked on the runs, when, with what."""
    return [
        {
            "run": run.name, "started": str(one["started"]), "command": " ".join(one["command"]),
            "versions": ", ".join(f"{name} {value}" for name, value in one["versions"].items()),
            "commit": str(one["commit"] or "not a checkout"),
        }
        for run in runs
        for one in run.run.get("sessions", [])
    ]  # fmt: skip
