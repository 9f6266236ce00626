"""Write `report.html`, `report.md` and figures of training runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlfr_vlm import __version__
from rlfr_vlm.files import JsonObject, write_bytes, write_text
from rlfr_vlm.page.figures import encoded, for_both_schemes
from rlfr_vlm.page.html import render
from rlfr_vlm.report.curves import charts_of, group_by_experiment
from rlfr_vlm.report.figures import quantile_figure, save_curves
from rlfr_vlm.report.group_choice import choose_groups, total_responses
from rlfr_vlm.report.header import Verdict, facts_of, verdict_of
from rlfr_vlm.report.read_run import Run, names_of
from rlfr_vlm.report.rollouts import RolloutPage, describe_runs
from rlfr_vlm.report.settings import differing_settings, settings_of
from rlfr_vlm.report.token_text import TokenDecoder, load_tokenizer

SCRIPTS = ("uPlot.iife.min.js", "page.js", "charts.js", "rollouts.js")
CURVES, BY_CLASS = "curves.png", "deviation_by_class.png"


@dataclass(frozen=True)
class PageOptions:
    """Options of a report page.

    Attributes:
        defaults: default of each setting; settings that differ are listed.
        responses: maximum number of responses on the page.
        tokenizer: folder of the tokenizer, if the runs do not have it.
    """

    defaults: JsonObject
    responses: int
    tokenizer: str | None = None


def write_training_report(runs: list[Run], out: Path, options: PageOptions) -> Path:
    """Write page, Markdown and figures of one or several runs into `out`; return the path of the page."""
    page, figures = _write_page(runs, out, options)
    verdict, differing = verdict_of(runs, names_of(runs)), _differing(runs, options)
    write_text(out / "report.md", _markdown(verdict, _summaries(runs, options), differing, figures))
    return page


def write_training_page(runs: list[Run], out: Path, options: PageOptions) -> Path:
    """Write `report.html` and the figures into `out`; further runs are drawn in the charts of the first."""
    return _write_page(runs, out, options)[0]


def _write_page(runs: list[Run], out: Path, options: PageOptions) -> tuple[Path, list[str]]:
    """Write page and figures; return the path of the page and the names of the figures."""
    names, charts = names_of(runs), charts_of(runs)
    rollouts = rollout_page(runs, options.responses, options.tokenizer)
    rows = rollouts.deviations_by_class()
    figures = save_figures(charts, rows, out / "figures")
    page = render(
        "training.html",
        {"charts": charts, "runs": describe_runs(runs, rollouts), **rollouts.data()},
        scripts=SCRIPTS,
        title=page_title(names),
        sections=_sections(rollouts, rows),
        verdict=verdict_of(runs, names),
        runs=_summaries(runs, options),
        differing=_differing(runs, options),
        what="Rollouts",
        shown=describe_shown(runs, rollouts),
        has_rollouts=bool(rollouts.groups),
        steps=True,
        has_flow="flow_reward" in rollouts.values,
        quantiles=quantile_plot(rows),
        made=page_footer(),
    )
    write_text(out / "report.html", page)
    return out / "report.html", figures


def _summaries(runs: list[Run], options: PageOptions) -> list[JsonObject]:
    """Name, facts and changed settings of each run."""
    return [
        {"name": name, "facts": facts_of(run), "settings": settings_of(run, options.defaults)}
        for name, run in zip(names_of(runs), runs, strict=True)
    ]


def _differing(runs: list[Run], options: PageOptions) -> JsonObject:
    """Names of the experiments, and (setting, value in each of them) of the settings in which they differ."""
    experiments = group_by_experiment(runs)
    rows = differing_settings([experiment.runs[0] for experiment in experiments], options.defaults)
    return {"names": [experiment.name for experiment in experiments], "rows": rows}


def rollout_page(runs: list[Run], responses: int, tokenizer: str | None) -> RolloutPage:
    """Page data of the chosen rollouts of all runs; tokens of each run are decoded by its own tokenizer."""
    page = RolloutPage()
    for index, (run, groups) in enumerate(zip(runs, choose_groups(runs, responses), strict=True)):
        if groups:
            decoder = TokenDecoder(load_tokenizer(tokenizer_candidates(run), tokenizer))
            page.add_run(index, run, (group.read() for group in groups), decoder)
    return page


def tokenizer_candidates(run: Run) -> list[str | Path]:
    """Places of a run's tokenizer: its folder, its newest checkpoint, the policy it started from."""
    checkpoints = sorted(run.folder.glob("checkpoint-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    policy = run.config.get("model_name_or_path")
    return [run.folder, *checkpoints[:1], *([policy] if policy else [])]


def describe_shown(runs: Sequence[Run], page: RolloutPage) -> str:
    """Sentence about how many of the logged responses the page shows."""
    logged = sum(total_responses(run.groups) for run in runs)
    if not logged:
        return "No rollouts were logged; rollout_log_groups sets how many groups of each rollout are."
    shown = sum(len(group["responses"]) for group in page.groups)
    part = "All" if shown == logged else f"{shown:,} of"
    return (
        f"{part} {logged:,} logged responses, to {len(page.groups):,} prompts"
        + ("" if shown == logged else ", spread evenly over the run; --rollouts shows more")
        + ". A run logs the first groups of each rollout (rollout_log_groups). Right: the first reward, "
        f"{page.reward_names[0] if page.reward_names else 'the outcome'}, is above flow_accept_threshold."
    )


def save_figures(charts: Sequence[JsonObject], rows: Sequence[JsonObject], folder: Path) -> list[str]:
    """Write the PNG files for which there is data; return their names."""
    import matplotlib

    matplotlib.use("Agg")
    if charts:
        save_curves(charts, folder / CURVES)
    if rows:
        write_bytes(folder / BY_CLASS, encoded(quantile_figure(rows)))
    return [CURVES] * bool(charts) + [BY_CLASS] * bool(rows)


def quantile_plot(rows: list[JsonObject]) -> JsonObject | None:
    """Quantile plot for both colour schemes, with its rows; None without rows."""
    if not rows:
        return None
    return {"rows": rows, **for_both_schemes(lambda ink: quantile_figure(rows, ink))}


def page_title(names: Sequence[str]) -> str:
    """Title of a page: the first three names and the number of further ones.

    >>> page_title(["a", "b"]), page_title(["a", "b", "c", "d", "e"])
    ('a and b', 'a, b, c and 2 more')
    """
    if len(names) <= 3:
        return " and ".join(names)
    return f"{', '.join(names[:3])} and {len(names) - 3} more"


def page_footer() -> str:
    return f"Made by rlfr-vlm {__version__}, {time.strftime('%Y-%m-%d %H:%M %z')}."


def _sections(page: RolloutPage, rows: Sequence[JsonObject]) -> list[tuple[str, str]]:
    sections = [("summary", "Summary"), ("curves", "Curves"), ("rollouts", "Rollouts")]
    if "flow_reward" in page.values:
        sections.append(("tokens", "Tokens"))
    if page.groups:
        sections.append(("compare", "Compare"))
    return sections + ([("classes", "Deviation by class")] if rows else [])


def _markdown(verdict: Verdict, runs: Sequence[JsonObject], differing: JsonObject, figures: Sequence[str]) -> str:
    """Summary of the page as Markdown."""
    lines = [f"# {_cell(page_title([run['name'] for run in runs]))}", "", f"**{_cell(verdict.title)}**", ""]
    lines += [f"- {_cell(finding)}" for finding in (*verdict.findings, *verdict.unjudged)]
    if differing["rows"]:
        table = [("setting that differs", differing["names"]), *differing["rows"]]
        rows = [f"| {name} | {' | '.join(map(_cell, values))} |" for name, values in table]
        lines += ["", rows[0], f"|---|{'---|' * len(differing['names'])}", *rows[1:]]
    for run in runs:
        lines += ["", f"## {_cell(run['name'])}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {_cell(value)} |" for name, value in run["facts"]]
        lines += ["", "| setting | value | default |", "|---|---|---|"]
        lines += [f"| {name} | {_cell(value)} | {_cell(default)} |" for name, value, default in run["settings"]]
    lines += ["", *(f"![{name.removesuffix('.png')}](figures/{name})" for name in figures)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", r"\|").replace("<", "&lt;")
