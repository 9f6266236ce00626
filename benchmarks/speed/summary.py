"""The targets, and what a machine reached, from its results file: the table of the README.

.venv/bin/python benchmarks/speed/summary.py benchmarks/speed/results/MACHINE.json
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measuring import same_round_ratio, spread, table

Results = Mapping[str, Any]
LINEAR = 1.05  # an exponent up to here counts as linear: it is fitted to times


@dataclass(frozen=True)
class Line:
    """One target and what was measured for it.

    Attributes:
        script: the key of the results file that it was read from.
        met: None where nothing was measured.
    """

    what: str
    target: str
    measured: str
    met: bool | None
    script: str


def at_most(what: str, limit: float, value: float, script: str, form: str = "{:.2f}", unit: str = "") -> Line:
    return Line(what, f"≤ {form.format(limit)}{unit}", form.format(value) + unit, value <= limit, script)


def at_least(what: str, limit: float, value: float, script: str, form: str = "{:.2f}", unit: str = "") -> Line:
    return Line(what, f"≥ {form.format(limit)}{unit}", form.format(value) + unit, value >= limit, script)


def step_lines(step: Results) -> Iterator[Line]:
    seconds = step["seconds_per_update"]
    yield at_most("RLFR over TRL's GRPO, whole step, small policy", 1.15, step["over_trl"]["rlfr"], "step")
    # All rounds' own ratios are what noise does: 1 must not lie below them.
    rounds = [ours / trl for ours, trl in zip(seconds["rlvr"], seconds["trl"], strict=True)]
    low, middle, high = spread(rounds)["min"], same_round_ratio(seconds["rlvr"], seconds["trl"]), max(rounds)
    yield Line("our RLVR over TRL's GRPO, whole step, small policy", "≤ 1.00 + noise",
               f"{middle:.2f} [{low:.2f}, {high:.2f}]", low <= 1, "step")  # fmt: skip


def large_step_lines(step: Results) -> Iterator[Line]:
    yield at_most("RLFR over TRL's GRPO, whole step, 7B, GPU", 1.05, step["over_trl"]["rlfr"], "step_7b")


def flow_lines(flow: Results) -> Iterator[Line]:
    shape = next((own for own in flow["shapes"] if (own["prompt"], own["response"]) == (1024, 512)), None)
    if shape is not None:
        where = "scoring, prompt 1,024, response 512, over whole rows"
        yield at_least(f"{where}: times faster", 3.0, shape["times_faster"], "flow")
        yield at_most(f"{where}: share of memory", 1 / 3, shape["memory_share"], "flow")
    for quantity, grown in flow["growth"].items():
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
    yield at_most("slowest `--help`", 0.3, slowest, "import_time", unit=" s")


def quickstart_lines(quickstart: Results) -> Iterator[Line]:
    for name, limit in (("empty cache", 5.0), ("cached", 3.5)):
        yield at_most(f"quick start, {name}", limit, quickstart[name] / 60, "quickstart", "{:.1f}", " min")


TARGETS: dict[str, Callable[[Results], Iterator[Line]]] = {
    "step": step_lines,
    "step_7b": large_step_lines,
    "flow": flow_lines,
    "fit": fit_lines,
    "import_time": help_lines,
    "quickstart": quickstart_lines,
}
# Shown also where no machine has measured them.
ON_A_GPU = (
    Line("RLFR over TRL's GRPO, whole step, 7B, GPU", "≤ 1.05", "not run", None, "step_7b"),
    Line("fitting, width 3584, bfloat16: share of matmul peak", "≥ 60%", "not run", None, "fit"),
)


def headline(results: Results) -> str:
    """A caption and the table."""
    lines = [line for script, read in TARGETS.items() if script in results for line in read(results[script])]
    lines += [line for line in ON_A_GPU if line.what not in {own.what for own in lines}]
    machine, load = results["machine"], results["load_before"]
    rows = [(line.what, line.target, line.measured, {True: "yes", False: "**no**", None: ""}[line.met],
             "" if line.met is None else f"{load[line.script]:.1f}") for line in lines]  # fmt: skip
    head = ("", "target", "measured", "met", "load before")
    return f"{machine['date']}, {machine['processor']}, {machine['threads']} threads:\n\n{table(head, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a results file")
    print(headline(json.loads(parser.parse_args().file.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
