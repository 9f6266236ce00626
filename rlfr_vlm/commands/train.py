"""`rlfr train`: train a policy with reinforcement learning."""

import argparse
import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.commands.run_trainer import parser_with_resume, run_trainer, training_dataset
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import ScriptArguments, reward_names

if TYPE_CHECKING:
    from datasets import Dataset

    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

# The settings that have a twin for the held-out rows, in a message; not where they are part of a path.
SETTING_OF_ROWS = re.compile(r"(?<![\w/.-])dataset_(?:name|split)(?![\w/-])")
SUMMARY = "train a policy: rlvr, rlfr (flow rewards), entropy, rlpr, or several joined"


def help_text() -> str:
    from rlfr_vlm.commands.option_help import describe_options
    from rlfr_vlm.flow_options import FlowOptions
    from rlfr_vlm.options import (
        BenchmarkOptions,
        CurriculumOptions,
        GroupOptions,
        HeldOutOptions,
        RecordOptions,
        ReferencePassOptions,
        RewardOptions,
        RolloutOptions,
        RunOptions,
        ToolOptions,
        TrainOptions,
        VisualOptions,
    )

    return describe_options(
        "rlfr train --config FILE.yaml [--key value ...] [--resume CHECKPOINT|auto] [--eval-only]",
        "Train a policy. Settings come from the YAML file; the command line overrides them. --eval-only measures "
        "it on the held-out rows instead.",
        RunOptions,
        TrainOptions,
        RolloutOptions,
        RewardOptions,
        ToolOptions,
        ReferencePassOptions,
        GroupOptions,
        CurriculumOptions,
        FlowOptions,
        VisualOptions,
        RecordOptions,
        HeldOutOptions,
        BenchmarkOptions,
        inherited="Every setting of TRL's GRPOConfig is accepted as well, such as --output_dir, --learning_rate, "
        "--num_generations, --per_device_train_batch_size, --max_steps; see TRL's documentation.",
    )


def parsers() -> list[argparse.ArgumentParser]:
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    parser = parser_with_resume((ScriptArguments, RLFRConfig))
    parser.add_argument("--eval-only", action="store_true", help="measure the policy on the held-out rows instead")
    return [parser]


def run(arguments: Sequence[str]) -> int:
    """Train and save the policy. Returns the exit code."""
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    only = "--eval-only" in arguments or "--eval_only" in arguments
    rest = [argument for argument in arguments if argument not in ("--eval-only", "--eval_only")]
    if only:
        classes, evaluated = (ScriptArguments, RLFRConfig), functools.partial(build_trainer, trains=False)
        return run_trainer([*rest, "--eval_strategy", "steps"], classes, evaluated, _save, instead=_evaluate)
    return run_trainer(rest, (ScriptArguments, RLFRConfig), build_trainer, _save)


def _evaluate(trainer: "RLFRTrainer", checkpoint: str | None) -> None:
    """Evaluate the policy, or a checkpoint of it, on the held-out rows; print and write `evaluation.json`."""
    import math

    from rlfr_vlm.files import write_json
    from rlfr_vlm.trainer.held_out import describe_evaluation
    from rlfr_vlm.trainer.records.callbacks import MetricsFile, ProgressLine

    if trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        raise UserError(
            "--eval-only needs whole weights on each process, and DeepSpeed or FSDP is on. Launch it with the "
            "configuration ddp (scripts/configs/accelerate/ddp.yaml), or on one process."
        )
    trainer.remove_callback(MetricsFile)  # the folder may hold a run, whose metrics must not change
    trainer.remove_callback(ProgressLine)  # it prints the accuracy with the step of a run
    policy = trainer.model.config.name_or_path
    if checkpoint is not None:
        trainer.load_weights(checkpoint)
    if trainer.accelerator.is_main_process:
        untrained = f"{policy}, as it is without training; --resume CHECKPOINT or --resume auto measures a checkpoint"
        print(f"measured policy: {checkpoint or untrained}")
    metrics = trainer.evaluate()
    if trainer.accelerator.is_main_process:
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        measured = {"policy": policy, "checkpoint": checkpoint}
        write_json(Path(trainer.args.output_dir) / "evaluation.json", measured | finite)
        print(describe_evaluation(metrics))


