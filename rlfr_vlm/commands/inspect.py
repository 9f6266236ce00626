"""`rlfr inspect`: what a field says about the tokens of a policy's responses, without training."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.options import DataOptions, FlowOptions

if TYPE_CHECKING:
    from rlfr_vlm.report.inspection import Inspected

SUMMARY = "colour a policy's tokens by a flow field; does deviation tell wrong from right?"
FORMATS = ("html", "json", "png")


@dataclass
class InspectOptions:
    """What to inspect."""

    policy: list[str] = field(default_factory=list, metadata={"help": "Folder or hub id of a policy, or of several."})
    flow: list[str] = field(
        default_factory=list, metadata={"help": "Folder of the field; one for all policies, or one for each."}
    )
    data: str = field(default="", metadata={"help": "The same as dataset_name."})
    n: int = field(default=50, metadata={"help": "Prompts, spread evenly over the data."})
    samples: int = field(default=4, metadata={"help": "Responses sampled for each prompt; 0 is one, greedy."})
    max_new_tokens: int = field(default=1024, metadata={"help": "Longest response."})
    batch_size: int = field(default=8, metadata={"help": "Responses of one forward pass."})
    timesteps: list[float] = field(
        default_factory=lambda: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9],
        metadata={"help": "Timesteps that are measured, beside the rewarding ones (flow_timesteps)."},
    )
    seed: int = field(default=0, metadata={"help": "Of sampling and of the noise."})
    dtype: str = field(default="auto", metadata={"help": "Of the policy's weights."})
    device: str = field(default="auto", metadata={"help": "auto, cpu, cuda, cuda:1 ..."})
    format: list[str] = field(default_factory=lambda: ["html"], metadata={"help": "html, json, png, or several."})
    out: str = field(default="outputs/inspect", metadata={"help": "Folder for what is written."})


def help_text() -> str:
    from rlfr_vlm.commands.option_help import describe_options

    return describe_options(
        "rlfr inspect --policy P [Q ...] --flow F --data D [--n 50] [--format html|json|png] [--config FILE.yaml]",
        "Sample responses, and see what a flow field says about each of their tokens.",
        InspectOptions,
        DataOptions,
        FlowOptions,
        inherited="A training configuration can be given as --config; its other keys are passed over.",
    )


def run(arguments: Sequence[str]) -> int:
    """Sample, probe, write. Returns the exit code."""
    from rlfr_vlm.config_file import parse_some
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.files import make_folder
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    silence_libraries()
    data, flow, options = parse_some(
        (DataOptions, FlowOptions, InspectOptions), (ScriptArguments, RLFRConfig), _lists(arguments)
    )
    data.dataset_name = options.data or data.dataset_name
    check_options(options, data, flow)
    out = Path(options.out)
    make_folder(out)
    rows = chosen_rows(read_rows(data, ("prompt", "answer"), options.seed), options.n)
    fields = options.flow * len(options.policy) if len(options.flow) == 1 else options.flow
    inspected = [_inspect(policy, path, rows, options, data, flow)
                 for policy, path in zip(options.policy, fields, strict=True)]  # fmt: skip
    _say(inspected)
    from rlfr_vlm.report.inspection import write_figures, write_html, write_measured

    writers = {"html": write_html, "json": write_measured, "png": write_figures}
    for name in dict.fromkeys(options.format):
        print(f"{name}: {writers[name](inspected, out)}")
    return 0


def _lists(arguments: Sequence[str]) -> list[str]:
    """`--format html,png` as well as `--format html png`."""
    return [part for argument in arguments for part in (argument.split(",") if set(argument.split(",")) <= set(FORMATS)
                                                        else [argument])]  # fmt: skip


def check_options(options: InspectOptions, data: DataOptions, flow: FlowOptions) -> None:
    """Refuse what cannot be done before anything large is loaded.

    Raises:
        UserError: which setting, and what it may be.
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
    """A device of this machine; `auto` is a GPU where there is one.

    Raises:
        UserError: it has no such device.
    """
    import torch

    found = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "auto":
        return found
    try:
        wanted = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device is {name!r}; it may be auto, cpu, cuda, or cuda:1 and so on.") from None
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device is {name}, and torch {torch.__version__} sees {torch.cuda.device_count()} GPUs here. Leave it "
            "out, or name another."
        )
    return name


