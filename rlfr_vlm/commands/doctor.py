"""`rlfr doctor`: what usually goes wrong, tested before any weights are loaded."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from rlfr_vlm.doctor.checks import Check
    from rlfr_vlm.doctor.place import Place

SUMMARY = "test versions, GPUs, disks, ports and the links between machines before training"
SEVERAL = """\
Exit code 0 when nothing FAILs, else 2. To test several processes or machines, start it as training is started:
  torchrun --nproc_per_node 8 -m rlfr_vlm.cli doctor
  accelerate launch --config_file FILE -m rlfr_vlm.cli doctor
Where the launcher itself waits for a machine, set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT on each machine and
start `rlfr doctor` without it: rank 0 then names who never arrived."""


def _parser() -> argparse.ArgumentParser:
    parser = options_parser("doctor", SUMMARY)
    parser.epilog, parser.formatter_class = SEVERAL, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output_dir", default=".", metavar="DIR", help="where results will go (default: here)")
    parser.add_argument("--shared", metavar="DIR", help="a folder that all machines must share")
    parser.add_argument("--port", nargs="+", type=int, default=[], metavar="N", help="ports that must be free here")
    parser.add_argument(
        "--timeout", type=float, default=60, metavar="S",
        help="seconds to wait for other ranks, at each step (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="also write what was found to this file")
    return parser


def help_text() -> str:
    return _parser().format_help().rstrip()


def run(arguments: Sequence[str]) -> int:
    """Look, print on rank 0, write the file. Returns the exit code, the same on all ranks."""
    from rlfr_vlm.doctor.checks import exit_code
    from rlfr_vlm.doctor.local import check_machine
    from rlfr_vlm.doctor.network import check_meeting_place
    from rlfr_vlm.doctor.place import read_place
    from rlfr_vlm.doctor.shared_folder import check_alone

    options = _parser().parse_args(list(arguments))
    _refuse_impossible(options)
    place = read_place()
    if place.several:
        return _run_several(options, place)
    checks = [*check_machine(place, Path(options.output_dir), options.port), *check_meeting_place(place)]
    if options.shared:
        checks.append(check_alone(Path(options.shared)))
    _show(checks, place, options.json)
    return exit_code(checks)


def _run_several(options: argparse.Namespace, place: "Place") -> int:
    from rlfr_vlm.doctor.checks import exit_code
    from rlfr_vlm.doctor.local import check_machine
    from rlfr_vlm.doctor.ranks import end_process, follow, lead

    def look() -> "list[Check]":
        return check_machine(place, Path(options.output_dir), options.port)

    shared = Path(options.shared) if options.shared else None
    if place.rank:
        code, hangs = follow(place, look, shared, options.timeout)
    else:
        found = lead(place, look, shared, options.timeout)
        code, hangs = exit_code(found.checks), found.hangs
        try:
            _show(found.checks, place, options.json)
        except BaseException:
            code = 2
            raise
        finally:  # a launcher ends all ranks as soon as one leaves with an error, so they leave after the report
            if found.meeting:
                found.meeting.end(code)
    if hangs:
        end_process(code)
    return code


def _refuse_impossible(options: argparse.Namespace) -> None:
    for port in options.port:
        if not 1 <= port <= 65535:
            raise UserError(f"--port is {port}; ports run from 1 to 65535.")
    if not math.isfinite(options.timeout) or options.timeout <= 0:
        raise UserError(f"--timeout is {options.timeout:g}; it is a number of seconds above 0.")
    if options.json and Path(options.json).is_dir():
        raise UserError(f"--json {options.json} is a folder; name a file.")


def _show(checks: "list[Check]", place: "Place", file: str | None) -> None:
    from rlfr_vlm.doctor.checks import as_rows, exit_code, summary, terminal_has_colour
    from rlfr_vlm.doctor.versions import all_versions
    from rlfr_vlm.files import write_json

    colour = terminal_has_colour()
    print("\n".join([*(check.line(colour) for check in checks), summary(checks)]), flush=True)
    if file:
        write_json(
            Path(file),
            {"exit_code": exit_code(checks), "host": place.host, "ranks": place.world, "checks": as_rows(checks),
             "versions": all_versions()},
        )  # fmt: skip
