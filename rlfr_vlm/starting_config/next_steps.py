"""The commands that follow a configuration: check, plan, fit a field, train."""

import shlex

from rlfr_vlm.flow_options import FitOptions
from rlfr_vlm.meta_policy import fields_depth
from rlfr_vlm.starting_config.settings import FLOW_FOLDER, Choices

SAMPLES = "outputs/samples.jsonl"
ACCELERATE = "scripts/configs/accelerate"


def fit_commands(choices: Choices, path: str) -> list[str]:
    """Return the commands that fit the field of a method with rlfr; none for other methods.

    Without responses in the data the policy's own ones are sampled, and the field is fitted on the right ones.

    Args:
        path: of the configuration.
    """
    if "rlfr" not in choices.parts:
        return []
    name, config, options = choices.model.name or "MODEL", choices.model.config, choices.data_options
    fit: list[object] = ["--dtype", "bfloat16"]
    if choices.image is not None and choices.image.is_set:
        fit += ["--image_max_pixels", choices.image.value]
    if config is not None and (depth := fields_depth(config.get_text_config().hidden_size)) != FitOptions.flow_depth:
        fit += ["--flow_depth", depth]
    start = ["rlfr", "fit-flow", "--model_name_or_path", name, "--dataset_name"]
    if choices.data.responses:
        data: list[object] = [choices.data.name]
        if options.dataset_split != "train":
            data += ["--dataset_split", options.dataset_split]
        if options.dataset_columns:
            data += ["--dataset_columns", *options.dataset_columns]
        return [_line(*start, *data, *fit, "--output_dir", FLOW_FOLDER)]
    length = ["--max_new_tokens", choices.response.value] if choices.response.is_set else []
    own: list[object] = ["--flow_reference", "own", "--flow_accept", "right"]
    rows = choices.data.rows
    if (
        rows is not None
        and rows.raw.media_root is not None
        and (choices.data.largest_image or choices.data.has_videos)
    ):
        own += ["--media_root", rows.raw.media_root.resolve()]  # the samples lie in another folder than the images
    return [
        _line("rlfr", "sample", "--config", path, "--policy", name, "--samples", 8, *length, "--out", SAMPLES),
        _line(*start, SAMPLES, *own, *fit, "--output_dir", FLOW_FOLDER),
    ]


def next_commands(choices: Choices, path: str) -> list[str]:
    """Return the commands from a configuration to training.

    Args:
        path: of the configuration.
    """
    machine, sharding = choices.machine, choices.fit.layout.sharding
    config = ["--config", path]
    plan = ["--processes", machine.processes, "--sharding", sharding, "--gpu-memory", f"{machine.memory:g}"]
    commands = [_line("rlfr", "check-data", *config)] if choices.data.name else []
    commands += [_line("rlfr", "plan", *config, *plan), *fit_commands(choices, path)]
    if machine.processes == 1:
        return [*commands, _line("rlfr", "train", *config)]
    file = f"{ACCELERATE}/{'ddp' if sharding == 'none' else sharding}.yaml"
    launch = [
        "accelerate",
        "launch",
        "--config_file",
        file,
        "--num_processes",
        machine.processes,
        "-m",
        "rlfr_vlm.cli",
    ]
    return [*commands, _line(*launch, "train", *config)]


def _line(*words: object) -> str:
    return shlex.join(map(str, words))
