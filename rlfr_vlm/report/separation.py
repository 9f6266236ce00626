"""Tables of `rlfr inspect`: AUC per layer and timestep, loss and spread per timestep, norms per layer.

Letters: S timesteps, L hooked layers, T response tokens.
"""

from collections.abc import Sequence

import torch

from rlfr_vlm.correctness_auc import SHOWN_STATISTICS, AucRow, Outcomes
from rlfr_vlm.deviation import ResponseDeviation, StackedDeviations
from rlfr_vlm.evaluate import Response
from rlfr_vlm.files import JsonObject

ALL_LAYERS = "all"  # value of `layer` for the mean over layers
NORM_QUANTILES = (0.05, 0.5, 0.95)


class AucTableRow(AucRow):
    """An `AucRow` with the timestep, the layer and the statistic (`mean` or `max`) that it is measured for."""

    timestep: float
    layer: int | str
    statistic: str


def auc_table(
    deviations: Sequence[ResponseDeviation],
    responses: Sequence[Response],
    layers: Sequence[int],
    timesteps: Sequence[float],
    groups: Sequence[int],
) -> list[AucTableRow]:
    """AUC, wrong above right, of each of `SHOWN_STATISTICS` for each timestep and layer, and for the mean over layers.

    The interval is None if the AUC is 0 or 1, or if one side has a single response: it has no width there.

    Args:
        groups: number of the prompt of each response.
    """
    table: list[AucTableRow] = []
    outcomes, stacked = Outcomes.of(responses, groups), StackedDeviations.of(deviations)
    choices: list[tuple[Sequence[int], int | str]] = [([index], layer) for index, layer in enumerate(layers)]
    choices.append((range(len(layers)), ALL_LAYERS))
    for timestep_index, timestep in enumerate(timesteps):
        for layer_indices, layer in choices:
            for statistic in SHOWN_STATISTICS:
                row = outcomes.auc(stacked.statistic(statistic, [timestep_index], list(layer_indices)))
                has_width = row["auc"] is not None and 0 < row["auc"] < 1 and min(row["n_wrong"], row["n_right"]) > 1
                interval = row["ci95"] if has_width else None
                table.append({"timestep": timestep, "layer": layer, "statistic": statistic, **row, "ci95": interval})
    return table


def timestep_table(
    deviations: Sequence[ResponseDeviation], timesteps: Sequence[float], table: Sequence[AucTableRow]
) -> list[JsonObject]:
    """Per timestep: weight, loss of the field, mean and spread of deviations, and AUC of the mean over layers.

    The loss is the deviation without its weight t / (1 - t). `spread` is the standard deviation over the tokens of a
    response divided by their mean: the variation that min-max normalisation and threshold act on.

    Args:
        table: rows of `auc_table`.
    """
    rows = []
    for timestep_index, timestep in enumerate(timesteps):
        scores = [deviation.select(timestep_index).scores[deviation.mask] for deviation in deviations]
        scores = [values for values in scores if len(values) > 1]
        weight = timestep / (1 - timestep)
        mean = torch.cat(scores).mean().item() if scores else None
        spread = None
        if scores and weight:
            spread = torch.stack([values.std() / values.mean() for values in scores]).mean().item()
        loss = mean / weight if mean is not None and weight else None
        auc_row = next(
            row
            for row in table
            if row["timestep"] == timestep and row["layer"] == ALL_LAYERS and row["statistic"] == "mean"
        )
        rows.append(
            {
                "timestep": timestep,
                "weight": weight,
                "loss": loss,
                "deviation": mean,
                "spread": spread,
                "auc": auc_row["auc"],
                "ci95": auc_row["ci95"],
                "within_groups": auc_row.get("within_groups"),
                "like_length": auc_row.get("like_length"),
            }
        )
    return rows


def norm_table(deviations: Sequence[ResponseDeviation], layers: Sequence[int]) -> list[JsonObject]:
    """Mean and quantiles of the root mean square of the latents of each layer, over the tokens of all responses."""
    norms = [deviation.measures.norms for deviation in deviations if deviation.measures is not None]
    rows = []
    for index, layer in enumerate(layers):
        values = torch.cat([tensor[index] for tensor in norms]) if norms else torch.zeros(0)
        if len(values):
            low, middle, high = torch.quantile(values, torch.tensor(NORM_QUANTILES)).tolist()
            rows.append({"layer": layer, "mean": values.mean().item(), "p5": low, "median": middle, "p95": high})
    return rows
