"""Sweeps whose runs are a small program instead of `rlfr train`."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlfr_vlm.sweep.axes import axes_of
from rlfr_vlm.sweep.definition import Sweep, SweepRun

# Takes the arguments of `rlfr train`, and leaves what it leaves: settings, metrics of two steps, the record of a
# finished run. `plan.json` has greedy and sampled accuracy of each run, or the exit code with which it fails.
FAKE = """
import json, pathlib, sys
plan = json.loads(pathlib.Path(sys.argv[1]).read_text())
arguments = dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder = pathlib.Path(arguments["--output_dir"])
name = f"{folder.parent.name}/{folder.name}"
with pathlib.Path(sys.argv[1]).with_name("started.txt").open("a") as stream:
    stream.write(name + "\\n")
values = plan[name]
if isinstance(values, int):
    print("loading\\n\\n1/2\\r2/2\\nrlfr: the disk is full", flush=True)
    sys.exit(values)
folder.mkdir(parents=True, exist_ok=True)
settings = {"method": arguments["--method"], "seed": int(arguments["--seed"]), "output_dir": str(folder)}
(folder / "config.yaml").write_text(json.dumps(settings))
greedy, sampled = values
lines = [{"step": step, "outcome/accuracy": step / 4, "outcome/mean": step / 4} for step in (1, 2)]
lines += [] if greedy is None else [{"step": 2, "eval_rows": 8.0, "eval_greedy": greedy, "eval_sampled": sampled}]
(folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\\n" for line in lines))
(folder / "run.json").write_text(json.dumps({"finished": {"steps": 2}}))
"""


class FakeTraining:
    """Writes the program and its plan; `started` are the runs that it was started for."""

    def __init__(self, folder: Path, plan: Mapping[str, object]) -> None:
        self.program, self.plan = folder / "fake.py", folder / "plan.json"
        self.program.write_text(FAKE)
        self.change(plan)

    def change(self, plan: Mapping[str, object]) -> None:
        self.plan.write_text(json.dumps(plan))
        self.plan.with_name("started.txt").write_text("")

    def command(self, run: SweepRun) -> list[str]:
        return [sys.executable, "-S", str(self.program), str(self.plan), *run.arguments]

    @property
    def started(self) -> list[str]:
        return self.plan.with_name("started.txt").read_text().split()


def sweep_of(
    out: Path,
    methods: Sequence[str] = ("rlvr", "entropy"),
    seeds: Sequence[int] = (1, 2),
    axes: Sequence[str] = (),
    config: Path | None = None,
    options: Sequence[str] = (),
) -> Sweep:
    name = None if config is None else str(config)
    return Sweep(out, tuple(methods), tuple(seeds), axes_of(axes), name, tuple(options))
