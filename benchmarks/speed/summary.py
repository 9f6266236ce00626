"""Tables of the guides from a results file: targets and measured values.

    .venv/bin/python benchmarks/speed/summary.py benchmarks/speed/results/MACHINE.json [--write]

`--write` writes them to benchmarks/README.md, between the comments that mark the tables.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import flow
import prefix
import report
import step
from measuring import same_round_ratio, spread, table

from rlfr_vlm.files import JsonObject, write_text

ROOT = Path(__file__).resolve().parents[2]
GUIDES = (ROOT / "benchmarks" / "README.md",)
DISTURBED = 0.2  # share of the CPUs used by other processes above which ratios of times are unreliable
LINEAR = 1.05  # largest exponent that counts as linear; exponents are fitted to noisy times


@dataclass(frozen=True)
class Line:
    """A target and its measured value.

    Attributes:
        what: the measured quantity.
        met: whether the target is met, or None if nothing was measured.
        script: key of the results file.
        sure: whether `met` also holds on a disturbed machine: for counts, and for times below their limit.
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
    """Line of a target with an upper limit."""
    return Line(what, f"≤ {form.format(limit)}{unit}", form.format(value) + unit, value <= limit, script, sure)


def at_least(what: str, limit: float, value: float, script: str, form: str = "{:.2f}", unit: str = "") -> Line:
    """Line of a target with a lower limit."""
    return Line(what, f"≥ {form.format(limit)}{unit}", form.format(value) + unit, value >= limit, script)


def step_lines(result: JsonObject) -> Iterator[Line]:
    seconds = result["seconds_per_update"]
    ratio, best = result["over_trl"]["rlfr"], min(seconds["rlfr"]) / min(seconds["trl"])
    measured = f"{ratio:.2f} (of minima {best:.2f})"
    yield Line("RLFR over TRL's GRPO, whole step, small policy", "≤ 1.05", measured, ratio <= 1.05, "step")
    # The range over rounds shows the noise: the target is met if 1 is not below it.
    rounds = [ours / trl for ours, trl in zip(seconds["rlvr"], seconds["trl"], strict=True)]
    low, middle, high = spread(rounds)["min"], same_round_ratio(seconds["rlvr"], seconds["trl"]), max(rounds)
    measured = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
    yield Line("our RLVR over TRL's GRPO, whole step, small policy", "≤ 1.00 + noise", measured, low <= 1, "step")


def large_step_lines(result: JsonObject) -> Iterator[Line]:
    yield at_most("RLFR over TRL's GRPO, whole step, 7B, GPU", 1.05, result["over_trl"]["rlfr"], "step_7b")


SHARED = "shared prompts, prompt 1,024, response 256"


def prefix_lines(passes: JsonObject) -> Iterator[Line]:
    for name, times in (("old log-probs", 3.0), ("update", 2.5)):
        numbers = passes["1024/256"][name]
        yield at_least(f"{SHARED}: {name}, times faster than TRL's", times, numbers["times_faster"], "prefix")
        yield at_most(f"{SHARED}: {name}, share of memory", 0.5, numbers["memory"], "prefix", sure=True)
    for name, numbers in passes["64/512"].items():
        slower = 1 / numbers["times_faster"]
        yield at_most(f"shared prompts, prompt 64, response 512: {name}, over TRL's", 1.02, slower, "prefix")


def prefix_step_lines(steps: JsonObject) -> Iterator[Line]:
    ratio = steps["1024/256"]["over_trl"]["rlfr"]
    what = f"{SHARED}: RLFR over TRL's GRPO, whole step, generation by transformers"
    yield at_most(what, 0.6, ratio, "prefix_steps")


def flow_lines(result: JsonObject) -> Iterator[Line]:
    shape = next((shape for shape in result["shapes"] if (shape["prompt"], shape["response"]) == (1024, 512)), None)
    if shape is not None:
        where = "scoring, prompt 1,024, response 512, over whole rows"
        yield at_least(f"{where}: times faster", 3.0, shape["times_faster"], "flow")
        yield at_most(f"{where}: share of memory", 1 / 3, shape["memory_share"], "flow", sure=True)
    for quantity, growth in result["growth"].items():
        exponent = growth["exponent"]
        yield Line(f"cost of scoring grows with ({quantity})^x", "1", f"{exponent:.2f}", exponent <= LINEAR, "flow")


def fit_lines(fit: JsonObject) -> Iterator[Line]:
    for field in fit["fields"]:
        gpu = field["dtype"] == "bfloat16"
        if field["width"] == (3584 if gpu else 2048):
            what = f"fitting, width {field['width']}, {field['dtype']}: share of matmul peak"
            yield at_least(what, 0.6 if gpu else 0.5, field["share_of_matmul_peak"], "fit", "{:.0%}")


def help_lines(times: JsonObject) -> Iterator[Line]:
    slowest = max(seconds["median"] for name, seconds in times.items() if name.endswith("--help"))
    yield at_most("slowest `--help`", 0.3, slowest, "import_time", unit=" s", sure=slowest <= 0.3)


def quickstart_lines(quickstart: JsonObject) -> Iterator[Line]:
    for name, limit in (("empty cache", 5.0), ("cached", 3.5)):
        minutes = quickstart[name] / 60
        yield at_most(f"quick start, {name}", limit, minutes, "quickstart", "{:.1f}", " min", sure=minutes <= limit)


