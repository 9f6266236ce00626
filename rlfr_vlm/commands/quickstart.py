"""`rlfr quickstart`: train a small real Qwen2.5-VL with flow rewards on one CPU, in minutes."""

import argparse
import sys
from pathlib import Path

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import make_folder
from rlfr_vlm.methods import split_methods

SUMMARY = "RLVR, RLFR and more on a small real Qwen2.5-VL and real images, on a CPU, in minutes"
INTERRUPTED = 130  # exit code
POLICY_HELP = (
    "tiny (default): a Qwen2.5-VL of one million parameters, made here; smollm2: SmolLM2-135M-Instruct, text; "
    "smollm2-vl: the same behind a vision tower; or a folder or hub id. Pretrained policies take 20 minutes or more "
    "on a CPU, say how long after the first updates, and go on where they stopped"
)


def parser() -> argparse.ArgumentParser:
    parser = options_parser("quickstart", SUMMARY)
    parser.add_argument("--out", default="outputs/quickstart", help="folder for results (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="first seed (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, for an interval (default: %(default)s)")
    parser.add_argument(
        "--methods",
        default="rlvr,rlfr",
        help="which methods, by commas: rlvr, rlfr, entropy, rlpr, visual, or joined by +; the others are "
        "compared with the first one (default: %(default)s)",
    )
    parser.add_argument("--policy", default="tiny", help=POLICY_HELP)
    parser.add_argument("--steps", type=int, help="updates of each RL run (default: the recipe's)")
    parser.add_argument("--fast", action="store_true", help="a smoke test: every stage, but too short to learn")
    return parser


def run(options: argparse.Namespace) -> int:
    """Run every stage and print the table. Returns the exit code."""
    for name in ("seeds", "steps"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name} is {value}; it must be at least 1.")
    if options.seed < 0:
        raise UserError(f"--seed is {options.seed}; it must be 0 or more.")
    methods = split_methods(options.methods)
    out = Path(options.out)
    make_folder(out)
    import dataclasses
    import os

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.quickstart.recipe import recipe_for
    from rlfr_vlm.quickstart.report import write_page, write_report
    from rlfr_vlm.quickstart.run import run_quickstart
    from rlfr_vlm.sweep.definition import Sweep

    silence_libraries()
    recipe = recipe_for(options.policy, options.fast)
    if options.steps is not None:
        recipe = dataclasses.replace(recipe, rl_steps=options.steps)
    try:
        result = run_quickstart(recipe, Sweep(out, methods, tuple(range(options.seed, options.seed + options.seeds))))
    except KeyboardInterrupt:
        goes_on = "goes on from the last checkpoint" if recipe.resumes else "begins anew"
        print(f"\nrlfr: stopped; the same command {goes_on}", file=sys.stderr)
        return INTERRUPTED
    print(f"\n{write_report(result)}\nreport: {out / 'report.md'}")
    print(f"every curve, rollout and token: {write_page(result)}")
    return 0
