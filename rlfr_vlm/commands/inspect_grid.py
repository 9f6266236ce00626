"""`rlfr inspect --grid`: measure a policy's responses under several fields, noises, timesteps, layers, statistics."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError
from rlfr_vlm.flow import NoisePlan

if TYPE_CHECKING:
    from rlfr_vlm.commands.inspect import InspectOptions
    from rlfr_vlm.data.rows import Row
    from rlfr_vlm.flow_options import FlowOptions
    from rlfr_vlm.options import DataOptions

NOISES = {
    "token": NoisePlan("token"),
    "group": NoisePlan("group", 1, True),
    "none": NoisePlan("none"),
}


def run_grid(
    options: "InspectOptions", data: "DataOptions", flow: "FlowOptions", rows: Sequence["Row"], out: Path
) -> None:
    """Measure all cells; print the best, write `grid.json`, `grid.md` and `grid.png`, and the spec's recommendation.

    Raises:
        UserError: no prompt has right and wrong responses.
    """
    from rlfr_vlm.commands.inspected_responses import fit_to, load_policy_for, responses_of
    from rlfr_vlm.deviation import Scoring, score_responses
    from rlfr_vlm.files import write_bytes, write_json, write_text
    from rlfr_vlm.flow import load_field
    from rlfr_vlm.page.figures import encoded
    from rlfr_vlm.report.grid import FieldMeasurement, grid, grid_figure, grid_lines, recommendation
    from rlfr_vlm.report.yardsticks import within_text, yardsticks

    [name] = options.policy
    fields = [load_field(path) for path in options.flow]  # before the policy, which may take long
    policy, processing_class = load_policy_for(name, options, data)
    repeated, responses, groups = responses_of(name, policy, processing_class, rows, options)
    timesteps = sorted({*options.timesteps, *flow.flow_timesteps})
    scorings: list[Scoring] = []
    for loaded in fields:
        field, spec = fit_to(loaded, policy, name)
        scorings += [Scoring(field, spec, timesteps, plan, options.seed) for plan in NOISES.values()]
    scored = score_responses(
        policy,
        processing_class,
        repeated,
        responses,
        scorings,
        groups=groups,
        batch_size=options.batch_size,
        with_measures=options.yardsticks,
        progress="measure",
    )
    names = itertools.product(options.flow, NOISES)
    measurements = [
        FieldMeasurement(path, noise, scoring.spec.layer_indices, deviations)
        for (path, noise), scoring, deviations in zip(names, scorings, scored, strict=True)
    ]
    cells = grid(measurements, timesteps, responses, groups)
    if cells[0].overall.value is None:
        raise UserError(
            f"None of the {len(set(groups))} prompts has right and wrong responses, so nothing can be compared. Take "
            "more prompts (--n), more responses to each (--samples), or prompts of another difficulty."
        )
    known = yardsticks(scored[0], responses, groups, scorings[0].spec.layer_indices) if options.yardsticks else []
    lines = [
        f"  {yardstick['name']}: {within_text(yardstick['within_groups'])}; of like length "
        f"{within_text(yardstick['like_length'])}"
        for yardstick in known
    ]
    text = "\n".join([*grid_lines(cells), *(["yardsticks, responses to the same prompt:", *lines] if lines else [])])
    print(text)
    found = recommendation(cells)
    write_json(
        out / "grid.json", {"recommended": found, "cells": [cell.to_dict() for cell in cells], "yardsticks": known}
    )
    write_text(out / "grid.md", text + "\n")
    write_bytes(out / "grid.png", encoded(grid_figure(cells)))
    _recommend(cells[0].cell.field, found)
    print(f"grid: {out / 'grid.json'}, grid.md, grid.png; recommendation written into {cells[0].cell.field}")


def _recommend(path: str, found: dict[str, object]) -> None:
    """Write the recommendation into the spec beside the field's weights."""
    from rlfr_vlm.files import write_json
    from rlfr_vlm.flow.storage import FIELD_FOLDER, SPEC_FILE, read_spec

    folder = Path(path)
    if (folder / FIELD_FOLDER / SPEC_FILE).exists():
        folder = folder / FIELD_FOLDER
    spec = dataclasses.replace(read_spec(folder / SPEC_FILE), recommended=found)
    write_json(folder / SPEC_FILE, spec.to_dict())
