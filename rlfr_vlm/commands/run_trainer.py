"""Shared part of `rlfr train` and `rlfr fit-flow`: configuration, rows, resuming, Ctrl-C."""

import argparse
import functools
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rlfr_vlm.errors import EXIT_INTERRUPTED, UserError
from rlfr_vlm.options import RunOptions

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainingArguments

    from rlfr_vlm.checkpoint import CompleteCheckpoints
    from rlfr_vlm.config_file import Settings
    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.data.load import Rows

UNSET_OUTPUT_DIR = "trainer_output"  # transformers' default, read in 5.17
FIXED_SETTINGS = ("method", "dataset_name", "dataset_split", "dataset_limit", "dataset_revision", "dataset_columns")

OptionsT = TypeVar("OptionsT", bound=RunOptions)
ArgumentsT = TypeVar("ArgumentsT", bound="TrainingArguments")
TrainerT = TypeVar("TrainerT", bound="CompleteCheckpoints")


def run_trainer(
    arguments: Sequence[str],
    classes: tuple[type[OptionsT], type[ArgumentsT]],
    build: Callable[[OptionsT, ArgumentsT], TrainerT],
    finish: Callable[[TrainerT], None],
    instead: Callable[[TrainerT, str | None], None] | None = None,
) -> int:
    """Parse, build the trainer, write the configuration, train, finish.

    Args:
        arguments: arguments of the command, including `--config` and `--resume`.
        classes: dataclasses of the command's settings and of the trainer's.
        build: builds the trainer.
        finish: saves and reports; not called if training was interrupted.
        instead: called instead of training, with the checkpoint to load.

    Returns:
        The exit code.
    """
    from rlfr_vlm.checkpoint import is_first_process
    from rlfr_vlm.config_file import names_given, parse_config, resolved, take_option
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.trainer.records.callbacks import OnTrainBegin, StopOnInterrupt, use_own_progress
    from rlfr_vlm.trainer.records.run_record import mark_finished

    silence_libraries()
    resume, rest = take_option(arguments, "--resume")
    given = names_given(rest)
    if resume is not None and take_option(rest, "--config")[0] is None:
        rest = [*settings_of(resume, take_option(rest, "--output_dir")[0]), *rest]
    options, args = parse_config(classes, [*rest, *cpu_arguments(names_given(rest))])
    if args.output_dir in (None, UNSET_OUTPUT_DIR):
        raise UserError("output_dir is not set. Name the folder of the run, e.g. --output_dir outputs/my-run.")
    settings = resolved(options, args)  # before the trainer fills in defaults, so that a resumed run compares equal
    checkpoint, changes = _checked_checkpoint(resume, options, args, trains=instead is None)
    if checkpoint is not None and instead is None and (steps := finished_steps(Path(checkpoint), args)):
        print(
            f"{checkpoint} has all {steps} updates of this run: nothing is left to train. Raise max_steps or "
            "num_train_epochs to go on."
        )
        if is_first_process():
            mark_finished(Path(args.output_dir), steps)  # a run that was killed after its last checkpoint
        return 0
    trainer = build(options, args)
    use_own_progress(trainer)
    interrupt = StopOnInterrupt()
    trainer.add_callback(interrupt)
    if instead is not None:
        instead(trainer, checkpoint)
        return 0
    if trainer.accelerator.is_main_process:
        # when training begins, and so after a checkpoint was loaded: one that cannot be loaded changes no record
        write = functools.partial(_write_records, options, args, settings, trainer.train_dataset, changes, given)
        trainer.add_callback(OnTrainBegin(functools.partial(write, resumed=checkpoint is not None)))
    trainer.train(resume_from_checkpoint=checkpoint)
    if interrupt.interrupted:
        print(f"stopped; a checkpoint is in {args.output_dir}; go on with `--resume auto`")
        return EXIT_INTERRUPTED
    finish(trainer)
    if trainer.accelerator.is_main_process:
        mark_finished(Path(args.output_dir), trainer.state.global_step)
    return 0


def parser_with_resume(classes: Sequence[type]) -> argparse.ArgumentParser:
    """Return the parser of dataclasses with the options that both training commands add."""
    from rlfr_vlm.config_file import parser_of

    parser = parser_of(classes)
    parser.add_argument(
        "--resume", metavar="CHECKPOINT", help="a checkpoint's folder, or auto: the newest complete one"
    )
    return parser


