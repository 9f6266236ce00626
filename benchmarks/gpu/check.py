"""Command of scripts/gpu_check.sh: run the parts in order of value within the time, and keep what each one found.

    python -m benchmarks.gpu.check --out DIR [--minutes 10] [--parts tests,prefix] [--again] [--list] [--cpu]

A second run with the same --out takes up where the first one ended. Scratch files lie in OUT.work, beside OUT, so that
OUT stays small enough to be copied.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.gpu.budget import Budget
from benchmarks.gpu.parts import NAMES, PARTS, Part, Setting, command_of, listing
from benchmarks.gpu.process import run
from benchmarks.gpu.record import DONE, FAILED, PAGE_FILE, RESULTS_FILE, STOPPED, TIMED_OUT, Record
from rlfr_vlm.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, nearest
from rlfr_vlm.files import JsonObject, make_folder, write_bytes
from rlfr_vlm.sweep.runner import last_lines

ROOT = Path(__file__).resolve().parents[2]
LOG_FILE = "log.txt"
LOG_BYTES = 300_000  # of the end of each part's log that `log.txt` has
SHOWN_LINES = 25
MACHINE_SECONDS = 120


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("gpu_check", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of results.json, index.html and log.txt")
    parser.add_argument("--minutes", type=float, default=10.0, help="the time for everything (default: %(default)g)")
    parser.add_argument("--parts", default=",".join(NAMES), help="by commas (default: all)")
    parser.add_argument("--again", action="store_true", help="run parts that are done, too")
    parser.add_argument("--list", action="store_true", help="print the parts with their estimated minutes")
    parser.add_argument("--cpu", action="store_true", help="a dry run with tiny shapes on a CPU; its numbers are void")
    parser.add_argument("--smollm2", type=Path, metavar="DIR", help="policy that rlfr get-policy smollm2 wrote")
    parser.add_argument("--smollm2-vl", type=Path, metavar="DIR", help="folder of a vision-language policy")
    parser.add_argument("--note", action="append", default=[], help="a line for the head of the page")
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)  # seconds since the epoch, set by the script
    return parser


def chosen_parts(text: str) -> list[Part]:
    """Parts by their names, in order of value.

    Raises:
        UserError: there is no such part.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := next((name for name in names if name not in NAMES), None):
        raise UserError(f"--parts has {unknown!r}.{nearest(unknown, NAMES)} Choose from: {', '.join(NAMES)}.")
    return [part for part in PARTS if part.name in names]


def checked_policies(options: argparse.Namespace) -> dict[str, Path | None]:
    """Part -> folder of its policy, as an absolute path.

    Raises:
        UserError: a folder that is named has no policy.
    """
    policies = {"rl_smollm2": options.smollm2, "rl_smollm2_vl": options.smollm2_vl}
    for name, folder in policies.items():
        if folder is not None and not (folder / "config.json").is_file():
            option = next(part.policy for part in PARTS if part.name == name)
            raise UserError(
                f"{option} is {folder}, where there is no config.json. Name the folder of a policy, such as the one "
                "that `rlfr get-policy smollm2 --to DIR` writes."
            )
    return {name: None if folder is None else folder.absolute() for name, folder in policies.items()}


def machine_of(environment: Mapping[str, str]) -> JsonObject:
    """Describe the machine, in a process of its own: CUDA's context would keep memory of the card.

    Raises:
        UserError: torch cannot be imported.
    """
    command = [sys.executable, "-m", "benchmarks.gpu.machine"]
    done = subprocess.run(
        command, cwd=ROOT, env=dict(environment), capture_output=True, text=True, check=False, timeout=MACHINE_SECONDS
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        raise UserError(f"The machine cannot be described: {lines[-1] if lines else f'exit code {done.returncode}'}.")
    machine: JsonObject = json.loads(done.stdout.strip().splitlines()[-1])
    return machine


def run_part(
    part: Part, record: Record, work: Path, limit: float, options: argparse.Namespace, environment: Mapping[str, str]
) -> str:
    """Run a part and record how it ended; returns its state."""
    results, log = work / f"{part.name}.json", work / f"{part.name}.log"
    for stale in (results, log):
        stale.unlink(missing_ok=True)
    setting = Setting(results, work / part.name, limit, options.cpu, options.policies)
    command = command_of(part, setting)
    record.begin(part, limit, command)
    print(f"{part.name}: at most {limit:.0f} s: {part.what}", flush=True)
    try:
        ended = run(command, limit, log, environment, ROOT, lambda: record.update(part, results))
    except KeyboardInterrupt:
        record.end(part, STOPPED, 0.0, last_lines(log, SHOWN_LINES))
        raise
    record.update(part, results)
    state = TIMED_OUT if ended.timed_out else FAILED if ended.code else DONE
    if state == DONE and "result" not in record.content["parts"][part.name]:
        state = FAILED  # it has written nothing
    lines = [] if state == DONE else [*last_lines(log, SHOWN_LINES), f"(exit code {ended.code})"]
    record.end(part, state, ended.seconds, lines)
    print("\n    ".join([f"{part.name}: {state} after {ended.seconds:.0f} s", *lines]), flush=True)
    append_log(record.out / LOG_FILE, part.name, log)
    return state


def append_log(path: Path, name: str, log: Path) -> None:
    """Add the end of a part's log to the log of the check."""
    before = path.read_bytes() if path.is_file() else b""
    write_bytes(path, before + f"\n== {name}\n".encode() + log.read_bytes()[-LOG_BYTES:])


def check(options: argparse.Namespace) -> int:
    """Run the parts. Returns 0 if none failed, else 1."""
    parts, budget = chosen_parts(options.parts), Budget(options.minutes, options.started)
    if options.out is None:
        raise UserError("--out is not set. Name the folder of the results, e.g. --out outputs/gpu_check.")
    if options.minutes <= 0:
        raise UserError(f"--minutes is {options.minutes:g}; it must be more than 0.")
    options.policies = checked_policies(options)
    options.out = options.out.absolute()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"} | ({"CUDA_VISIBLE_DEVICES": ""} if options.cpu else {})
    machine = machine_of(environment)
    if machine["card"] is None and not options.cpu:
        raise UserError("torch finds no CUDA device here. Run it on a machine with a GPU, or dry-run it with --cpu.")
    work = options.out.with_name(options.out.name + ".work")
    for folder in (options.out, work):
        make_folder(folder)
    record = Record(options.out, machine, options.cpu)
    for note in options.note:
        record.note(note)
    waiting = []
    for part in parts:
        if reason := part.why_not(options.policies):
            record.not_run(part, reason)
            print(f"{part.name}: not run: {reason}")
        elif record.is_done(part.name) and not options.again:
            print(f"{part.name}: done before; --again runs it again")
        else:
            waiting.append(part)
    states = []
    while waiting:
        part = waiting.pop(0)
        limit = budget.limit(part.minutes, [other.minutes for other in waiting])
        if limit is None:
            reason = f"{budget.left:.0f} s of the time are left, too few to start it"
            record.not_run(part, reason)
            print(f"{part.name}: not run: {reason}")
        else:
            states.append(run_part(part, record, work, limit, options, environment))
    record.write()
    print(f"results: {options.out / RESULTS_FILE}\npage: {options.out / PAGE_FILE}")
    return int(any(state != DONE for state in states))


def _stop(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code."""
    options = parser().parse_args(arguments)
    if options.list:
        print(listing())
        return 0
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        return check(options)
    except UserError as error:
        print(f"gpu_check: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        print("gpu_check: stopped; the same command goes on", file=sys.stderr)
        return EXIT_INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
