"""`rlfr inspect`: measure how far the tokens of a policy's responses deviate from a flow field, without training."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.commands.inspected_responses import (
    device_of,
    evenly_spread_rows,
    fit_to,
    load_policy_for,
    responses_of,
    whole_groups,
)
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.options import DataOptions
from rlfr_vlm.sources import checked_names

if TYPE_CHECKING:
    from rlfr_vlm.correctness_auc import AucRow
    from rlfr_vlm.data.rows import Row
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
    data: str | list[str] = field(default_factory=str, metadata={"help": "Short for dataset_name."})
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
    grid: bool = field(
        default=False,
        metadata={
            "help": "Compare fields, noises, timesteps, layers and statistics, on one policy and any number of fields."
        },
    )
    given: bool = field(
        default=False,
        metadata={"help": "Measure the responses and verdicts of the rows (`rlfr sample`) instead of sampling."},
    )
    yardsticks: bool = field(
        default=False,
        metadata={"help": "With --grid, also measure log-probs, entropies and linear heads, by whole forward passes."},
    )
    out: str = field(default="outputs/inspect", metadata={"help": "Output folder."})

    def __post_init__(self) -> None:
        self.data = checked_names("data", self.data)


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


def parsers() -> list[argparse.ArgumentParser]:
    from rlfr_vlm.config_file import parser_of

    return [parser_of((DataOptions, FlowOptions, InspectOptions))]


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
    needed = ("prompt", "verdict") if options.given else ("prompt", "answer")
    rows = read_rows(data, needed, options.seed)
    chosen = whole_groups(rows, options.n) if options.given else evenly_spread_rows(rows, options.n)
    if options.grid:
        from rlfr_vlm.commands.inspect_grid import run_grid

        run_grid(options, data, flow, chosen, out)
        return 0
    fields = options.flow * len(options.policy) if len(options.flow) == 1 else options.flow
    inspections = [
        _inspect(policy, path, chosen, options, data, flow)
        for policy, path in zip(options.policy, fields, strict=True)
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
    if options.given and not isinstance(data.dataset_name, str):
        raise UserError(
            f"--given takes one file of `rlfr sample`, and {len(data.dataset_name)} are named, whose prompts have the "
            "same numbers. Inspect one at a time."
        )
    if options.grid and len(options.policy) != 1:
        raise UserError(f"--policy names {len(options.policy)} policies; --grid compares fields of one.")
    if not options.grid and len(options.flow) not in (1, len(options.policy)):
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


def _inspect(
    name: str,
    flow_path: str,
    rows: Sequence["Row"],
    options: InspectOptions,
    data: DataOptions,
    flow: FlowOptions,
) -> "Inspection":
    """Measure the deviations of one policy's responses from its field, twice at the rewarding timesteps."""
    from rlfr_vlm.data.encode import tokenizer_of
    from rlfr_vlm.deviation import Scoring, score_responses
    from rlfr_vlm.flow import load_field
    from rlfr_vlm.report.inspection import Inspection
    from rlfr_vlm.trainer.signals.flow import noise_plan

    flow_field = load_field(flow_path)  # before the policy, which may take long
    policy, processing_class = load_policy_for(name, options, data)
    velocity_field, spec = fit_to(flow_field, policy, name)
    repeated, responses, groups = responses_of(name, policy, processing_class, rows, options)
    timesteps = sorted({*options.timesteps, *flow.flow_timesteps})
    noise = noise_plan(flow)
    deviations, again = score_responses(
        policy,
        processing_class,
        repeated,
        responses,
        [
            Scoring(velocity_field, spec, timesteps, noise, options.seed),
            Scoring(velocity_field, spec, flow.flow_timesteps, noise, options.seed + 1),
        ],
        groups=groups,
        batch_size=options.batch_size,
        with_measures=True,
        progress="measure",
    )
    return Inspection(
        name,
        flow_path,
        tokenizer_of(processing_class),
        spec,
        repeated,
        responses,
        groups,
        deviations,
        again,
        timesteps,
        flow,
        options.max_new_tokens,
    )


def _print_summary(inspections: Sequence["Inspection"]) -> None:
    """Print accuracy and AUC of each policy."""
    from rlfr_vlm.report.yardsticks import within_text

    for inspection in inspections:
        summary = inspection.summary()
        accuracy = summary["accuracy"]
        right = "nothing decided" if accuracy["acc"] is None else f"{accuracy['acc']:.3f} right"
        print(f"{inspection.policy}: {right} of {accuracy['n']} decided, {accuracy['undecided']} undecided")
        for row in summary["by_timestep"]:
            if row["timestep"] in summary["rewarding_timesteps"]:
                print(f"  AUC of deviation at timestep {row['timestep']}, wrong above right:")
                print(f"    responses to the same prompt: {within_text(row['within_groups'])}")
                print(f"    the same, of like length: {within_text(row['like_length'])}")
                print(f"    all responses, which includes how hard prompts are: {_auc_text(row)}")
        print("  Yardsticks, responses to the same prompt:")
        for yardstick in summary["yardsticks"]:
            print(f"    {yardstick['name']}: {within_text(yardstick['within_groups'])}")
        retest = summary["retest"]
        if retest["sign_agreement"] is not None:
            print(
                f"  Under other noise {retest['sign_agreement']:.3f} of the token rewards keep their sign; deviations "
                f"correlate by {retest['correlation']:.3f} within a response."
            )


def _auc_text(row: "AucRow") -> str:
    if row["auc"] is None:
        return "undefined: all decided answers are alike"
    if row["ci95"] is None:
        return f"{row['auc']:.3f}, too few responses for an interval"
    return f"{row['auc']:.3f} [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]"