def settings_of(resume: str, output_dir: str | None) -> list[str]:
    """Return the arguments that take over the settings of the run that is resumed; none if there are none on record.

    Args:
        resume: value of --resume.
        output_dir: value of --output_dir, in which `auto` looks.
    """
    from rlfr_vlm.checkpoint import is_first_process, newest_complete
    from rlfr_vlm.config_file import RESOLVED_FILE

    folder = newest_complete(Path(output_dir)) if resume == "auto" and output_dir else Path(resume)
    path = None if folder is None else folder / RESOLVED_FILE
    if path is None or not path.is_file():
        return []
    if is_first_process():
        print(f"settings of {path}; the command line overrides them")
    return ["--config", str(path)]


def cpu_arguments(given: Collection[str]) -> list[str]:
    """Return the arguments that choose the CPU, and say so, where there is no GPU; empty if the user chose a device.

    Without a GPU transformers refuses `bf16: true`, which the recipes set, and asks for `use_cpu`. DeepSpeed chooses
    its device itself, and would not be started with `use_cpu`.

    Args:
        given: names of the settings that the user set.
    """
    import torch

    from rlfr_vlm.checkpoint import is_first_process

    uses_deepspeed = "deepspeed" in given or os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"
    if "use_cpu" in given or uses_deepspeed or torch.accelerator.is_available():
        return []
    if is_first_process():
        print("no GPU found: running on the CPU (use_cpu: true)")
    # TRL's default of bf16 is true, also on a CPU, where it is slow.
    return ["--use_cpu", "true", *([] if "bf16" in given else ["--bf16", "false"])]


def _checked_checkpoint(
    resume: str | None, options: RunOptions, args: "TrainingArguments", *, trains: bool
) -> tuple[str | None, list[str]]:
    """Return the checkpoint to resume from, or None, and the settings that differ from the checkpoint's; print them.

    Args:
        resume: value of --resume.
        trains: whether the command trains, and so writes to the output folder.

    Raises:
        UserError: the checkpoint cannot be used, training would mix two runs in one folder, or the run would go on
            with another method or other data.
    """
    from rlfr_vlm.checkpoint import is_first_process
    from rlfr_vlm.config_file import differences

    if resume is None and trains:
        refuse_other_run(Path(args.output_dir))
    checkpoint = find_checkpoint(resume, args.output_dir, trains=trains)
    if checkpoint is None:
        return None, []
    changes = differences(checkpoint, options, args)
    if trains:
        refuse_to_continue(Path(checkpoint), Path(args.output_dir), args.world_size)
        if other := [line for line in changes if line.split(":")[0] in FIXED_SETTINGS]:
            raise UserError(
                f"{checkpoint} is of a run with other settings ({'; '.join(other)}). A run keeps its method and its "
                "data: name another --output_dir, or start from the checkpoint's weights with --model_name_or_path."
            )
    if is_first_process():
        for line in changes:
            print(f"other than when the checkpoint was written: {line}")
    return checkpoint, changes


