"""Report of the quick start: accuracy table, `report.md`, `summary.json`, figures and page."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from rlfr_vlm.evaluate import Accuracy
from rlfr_vlm.files import JsonObject, write_json, write_text
from rlfr_vlm.provenance import package_versions
from rlfr_vlm.quickstart.figures import draw_figures
from rlfr_vlm.quickstart.run import QuickstartResult
from rlfr_vlm.quickstart.study import write_study
from rlfr_vlm.sweep.results import Comparison
from rlfr_vlm.sweep.table import results_json, text_of

PACKAGES = ("rlfr-vlm", "torch", "transformers", "trl", "accelerate", "datasets")


class GateHistory(TypedDict):
    """When the gate of the flow reward was open in a run.

    Attributes:
        rollouts: that logged the gate.
        open: rollouts whose flow reward counted.
        first_open_step: update of the first of them; None if there was none.
        auc, low: of the last window, and the lower end of its interval.
    """

    rollouts: int
    open: int
    first_open_step: int | None
    auc: float | None
    low: float | None


def write_report(result: QuickstartResult) -> str:
    """Write figures, `report.md`, `summary.json` and `study.yaml`; returns the text for the terminal."""
    out, comparison = result.sweep.out, result.comparison()
    figures = draw_figures(result, out / "figures")
    write_json(out / "summary.json", summary(result, comparison))
    results = [accuracy_table(result), "", text_of(comparison), "", *_flow_lines(result), ""]
    study = ["More seeds from this policy and field, a process for each run:", "", f"    {write_study(result)}", ""]
    title = " and ".join(method.upper() for method in result.sweep.methods)
    lines = [f"# Quick start: {title} from one start", "", *results, _time_line(result), "", *study]
    lines += [f"![{title}](figures/{path.name})" for title, path in figures]
    write_text(out / "report.md", "\n".join(lines) + "\n")
    return "\n".join([*results, *study])


def write_page(result: QuickstartResult) -> Path:
    """Write the page of all runs, the last method first; returns its path."""
    from rlfr_vlm.commands.report import RESPONSES, default_settings
    from rlfr_vlm.report.run_report import PageOptions, write_training_page

    sweep = result.sweep
    runs = [result.runs[cell.name, seed] for cell in reversed(sweep.cells) for seed in sweep.seeds]
    return write_training_page(runs, sweep.out, PageOptions(default_settings(), RESPONSES))


def _cell(score: Accuracy) -> str:
    low, high = score.to_dict()["ci95"]
    text = f"{score.value:.3f} [{low:.3f}, {high:.3f}]" if score.value is not None else "none decided"
    return text + (f", {score.undecided} undecided" if score.undecided else "")


def accuracy_table(result: QuickstartResult) -> str:
    """Table of the held-out accuracy of the base policy and the trained policies, with Wilson 95 % intervals."""
    rows = ["| policy | seed | sampled | greedy |", "|---|---|---|---|"]
    rows.append(f"| base | | {_cell(result.base['sampled'])} | {_cell(result.base['greedy'])} |")
    for (method, seed), scores in result.trained.items():
        rows.append(f"| {method} | {seed} | {_cell(scores['sampled'])} | {_cell(scores['greedy'])} |")
    n = result.base["sampled"].n
    return "\n".join([f"Accuracy on {n} held-out problems of {result.start.task} (95 % interval):", "", *rows])


def _flow_lines(result: QuickstartResult) -> list[str]:
    held = result.held_out
    lines = [
        f"Flow: held-out loss {held['eval_loss']:.3f}, {held['eval_ratio']:.2f} of the zero predictor's "
        f"{held['eval_zero_predictor_loss']:.3f}."
    ]
    for statistic, values in result.auc.items():
        within = values["within_groups"]
        if within["auc"] is None:
            lines.append(f"AUC of {statistic} deviation: undefined, no prompt has right and wrong answers.")
            continue
        low, high = within["ci95"]
        pooled = "undefined" if values["auc"] is None else f"{values['auc']:.3f}"
        lines.append(
            f"AUC of a response's {statistic} deviation, wrong above right: {within['auc']:.3f} [{low:.3f}, "
            f"{high:.3f}] within {within['groups']} prompts; {pooled} over all, which includes how hard prompts are."
        )
    return [*lines, *_gate_lines(result)]


def gate_history(steps: Sequence[JsonObject]) -> GateHistory:
    """When the gate of the flow reward was open in a run, from its logged steps."""
    logged = [step for step in steps if "flow/gate" in step]
    opened = [int(step["step"]) for step in logged if step["flow/gate"] > 0]
    last = logged[-1] if logged else {}
    return {
        "rollouts": len(logged),
        "open": len(opened),
        "first_open_step": opened[0] if opened else None,
        "auc": last.get("flow/gate_auc"),
        "low": last.get("flow/gate_low"),
    }


def gate_histories(result: QuickstartResult) -> dict[tuple[str, int], GateHistory]:
    """(method, seed) -> when the gate was open, for the runs that have one."""
    histories = {key: gate_history(run.metrics) for key, run in result.runs.items()}
    return {key: gate for key, gate in histories.items() if gate["rollouts"]}


def _gate_lines(result: QuickstartResult) -> list[str]:
    """Say for each run with flow rewards whether they counted."""
    lines = []
    for (method, seed), gate in gate_histories(result).items():
        name = f"{method.upper()}, seed {seed}"
        if gate["first_open_step"] is None:
            lines.append(
                f"{name}: the gate stayed closed, so no flow reward counted: within a prompt, low deviation did not "
                "go with right answers beyond noise."
            )
        else:
            lines.append(
                f"{name}: the gate opened at update {gate['first_open_step']}; flow rewards counted in "
                f"{gate['open']} of {gate['rollouts']} rollouts."
            )
    return lines


def _time_line(result: QuickstartResult) -> str:
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    cached = " (policy from the cache)" if result.start.was_cached else ""
    return f"Time: {stages}{cached}. Peak memory {result.peak_rss_mb:.0f} MB."


def summary(result: QuickstartResult, comparison: Comparison) -> JsonObject:
    """Content of `summary.json`. `runs` has the results of the first seed, `seeds` those of all."""
    seeds: JsonObject = {str(seed): {} for seed in result.sweep.seeds}
    for (method, seed), scores in result.trained.items():
        seeds[str(seed)][method] = _to_dict(scores)
    return {
        "seed": result.seed,
        "versions": {"python": platform.python_version()} | package_versions(PACKAGES),
        "runs": {"base": _to_dict(result.base)} | seeds[str(result.seed)],
        "seeds": seeds,
        "comparison": results_json(comparison),
        "flow": {
            "heldout_loss": result.held_out["eval_loss"],
            "zero_predictor_loss": result.held_out["eval_zero_predictor_loss"],
            "auc_correct_vs_wrong": result.auc,
            "gate": {f"{method}/seed-{seed}": gate for (method, seed), gate in gate_histories(result).items()},
        },
        "seconds": {name: round(seconds, 1) for name, seconds in result.seconds.items()},
        "policy": Path(result.start.name).name if result.start.was_cached else result.recipe.policy,
        "policy_was_cached": result.start.was_cached,
        "peak_rss_mb": round(result.peak_rss_mb),
    }


def _to_dict(scores: dict[str, Accuracy]) -> JsonObject:
    return {mode: score.to_dict() for mode, score in scores.items()}
