"""Policy, field and responses that `rlfr inspect` measures."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rlfr_vlm.commands.inspect import InspectOptions
    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.data.load import Rows
    from rlfr_vlm.data.rows import Row
    from rlfr_vlm.evaluate import Response
    from rlfr_vlm.flow import FlowSpec, VelocityField
    from rlfr_vlm.options import DataOptions


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


def whole_groups(rows: "Rows", n: int) -> list["Row"]:
    """Rows of up to `n` prompts with all their responses, spread evenly over the prompts of the data.

    Rows of a prompt have the same `prompt_index`, as `rlfr sample` writes it. Rows without token ids are left out.

    Raises:
        UserError: the rows have no column prompt_index or completion_ids, or no row has token ids.
    """
    from rlfr_vlm.data.load import as_dataset

    try:
        stored = rows.stored_values("prompt_index", "completion_ids")
    except UserError as error:
        raise UserError(f"--given needs rows that `rlfr sample` wrote. {error}") from None
    prompts: dict[object, list[int]] = {}
    for number, (prompt, ids) in stored.items():
        if ids:
            prompts.setdefault(prompt, []).append(number)
    if not prompts:
        raise UserError("--given needs responses with token ids, and no row has completion_ids.")
    groups = list(prompts.values())
    count = min(n, len(groups))
    chosen = [groups[math.floor(index * len(groups) / count)] for index in range(count)]
    dataset = as_dataset(rows, [number for group in chosen for number in group])
    # the loader drops completion_ids, which is an argument of reward functions
    chosen_rows = [dataset[index] for index in range(len(dataset))]
    return [row | {"completion_ids": stored[row["row_number"]][1]} for row in chosen_rows]


def load_policy_for(
    name: str, options: "InspectOptions", data: "DataOptions"
) -> "tuple[PreTrainedModel, ProcessingClass]":
    """Load a policy in evaluation mode on the device of the options, with vision tokens banned."""
    import dataclasses

    from rlfr_vlm.models.vision import ban_tokens, vision_token_ids
    from rlfr_vlm.options import RunOptions
    from rlfr_vlm.policy import load_policy

    run_options = RunOptions(**dataclasses.asdict(data), model_name_or_path=name, dtype=options.dtype)
    policy, processing_class = load_policy(run_options)
    ban_tokens(policy, vision_token_ids(policy, processing_class))
    return policy.to(device_of(options.device)).eval(), processing_class


def fit_to(
    flow: "tuple[VelocityField, FlowSpec]", policy: "PreTrainedModel", name: str
) -> "tuple[VelocityField, FlowSpec]":
    """The field in evaluation mode on the policy's device, and its spec.

    Raises:
        UserError: the field does not fit the policy.
    """
    from rlfr_vlm.flow import check_fits_policy
    from rlfr_vlm.models.towers import find_language_tower, find_vision_tower

    velocity_field, spec = flow
    check_fits_policy(spec, find_language_tower(policy).config, name, find_vision_tower(policy) is not None)
    return velocity_field.to(policy.device).eval(), spec


def responses_of(
    name: str,
    policy: "PreTrainedModel",
    processing_class: "ProcessingClass",
    rows: Sequence["Row"],
    options: "InspectOptions",
) -> "tuple[list[Row], list[Response], list[int]]":
    """Rows, responses and numbers of their prompts, one per response: sampled now, or those of the rows."""
    from rlfr_vlm.evaluate import Response, respond
    from rlfr_vlm.rewards import accuracy

    if options.given:
        scores = {"right": 1.0, "wrong": 0.0, "undecided": None}
        responses = [
            Response(list(row["completion_ids"]), str(row.get("response", "")), scores.get(row["verdict"]))
            for row in rows
        ]
        groups = [int(row["prompt_index"]) for row in rows]
        print(f"{name}: {len(responses)} responses of the data to {len(set(groups))} prompts")
        return list(rows), responses, groups
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
    return repeated, responses, [row["row_number"] for row in repeated]
