"""`rlfr doctor`: check the machine, the packages and the ranks before training."""

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from rlfr_vlm.doctor.checks import Check
    from rlfr_vlm.doctor.ranks import RankInfo

SUMMARY = "test versions, GPUs, disks, ports and the links between machines before training"
EPILOG = """\
Exit code 0 when nothing FAILs, else 2. To test several processes or machines, start it as training is started:
  torchrun --nproc_per_node 8 -m rlfr_vlm.cli doctor
  accelerate launch --config_file FILE -m rlfr_vlm.cli doctor
Where the launcher itself waits for a machine, set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT on each machine and
start `rlfr doctor` without it: rank 0 then names who never arrived."""


def parser() -> argparse.ArgumentParser:
    parser = options_parser("doctor", SUMMARY)
    parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
    parser.add_argument("--output_dir", default=".", metavar="DIR", help="where results will go (default: here)")
    parser.add_argument("--shared", metavar="DIR", help="a folder that all machines must share")
    parser.add_argument("--port", nargs="+", type=int, default=[], metavar="N", help="ports that must be free here")
    parser.add_argument(
        "--timeout",
        type=float,
        default=60,
        metavar="S",
        help="seconds to wait for other ranks, at each step (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="also write the results to this file")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run the checks, print them on rank 0, write the file. Returns the exit code, the same on all ranks."""
    from rlfr_vlm.doctor.checks import exit_code
    from rlfr_vlm.doctor.machine import check_machine
    from rlfr_vlm.doctor.network import check_folder_writable, check_master_address
    from rlfr_vlm.doctor.ranks import read_rank_info

    _check_options(options)
    info = read_rank_info()
    if info.several_ranks:
        return _run_on_several_ranks(options, info)
    checks = [*check_machine(info, Path(options.output_dir), options.port), *check_master_address(info)]
    if options.shared:
        checks.append(check_folder_writable(Path(options.shared)))
    _report(checks, info, options.json)
    return exit_code(checks)


def _run_on_several_ranks(options: argparse.Namespace, info: "RankInfo") -> int:
    from rlfr_vlm.doctor.checks import exit_code
    from rlfr_vlm.doctor.machine import check_machine
    from rlfr_vlm.doctor.ranks import end_process, run_other_rank, run_rank_zero

    def run_checks() -> "list[Check]":
        return check_machine(info, Path(options.output_dir), options.port)

    shared = Path(options.shared) if options.shared else None
    if info.rank:
        code, hangs = run_other_rank(info, run_checks, shared, options.timeout)
    else:
        result = run_rank_zero(info, run_checks, shared, options.timeout)
        code, hangs = exit_code(result.checks), result.hangs
        try:
            _report(result.checks, info, options.json)
        except BaseException:
            code = 2
            raise
        finally:  # launchers end all ranks when one exits with an error, so the others wait for the report
            if result.store:
                result.store.release_ranks(code)
    if hangs:
        end_process(code)
    return code


def _check_options(options: argparse.Namespace) -> None:
    for port in options.port:
        if not 1 <= port <= 65535:
            raise UserError(f"--port is {port}; ports run from 1 to 65535.")
    if not math.isfinite(options.timeout) or options.timeout <= 0:
        raise UserError(f"--timeout is {options.timeout:g}; it is a number of seconds above 0.")
    if options.json and Path(options.json).is_dir():
        raise UserError(f"--json {options.json} is a folder; name a file.")


def _report(checks: "list[Check]", info: "RankInfo", file: str | None) -> None:
    from rlfr_vlm.doctor.checks import as_rows, exit_code, summary, terminal_has_colour
    from rlfr_vlm.doctor.versions import all_versions
    from rlfr_vlm.files import write_json

    colour = terminal_has_colour()
    print("\n".join([*(check.line(colour) for check in checks), summary(checks)]), flush=True)
    if file:
        result = {
            "exit_code": exit_code(checks),
            "host": info.host,
            "ranks": info.world_size,
            "checks": as_rows(checks),
            "versions": all_versions(),
        }
        write_json(Path(file), result)
