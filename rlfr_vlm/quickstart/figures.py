"""Figures of the quick start: reward curves, deviations of right and wrong responses, coloured tokens."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rlfr_vlm.options import FlowOptions
from rlfr_vlm.quickstart.run import METHODS, QuickstartResult
from rlfr_vlm.shaping import flow_rewards

COLOURS = {"rlvr": "#4477AA", "rlfr": "#EE6677", "right": "#228833", "wrong": "#AA3377"}  # colour-blind safe
SMOOTHING = 5


def draw_figures(result: QuickstartResult, folder: Path) -> list[tuple[str, Path]]:
    """Draw everything into `folder`; returns (title, file) pairs."""
    import matplotlib

    matplotlib.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    drawings = [
        ("Accuracy during training", "reward_curves.png", _reward_curves),
        ("Deviation of right and wrong responses", "deviation.png", _deviations),
        ("Flow reward of each token", "tokens.png", _tokens),
    ]
    figures = []
    for title, name, draw in drawings:
        figure = draw(result)
        figure.savefig(folder / name, dpi=120, bbox_inches="tight")
        figures.append((title, folder / name))
    return figures


def _moving_average(values: Sequence[float]) -> np.ndarray:
    width = min(SMOOTHING, len(values))
    return np.convolve(values, np.ones(width) / width, mode="valid")


def _reward_curves(result: QuickstartResult) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5))
    axes = figure.subplots()
    for method in METHODS:
        for number, runs in enumerate(result.history.values()):
            logged = [
                (h["step"], h["outcome/accuracy"]) for h in runs[method] if h.get("outcome/accuracy") is not None
            ]
            if not logged:
                continue
            steps, values = zip(*logged, strict=True)
            smooth = _moving_average(values)
            axes.plot(steps, values, color=COLOURS[method], alpha=0.2, linewidth=0.8)
            axes.plot(steps[len(steps) - len(smooth) :], smooth, color=COLOURS[method],
                      label=method.upper() if number == 0 else None)  # fmt: skip
    axes.set_xlabel("update")
    axes.set_ylabel("accuracy of sampled responses")
    axes.set_title(f"Training scans, moving average over {SMOOTHING} rollouts")
    axes.legend()
    return figure


def _deviations(result: QuickstartResult) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2))
    panels = figure.subplots(1, 2)
    for axes, statistic in zip(panels, ("mean", "max"), strict=True):
        for name, score in (("right", 1.0), ("wrong", 0.0)):
            values = [getattr(d, statistic) for d, r in zip(result.deviations, result.responses, strict=True)
                      if r.score == score]  # fmt: skip
            if values:
                axes.hist(
                    values, bins=40, density=True, alpha=0.55, color=COLOURS[name], label=f"{name} ({len(values)})"
                )
        value = result.auc[statistic]["auc"]
        axes.set_title(f"{statistic} over tokens" + ("" if value is None else f", AUC {value:.3f}"))
        axes.set_xlabel("deviation from the flow")
        axes.legend()
    panels[0].set_ylabel("density")
    return figure


def _tokens(result: QuickstartResult) -> Any:
    """Responses of the base policy, each token coloured by its flow reward, with the deviation below it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from transformers import AutoTokenizer

    from rlfr_vlm.quickstart.warm_start import cached_policy

    tokenizer = AutoTokenizer.from_pretrained(cached_policy(result.recipe.warm_start)[0])
    options = FlowOptions()
    picks = range(min(result.recipe.coloured_responses, len(result.responses)))
    rewards = [
        flow_rewards(d.scores[None], d.mask[None], coef=options.flow_coef, threshold=options.flow_threshold,
                     top_k=options.flow_top_k, two_sided=options.flow_two_sided)[0]
        for d in (result.deviations[i] for i in picks)
    ]  # fmt: skip
    colours = ScalarMappable(Normalize(-options.flow_coef, options.flow_coef), cmap="PuOr")
    figure = Figure(figsize=(10, 0.75 * len(picks) + 0.8))
    axes = figure.subplots()
    axes.axis("off")
    for line, index in enumerate(picks):
        _token_line(axes, tokenizer, result, index, rewards[line], colours, y=-line)
    axes.set_xlim(-2.6, 24)
    axes.set_ylim(-len(picks) + 0.2, 0.8)
    figure.colorbar(colours, ax=axes, label="flow reward", shrink=0.8)
    return figure


def _token_line(
    axes: Any, tokenizer: Any, result: QuickstartResult, index: int, rewards: torch.Tensor, colours: Any, y: float
) -> None:
    from matplotlib.patches import Rectangle

    response, deviation = result.responses[index], result.deviations[index]
    verdict = {1.0: "right", 0.0: "wrong", None: "undecided"}[response.score]
    gold = result.rows[index]["answer"]
    axes.text(-0.2, y + 0.2, f"gold {gold}, {verdict}", ha="right", va="center", fontsize=8,
              color=COLOURS.get(verdict, "black"))  # fmt: skip
    for position, token in enumerate(response.ids):
        text = tokenizer.decode([token]).replace(" ", "␣").replace("$", r"\$")
        axes.add_patch(Rectangle((position, y), 1, 0.45, facecolor=colours.to_rgba(float(rewards[position])),
                                 edgecolor="0.7", linewidth=0.5))  # fmt: skip
        short = "end" if text.startswith("<|") else text
        axes.text(position + 0.5, y + 0.22, short, ha="center", va="center", fontsize=7, family="monospace")
        if deviation.mask[position]:
            axes.text(position + 0.5, y - 0.12, f"{deviation.scores[position]:.1f}", ha="center", va="center",
                      fontsize=5.5, color="0.4")  # fmt: skip
