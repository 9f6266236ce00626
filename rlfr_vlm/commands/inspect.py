"""`rlfr inspect`: measure how far the tokens of a policy's responses deviate from a flow field, without training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.options import DataOptions, FlowOptions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.data.load import Rows
    from rlfr_vlm.data.rows import Row
    from rlfr_vlm.deviation import AucRow, WithinGroups
    from rlfr_vlm.flow import FlowSpec, VelocityField
    from rlfr_vlm.report.inspection import Inspection

SUMMARY = "colour a policy's tokens by their deviation from a flow field; AUC of wrong against right"
FORMATS = ("html", "json", "png")


@dataclass
class InspectOptions:
    """Options of `rlfr inspect`."""

    policy: list[str] = field(default_factory=list, metadata={"help": "Folder or hub id of one or several policies."})
    flow: list[str] = field(
        default_factory=list, metadata={"help": "Folder of the flow field: one for all policies, or one per policy."}
    )
    data: str = field(default="", metadata={"help": "Short for dataset_name."})
    n: int = field(default=50, metadata={"help": "Number of prompts, spread evenly over the data."})
    samples: int = field(default=4, metadata={"help": "Responses sampled per prompt; 0 gives one greedy response."})
    max_new_tokens: int = field(default=1024, metadata={"help": "Maximum response length in tokens."})
    batch_size: int = field(default=8, metadata={"help": "Responses per forward pass."})
    timesteps: list[float] = field(
        default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        metadata={"help": "Timesteps to measure, in addition to the rewarding ones (flow_timesteps)."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of sampling and of the noise."})
    dtype: str = field(default="auto", metadata={"help": "Data type of the policy's weights."})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1 ..."})
    format: list[str] = field(
        default_factory=lambda: ["html"], metadata={"help": "One or several of html, json, png."}
    )
    out: str = field(default="outputs/inspect", metadata={"help": "Output folder."})


def help_text() -> str:
    from rlfr_vlm.commands.option_help import describe_options

    return describe_options(
        "rlfr inspect --policy P [Q ...] --flow F --data D [--n 50] [--format html|json|png] [--config FILE.yaml]",
        "Sample responses and measure how far each of their tokens deviates from a flow field.",
        InspectOptions,
        DataOptions,
        FlowOptions,
        inherited="A training configuration can be given as --config; its other keys are ignored.",
    )


def run(arguments: Sequence[str]) -> int:
    """Sample, probe, write. Returns the exit code."""
    from rlfr_vlm.config_file import parse_config_subset
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.files import make_folder
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    silence_libraries()
    data, flow, options = parse_config_subset(
        (DataOptions, FlowOptions, InspectOptions), (ScriptArguments, RLFRConfig), _split_formats(arguments)
    )
    data.dataset_name = options.data or data.dataset_name
    check_options(options, data, flow)
    out = Path(options.out)
    make_folder(out)
    rows = evenly_spread_rows(read_rows(data, ("prompt", "answer"), options.seed), options.n)
    fields = options.flow * len(options.policy) if len(options.flow) == 1 else options.flow
    inspections = [
        _inspect(policy, path, rows, options, data, flow) for policy, path in zip(options.policy, fields, strict=True)
    ]
    _print_summary(inspections)
    from rlfr_vlm.report.inspection import write_figures, write_html, write_measurements

    writers = {"html": write_html, "json": write_measurements, "png": write_figures}
    for name in dict.fromkeys(options.format):
        print(f"{name}: {writers[name](inspections, out)}")
    return 0


def _split_formats(arguments: Sequence[str]) -> list[str]:
    """Arguments with comma-separated formats split, so that `--format html,png` equals `--format html png`."""
    result: list[str] = []
    for argument in arguments:
        parts = argument.split(",")
        result += parts if set(parts) <= set(FORMATS) else [argument]
    return result


def check_options(options: InspectOptions, data: DataOptions, flow: FlowOptions) -> None:
    """Check the options before models and data are loaded.

    Raises:
        UserError: an option is missing or has an invalid value.
    """
    for name, value in (("policy", options.policy), ("flow", options.flow), ("data", data.dataset_name)):
        if not value:
            raise UserError(f"--{name} is not set. `rlfr inspect --help` shows an example.")
    if len(options.flow) not in (1, len(options.policy)):
        raise UserError(
            f"--flow names {len(options.flow)} fields for {len(options.policy)} policies; give one for all, or one "
            "for each."
        )
    for name in options.format:
        if name not in FORMATS:
            raise UserError(f"--format is {name!r}; choose html, json or png.{nearest(name, FORMATS)}")
    for name, low in (("n", 1), ("samples", 0), ("max_new_tokens", 1), ("batch_size", 1)):
        if getattr(options, name) < low:
            raise UserError(f"--{name} is {getattr(options, name)}; it must be at least {low}.")
    device_of(options.device)
    for step in [*options.timesteps, *flow.flow_timesteps]:
        if not 0 < step < 1:
            raise UserError(f"A timestep is {step}; it must be above 0 and below 1 (1 is data).")


def device_of(name: str) -> str:
    """Name of a torch device; `auto` is the GPU if there is one, else the CPU.

    Raises:
        UserError: this machine has no such device.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device is {name!r}; it may be auto, cpu, cuda, or cuda:1 and so on.") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device is {name}, and torch {torch.__version__} sees {torch.cuda.device_count()} GPUs here. Leave it "
            "out, or name another."
        )
    return name


