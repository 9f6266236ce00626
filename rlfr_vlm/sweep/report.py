"""Write the results of a sweep: `results.json`, the table as text, and the page `sweep.html`."""

from pathlib import Path

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, write_json, write_text
from rlfr_vlm.page.html import render
from rlfr_vlm.report.curves import Experiment, charts_of_experiments
from rlfr_vlm.report.read_run import Run, is_finished, read_run
from rlfr_vlm.report.run_report import page_footer
from rlfr_vlm.sweep.definition import Sweep
from rlfr_vlm.sweep.final_values import final_values, unlike
from rlfr_vlm.sweep.results import Comparison, compare
from rlfr_vlm.sweep.table import notes_of, results_json, table_of, text_of

SCRIPTS = ("uPlot.iife.min.js", "page.js", "charts.js", "sweep.js")
RESULTS_FILE, PAGE_FILE = "results.json", "sweep.html"


def write_results(sweep: Sweep, failed: dict[str, int]) -> str | None:
    """Write `results.json` and `sweep.html`; return the text for the terminal, or None if no run is finished.

    Args:
        failed: run -> exit code, of the runs that have failed.
    """
    runs, states = read_runs(sweep, failed)
    if not runs:
        return None
    comparison = compare(sweep.cells, sweep.seeds, final_values(runs), unlike(list(runs.values())))
    write_json(sweep.out / RESULTS_FILE, results_json(comparison) | {"runs": states})
    write_text(sweep.out / PAGE_FILE, page_of(sweep, comparison, runs, states))
    return text_of(comparison)


def read_runs(sweep: Sweep, failed: dict[str, int]) -> tuple[dict[tuple[str, int], Run], dict[str, str]]:
    """Read the finished runs, by cell and seed, and the state of every run, by its name."""
    runs, states = {}, {}
    for run in sweep.runs:
        states[run.name] = f"failed with exit code {failed[run.name]}" if run.name in failed else "not finished"
        if not is_finished(run.folder):
            continue
        try:
            runs[run.cell.name, run.seed] = read_run(run.folder)
            states[run.name] = "finished"
        except UserError as error:
            states[run.name] = f"finished, but it cannot be read: {error}"
    return runs, states


def page_of(sweep: Sweep, comparison: Comparison, runs: dict[tuple[str, int], Run], states: dict[str, str]) -> str:
    """The page as HTML."""
    experiments = [
        Experiment(cell.name, found)
        for cell in sweep.cells
        if (found := [runs[cell.name, seed] for seed in sweep.seeds if (cell.name, seed) in runs])
    ]
    header, rows = table_of(comparison)
    return render(
        "sweep.html",
        {"charts": charts_of_experiments(experiments, single_seeds=True)},
        scripts=SCRIPTS,
        title=f"Sweep: {', '.join(sweep.methods)}",
        sections=[("results", "Results"), ("curves", "Curves"), ("runs", "Runs")],
        header=header,
        rows=rows,
        notes=notes_of(comparison),
        states=states,
        definition=_definition(sweep),
        made=page_footer(),
    )


def _definition(sweep: Sweep) -> JsonObject:
    """What the page shows of the definition, one line each."""
    definition = sweep.definition()
    settings = definition.pop("config_settings")
    return {name: value for name, value in definition.items() if value} | settings


def page_path(out: Path) -> Path:
    """Path of the page."""
    return out / PAGE_FILE
