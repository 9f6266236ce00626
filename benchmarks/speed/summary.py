"""The targets, and what a machine reached, from its results file: the tables of the guides.

    .venv/bin/python benchmarks/speed/summary.py benchmarks/speed/results/MACHINE.json [--write]

`--write` puts them into README.md and benchmarks/README.md, between the comments that mark their places.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flow
import report
import step
from measuring import same_round_ratio, spread, table

from rlfr_vlm.files import write_text

Results = Mapping[str, Any]
ROOT = Path(__file__).resolve().parents[2]
GUIDES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
DISTURBED = 0.2  # when others took more of the processors, ratios of times say little
LINEAR = 1.05  # an exponent up to here counts as linear: it is fitted to times


@dataclass(frozen=True)
class Line:
    """One target and what was measured for it.

    Attributes:
        met: None where nothing was measured.
        script: the key of the results file that it was read from.
        sure: also on a machine that others used: a count, or a time that they made longer and that was short enough.
    """

    what: str
    target: str
    measured: str
    met: bool | None
    script: str
    sure: bool = False


def at_most(
    what: str, limit: float, value: float, script: str, form: str = "{:.2f}", unit: str = "", *, sure: bool = False
) -> Line:
    return Line(what, f"≤ {form.format(limit)}{unit}", form.format(value) + unit, value <= limit, script, sure)


def at_least(what: str, limit: float, value: float, script: str, form: str = "{:.2f}", unit: str = "") -> Line:
    return Line(what, f"≥ {form.format(limit)}{unit}", form.format(value) + unit, value >= limit, script)


def step_lines(result: Results) -> Iterator[Line]:
    seconds = result["seconds_per_update"]
    ratio, best = result["over_trl"]["rlfr"], min(seconds["rlfr"]) / min(seconds["trl"])
    yield Line("RLFR over TRL's GRPO, whole step, small policy", "≤ 1.15", f"{ratio:.2f} (of minima {best:.2f})",
               ratio <= 1.15, "step")  # fmt: skip
    # All rounds' own ratios are what noise does: 1 must not lie below them.
    rounds = [ours / trl for ours, trl in zip(seconds["rlvr"], seconds["trl"], strict=True)]
    low, middle, high = spread(rounds)["min"], same_round_ratio(seconds["rlvr"], seconds["trl"]), max(rounds)
    yield Line("our RLVR over TRL's GRPO, whole step, small policy", "≤ 1.00 + noise",
               f"{middle:.2f} [{low:.2f}, {high:.2f}]", low <= 1, "step")  # fmt: skip


def large_step_lines(result: Results) -> Iterator[Line]:
    yield at_most("RLFR over TRL's GRPO, whole step, 7B, GPU", 1.05, result["over_trl"]["rlfr"], "step_7b")


def flow_lines(result: Results) -> Iterator[Line]:
    shape = next((own for own in result["shapes"] if (own["prompt"], own["response"]) == (1024, 512)), None)
    if shape is not None:
        where = "scoring, prompt 1,024, response 512, over whole rows"
        yield at_least(f"{where}: times faster", 3.0, shape["times_faster"], "flow")
        yield at_most(f"{where}: share of memory", 1 / 3, shape["memory_share"], "flow", sure=True)
    for quantity, grown in result["growth"].items():
        yield Line(f"cost of scoring grows with ({quantity})^x", "1", f"{grown['exponent']:.2f}",
                   grown["exponent"] <= LINEAR, "flow")  # fmt: skip


def fit_lines(fit: Results) -> Iterator[Line]:
    for own in fit["fields"]:
        gpu = own["dtype"] == "bfloat16"
        if own["width"] == (3584 if gpu else 2048):
            yield at_least(f"fitting, width {own['width']}, {own['dtype']}: share of matmul peak", 0.6 if gpu else 0.5,
                           own["share_of_matmul_peak"], "fit", "{:.0%}")  # fmt: skip


def help_lines(times: Results) -> Iterator[Line]:
    slowest = max(own["median"] for name, own in times.items() if name.endswith("--help"))
    yield at_most("slowest `--help`", 0.3, slowest, "import_time", unit=" s", sure=slowest <= 0.3)


def quickstart_lines(quickstart: Results) -> Iterator[Line]:
    for name, limit in (("empty cache", 5.0), ("cached", 3.5)):
        minutes = quickstart[name] / 60
        yield at_most(f"quick start, {name}", limit, minutes, "quickstart", "{:.1f}", " min", sure=minutes <= limit)


def report_lines(result: Results) -> Iterator[Line]:
    page = f"page of {result['responses']:,} responses of {result['tokens']} tokens"
    for key, what, form, unit in (
        ("page_mb", "size", "{:.0f}", " MB"), ("build_seconds", "to build", "{:.0f}", " s"),
        ("open_seconds", "to open", "{:.1f}", " s"), ("filter_seconds", "to filter", "{:.2f}", " s"),
    ):  # fmt: skip
        if key in result:  # without a browser nothing is opened
            limit = report.TARGETS[key]
            yield at_most(f"{page}: {what}", limit, result[key], "report", form, unit, sure=result[key] <= limit)


TARGETS: dict[str, Callable[[Results], Iterator[Line]]] = {
    "step": step_lines,
    "step_7b": large_step_lines,
    "flow": flow_lines,
    "fit": fit_lines,
    "import_time": help_lines,
    "quickstart": quickstart_lines,
    "report": report_lines,
}
# Shown also where nothing has measured them.
NOT_RUN = (
    Line("quick start, empty cache", "≤ 5.0 min", "not run", None, "quickstart"),
    Line("quick start, cached", "≤ 3.5 min", "not run", None, "quickstart"),
    Line("RLFR over TRL's GRPO, whole step, 7B, GPU", "≤ 1.05", "not run", None, "step_7b"),
    Line("fitting, width 3584, bfloat16: share of matmul peak", "≥ 60%", "not run", None, "fit"),
)


def headline(results: Results) -> str:
    """The table of targets."""
    lines = [line for script, read in TARGETS.items() if script in results for line in read(results[script])]
    lines += [line for line in NOT_RUN if line.what not in {own.what for own in lines}]
    rows = [(line.what, line.target, line.measured, verdict(results, line),
             "" if line.met is None else busy(results, line.script)) for line in lines]  # fmt: skip
    return table(("", "target", "measured", "met", "load before, others' share"), rows)


def verdict(results: Results, line: Line) -> str:
    """Whether the target is met, or that a disturbed machine cannot tell."""
    if line.met is None:
        return ""
    if not line.sure and results["noise"][line.script].get("others", 0.0) > DISTURBED:
        return "unsure"
    return "yes" if line.met else "**no**"


def busy(results: Results, script: str) -> str:
    """The load average before the script, and the largest share of the processors that others took meanwhile."""
    noise = results["noise"][script]
    return f"{noise['load_before']:.1f}" + (f", {noise['others']:.0%}" if "others" in noise else "")


def rest(results: Results) -> str:
    """What has no target, or only one number for it."""
    fit, grading, times = results["fit"]["fields"][0], results["grading"], results["import_time"]
    rows = [
        (f"fitting, width {fit['width']}, depth {fit['depth']}, {fit['dtype']}: tokens a second",
         f"{fit['tokens_per_second']:.0f}", "fit"),
        ("importing the trainer, s", f"{times['import the trainer']['median']:.1f}", "import_time"),
        ("`rlfr-eval`, 2,000 answers of an instant endpoint, s", f"{results['eval_overhead']['seconds']:.1f}",
         "eval_overhead"),
        ("graded pairs a second: trivial, which no worker sees", f"{grading['trivial']['median']:,.0f}", "grading"),
        ("graded pairs a second: LaTeX that needs algebra, two workers", f"{grading['latex']['median']:,.0f}",
         "grading"),
        ("the same LaTeX pairs, plain math-verify in one process", f"{grading['plain_math_verify']['median']:,.0f}",
         "grading"),
    ]  # fmt: skip
    return table(("", "median", "load before, others' share"), [(a, b, busy(results, key)) for a, b, key in rows])


def blocks(results: Results, file: str) -> dict[str, str]:
    """What stands in the guides, by the name of its place."""
    machine = results["machine"]
    where = f"{machine['date']}, {machine['processor']}, threads: {machine['threads']}"
    return {
        "targets": f"{where} (`benchmarks/speed/results/{file}`):\n\n{headline(results)}",
        "step": f"{where}; load before and others' share: {busy(results, 'step')}.\n\n{step.report(results['step'])}",
        "flow": f"{where}; load before and others' share: {busy(results, 'flow')}.\n\n{flow.report(results['flow'])}",
        "rest": f"{where} (`speed/results/{file}`):\n\n{rest(results)}",
    }


def with_blocks(text: str, named: Mapping[str, str]) -> str:
    """The text with what stands between `<!-- speed NAME -->` and `<!-- end -->` replaced."""
    return re.sub(
        r"(<!-- speed (\w+) -->\n).*?(\n<!-- end -->)",
        lambda found: found[1] + named[found[2]] + found[3], text, flags=re.DOTALL,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a results file")
    parser.add_argument("--write", action="store_true", help="into README.md and benchmarks/README.md")
    options = parser.parse_args()
    results = json.loads(options.file.read_text(encoding="utf-8"))
    print(headline(results))
    if options.write:
        for guide in GUIDES:
            text = guide.read_text(encoding="utf-8")
            write_text(guide, with_blocks(text, blocks(results, options.file.name)))


if __name__ == "__main__":
    main()