def report_lines(result: JsonObject) -> Iterator[Line]:
    page = f"page of {result['responses']:,} responses of {result['tokens']} tokens"
    for key, what, form, unit in (
        ("page_mb", "size", "{:.0f}", " MB"), ("build_seconds", "to build", "{:.0f}", " s"),
        ("open_seconds", "to open", "{:.1f}", " s"), ("filter_seconds", "to filter", "{:.2f}", " s"),
    ):  # fmt: skip
        if key in result:  # missing if there was no browser
            limit = report.TARGETS[key]
            yield at_most(f"{page}: {what}", limit, result[key], "report", form, unit, sure=result[key] <= limit)


TARGETS: dict[str, Callable[[JsonObject], Iterator[Line]]] = {
    "step": step_lines,
    "step_7b": large_step_lines,
    "prefix": prefix_lines,
    "prefix_steps": prefix_step_lines,
    "flow": flow_lines,
    "fit": fit_lines,
    "import_time": help_lines,
    "quickstart": quickstart_lines,
    "report": report_lines,
}
# Targets that are listed even if they were not measured.
NOT_RUN = (
    Line("quick start, empty cache", "≤ 5.0 min", "not run", None, "quickstart"),
    Line("quick start, cached", "≤ 3.5 min", "not run", None, "quickstart"),
    Line("RLFR over TRL's GRPO, whole step, 7B, GPU", "≤ 1.05", "not run", None, "step_7b"),
    Line("fitting, width 3584, bfloat16: share of matmul peak", "≥ 60%", "not run", None, "fit"),
)


def targets_table(results: JsonObject) -> str:
    """Table of targets, also of those that were not measured."""
    lines = [line for script, read in TARGETS.items() if script in results for line in read(results[script])]
    measured = {line.what for line in lines}
    return lines_table(results, [*lines, *(line for line in NOT_RUN if line.what not in measured)])


def lines_table(results: JsonObject, lines: Sequence[Line]) -> str:
    """Table of these lines, with the load of the machine beside each."""
    rows = []
    for line in lines:
        load = "" if line.met is None else machine_load(results, line.script)
        rows.append((line.what, line.target, line.measured, verdict(results, line), load))
    return table(("", "target", "measured", "met", "load before, others' share"), rows)


def verdict(results: JsonObject, line: Line) -> str:
    """Whether the target is met: yes, no, or unsure on a disturbed machine."""
    if line.met is None:
        return ""
    if not line.sure and results["noise"][line.script].get("others", 0.0) > DISTURBED:
        return "unsure"
    return "yes" if line.met else "**no**"


def machine_load(results: JsonObject, script: str) -> str:
    """Load average before the script, and the largest share of the CPUs that other processes used during it."""
    noise = results["noise"][script]
    return f"{noise['load_before']:.1f}" + (f", {noise['others']:.0%}" if "others" in noise else "")


def other_table(results: JsonObject) -> str:
    """Table of measurements without a target."""
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
    return table(
        ("", "median", "load before, others' share"), [(a, b, machine_load(results, key)) for a, b, key in rows]
    )


def blocks(results: JsonObject, file: str) -> dict[str, str]:
    """Text of each marked block of the guides that a results file has the numbers of: name -> text."""
    machine = results["machine"]
    where = f"{machine['date']}, {machine['processor']}, threads: {machine['threads']}"

    def load(script: str) -> str:
        return f"load before and others' share: {machine_load(results, script)}"

    content = {}
    if "prefix" in results and "prefix_steps" in results:
        passes, steps = results["prefix"], results["prefix_steps"]
        lines = [*prefix_step_lines(steps), *(step_lines(results["step"]) if "step" in results else ())]
        lines += prefix_lines(passes)
        tables = [lines_table(results, lines), prefix.report_passes(passes), prefix.report_steps(steps)]
        content["prefix"] = f"{where} (`benchmarks/speed/results/{file}`):\n\n" + "\n\n".join(tables)
    if "step" in results:
        content["step"] = f"{where}; {load('step')}.\n\n{step.report(results['step'])}"
    if "flow" in results:
        content |= {
            "targets": f"{where} (`benchmarks/speed/results/{file}`):\n\n{targets_table(results)}",
            "flow": f"{where}; {load('flow')}.\n\n{flow.report(results['flow'])}",
            "rest": f"{where} (`speed/results/{file}`):\n\n{other_table(results)}",
        }
    return content


def with_blocks(text: str, content: Mapping[str, str]) -> str:
    """Replace the text between `<!-- speed NAME -->` and `<!-- end -->` by `content[NAME]`, if it has the name."""

    def replaced(match: re.Match[str]) -> str:
        return f"{match[1]}{content[match[2]]}{match[3]}" if match[2] in content else match[0]

    return re.sub(r"(<!-- speed (\w+) -->\n).*?(\n?<!-- end -->)", replaced, text, flags=re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a results file")
    parser.add_argument("--write", action="store_true", help="write the tables to benchmarks/README.md")
    options = parser.parse_args()
    results = json.loads(options.file.read_text(encoding="utf-8"))
    print(targets_table(results))
    if options.write:
        for guide in GUIDES:
            text = guide.read_text(encoding="utf-8")
            write_text(guide, with_blocks(text, blocks(results, options.file.name)))


if __name__ == "__main__":
    main()
