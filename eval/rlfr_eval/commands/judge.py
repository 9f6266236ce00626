"""`rlfr-eval judge`: check a judge with known cases; measure the agreement of a run's judges."""

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.commands.arguments import add_judge_options, eval_parser, read_judge, read_settings
from rlfr_vlm.errors import EXIT_USER_ERROR, UserError

if TYPE_CHECKING:
    from rlfr_vlm.env_settings import Settings
    from rlfr_vlm.judging.choice import JudgeChoice
    from rlfr_vlm.judging.known_cases import CheckResult

SUMMARY = "judge check: put known cases to the judge in force; judge agreement: compare the judges of a run"


def parser() -> argparse.ArgumentParser:
    given = eval_parser("judge", SUMMARY)
    given.add_argument("action", choices=["check", "agreement"])
    given.add_argument(
        "run_dir", type=Path, nargs="?", help="of agreement: a run that several judges were asked about"
    )
    given.add_argument("--json", action="store_true", help="the result as JSON")
    add_judge_options(given)
    return given


def run(options: argparse.Namespace) -> int:
    """Check the judge and print its replies. Returns 2 if it fails."""
    if options.action == "agreement":
        return _agreement(options)
    if options.run_dir is not None:
        raise UserError(
            f"judge check is about the judge in force, not about a run; {options.run_dir} has no place there."
        )
    settings = read_settings(options)
    choice = read_judge(options, settings)
    if choice is None:
        raise UserError("No judge is named. Set LOCAL_LLM, or JUDGE_BASE_URL; see `rlfr-eval settings`.")
    result, identity, concerns = asyncio.run(_check(choice, settings))
    if options.json:
        print(
            json.dumps(
                {
                    "judge": identity,
                    "passed": result.passed,
                    "agreed": result.agreed,
                    "undecided": result.undecided,
                    "fooled": result.fooled,
                    "median_seconds": result.median_seconds,
                }
            )
        )
    else:
        print(f"judge {identity}, named by {choice.named_by}")
        print("\n".join(result.lines()))
        print(f"{result.summary()}; median latency {result.median_seconds:.1f} s{concerns}")
    return 0 if result.passed else EXIT_USER_ERROR


def _agreement(options: argparse.Namespace) -> int:
    from rlfr_eval.run.folder import RunStore
    from rlfr_eval.score.agreement import agreements, report

    if options.run_dir is None:
        raise UserError("judge agreement wants a run folder: rlfr-eval judge agreement RUN_DIR.")
    with RunStore(options.run_dir, read_only=True) as store:
        found = agreements(store)
    if not found:
        raise UserError(
            f"Fewer than two judges were asked about {options.run_dir}. Ask another with "
            f"`rlfr-eval regrade {options.run_dir} --judge-base-url URL`."
        )
    if options.json:
        print(json.dumps(report(found)))
        return 0
    for one in found:
        print(one.line())
        for what, flipped in zip(("right for the first only", "right for the second only"), one.flipped, strict=True):
            print(*(f"  {what}: {name}" for name in flipped), sep="\n", end="\n" if flipped else "")
    return 0


async def _check(choice: "JudgeChoice", settings: "Settings") -> "tuple[CheckResult, str, str]":
    from rlfr_vlm.files import cache_folder
    from rlfr_vlm.judging.known_cases import check_judge
    from rlfr_vlm.judging.session import JudgeOptions, judge_session

    async with judge_session(
        choice, settings, cache_folder("logs"), JudgeOptions(use_cache=False), check=False
    ) as judge:
        result = await check_judge(judge)
        faults = ", ".join(f"{count} {kind}" for kind, count in judge.endpoint.faults.items())
        return result, judge.identity, f"; failed requests: {faults}" if faults else ""
