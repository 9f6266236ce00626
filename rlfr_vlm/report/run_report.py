"""`report.html`, `report.md` and figures of training runs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlfr_vlm import __version__
from rlfr_vlm.files import write_bytes, write_text
from rlfr_vlm.page.figures import encoded, for_both_schemes
from rlfr_vlm.page.html import render
from rlfr_vlm.report.curves import charts_of
from rlfr_vlm.report.figures import quantile_figure, save_curves
from rlfr_vlm.report.group_choice import choose, total_responses
from rlfr_vlm.report.header import Verdict, facts_of, settings_of, verdict_of
from rlfr_vlm.report.read_run import Run, names_of
from rlfr_vlm.report.rollouts import RolloutPage, describe_runs
from rlfr_vlm.report.token_text import Pieces, load_tokenizer

SCRIPTS = ("uPlot.iife.min.js", "page.js", "charts.js", "rollouts.js")
CURVES, BY_CLASS = "curves.png", "deviation_by_class.png"


@dataclass(frozen=True)
class PageOptions:
    """How a page is made.

    Attributes:
        defaults: of all settings, to show what differs.
        responses: at most so many are shown.
        tokenizer: its folder, where the runs do not name it.
    """

    defaults: Mapping[str, Any]
    responses: int
    tokenizer: str | None = None


def write_training_report(runs: list[Run], out: Path, options: PageOptions) -> Path:
    """Write page, Markdown and figures of one or several runs into `out`; returns the page's path."""
    page, figures = _write_page(runs, out, options)
    write_text(out / "report.md", _markdown(verdict_of(runs, names_of(runs)), _heads(runs, options), figures))
    return page


def write_training_page(runs: list[Run], out: Path, options: PageOptions) -> Path:
    """Write `report.html` and the figures into `out`; the first run is the one reported, others are laid over it."""
    return _write_page(runs, out, options)[0]


def _write_page(runs: list[Run], out: Path, options: PageOptions) -> tuple[Path, list[str]]:
    """The page's path, and the names of the figures."""
    names, charts = names_of(runs), charts_of(runs)
    rollouts = rollout_page(runs, options.responses, options.tokenizer)
    rows = rollouts.deviations_by_class()
    figures = save_figures(charts, rows, out / "figures")
    page = render(
        "training.html", {"charts": charts, "runs": describe_runs(runs, rollouts), **rollouts.data()}, scripts=SCRIPTS,
        title=title_of(names), sections=_sections(rollouts, rows), verdict=verdict_of(runs, names),
        runs=_heads(runs, options), what="Rollouts", shown=describe_shown(runs, rollouts),
        has_rollouts=bool(rollouts.groups), steps=True, has_flow="flow_reward" in rollouts.values,
        quantiles=quantiles_of(rows), made=made(),
    )  # fmt: skip
    write_text(out / "report.html", page)
    return out / "report.html", figures


def _heads(runs: list[Run], options: PageOptions) -> list[dict[str, Any]]:
    return [{"name": name, "facts": facts_of(run), "settings": settings_of(run, options.defaults)}
            for name, run in zip(names_of(runs), runs, strict=True)]  # fmt: skip


def rollout_page(runs: list[Run], responses: int, tokenizer: str | None) -> RolloutPage:
    """The chosen rollouts of all runs; each run's own tokenizer reads its tokens."""
    page = RolloutPage()
    for number, (run, groups) in enumerate(zip(runs, choose(runs, responses), strict=True)):
        if groups:
            pieces = Pieces(load_tokenizer(tokenizer_places(run), tokenizer))
            page.add_run(number, run, (group.read() for group in groups), pieces)
    return page


def tokenizer_places(run: Run) -> list[str | Path]:
    """Where a run's tokenizer may be: its folder, its newest checkpoint, the policy it began from."""
    checkpoints = sorted(run.folder.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    named = run.config.get("model_name_or_path")
    return [run.folder, *checkpoints[:1], *([named] if named else [])]


def describe_shown(runs: Sequence[Run], page: RolloutPage) -> str:
    """How much of what was logged the page shows."""
    logged = sum(total_responses(run.groups) for run in runs)
    if not logged:
        return "No rollouts were logged; rollout_log_groups says how many groups of each rollout are."
    shown = sum(len(group["responses"]) for group in page.groups)
    part = "All" if shown == logged else f"{shown:,} of"
    return (
        f"{part} {logged:,} logged responses, to {len(page.groups):,} prompts"
        + ("" if shown == logged else ", spread evenly over the run; --rollouts shows more")
        + ". A run logs the first groups of each rollout (rollout_log_groups). Right: the first reward, "
        f"{page.reward_names[0] if page.reward_names else 'the outcome'}, is above flow_accept_threshold."
    )


def save_figures(charts: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]], folder: Path) -> list[str]:
    """Write the PNG files that there is something for; returns their names."""
    import matplotlib

    matplotlib.use("Agg")
    if charts:
        save_curves(charts, folder / CURVES)
    if rows:
        write_bytes(folder / BY_CLASS, encoded(quantile_figure(rows)))
    return [CURVES] * bool(charts) + [BY_CLASS] * bool(rows)


def quantiles_of(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The quantile plot for both colour schemes, and its numbers."""
    if not rows:
        return None
    return {"rows": rows, **for_both_schemes(lambda ink: quantile_figure(rows, ink))}


def title_of(names: Sequence[str]) -> str:
    """The first three names, and how many more.

    >>> title_of(["a", "b"]), title_of(["a", "b", "c", "d", "e"])
    ('a and b', 'a, b, c and 2 more')
    """
    if len(names) <= 3:
        return " and ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def made() -> str:
    return f"Made by rlfr-vlm {__version__}, {time.strftime('%Y-%m-%d %H:%M %z')}."


def _sections(page: RolloutPage, rows: Sequence[Any]) -> list[tuple[str, str]]:
    found = [("summary", "Summary"), ("curves", "Curves"), ("rollouts", "Rollouts")]
    if "flow_reward" in page.values:
        found.append(("tokens", "Tokens"))
    if page.groups:
        found.append(("compare", "Compare"))
    return found + ([("classes", "Deviation by class")] if rows else [])


def _markdown(verdict: Verdict, runs: Sequence[Mapping[str, Any]], figures: Sequence[str]) -> str:
    """The head of the page for readers of plain text."""
    lines = [f"# {_cell(title_of([run['name'] for run in runs]))}", "", f"**{_cell(verdict.title)}**", ""]
    lines += [f"- {_cell(finding)}" for finding in verdict.findings]
    for run in runs:
        lines += ["", f"## {_cell(run['name'])}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_cell(value)} |" for name, value in run["facts"]]
        lines += ["", "| setting | value | default |", "|---|---|---|"]
        lines += [f"| {name} | {_cell(value)} | {_cell(default)} |" for name, value, default in run["settings"]]
    lines += ["", *(f"![{name.removesuffix('.png')}](figures/{name})" for name in figures)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", r"\|").replace("<", "&lt;")
