"""`rlfr train`: reinforcement learning of any policy on any dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlfr_vlm.errors import UserError

STATE_FILE = "trainer_state.json"
SUMMARY = "train a policy with GRPO, with (rlfr) or without (rlvr) flow rewards"


def help_text() -> str:
    from rlfr_vlm.commands.option_help import describe_options
    from rlfr_vlm.options import FlowOptions, RunOptions, TrainOptions

    return describe_options(
        "rlfr train --config FILE.yaml [--key value ...] [--resume CHECKPOINT|auto]",
        "Train a policy. Settings come from the YAML file; the command line overrides them.",
        RunOptions,
        TrainOptions,
        FlowOptions,
        inherited="Every setting of TRL's GRPOConfig is accepted as well, such as --output_dir, --learning_rate, "
        "--num_generations, --per_device_train_batch_size, --max_steps; see TRL's documentation.",
    )


def run(arguments: Sequence[str]) -> int:
    """Parse, build the trainer, train, save. Returns the exit code."""
    from rlfr_vlm.config import parse_config, take_option, write_resolved
    from rlfr_vlm.options import RunOptions
    from rlfr_vlm.terminal import calm
    from rlfr_vlm.trainer.config import RLFRConfig

    calm()
    resume, rest = take_option(arguments, "--resume")
    options, args = parse_config((RunOptions, RLFRConfig), rest)
    trainer, interrupt = build_trainer(options, args)
    if trainer.accelerator.is_main_process:
        write_resolved(args.output_dir, options, args)
    trainer.train(resume_from_checkpoint=find_checkpoint(resume, args.output_dir))
    if interrupt.interrupted:
        print(f"stopped; a checkpoint is in {args.output_dir}; go on with `--resume auto`")
        return 130
    trainer.save_model(args.output_dir)
    if trainer.flow is not None and trainer.accelerator.is_main_process:
        from rlfr_vlm.flow import FIELD_FOLDER, save_field

        save_field(Path(args.output_dir) / FIELD_FOLDER, trainer.flow.field, trainer.flow.spec)
    print(f"trained policy in {args.output_dir}")
    return 0


def build_trainer(options: Any, args: Any) -> tuple[Any, Any]:
    """The trainer for a configuration, and the callback that knows whether Ctrl-C was pressed."""
    from rlfr_vlm.data.encode import is_text_only
    from rlfr_vlm.data.load import load_rows
    from rlfr_vlm.flow import load_field
    from rlfr_vlm.policy import load_policy, refuse_data_parallel
    from rlfr_vlm.rewards import resolve_rewards
    from rlfr_vlm.trainer.callbacks import MetricsFile, ProgressLine, StopOnInterrupt, quiet
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

    refuse_data_parallel(args)
    if args.uses_flow and not args.flow_path:
        raise UserError(
            f"flow_coef is {args.flow_coef} but flow_path is not set. Fit a field with `rlfr fit-flow` and set "
            "flow_path to its folder, or set method: rlvr."
        )
    flow = load_field(args.flow_path) if args.uses_flow else None
    rewards = resolve_rewards(args.rewards)
    dataset = load_rows(
        options.dataset_name,
        split=options.dataset_split,
        columns=("prompt", "answer"),
        limit=options.dataset_limit,
        seed=args.seed,
        revision=options.dataset_revision,
        system_prompt=options.system_prompt,
    )
    policy, processing_class = load_policy(options, trust_remote_code=args.trust_remote_code)
    if is_text_only(processing_class) and "images" in dataset.column_names:
        raise UserError(
            f"{options.dataset_name} has images but {options.model_name_or_path} is a text-only policy. Choose a "
            "vision-language policy, or a dataset without the column images."
        )
    interrupt = StopOnInterrupt()
    try:
        trainer = RLFRTrainer(
            policy,
            args=args,
            flow=flow,
            reward_funcs=rewards,
            train_dataset=dataset,
            processing_class=processing_class,
            callbacks=[interrupt, MetricsFile(args.output_dir), ProgressLine(args.method)],
        )
    except ValueError as error:  # TRL's and transformers' way to refuse settings
        raise UserError(str(error)) from None
    quiet(trainer)
    return trainer, interrupt


def find_checkpoint(resume: str | None, output_dir: str) -> str | None:
    """The checkpoint to resume from: none, the newest (`auto`), or the one named."""
    if resume is None:
        return None
    if resume == "auto":
        found = newest_checkpoint(Path(output_dir))
        print(f"resuming from {found}" if found else f"no complete checkpoint in {output_dir}: starting anew")
        return found
    if not (Path(resume) / STATE_FILE).is_file():
        raise UserError(f"No complete checkpoint at {resume}: {STATE_FILE} is missing. Try --resume auto.")
    return resume


def newest_checkpoint(output_dir: Path) -> str | None:
    """The newest complete checkpoint. transformers writes the state file last, so one without it was cut off."""
    complete = {int(p.parent.name.split("-")[-1]): p.parent for p in output_dir.glob(f"checkpoint-*/{STATE_FILE}")}
    return str(complete[max(complete)]) if complete else None
