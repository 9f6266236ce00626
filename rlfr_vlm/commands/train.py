"""`rlfr train`: reinforcement learning of any policy on any dataset."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.commands.run_trainer import run_trainer, training_dataset
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RunOptions

if TYPE_CHECKING:
    from rlfr_vlm.trainer.config import RLFRConfig
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

SUMMARY = "train a policy: rlvr, rlfr (flow rewards), entropy, rlpr, or several joined"


def help_text() -> str:
    from rlfr_vlm.commands.option_help import describe_options
    from rlfr_vlm.options import FlowOptions, GroupOptions, RewardOptions, RolloutOptions, TrainOptions

    return describe_options(
        "rlfr train --config FILE.yaml [--key value ...] [--resume CHECKPOINT|auto]",
        "Train a policy. Settings come from the YAML file; the command line overrides them.",
        RunOptions,
        TrainOptions,
        RolloutOptions,
        RewardOptions,
        GroupOptions,
        FlowOptions,
        inherited="Every setting of TRL's GRPOConfig is accepted as well, such as --output_dir, --learning_rate, "
        "--num_generations, --per_device_train_batch_size, --max_steps; see TRL's documentation.",
    )


def run(arguments: Sequence[str]) -> int:
    """Train and save. Returns the exit code."""
    from rlfr_vlm.trainer.config import RLFRConfig

    return run_trainer(arguments, RLFRConfig, build_trainer, _save)


def _save(trainer: "RLFRTrainer") -> None:
    from rlfr_vlm.flow import FIELD_FOLDER, save_field

    output_dir = trainer.args.output_dir
    trainer.save_model(output_dir)
    if trainer.accelerator.is_main_process:
        if trainer.flow is not None:
            save_field(Path(output_dir) / FIELD_FOLDER, trainer.flow.field, trainer.flow.spec)
        print(f"trained policy in {output_dir}")


def build_trainer(options: RunOptions, args: "RLFRConfig") -> "RLFRTrainer":
    """The trainer for a configuration. Cheap mistakes are found before anything large is loaded."""
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.flow import load_field
    from rlfr_vlm.policy import load_policy, refuse_data_parallel
    from rlfr_vlm.rewards import build_rewards
    from rlfr_vlm.trainer.callbacks import MetricsFile, ProgressLine
    from rlfr_vlm.trainer.lora import lora_config
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

    refuse_data_parallel(args)
    if args.uses_flow and not args.flow_path:
        raise UserError(
            f"flow_coef is {args.flow_coef} but flow_path is not set. Fit a field with `rlfr fit-flow` and set "
            "flow_path to its folder, or set method: rlvr."
        )
    settings: dict[str, Any] = {
        "args": args,
        "flow": load_field(args.flow_path) if args.uses_flow and args.flow_path else None,
        "reward_funcs": build_rewards(args.rewards or [], args, args.max_completion_length or 0),
        "callbacks": [MetricsFile(args.output_dir), ProgressLine(args.method)],
    }
    rows = read_rows(options, ("prompt", "answer"), args.seed)  # a wrong name is found before a large policy is loaded
    policy, processing_class = load_policy(options, trust_remote_code=args.trust_remote_code)
    settings["peft_config"] = lora_config(policy, options)
    dataset = training_dataset(rows, options, processing_class)
    settings["train_dataset"] = dataset
    try:
        return RLFRTrainer(policy, processing_class=processing_class, **settings)
    except ValueError as error:  # TRL's and transformers' way to refuse settings
        raise UserError(str(error)) from None
