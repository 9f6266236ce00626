"""Check the settings of all runs of a sweep before the first one starts.

Parsing a configuration of the trainer may take a GPU, so it is done in a process of its own, which ends before the
runs start.
"""

import dataclasses
import json
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.sweep.axes import is_null
from rlfr_vlm.sweep.definition import Sweep, SweepRun

if TYPE_CHECKING:
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig


def checked_in_own_process(sweep: Sweep, own_options: Sequence[str], processes: int, *, files: bool) -> int:
    """Do as `check_sweep`, in another process."""
    initializer, arguments = signal.signal, (signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C, this process reports
    with ProcessPoolExecutor(1, get_context("spawn"), initializer, arguments) as pool:
        return pool.submit(check_sweep, sweep, own_options, processes, files=files).result()


def check_sweep(sweep: Sweep, own_options: Sequence[str], processes: int, *, files: bool) -> int:
    """Parse and check the settings of every run; return the number of GPUs of this machine.

    Args:
        own_options: names of the options of `rlfr sweep`, which an unknown option may be a misspelling of.
        processes: of each run.
        files: also look for policy, field and data, which must be on the machine that trains.

    Raises:
        UserError: names the run and what is wrong with it.
    """
    import torch

    from rlfr_vlm.library_output import silence_libraries

    silence_libraries()
    _refuse_unknown_settings(sweep, own_options)
    seen: dict[str, SweepRun] = {}
    checked = set[tuple[object, ...]]()
    for run in sweep.runs:
        try:
            options, args = _settings_of(run, processes)
            if files:
                _check_files(options, args, checked)
        except UserError as error:
            raise UserError(f"{run.name}: {error}") from None
        first = seen.setdefault(_comparable(options, args), run)
        if first is not run:
            raise UserError(
                f"{first.name} and {run.name} have the same settings, so they would be the same run. Leave one out."
            )
    return torch.cuda.device_count()


def _refuse_unknown_settings(sweep: Sweep, own_options: Sequence[str]) -> None:
    from rlfr_vlm.config_file import names_given, nullable
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    known = {field.name for cls in (ScriptArguments, RLFRConfig) for field in dataclasses.fields(cls) if field.init}
    for axis in sweep.axes:
        if axis.key not in known:
            raise UserError(f"Unknown key {axis.key!r} in --set.{nearest(axis.key, known)}")
        if any(map(is_null, axis.values)) and axis.key not in nullable((ScriptArguments, RLFRConfig)):
            raise UserError(
                f"--set {axis.key} has null, but {axis.key} is never unset. Give the value that means off."
            )
    own = {name.removeprefix("--") for name in own_options}
    for argument in sweep.options:
        given = names_given([argument])
        if given and not given & known:
            name = argument.split("=")[0]
            hint = nearest(name.removeprefix("--"), known | own)
            raise UserError(f"Unknown option {name}.{hint} `rlfr sweep --help` lists the options.")


def _settings_of(run: SweepRun, processes: int) -> "tuple[ScriptArguments, RLFRConfig]":
    from rlfr_vlm.commands.plan import configuration
    from rlfr_vlm.options import reward_names
    from rlfr_vlm.rewards import refuse_unknown

    options, args = configuration(processes, run.arguments)
    options.rewards = reward_names(options, args.method, options.dataset_name)
    refuse_unknown(options.rewards)
    return options, args


def _check_files(options: "ScriptArguments", args: "RLFRConfig", checked: set[tuple[object, ...]]) -> None:
    """Look for the policy, the field and the rows; what was found for another run is not looked for again."""
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.options import DataOptions
    from rlfr_vlm.policy import policy_name
    from rlfr_vlm.steps import refuse_too_few_rows
    from rlfr_vlm.trainer.signals.flow import find_flow

    policy_name(options)
    if args.uses_flow and ("flow", args.flow_path) not in checked:
        find_flow(None, args)
        checked.add(("flow", args.flow_path))
    data = ("data", *(repr(getattr(options, field.name)) for field in dataclasses.fields(DataOptions)))
    if data not in checked:
        refuse_too_few_rows(args, len(read_rows(options, ("prompt", "answer"), args.seed).indices))
        checked.add(data)


def _comparable(options: "ScriptArguments", args: "RLFRConfig") -> str:
    """Settings as text, which is equal for runs that differ only in their folder."""
    from rlfr_vlm.config_file import NOT_COMPARED, resolved

    settings = {name: value for name, value in resolved(options, args).items() if name not in NOT_COMPARED}
    return json.dumps(settings, sort_keys=True, default=str)
