"""Does deviation tell wrong from right? AUC per layer and timestep, and how large latents are.

Letters: S timesteps, L hooked layers, T response tokens.
"""

from collections.abc import Sequence
from typing import Any

import torch

from rlfr_vlm.evaluate import Response
from rlfr_vlm.report.probe import Probed
from rlfr_vlm.stats import auc, auc_interval

ALL_LAYERS = "all"
STATISTICS = ("mean", "max")
NORM_QUANTILES = (0.05, 0.5, 0.95)


def auc_table(
    probed: Sequence[Probed], responses: Sequence[Response], layers: Sequence[int], timesteps: Sequence[float]
) -> list[dict[str, Any]]:
    """AUC of a response's deviation, wrong above right, for each timestep and layer, and for the mean of layers.

    None where all decided responses are right, or all wrong; undecided ones are left out. The interval is Hanley and
    McNeil's, which has no width at 0 and 1 or of single responses: None there.
    """
    rows: list[dict[str, Any]] = []
    for number, timestep in enumerate(timesteps):
        for place, layer in [*enumerate(layers), (None, ALL_LAYERS)]:
            for statistic in STATISTICS:
                values: dict[float, list[float]] = {0.0: [], 1.0: []}
                for one, response in zip(probed, responses, strict=True):
                    if response.score in values:
                        at = one.deviations[number]
                        scores = at.mean(dim=0) if place is None else at[place]
                        values[response.score].append(one.statistic(statistic, scores))
                found = auc(torch.tensor(values[0.0]), torch.tensor(values[1.0]))
                counts = len(values[0.0]), len(values[1.0])
                known = found is not None and 0 < found < 1 and min(counts) > 1
                rows.append({
                    "timestep": timestep, "layer": layer, "statistic": statistic, "auc": found,
                    "ci95": list(auc_interval(found, *counts)) if found is not None and known else None,
                    "n_wrong": counts[0], "n_right": counts[1],
                })  # fmt: skip
    return rows


def timestep_table(
    probed: Sequence[Probed], layers: Sequence[int], timesteps: Sequence[float], table: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What each timestep would be as the rewarding one: loss of the field, spread of deviations, AUC of their mean.

    The loss is the deviation without its weight t / (1 - t). `spread` is the standard deviation over tokens within a
    response, over their mean: what min-max and threshold have to work with.
    """
    rows = []
    for number, timestep in enumerate(timesteps):
        tokens = [one.deviations[number].mean(dim=0)[one.mask] for one in probed]
        tokens = [own for own in tokens if len(own) > 1]
        weight = timestep / (1 - timestep)
        mean = torch.cat(tokens).mean().item() if tokens else None
        spread = torch.stack([own.std() / own.mean() for own in tokens]).mean().item() if tokens and weight else None
        loss = mean / weight if mean is not None and weight else None
        own = next(row for row in table if row["timestep"] == timestep and row["layer"] == ALL_LAYERS
                   and row["statistic"] == "mean")  # fmt: skip
        rows.append({"timestep": timestep, "weight": weight, "loss": loss, "deviation": mean, "spread": spread,
                     "auc": own["auc"], "ci95": own["ci95"]})  # fmt: skip
    return rows


def norm_table(probed: Sequence[Probed], layers: Sequence[int]) -> list[dict[str, Any]]:
    """Root mean square of the latents of each layer, over the tokens of all responses."""
    rows = []
    for place, layer in enumerate(layers):
        values = torch.cat([one.norms[place] for one in probed]) if probed else torch.zeros(0)
        if len(values):
            low, middle, high = torch.quantile(values, torch.tensor(NORM_QUANTILES)).tolist()
            rows.append({"layer": layer, "mean": values.mean().item(), "p5": low, "median": middle, "p95": high})
    return rows
