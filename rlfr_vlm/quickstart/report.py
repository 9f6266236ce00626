"""Report of the quick start: accuracy table, `report.md`, `summary.json`, figures and page."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from rlfr_vlm.evaluate import Accuracy
from rlfr_vlm.files import JsonObject, write_json, write_text
from rlfr_vlm.provenance import package_versions
from rlfr_vlm.quickstart.figures import draw_figures
from rlfr_vlm.quickstart.run import LoggedStep, QuickstartResult
from rlfr_vlm.stats import PairedDifference, paired_difference

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


def write_report(result: QuickstartResult, out: Path) -> str:
    """Write figures, `report.md` and `summary.json` to `out`; returns the text for the terminal."""
    figures = draw_figures(result, out / "figures")
    write_json(out / "summary.json", summary(result))
    table = accuracy_table(result)
    title = " and ".join(method.upper() for method in result.methods)
    lines = [f"# Quick start: {title} from one start", "", table, "", *_flow_lines(result), ""]
    lines += [*_difference_lines(result), "", *_time_lines(result), ""]
    lines += [f"![{title}](figures/{path.name})" for title, path in figures]
    write_text(out / "report.md", "\n".join(lines) + "\n")
    return "\n".join([table, "", *_flow_lines(result), *_difference_lines(result)])


def write_page(result: QuickstartResult, out: Path) -> Path:
    """Write the page of all runs, the last method first, to `out`; returns its path."""
    from rlfr_vlm.commands.report import RESPONSES, default_settings
    from rlfr_vlm.report.read_run import read_run
    from rlfr_vlm.report.run_report import PageOptions, write_training_page

    folders = [out / f"seed{seed}" / method for method in reversed(result.methods) for seed in result.seeds]
    return write_training_page(
        [read_run(folder) for folder in folders], out, PageOptions(default_settings(), RESPONSES)
    )


def _cell(score: Accuracy) -> str:
    low, high = score.to_dict()["ci95"]
    text = f"{score.value:.3f} [{low:.3f}, {high:.3f}]" if score.value is not None else "none decided"
    return text + (f", {score.undecided} undecided" if score.undecided else "")


def accuracy_table(result: QuickstartResult) -> str:
    """Table of the held-out accuracy of the base policy and the trained policies, with Wilson 95 % intervals."""
    rows = ["| policy | seed | sampled | greedy |", "|---|---|---|---|"]
    rows.append(f"| base | | {_cell(result.base['sampled'])} | {_cell(result.base['greedy'])} |")
    for seed, runs in result.trained.items():
        rows += [
            f"| {m} | {seed} | {_cell(runs[m]['sampled'])} | {_cell(runs[m]['greedy'])} |" for m in result.methods
        ]
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


def gate_history(steps: Sequence[LoggedStep]) -> GateHistory:
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


def gate_histories(result: QuickstartResult) -> dict[str, dict[str, GateHistory]]:
    """Seed -> method -> when the gate was open, for the runs that have one."""
    histories = {
        str(seed): {method: gate_history(steps) for method, steps in runs.items()}
        for seed, runs in result.history.items()
    }
    return {
        seed: {method: gate for method, gate in runs.items() if gate["rollouts"]} for seed, runs in histories.items()
    }


def _gate_lines(result: QuickstartResult) -> list[str]:
    """Say for each run with flow rewards whether they counted."""
    lines = []
    for seed, runs in gate_histories(result).items():
        for method, gate in runs.items():
            name = f"{method.upper()}, seed {seed}"
            if gate["first_open_step"] is None:
                lines.append(
                    f"{name}: the gate stayed closed, so no flow reward counted: within a prompt, low deviation did "
                    "not go with right answers beyond noise."
                )
            else:
                lines.append(
                    f"{name}: the gate opened at update {gate['first_open_step']}; flow rewards counted in "
                    f"{gate['open']} of {gate['rollouts']} rollouts."
                )
    return lines


def paired_differences(result: QuickstartResult, method: str, reference: str) -> dict[str, PairedDifference]:
    """Accuracy of `method` minus that of `reference`, by decoding mode; a mode in which no seed has both is absent."""

    def accuracies(name: str, mode: str) -> dict[int, float | None]:
        return {seed: runs[name][mode].value for seed, runs in result.trained.items()}

    found = {
        mode: paired_difference(accuracies(method, mode), accuracies(reference, mode))
        for mode in ("sampled", "greedy")
    }
    return {mode: difference for mode, difference in found.items() if difference is not None}


def _difference_lines(result: QuickstartResult) -> list[str]:
    return [line for pair in result.pairs() for line in _pair_lines(result, *pair)]


def _pair_lines(result: QuickstartResult, method: str, reference: str) -> list[str]:
    lines = []
    for mode, entry in paired_differences(result, method, reference).items():
        text = f"{method.upper()} minus {reference.upper()}, {mode}: {entry['mean']:+.3f}"
        if entry["ci95"] is None:
            lines.append(f"{text} (one seed: no interval; `--seeds 5` gives one).")
            continue
        low, high = entry["ci95"]
        verdict = "no difference beyond noise" if low <= 0 <= high else "a difference beyond noise"
        lines.append(
            f"{text}, 95 % interval [{low:+.3f}, {high:+.3f}] over {len(entry['per_seed'])} seeds: {verdict}."
        )
    return lines


def _time_lines(result: QuickstartResult) -> list[str]:
    stages = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in result.seconds.items())
    cached = " (policy from the cache)" if result.start.was_cached else ""
    return [f"Time: {stages}{cached}. Peak memory {result.peak_rss_mb:.0f} MB."]


def summary(result: QuickstartResult) -> JsonObject:
    """Content of `summary.json`. `runs` has the results of the first seed, `seeds` those of all."""
    first = result.seeds[0]
    runs = {"base": _to_dict(result.base)} | {m: _to_dict(result.trained[first][m]) for m in result.methods}
    return {
        "seed": first,
        "versions": {"python": platform.python_version()} | package_versions(PACKAGES),
        "runs": runs,
        "seeds": {
            str(seed): {method: _to_dict(scores) for method, scores in by_method.items()}
            for seed, by_method in result.trained.items()
        },
        "differences": {
            f"{method}_minus_{reference}": paired_differences(result, method, reference)
            for method, reference in result.pairs()
        },
        "flow": {
            "heldout_loss": result.held_out["eval_loss"],
            "zero_predictor_loss": result.held_out["eval_zero_predictor_loss"],
            "auc_correct_vs_wrong": result.auc,
            "gate": gate_histories(result),
        },
        "seconds": {name: round(seconds, 1) for name, seconds in result.seconds.items()},
        "policy": Path(result.start.name).name if result.start.was_cached else result.recipe.policy,
        "policy_was_cached": result.start.was_cached,
        "peak_rss_mb": round(result.peak_rss_mb),
    }


def _to_dict(scores: dict[str, Accuracy]) -> JsonObject:
    return {mode: score.to_dict() for mode, score in scores.items()}
