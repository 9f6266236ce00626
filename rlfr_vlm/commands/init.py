"""`rlfr init`: write a commented configuration of `rlfr train` for a model and a data set."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import METHODS, DataOptions, method_parts

if TYPE_CHECKING:
    from rlfr_vlm.starting_config.settings import Choices

SUMMARY = "write a commented configuration of `rlfr train` for a model and data that it looks at"


def parser() -> argparse.ArgumentParser:
    parser = options_parser("init", SUMMARY)
    parser.epilog = "Weights are not read, and the network is not used unless HF_HUB_OFFLINE=0 is set."
    parser.add_argument("--model", default="", help="folder or hub id of the policy; its config.json is read")
    parser.add_argument("--data", default="", help="file or folder of rows, hub id, or a built-in task")
    parser.add_argument("--split", default="train", help="split of the data (default: %(default)s)")
    parser.add_argument("--columns", nargs="+", default=[], help="pairs such as prompt=question answer=gold")
    parser.add_argument(
        "--method", default="rlvr", help=f"{', '.join(METHODS)}, or parts joined by + (default: %(default)s)"
    )
    parser.add_argument("--processes", type=int, help="GPUs that will train (default: those found, else 1)")
    parser.add_argument("--gpu-memory", type=float, help="GB of one GPU (default: as found, else 80)")
    parser.add_argument("--to", type=Path, default=Path("config.yaml"), help="file to write (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")
    return parser


def run(options: argparse.Namespace) -> int:
    """Look at model and data, write the configuration, and print what follows. Returns the exit code."""
    _refuse_file(options.to, options.overwrite)
    method_parts(options.method)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported
    from rlfr_vlm.files import write_text
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.starting_config.next_steps import next_commands
    from rlfr_vlm.starting_config.yaml_text import memory_line, yaml_text

    silence_libraries()
    choices = choose(options)
    write_text(options.to, yaml_text(choices, str(options.to)))
    if choices.data.report is not None:
        from rlfr_vlm.commands.check_data import render_report

        report = choices.data.report
        print(f"{choices.data.name}: the first {report.rows} of {choices.data.number_of_rows} rows were checked")
        print(render_report(report))
    if choices.model.config is not None:
        print(memory_line(choices))
    for missing in choices.not_looked_at:
        print(f"not looked at: {missing}")
    print(f"\nconfiguration: {options.to}\nnext:")
    for command in next_commands(choices, str(options.to)):
        print(f"  {command}")
    return 0


def _refuse_file(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise UserError(f"--to is {path}, which is a folder. Name a file, such as {path / 'config.yaml'}.")
    if path.exists() and not overwrite:
        raise UserError(f"{path} exists already. Name another file with --to, or replace it with --overwrite.")


def choose(options: argparse.Namespace) -> "Choices":
    """Look at model, data and machine, and decide the settings.

    Raises:
        UserError: model or data cannot be used, or do not suit each other or the method.
    """
    from rlfr_vlm.starting_config.choose import choose_settings
    from rlfr_vlm.starting_config.data import look_at_data
    from rlfr_vlm.starting_config.model import look_at_model
    from rlfr_vlm.starting_config.sizes import find_machine

    machine = find_machine(options.processes, options.gpu_memory)
    model = look_at_model(options.model)
    data_options = DataOptions(dataset_name=options.data, dataset_split=options.split, dataset_columns=options.columns)
    try:
        data = look_at_data(data_options, model)
    except UserError as error:
        hint = " Here the pairs are given as --columns answer=..." if "dataset_columns" in str(error) else ""
        raise UserError(f"{error}{hint}") from None
    return choose_settings(options.method, model, data, data_options, machine)
