"""Build the table of a paper, rows of runs and columns of benchmarks, as text, Markdown, CSV or LaTeX.

A row is one run, or the mean over several runs that differ in a seed or a checkpoint.
"""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rlfr_eval.report.table import aligned, markdown, no_score_reason, percent, reportable_score
from rlfr_vlm.files import JsonMapping
from rlfr_vlm.stats import mean_interval

MISSING = "-"
CSV_HEADER = (
    "row",
    "benchmark",
    "metric",
    "runs",
    "score",
    "low",
    "high",
    "interval",
    "problems",
    "planned",
    "undecided",
    "why",
)
LATEX_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"}
LATEX_SPECIAL |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
Scores = JsonMapping  # `benchmarks` of scores.json


@dataclass(frozen=True)
class Cell:
    """The score of one row on one benchmark.

    Attributes:
        score: share; None if there is none, and `why` says the reason.
        low, high: 95 % interval, of the kind that `interval` names.
        partial: whether fewer problems than planned were measured.
        runs: number of runs that the score is the mean of.
    """

    score: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
    metric: str = ""
    runs: int = 1
    problems: int = 0
    planned: int = 0
    undecided: float = 0.0
    why: str = ""

    @property
    def partial(self) -> bool:
        return self.problems < self.planned

    @property
    def text(self) -> str:
        """The score in percent: with its interval for one run, with half of the interval's width for several."""
        if self.score is None:
            return MISSING if self.runs == 1 and not self.problems else "undecided"
        mark = "*" if self.partial else ""
        if self.low is None or self.high is None:
            return f"{percent(self.score)}{mark}"
        if self.runs > 1:
            return f"{percent(self.score)} ± {100 * (self.high - self.low) / 2:.1f}{mark}"
        return f"{percent(self.score)} [{percent(self.low)}, {percent(self.high)}]{mark}"


@dataclass(frozen=True)
class Row:
    """One row of the table: its label and the scores of its runs."""

    label: str
    runs: Sequence[Scores]

    def cell(self, benchmark: str) -> Cell:
        """Return the score on a benchmark: the run's, or the mean over the runs."""
        scores = [run[benchmark] for run in self.runs if benchmark in run]
        if len(scores) < len(self.runs):
            return Cell(why=f"not measured in {len(self.runs) - len(scores)} of {len(self.runs)} runs")
        cells = [_cell(score) for score in scores]
        return cells[0] if len(cells) == 1 else _mean(cells)


def _cell(score: JsonMapping) -> Cell:
    value = reportable_score(score)
    low, high = score["ci95"] if value is not None else (None, None)
    return Cell(
        score=value,
        low=low,
        high=high,
        interval="over problems" if value is not None else "",
        metric=score["metric"],
        problems=score["problems"],
        planned=score["problems_planned"],
        undecided=1 - score["coverage"],
        why=no_score_reason(score),
    )


def _mean(cells: Sequence[Cell]) -> Cell:
    """Return the mean over runs with Student's interval. A run without a score leaves the mean without one."""
    scores = [cell.score for cell in cells if cell.score is not None]
    common = Cell(
        metric=cells[0].metric,
        runs=len(cells),
        problems=min(cell.problems for cell in cells),
        planned=max(cell.planned for cell in cells),
        undecided=max(cell.undecided for cell in cells),
    )
    if len(scores) < len(cells):
        why = next(cell.why for cell in cells if cell.score is None)
        return replace(common, why=f"no score in {len(cells) - len(scores)} of {len(cells)} runs: {why}")
    mean, low, high = mean_interval(scores)
    return replace(common, score=mean, low=low, high=high, interval="over runs")


def benchmarks_of(rows: Sequence[Row]) -> list[str]:
    """Return every benchmark of the rows, in their order."""
    return list(dict.fromkeys(name for row in rows for run in row.runs for name in run))


def grid(rows: Sequence[Row]) -> list[list[str]]:
    """Return header and rows; the last column is the mean over benchmarks where every one has a score."""
    names = benchmarks_of(rows)
    lines = [["", *names, *(["mean"] if len(names) > 1 else [])]]
    for row in rows:
        cells = [row.cell(name) for name in names]
        scores = [cell.score for cell in cells if cell.score is not None and not cell.partial]
        mean = percent(sum(scores) / len(scores)) if len(scores) == len(cells) else MISSING
        label = row.label if len(row.runs) == 1 else f"{row.label} ({len(row.runs)} runs)"
        lines.append([label, *(cell.text for cell in cells), *([mean] if len(names) > 1 else [])])
    return lines


def remarks(rows: Sequence[Row]) -> list[str]:
    """Return why cells have no score, which are partial, and what the numbers are."""
    lines = ["percent; [low, high]: 95 % interval over problems; ±: half of Student's 95 % interval over runs"]
    for row in rows:
        for name in benchmarks_of(rows):
            cell = row.cell(name)
            if cell.why:
                lines.append(f"{row.label}, {name}: no score: {cell.why}")
            if cell.partial:
                lines.append(f"{row.label}, {name}: * PARTIAL, {cell.problems} of {cell.planned} problems")
    return lines


def as_text(rows: Sequence[Row]) -> str:
    return "\n".join([aligned(grid(rows)), *remarks(rows)])


def as_markdown(rows: Sequence[Row]) -> str:
    return "\n".join([markdown(grid(rows)), "", *(f"- {line}" for line in remarks(rows))])


def as_csv(rows: Sequence[Row]) -> str:
    """Return one line per row and benchmark; numbers in percent, empty where there is none."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for row in rows:
        for name in benchmarks_of(rows):
            cell = row.cell(name)
            numbers = ["" if value is None else f"{100 * value:.4f}" for value in (cell.score, cell.low, cell.high)]
            writer.writerow(
                [
                    row.label,
                    name,
                    cell.metric,
                    cell.runs,
                    *numbers,
                    cell.interval,
                    cell.problems,
                    cell.planned,
                    f"{100 * cell.undecided:.4f}",
                    cell.why,
                ]
            )
    return stream.getvalue().rstrip("\n")


def as_latex(rows: Sequence[Row]) -> str:
    """Return a tabular for the package booktabs; remarks are comments above it."""
    header, *body = [[_latex(cell) for cell in line] for line in grid(rows)]
    lines = [f"% {' '.join(line.split())}" for line in remarks(rows)]
    lines += [
        rf"\begin{{tabular}}{{l{'c' * (len(header) - 1)}}}",
        r"\toprule",
        f"{' & '.join(header)} \\\\",
        r"\midrule",
    ]
    lines += [f"{' & '.join(line)} \\\\" for line in body]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _latex(text: str) -> str:
    escaped = "".join(LATEX_SPECIAL.get(character, character) for character in text)
    return escaped.replace("±", r"$\pm$")


FORMATS: dict[str, Callable[[Sequence[Row]], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "csv": as_csv,
    "latex": as_latex,
}