def evenly_spread_rows(rows: "Rows", n: int) -> list["Row"]:
    """Up to `n` rows spread evenly over the data; unusable rows are replaced as in training."""
    from rlfr_vlm.data.load import as_dataset

    dataset = as_dataset(rows)
    count = min(n, len(dataset))
    return [dataset[math.floor(index * len(dataset) / count)] for index in range(count)]


def _load_policy_and_field(
    name: str, flow_path: str, options: InspectOptions, data: DataOptions
) -> "tuple[PreTrainedModel, ProcessingClass, VelocityField, FlowSpec]":
    """Load a policy and its field in evaluation mode on the device of the options, with vision tokens banned.

    Raises:
        UserError: one of them cannot be loaded, or the field does not fit the policy.
    """
    import dataclasses

    from rlfr_vlm.flow import check_fits_policy, load_field
    from rlfr_vlm.models.towers import find_language_tower, find_vision_tower
    from rlfr_vlm.models.vision import ban_tokens, vision_token_ids
    from rlfr_vlm.options import RunOptions
    from rlfr_vlm.policy import load_policy

    velocity_field, spec = load_field(flow_path)
    run_options = RunOptions(**dataclasses.asdict(data), model_name_or_path=name, dtype=options.dtype)
    policy, processing_class = load_policy(run_options)
    check_fits_policy(spec, find_language_tower(policy).config, name, find_vision_tower(policy) is not None)
    ban_tokens(policy, vision_token_ids(policy, processing_class))
    device = device_of(options.device)
    return policy.to(device).eval(), processing_class, velocity_field.to(device).eval(), spec


def _inspect(
    name: str,
    flow_path: str,
    rows: list["Row"],
    options: InspectOptions,
    data: DataOptions,
    flow: FlowOptions,
) -> "Inspection":
    """Sample responses of one policy and measure their deviations from its field."""
    from rlfr_vlm.data.encode import tokenizer_of
    from rlfr_vlm.deviation import response_deviations
    from rlfr_vlm.evaluate import respond
    from rlfr_vlm.report.inspection import Inspection
    from rlfr_vlm.rewards import accuracy

    policy, processing_class, velocity_field, spec = _load_policy_and_field(name, flow_path, options, data)
    repeated = [row for row in rows for _ in range(max(1, options.samples))]
    print(f"{name}: {len(repeated)} responses to {len(rows)} prompts")
    responses = respond(
        policy,
        processing_class,
        repeated,
        accuracy,
        sampled=options.samples > 0,
        seed=options.seed,
        batch_size=options.batch_size,
        max_new_tokens=options.max_new_tokens,
        progress="respond",
    )
    timesteps = sorted({*options.timesteps, *flow.flow_timesteps})
    deviations = response_deviations(
        policy,
        processing_class,
        repeated,
        responses,
        velocity_field,
        spec,
        timesteps=timesteps,
        seed=options.seed,
        batch_size=options.batch_size,
        with_entropies=True,
        with_norms=True,
        progress="measure",
    )
    tokenizer = tokenizer_of(processing_class)
    return Inspection(
        name, flow_path, tokenizer, spec, repeated, responses, deviations, timesteps, flow, options.max_new_tokens
    )


def _print_summary(inspections: Sequence["Inspection"]) -> None:
    """Print accuracy and AUC of each policy."""
    for inspection in inspections:
        summary = inspection.summary()
        accuracy = summary["accuracy"]
        right = "nothing decided" if accuracy["acc"] is None else f"{accuracy['acc']:.3f} right"
        print(f"{inspection.policy}: {right} of {accuracy['n']} decided, {accuracy['undecided']} undecided")
        for row in summary["by_timestep"]:
            if row["timestep"] in summary["rewarding_timesteps"]:
                print(f"  AUC of deviation at timestep {row['timestep']}, wrong above right:")
                print(f"    responses to the same prompt: {_within_text(row['within_groups'])}")
                print(f"    all responses, which includes how hard prompts are: {_auc_text(row)}")


def _within_text(within: "WithinGroups") -> str:
    if within["auc"] is None:
        return "undefined: no prompt has right and wrong responses; --samples sets how many each gets"
    low, high = within["ci95"]
    return f"{within['auc']:.3f} [{low:.3f}, {high:.3f}], {within['groups']} prompts with both"


def _auc_text(row: "AucRow") -> str:
    if row["auc"] is None:
        return "undefined: all decided answers are alike"
    if row["ci95"] is None:
        return f"{row['auc']:.3f}, too few responses for an interval"
    return f"{row['auc']:.3f} [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]"