def _save(trainer: "RLFRTrainer") -> None:
    output_dir = trainer.args.output_dir
    trainer.save_model(output_dir)
    if trainer.accelerator.is_main_process:
        print(f"trained policy in {output_dir}")
        if trainer.state.best_model_checkpoint is not None:
            print(
                f"best on held-out rows: {trainer.state.best_metric:.3f} ({trainer.args.metric_for_best_model}) in "
                f"{trainer.state.best_model_checkpoint}"
            )


def build_trainer(options: ScriptArguments, args: "RLFRConfig", trains: bool = True) -> "RLFRTrainer":
    """Build the trainer for a configuration. Settings are checked before a large policy is loaded.

    Args:
        trains: whether the trainer will train, and so needs enough rows for a rollout.
    """
    from rlfr_vlm.checkpoint import is_first_process
    from rlfr_vlm.data.check import notes_of_rows
    from rlfr_vlm.data.draws import describe_mixture
    from rlfr_vlm.data.lengths import refuse_prompts_beyond_context
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.data.mixture import refuse_unscored_sources
    from rlfr_vlm.four_bit import refuse_four_bits
    from rlfr_vlm.policy import load_policy, refuse_data_parallel
    from rlfr_vlm.rewards import build_rewards, columns_needed
    from rlfr_vlm.steps import left_out_line, prompts_of_epoch, refuse_too_few_rows
    from rlfr_vlm.tools.description import described_tokens
    from rlfr_vlm.trainer.lora import lora_config
    from rlfr_vlm.trainer.records.benchmark_calls import Plan
    from rlfr_vlm.trainer.records.benchmarks import MeasureCheckpoints
    from rlfr_vlm.trainer.records.callbacks import AlertsFile, MetricsFile, ProgressLine
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer
    from rlfr_vlm.trainer.signals.flow import find_flow
    from rlfr_vlm.trainer.tool_calls import prepare_template

    refuse_data_parallel(args)
    refuse_four_bits(options, args.rollout)
    called = tool_arguments(options)
    options.rewards = rewards_of(options, args.method, called.get("environment_factory"))
    flow = find_flow(None, args) if args.uses_flow else None
    benchmarks = Plan.of(options) if trains else None
    if benchmarks is not None and options.model_name_or_path and is_first_process():
        benchmarks.check(options.model_name_or_path, args.output_dir)
    rewards = build_rewards(options.rewards, options, args.max_completion_length or 0) if options.rewards else []
    callbacks = [MetricsFile(args.output_dir), ProgressLine(args.method)]
    if options.watch:
        callbacks.append(AlertsFile(args.output_dir))
    # Read before the policy: a wrong data set name then fails before a large policy is loaded.
    rows = read_rows(options, columns_needed(options.rewards), args.seed)
    refuse_unscored_sources(rows, options.rewards)
    if trains:
        refuse_too_few_rows(args, len(rows.indices))
    policy, processing_class = load_policy(options, trust_remote_code=args.trust_remote_code)
    peft_config = lora_config(policy, options)
    if called.get("tools") or called.get("environment_factory"):
        prepare_template(processing_class)  # as the trainer does; prompts are counted before
    rows.added_tokens = described_tokens(processing_class, called)
    train_dataset = training_dataset(rows, options, processing_class, graded=is_graded(options))
    if options.max_prompt_tokens is None:  # rows that training replaces are left out
        context = getattr(policy.config.get_text_config(), "max_position_embeddings", None)
        refuse_prompts_beyond_context(rows, processing_class, context, args.max_completion_length or 0)
    if trains and is_first_process():
        mixture = describe_mixture(train_dataset, prompts_of_epoch(args, len(train_dataset)))
        for line in (*notes_of_rows(rows), mixture or left_out_line(args, len(train_dataset))):
            print(line, end="\n" if line else "")
    eval_dataset = None
    if args.eval_strategy != "no":
        eval_dataset = held_out_rows(options, args, processing_class, rows.added_tokens)
    try:
        trainer = RLFRTrainer(
            policy,
            rewards,
            args,
            train_dataset,
            eval_dataset,
            processing_class,
            flow=flow,
            callbacks=callbacks,
            peft_config=peft_config,
            **called,
        )
    except ValueError as error:  # TRL and transformers refuse settings with ValueError
        raise UserError(str(error)) from None
    if benchmarks is not None:
        trainer.add_callback(MeasureCheckpoints(benchmarks, options, args.output_dir, trainer.log_apart))
    return trainer


