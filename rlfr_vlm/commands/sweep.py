"""`rlfr sweep`: train each method with each setting and seed, and compare them."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import EXIT_INTERRUPTED, UserError

if TYPE_CHECKING:
    from rlfr_vlm.sweep.definition import Sweep, SweepRun
    from rlfr_vlm.sweep.runner import Command, Results

SUMMARY = "a study: train each method with each seed, and compare them with intervals"
EXIT_FAILED = 1
SHOWN_NAMES = 8  # of methods with settings, before the first run


def _parser() -> argparse.ArgumentParser:
    parser = options_parser("sweep", SUMMARY)
    parser.usage = (
        "rlfr sweep --config FILE.yaml --methods rlvr,rlfr --seeds 5 --out DIR [options of sweep] "
        "[--key value of `rlfr train` ...]"
    )
    parser.epilog = (
        "All runs have the options of `rlfr train` that follow, and differ in method, seed and the values of --set. "
        "The same command goes on with a sweep that was stopped."
    )
    parser.add_argument("--config", help="settings of all runs, as of `rlfr train`")
    parser.add_argument(
        "--methods",
        default="rlvr,rlfr",
        help="by commas; the others are compared with the first one (default: %(default)s)",
    )
    parser.add_argument(
        "--seeds", default="1", help="how many, from 1 on, or a list such as 3,7,11 (default: %(default)s)"
    )
    parser.add_argument(
        "--set",
        action="append",
        nargs="+",
        default=[],
        metavar="KEY=A,B",
        help="a setting with several values, in YAML; several settings multiply",
    )
    parser.add_argument("--out", type=Path, help="folder of the runs and the results")
    parser.add_argument(
        "--parallel", type=int, default=1, help="runs at a time; of several GPUs each takes one (default: 1)"
    )
    parser.add_argument(
        "--launcher",
        default="",
        metavar="COMMAND",
        help="what starts a run instead of Python, such as 'accelerate launch --num_processes 8'",
    )
    parser.add_argument(
        "--print-commands", action="store_true", help="print a line for each run instead of running it"
    )
    return parser


def help_text() -> str:
    return _parser().format_help().rstrip()


def parsers() -> list[argparse.ArgumentParser]:
    from rlfr_vlm.commands.plan import settings_parser

    return [_parser(), settings_parser()]


def run(arguments: Sequence[str]) -> int:
    """Run the sweep, or what is left of it, and write the results. Returns the exit code."""
    parser = _parser()
    options, rest = parser.parse_known_args(list(arguments))
    if options.out is None:
        raise UserError("--out is not set. Name the folder of the sweep, e.g. --out outputs/sweep.")
    if options.parallel < 1:
        raise UserError(f"--parallel is {options.parallel}; it must be at least 1.")
    from rlfr_vlm.sweep.check import checked_in_own_process
    from rlfr_vlm.sweep.machine import devices_of, launcher_of, processes_of

    launcher = launcher_of(options.launcher)
    sweep = _sweep(options, rest)
    sweep.refuse_other()
    own_options = [name for action in parser._actions for name in action.option_strings]

    def command(run: "SweepRun") -> list[str]:
        return command_of(run, launcher)

    def check() -> list[str]:
        files = not options.print_commands  # they may be on another machine
        gpus = checked_in_own_process(sweep, own_options, processes_of(launcher), files=files)
        return [] if launcher else devices_of(gpus)

    if options.print_commands:
        return print_commands(sweep, command, check)
    return carry_out(sweep, command, check, options.parallel)


def _sweep(options: argparse.Namespace, rest: Sequence[str]) -> "Sweep":
    from rlfr_vlm.methods import split_methods
    from rlfr_vlm.sweep.axes import axes_of, seeds_of
    from rlfr_vlm.sweep.definition import Sweep

    axes = axes_of([text for texts in options.set for text in texts])
    return Sweep(
        options.out, split_methods(options.methods), seeds_of(options.seeds), axes, options.config, tuple(rest)
    )


def command_of(run: "SweepRun", launcher: Sequence[str]) -> list[str]:
    """Return the command line of a run, which starts it or goes on with it."""
    program = list(launcher) or [sys.executable, "-P"]
    return [*program, "-m", "rlfr_vlm.cli", "train", *run.arguments, "--resume", "auto"]


def print_commands(sweep: "Sweep", command: "Command", check: Callable[[], object]) -> int:
    """Print the command line of each run that is not finished, and write the results of those that are."""
    from rlfr_vlm.files import make_folder
    from rlfr_vlm.report.read_run import is_finished
    from rlfr_vlm.sweep.runner import Results

    _say_what_there_is(sweep, sys.stderr)
    check()
    make_folder(sweep.out)
    sweep.write()
    for run in sweep.runs:
        if not is_finished(run.folder):
            print(shlex.join(command(run)))
    _report(sweep, Results(), sys.stderr)
    return 0


def carry_out(sweep: "Sweep", command: "Command", check: Callable[[], list[str]], parallel: int = 1) -> int:
    """Check and run what is not finished, and write the results. Returns the exit code.

    Args:
        command: returns the command line of a run.
        check: checks the settings of all runs; returns the GPUs that they take in turn.
        parallel: runs at a time.
    """
    from rlfr_vlm.files import make_folder
    from rlfr_vlm.report.read_run import is_finished
    from rlfr_vlm.sweep.machine import locked
    from rlfr_vlm.sweep.runner import Runner

    _say_what_there_is(sweep, sys.stdout)
    devices = [] if all(is_finished(run.folder) for run in sweep.runs) else check()
    make_folder(sweep.out)
    with locked(sweep.out) as lock:
        sweep.write()
        results = Runner(command, parallel, devices, [lock], _flush).run(sweep.runs)
    _report(sweep, results, sys.stdout)
    return _say_how_it_ended(sweep, results)


def _flush(text: str) -> None:
    print(text, flush=True)


def _say_what_there_is(sweep: "Sweep", out: TextIO) -> None:
    from rlfr_vlm.report.read_run import is_finished

    kept = sum(is_finished(run.folder) for run in sweep.runs)
    seeds = "1 seed" if len(sweep.seeds) == 1 else f"{len(sweep.seeds)} seeds"
    names = [cell.name for cell in sweep.cells]
    shown = ", ".join(names) if len(names) <= SHOWN_NAMES else f"{len(names)} methods and settings"
    text = f"{len(sweep.runs)} runs: {shown}; {seeds} each"
    print(text + (f"; {kept} are finished and kept" if kept else ""), file=out)
    for note in sweep.notes():
        print(f"note: {note}", file=out)
    out.flush()


def _report(sweep: "Sweep", results: "Results", out: TextIO) -> None:
    from rlfr_vlm.sweep.report import RESULTS_FILE, page_path, write_results

    text = write_results(sweep, results.failed)
    if text is not None:
        print(f"\n{text}\n\nresults: {sweep.out / RESULTS_FILE}\npage: {page_path(sweep.out)}", file=out)


def _say_how_it_ended(sweep: "Sweep", results: "Results") -> int:
    done, count = len(results.finished), len(sweep.runs)
    if results.failed:
        print(
            f"rlfr: {len(results.failed)} of {count} runs failed: {', '.join(results.failed)}. The same command tries "
            "them again.",
            file=sys.stderr,
        )
    if results.stopped and done < count:
        print(f"rlfr: stopped; {done} of {count} runs are finished. The same command goes on.", file=sys.stderr)
        return EXIT_INTERRUPTED
    return EXIT_FAILED if results.failed else 0