def chosen_rows(rows: Any, n: int) -> list[dict[str, Any]]:
    """`n` rows spread evenly over the data, all of them when there are fewer; bad ones are replaced as in training."""
    from rlfr_vlm.data.load import as_dataset

    dataset = as_dataset(rows)
    count = min(n, len(dataset))
    return [dataset[math.floor(place * len(dataset) / count)] for place in range(count)]


def _inspect(
    name: str,
    flow_path: str,
    rows: list[dict[str, Any]],
    options: InspectOptions,
    data: DataOptions,
    flow: FlowOptions,
) -> "Inspected":
    """Sample responses of one policy and probe them with its field."""
    import dataclasses

    from rlfr_vlm.data.encode import tokenizer_of
    from rlfr_vlm.evaluate import respond
    from rlfr_vlm.flow import check_fits_policy, load_field
    from rlfr_vlm.models.towers import find_language_tower, find_vision_tower
    from rlfr_vlm.models.vision import ban_tokens, vision_token_ids
    from rlfr_vlm.options import RunOptions
    from rlfr_vlm.policy import load_policy
    from rlfr_vlm.report.inspection import Inspected
    from rlfr_vlm.report.probe import probe_responses
    from rlfr_vlm.rewards import accuracy

    network, spec = load_field(flow_path)
    run_options = RunOptions(**dataclasses.asdict(data), model_name_or_path=name, dtype=options.dtype)
    policy, processing_class = load_policy(run_options)
    check_fits_policy(spec, find_language_tower(policy).config, name, find_vision_tower(policy) is not None)
    ban_tokens(policy, vision_token_ids(policy, processing_class))
    device = device_of(options.device)
    policy.to(device).eval()
    network.to(device).eval()
    repeated = [row for row in rows for _ in range(max(1, options.samples))]
    print(f"{name}: {len(repeated)} responses to {len(rows)} prompts")
    responses = respond(
        policy, processing_class, repeated, accuracy, sampled=options.samples > 0, seed=options.seed,
        batch_size=options.batch_size, max_new_tokens=options.max_new_tokens, progress="respond",
    )  # fmt: skip
    timesteps = sorted({*options.timesteps, *flow.flow_timesteps})
    probed = probe_responses(
        policy, processing_class, repeated, responses, network, spec, timesteps, seed=options.seed,
        batch_size=options.batch_size,
    )  # fmt: skip
    tokenizer = tokenizer_of(processing_class)
    return Inspected(
        name, flow_path, tokenizer, spec, repeated, responses, probed, timesteps, flow, options.max_new_tokens
    )


def _say(inspected: Sequence["Inspected"]) -> None:
    """The few numbers one wants first."""
    for one in inspected:
        measured = one.measured()
        accuracy = measured["accuracy"]
        right = "nothing decided" if accuracy["acc"] is None else f"{accuracy['acc']:.3f} right"
        print(f"{one.policy}: {right} of {accuracy['n']} decided, {accuracy['undecided']} undecided")
        for row in measured["by_timestep"]:
            if row["timestep"] in measured["rewarding_timesteps"]:
                print(f"  AUC of deviation at timestep {row['timestep']}, wrong above right: {_auc(row)}")


def _auc(row: dict[str, Any]) -> str:
    if row["auc"] is None:
        return "undefined: all decided answers are alike"
    if row["ci95"] is None:
        return f"{row['auc']:.3f}, too few responses for an interval"
    return f"{row['auc']:.3f} [{row['ci95'][0]:.3f}, {row['ci95'][1]:.3f}]"