def rewards_of(options: ScriptArguments, method: str, environment: object) -> list[str]:
    """Return the names of the run's rewards, and say which one a task of reasoning-gym chose.

    None is named where an environment has a reward of its own, which is the outcome then.
    """
    from rlfr_vlm.checkpoint import is_first_process
    from rlfr_vlm.tools import owns_reward

    unset = options.rewards is None
    if unset and owns_reward(environment) and "rlpr" not in method:
        return []
    names = reward_names(options, method, options.dataset_name)
    if unset and names == ["reasoning_gym"] and is_first_process():
        print("reward: reasoning_gym, the task's own scorer; --rewards sets others")
    return names


def tool_arguments(options: ScriptArguments) -> dict[str, object]:
    """Return the keyword arguments of `RLFRTrainer` that hold tools; none where the policy calls none.

    Raises:
        UserError: one cannot be loaded.
    """
    from rlfr_vlm.rewards.custom import load_function
    from rlfr_vlm.tools import load_environment, load_tools

    arguments: dict[str, object] = {}
    if options.tools:
        arguments["tools"] = load_tools(options.tools)
    if options.environment is not None:
        arguments["environment_factory"] = load_environment(options.environment)
    if options.rollout_function is not None:
        arguments["rollout_func"] = load_function(options.rollout_function, "rollout function")
    return arguments


def is_graded(options: ScriptArguments) -> bool:
    """Return whether a reward of the run reads the answers with the grader."""
    return "accuracy" in (options.rewards or ())


def held_out_rows(
    options: ScriptArguments, args: "RLFRConfig", processing_class: "ProcessingClass", added_tokens: int = 0
) -> "Dataset":
    """Return a fixed subset of the held-out rows, built like the training rows.

    Args:
        added_tokens: by the descriptions of tools to each prompt.

    Raises:
        UserError: the held-out rows are the training rows, or cannot be read.
    """
    import random

    from rlfr_vlm.data.draws import draws_of
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.data.mixture import refuse_unscored_sources
    from rlfr_vlm.rewards import columns_needed

    name, split = options.eval_dataset_name or options.dataset_name, options.eval_dataset_split
    refuse_training_rows(options, name, split)
    if isinstance(name, str) and split != "train" and Path(name).expanduser().is_file():
        raise UserError(
            f"The held-out rows {name} are one file, which has no split {split!r}. Set eval_dataset_split: train."
        )
    eval_options = dataclasses.replace(
        options, dataset_name=name, dataset_split=split, dataset_limit=None, long_prompts="drop"
    )
    try:  # no row of reasoning-gym is generated that is not used
        needed = columns_needed(options.rewards or ())
        rows = read_rows(eval_options, needed, args.seed, gym_limit=options.eval_rows)
        refuse_unscored_sources(rows, options.rewards or ())
    except UserError as error:  # it names the settings of the training rows
        raise UserError(SETTING_OF_ROWS.sub(r"eval_\g<0>", str(error))) from None
    rows.added_tokens = added_tokens
    dataset = training_dataset(rows, eval_options, processing_class, graded=is_graded(options))
    count = min(options.eval_rows, len(dataset))
    if (draws := draws_of(dataset)) is not None:  # each source has its share, as far as it has rows
        return dataset.select(sorted(set(draws.take(count))))
    return dataset.select(sorted(random.Random(0).sample(range(len(dataset)), count)))


def refuse_training_rows(options: ScriptArguments, name: str | list[str], split: str) -> None:
    """Refuse held-out rows that are training rows.

    Raises:
        UserError: a data set stands in both with the same split.
    """
    from rlfr_vlm.sources import joined, sources_of, split_of

    if (name, split) == (options.dataset_name, options.dataset_split):
        raise UserError(
            f"The held-out rows are the training rows ({joined(name)}, split {split}). Name others with "
            "eval_dataset_name or eval_dataset_split."
        )
    if isinstance(name, str) and isinstance(options.dataset_name, str):
        return  # two names, or two splits
    sources = sources_of(options.dataset_name)
    trained = {(source.name, split_of(source.name, options.dataset_split)) for source in sources}
    for source in sources_of(name):
        own = split_of(source.name, split)
        if (source.name, own) in trained:
            raise UserError(
                f"The held-out rows of {source.name} (split {own}) are training rows. Name others with "
                "eval_dataset_name or eval_dataset_split."
            )
