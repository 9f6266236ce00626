"""Grid of `rlfr inspect --grid`: which way of measuring a deviation tells right from wrong responses to one prompt.

A cell is a field, a noise, a timestep, a set of layers and a statistic. With many cells the best one looks good by
chance. So the cells are ranked on half of the prompts, and the best one is measured again on the other half.

Letters: S timesteps, L hooked layers, T response tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlfr_vlm.correctness_auc import Outcomes
from rlfr_vlm.deviation import ResponseDeviation, StackedDeviations
from rlfr_vlm.evaluate import Response
from rlfr_vlm.files import JsonObject
from rlfr_vlm.flow import STATISTICS
from rlfr_vlm.group_auc import GroupedAuc, Pairs, share_of_wins
from rlfr_vlm.page.figures import INKS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN_CELLS = 12  # of the printed table and of the figure


@dataclass(frozen=True)
class Cell:
    """One way of measuring a deviation.

    Attributes:
        field: name of the field.
        noise: name of the noise.
        timestep: of the deviation.
        layers: blocks, counted from 1, whose mean is taken.
        statistic: one of `rlfr_vlm.flow.STATISTICS`.
    """

    field: str
    noise: str
    timestep: float
    layers: tuple[int, ...]
    statistic: str

    @property
    def title(self) -> str:
        """One line for tables and figures."""
        layers = "+".join(map(str, self.layers))
        return f"{self.field}, {self.noise} noise, t {self.timestep:g}, layer {layers}, {self.statistic}"


@dataclass(frozen=True)
class MeasuredCell:
    """AUC within groups, wrong above right, of a cell on both halves of the prompts and on all.

    Attributes:
        like_length: on all prompts, of pairs of like length: what the cell says beyond the length of a response.
    """

    cell: Cell
    chosen_on: GroupedAuc
    confirmed_on: GroupedAuc
    overall: GroupedAuc
    like_length: GroupedAuc

    def to_dict(self) -> JsonObject:
        """JSON object of the cell."""
        return {
            **asdict(self.cell),
            **{name: asdict(getattr(self, name)) for name in ("chosen_on", "confirmed_on", "overall", "like_length")},
        }


@dataclass(frozen=True)
class FieldMeasurement:
    """Deviations of all responses from one field under one noise."""

    field: str
    noise: str
    layers: Sequence[int]
    deviations: Sequence[ResponseDeviation]


def grid(
    measurements: Sequence[FieldMeasurement],
    timesteps: Sequence[float],
    responses: Sequence[Response],
    groups: Sequence[int],
) -> list[MeasuredCell]:
    """Measure every cell, the best one on the first half of the prompts first.

    Args:
        timesteps: (S,) of the deviations.
        groups: number of the prompt of each response.
    """
    outcomes = Outcomes.of(responses, groups)
    wrong, right = outcomes.wrong, outcomes.right
    assert outcomes.within_groups is not None and outcomes.like_length is not None
    numbers = torch.tensor(groups)
    prompts = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    first_half = torch.tensor([prompts[group] % 2 == 0 for group in groups])
    halves = [Pairs.within(wrong & part, right & part, numbers) for part in (first_half, ~first_half)]
    parts = [*halves, outcomes.within_groups, outcomes.like_length]
    cells = []
    for measurement in measurements:
        for cell, scores in cell_scores(measurement, timesteps).items():
            cells.append(MeasuredCell(cell, *(share_of_wins(pairs.wins(scores)) for pairs in parts)))
    return sorted(cells, key=lambda cell: -(cell.chosen_on.value or 0.0))


def cell_scores(measurement: FieldMeasurement, timesteps: Sequence[float]) -> Mapping[Cell, Tensor]:
    """Score (N,) of each response in every cell of one measurement."""
    stacked = StackedDeviations.of(measurement.deviations)
    choices = [[index] for index in range(len(measurement.layers))]
    if len(choices) > 1:
        choices.append(list(range(len(measurement.layers))))
    return {
        Cell(
            measurement.field,
            measurement.noise,
            timestep,
            tuple(measurement.layers[index] for index in layers),
            statistic,
        ): stacked.statistic(statistic, [step], layers)
        for step, timestep in enumerate(timesteps)
        for layers in choices
        for statistic in STATISTICS
    }


def recommendation(cells: Sequence[MeasuredCell]) -> JsonObject:
    """What to write into the spec of the best cell's field.

    `confirmed` says whether the interval on the other half of the prompts lies above 0.5.
    """
    best = cells[0]
    return {
        "timestep": best.cell.timestep,
        "layers": list(best.cell.layers),
        "statistic": best.cell.statistic,
        "noise": best.cell.noise,
        "cells": len(cells),
        "auc": best.confirmed_on.value,
        "ci95": [best.confirmed_on.low, best.confirmed_on.high],
        "prompts": best.confirmed_on.groups,
        "confirmed": best.confirmed_on.above_chance,
    }


def auc_text(auc: GroupedAuc) -> str:
    """AUC with interval and number of prompts, for a terminal."""
    if auc.value is None:
        return "undefined"
    return f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"


def grid_lines(cells: Sequence[MeasuredCell]) -> list[str]:
    """Table of the best cells in Markdown, and what the other half of the prompts says of the best one."""
    best = cells[0]
    lines = [
        f"{len(cells)} cells, ranked on {best.chosen_on.groups} prompts with right and wrong responses, measured "
        f"again on {best.confirmed_on.groups} other ones. AUC within a prompt, wrong above right (95 % interval):",
        "",
        "| cell | ranked on | other half | all prompts | responses of like length |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {one.cell.title} | {auc_text(one.chosen_on)} | {auc_text(one.confirmed_on)} | {auc_text(one.overall)} "
        f"| {auc_text(one.like_length)} |"
        for one in cells[:SHOWN_CELLS]
    ]
    verdict = "confirmed" if best.confirmed_on.above_chance else "not confirmed: its interval includes 0.5"
    return [*lines, "", f"The best cell is {verdict} on the other half: {auc_text(best.confirmed_on)}."]


def grid_figure(cells: Sequence[MeasuredCell], ink: str = INKS["light"]) -> "Figure":
    """Draw the best cells: AUC on the half they were ranked on (open), and on the other half with its interval."""
    from matplotlib.figure import Figure

    shown = list(reversed(cells[:SHOWN_CELLS]))
    figure = Figure(figsize=(8, 0.34 * len(shown) + 1.1), layout="constrained")
    axes = figure.subplots()
    for row, one in enumerate(shown):
        if one.chosen_on.value is not None:
            axes.plot(one.chosen_on.value, row, "o", markerfacecolor="none", color="#999999")
        if one.confirmed_on.value is not None:
            axes.plot([one.confirmed_on.low, one.confirmed_on.high], [row, row], color="#4477AA")
            axes.plot(one.confirmed_on.value, row, "o", color="#4477AA")
    axes.axvline(0.5, color=ink, linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(shown)), [one.cell.title for one in shown], fontsize=7)
    axes.set_xlabel("AUC within a prompt, wrong above right; open: half it was ranked on, filled: other half")
    return figure
