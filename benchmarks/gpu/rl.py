"""Train a small policy with RLVR and RLFR by `rlfr sweep`, one seed after the other, until the time is up.

    python -m benchmarks.gpu.rl --policy DIR --task text|digits --work DIR --seconds N --json FILE [--cpu]

Settings are those of benchmarks/signal/language_rl.yaml, in bfloat16 on a GPU. The field is fitted here on expert
answers, since sampling the policy's own would take the time of the runs. The text task is that of
benchmarks/signal/problems.py. What is finished in --work is kept.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from rlfr_vlm.files import JsonObject, make_folder, write_json
from rlfr_vlm.sweep.definition import Sweep

ROOT = Path(__file__).resolve().parents[2]
CONFIG = "benchmarks/signal/language_rl.yaml"
METHODS, MOST_SEEDS = ("rlvr", "rlfr"), 20
POLL = 1.0  # seconds between two looks at the runs
PATIENCE = 10.0  # seconds that a run has to end its step
FIT = ["--per_device_train_batch_size", "16", "--learning_rate", "1e-3", "--flow_noise_repeats", "2",
       "--flow_depth", "2", "--eval_rows", "48", "--save_strategy", "no", "--report_to", "none",
       "--flow_layers", "0.25", "0.5", "0.75", "--flow_latents", "sphere", "--seed", "42"]  # fmt: skip
SMALL_FIT = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--eval_rows", "4"]
SMALL_RUN = ["--max_steps", "2", "--eval_steps", "2", "--eval_rows", "8", "--per_device_train_batch_size", "8",
             "--max_completion_length", "8"]  # fmt: skip


def run(*arguments: str) -> None:
    """Run a module or script with this interpreter.

    Raises:
        SystemExit: it failed; its output has said why.
    """
    code = subprocess.run([sys.executable, *arguments], cwd=ROOT, check=False).returncode
    if code:
        sys.exit(f"rl: {' '.join(arguments[:3])} ended with exit code {code}")


def data_of(task: str, work: Path) -> tuple[list[str], list[str]]:
    """Write the data of a task; returns the options of fitting and of the runs that name it."""
    if task == "digits":
        runs = ["--dataset_name", "digits", "--dataset_limit", "400", "--eval_dataset_name", "digits"]
        return ["--dataset_name", "digits", "--dataset_limit", "512"], runs
    names = {"test": ("160", "0"), "expert": ("120", "1"), "train": ("400", "3")}
    files = {name: work / f"{name}.jsonl" for name in names}
    known: list[str] = []
    for name, (count, seed) in names.items():
        if not files[name].is_file():
            without = ["--without", *known] if known else []
            run("benchmarks/signal/problems.py", "--out", str(files[name]), "--n", count, "--seed", seed, *without)
        known.append(str(files[name]))
    runs = ["--dataset_name", str(files["train"]), "--eval_dataset_name", str(files["test"])]
    return ["--dataset_name", str(files["expert"])], [*runs, "--eval_dataset_split", "train"]


def sweep_of(options: argparse.Namespace, data: list[str]) -> Sweep:
    """The sweep, with more seeds than there is time for."""
    device = SMALL_RUN if options.cpu else ["--use_cpu", "false", "--bf16", "true"]
    model = ["--model_name_or_path", str(options.policy), "--flow_path", str(options.work / "field" / "flow")]
    seeds = (1,) if options.cpu else tuple(range(1, MOST_SEEDS + 1))
    return Sweep(options.work / "sweep", METHODS, seeds, (), str(ROOT / CONFIG), (*model, *data, *device))


def command_of(sweep: Sweep) -> list[str]:
    """Command line of `rlfr sweep`."""
    seeds = ",".join(map(str, sweep.seeds)) + ("," if len(sweep.seeds) == 1 else "")
    own = ["--config", str(sweep.config), "--methods", ",".join(sweep.methods), "--seeds", seeds]
    return [sys.executable, "-m", "rlfr_vlm.cli", "sweep", *own, "--out", str(sweep.out), *sweep.options]


def finished(sweep: Sweep) -> int:
    """Number of finished runs."""
    from rlfr_vlm.report.read_run import is_finished

    return sum(is_finished(run.folder) for run in sweep.runs)


def write(sweep: Sweep, options: argparse.Namespace) -> None:
    """Write what the finished runs say; runs of later seeds, which there was no time for, are left out."""
    from rlfr_vlm.sweep.report import read_runs
    from rlfr_vlm.sweep.results import compare
    from rlfr_vlm.sweep.table import notes_of, table_of

    runs, states = read_runs(sweep, {})
    if not runs:
        return
    seeds = sorted({seed for _, seed in runs})
    comparison = compare(sweep.cells, seeds, runs)
    head, rows = table_of(comparison)
    shown: JsonObject = {run.name: states[run.name] for run in sweep.runs if run.seed in seeds}
    notes = ["Field: fitted on expert answers.", *notes_of(comparison, seeds)]
    result = {"policy": str(options.policy), "task": options.task, "seeds": seeds, "head": head, "rows": rows,
              "notes": notes, "states": shown}  # fmt: skip
    write_json(options.json, {"rl": result})


def train(sweep: Sweep, options: argparse.Namespace, deadline: float) -> int:
    """Run the sweep until the deadline; write what is there after each run. Returns its exit code."""
    process, seen = subprocess.Popen(command_of(sweep), cwd=ROOT), 0
    stopped = 0  # signals that it got: after the first one runs end their step, the next one ends them
    try:
        while process.poll() is None:
            if (count := finished(sweep)) > seen:
                seen = count
                write(sweep, options)
            if time.monotonic() > deadline + stopped * PATIENCE:
                stopped += 1
                process.send_signal(signal.SIGINT)
            time.sleep(POLL)
    finally:  # this program is stopped
        for _ in range(2):
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                time.sleep(0.5)
        process.wait()
    write(sweep, options)
    if stopped and not seen:
        print("rl: the time was up before a run had finished", file=sys.stderr)
    return 0 if stopped and seen else process.returncode


def main() -> None:
    """Write data, fit a field, run the sweep."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", type=Path, required=True)
    parser.add_argument("--task", choices=("text", "digits"), required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("rl: stopped"))
    make_folder(options.work)
    fit, runs = data_of(options.task, options.work)
    if not (options.work / "field" / "flow").is_dir():
        small = SMALL_FIT if options.cpu else ["--max_steps", "45"]
        run("-m", "rlfr_vlm.cli", "fit-flow", "--model_name_or_path", str(options.policy), "--output_dir",
            str(options.work / "field"), *fit, *FIT, *small)  # fmt: skip
    sys.exit(train(sweep_of(options, runs), options, began + options.seconds))


if __name__ == "__main__":
    main()