def finished_steps(checkpoint: Path, args: "TrainingArguments") -> int:
    """Return the number of updates of a finished run; 0 if the checkpoint is not a finished run's."""
    from rlfr_vlm.checkpoint import STATE_FILE

    try:
        state = json.loads((checkpoint / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    steps = int(state.get("global_step", 0))
    same_epochs = state.get("num_train_epochs") == args.num_train_epochs
    planned = args.max_steps if args.max_steps > 0 else state.get("max_steps", 0) if same_epochs else 0
    return steps if 0 < planned <= steps else 0


def _write_records(
    options: RunOptions,
    args: "TrainingArguments",
    settings: "Settings",
    dataset: "Dataset",
    changes: list[str],
    given: set[str],
    *,
    resumed: bool,
) -> None:
    """Write `config.yaml` and `run.json` to the output folder."""
    from rlfr_vlm.config_file import write_settings
    from rlfr_vlm.data.mixture import labels_of
    from rlfr_vlm.trainer.records.run_record import program_arguments, write_run_record

    write_settings(str(args.output_dir), settings)
    data = {
        "name": options.dataset_name,
        "split": options.dataset_split,
        "rows": len(dataset),
        **({} if (labels := labels_of(dataset)) is None else {"rows_by_source": dict(Counter(labels))}),
        "fingerprint": dataset._fingerprint,
    }
    write_run_record(
        Path(args.output_dir),
        program_arguments(),
        args,
        data,
        resumed=resumed,
        changes=changes,
        policy=options.model_name_or_path,
        given=sorted(given & settings.keys()),
    )


def training_dataset(
    rows: "Rows", options: RunOptions, processing_class: "ProcessingClass", graded: bool = False
) -> "Dataset":
    """Return the rows as a data set; prompts that are too long are handled as `long_prompts` says.

    The first process decides for all which golds can be read, so that they replace the same rows.

    Args:
        graded: whether the grader reads the rows' answers.
    """
    from torch import distributed

    from rlfr_vlm.checkpoint import is_first_process
    from rlfr_vlm.data.across_rows import refused_in_training
    from rlfr_vlm.data.lengths import plan_lengths
    from rlfr_vlm.data.load import as_dataset

    rows.suit(processing_class)
    together = distributed.is_available() and distributed.is_initialized()
    shared = [refused_in_training(rows, processing_class, graded) if is_first_process() or not together else {}]
    if together:
        distributed.broadcast_object_list(shared, src=0)
    rows.refused = shared[0]
    if options.max_prompt_tokens is None:
        return as_dataset(rows)
    plan = plan_lengths(rows, processing_class, options.max_prompt_tokens, options.long_prompts)
    print(f"prompts of at most {options.max_prompt_tokens} tokens: {plan.describe()}")
    rows.pixel_limits = plan.pixel_limits
    return as_dataset(rows, plan.kept)


def refuse_other_run(output_dir: Path) -> None:
    """Refuse a folder that holds a run: a new run would mix with its checkpoints and erase its logs.

    Raises:
        UserError: the folder holds a run.
    """
    from rlfr_vlm.trainer.records.default_records import holds_run

    if holds_run(output_dir):
        raise UserError(
            f"{output_dir} holds a run already. Go on with it by `--resume auto`, name another --output_dir, or "
            "remove it."
        )


def find_checkpoint(resume: str | None, output_dir: str, *, trains: bool = True) -> str | None:
    """Resolve --resume to a checkpoint path: none, the newest complete one (`auto`), or the given one.

    Args:
        trains: whether training goes on from it, for what is printed.

    Raises:
        UserError: the checkpoint is damaged, or checkpoints exist and none is complete.
    """
    from rlfr_vlm.checkpoint import check_complete, checkpoints, is_first_process, newest_complete, read_mark
    from rlfr_vlm.grading.version import grader_version

    if resume is None:
        return None
    report = print if is_first_process() else lambda _: None
    if resume == "auto":
        checkpoint = newest_complete(Path(output_dir))
        if checkpoint is None and checkpoints(Path(output_dir)):
            raise UserError(f"No checkpoint in {output_dir} is complete. Name another --output_dir to start anew.")
        found = f"{'resuming from' if trains else 'newest checkpoint:'} {checkpoint}"
        report(found if checkpoint else f"no checkpoint in {output_dir}{': starting anew' if trains else ''}")
    else:
        checkpoint = Path(resume)
        check_complete(checkpoint)
    if checkpoint is not None and (grader := read_mark(checkpoint)["grader"]) != grader_version():
        report(
            f"the checkpoint's rewards are of grader {grader}, this program's of {grader_version()}: answers may be "
            "judged otherwise from here on"
        )
    return None if checkpoint is None else str(checkpoint)


def refuse_to_continue(checkpoint: Path, output_dir: Path, processes: int) -> None:
    """Refuse to resume with another number of processes, or beside later checkpoints.

    Raises:
        UserError: training cannot be resumed.
    """
    from rlfr_vlm.checkpoint import checkpoints, damage, read_mark

    if (saved := read_mark(checkpoint)["processes"]) != processes:
        raise UserError(
            f"{checkpoint} was written by {saved} process(es), and this run has {processes}: each has its own random "
            "state and rows. Start as many."
        )
    if checkpoint.parent.resolve() != output_dir.resolve():
        return
    folders = checkpoints(checkpoint.parent)
    later = [path.name for path in folders[folders.index(checkpoint) + 1 :] if damage(path) is None]
    if later:
        raise UserError(
            f"{output_dir} has later checkpoints, such as {later[-1]}, which a run from {checkpoint.name} would mix "
            "with. Give it another --output_dir, or remove the later ones."
        )
