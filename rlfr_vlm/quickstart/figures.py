"""Figures of the quick start's report.md: accuracy curves, deviations by correctness, coloured tokens."""

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.quickstart.run import QuickstartResult
from rlfr_vlm.shaping import flow_rewards

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure
    from transformers import PreTrainedTokenizerBase

COLOURS = {"right": "#228833", "wrong": "#AA3377"}  # distinguishable for colour-blind readers
METHOD_COLOURS = ("#4477AA", "#EE6677", "#CCBB44", "#66CCEE", "#BBBBBB", "#000000")
LONGEST_LABEL = 7  # characters that fit a token's box
SMOOTHING = 5  # logged steps per moving average
ACCURACY = "rewards/accuracy/mean"


def draw_figures(result: QuickstartResult, folder: Path) -> list[tuple[str, Path]]:
    """Draw all figures into `folder`; returns (title, file) pairs."""
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


def _reward_curves(result: QuickstartResult) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.5))
    axes = figure.subplots()
    for cell, colour in zip(result.sweep.cells, cycle(METHOD_COLOURS), strict=False):
        for number, seed in enumerate(result.sweep.seeds):
            lines = result.runs[cell.name, seed].metrics
            logged = [(line["step"], line[ACCURACY]) for line in lines if line.get(ACCURACY) is not None]
            if not logged:
                continue
            steps, values = zip(*logged, strict=True)
            smooth = _moving_average(values)
            axes.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
            label = cell.name.upper() if number == 0 else None
            axes.plot(steps[len(steps) - len(smooth) :], smooth, color=colour, label=label)
    axes.set_xlabel("update")
    axes.set_ylabel("accuracy of sampled responses")
    axes.set_title(f"Training rows, moving average over {SMOOTHING} rollouts")
    axes.legend()
    return figure


def _deviations(result: QuickstartResult) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2))
    panels = figure.subplots(1, 2)
    for axes, statistic in zip(panels, ("mean", "max"), strict=True):
        values = np.array([getattr(deviation, statistic) for deviation in result.deviations])
        scores = [response.score for response in result.responses]
        edges = np.histogram_bin_edges(values, bins=40)
        for name, score in (("right", 1.0), ("wrong", 0.0)):
            selected = values[[response_score == score for response_score in scores]]
            if len(selected):
                label = f"{name} ({len(selected)})"
                axes.hist(selected, bins=edges, density=True, alpha=0.55, color=COLOURS[name], label=label)
        value = result.auc[statistic]["within_groups"]["auc"]
        axes.set_title(f"{statistic} over tokens" + ("" if value is None else f", AUC within a prompt {value:.3f}"))
        axes.set_xlabel("deviation from the flow")
        axes.legend()
    panels[0].set_ylabel("density")
    return figure


def _tokens(result: QuickstartResult) -> "Figure":
    """Responses of the base policy: each token is coloured by its flow reward, with the deviation below it."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(result.start.name)
    options = FlowOptions()
    picks = _some_right_and_wrong(result)
    longest = max(len(result.responses[index].ids) for index in picks)
    colours = ScalarMappable(Normalize(-options.flow_coef, options.flow_coef), cmap="PuOr")
    figure = Figure(figsize=(3 + 0.42 * longest, 0.6 * len(picks) + 0.6))
    axes = figure.subplots()
    axes.axis("off")
    for line, index in enumerate(picks):
        deviation = result.deviations[index]
        rewards = flow_rewards(deviation.scores[None], deviation.mask[None], **options.shaping())
        _draw_response(axes, tokenizer, result, index, rewards[0], colours, y=-line)
    axes.set_xlim(-3, longest + 0.1)
    axes.set_ylim(-len(picks) + 0.6, 0.6)
    figure.colorbar(colours, ax=axes, label="flow reward", shrink=0.8)
    return figure


def _some_right_and_wrong(result: QuickstartResult) -> list[int]:
    """Indices of the first right and the first wrong responses, half of the number to show each."""
    half = result.recipe.coloured_responses // 2
    picks = []
    for score in (1.0, 0.0):
        picks += [index for index, response in enumerate(result.responses) if response.score == score][:half]
    return picks or [0]


def _draw_response(
    axes: "Axes",
    tokenizer: "PreTrainedTokenizerBase",
    result: QuickstartResult,
    index: int,
    rewards: torch.Tensor,
    colours: "ScalarMappable",
    y: float,
) -> None:
    """Draw one line of token boxes from x = 0, with the gold answer and the verdict to the left."""
    from matplotlib.patches import Rectangle

    response, deviation = result.responses[index], result.deviations[index]
    verdict = {1.0: "right", 0.0: "wrong", None: "undecided"}[response.score]
    gold = result.measured[index]["answer"]
    colour = COLOURS.get(verdict, "black")
    axes.text(-0.2, y + 0.2, f"gold {gold}, {verdict}", ha="right", va="center", fontsize=8, color=colour)
    fills = colours.to_rgba(rewards.double().numpy())
    for position, token in enumerate(response.ids):
        fill = fills[position]
        axes.add_patch(Rectangle((position, y), 1, 0.42, facecolor=fill, edgecolor="0.7", linewidth=0.5))
        ink = "white" if sum(fill[:3]) < 1.2 else "black"
        label = _printable(tokenizer.decode([token]))
        label = label if len(label) <= LONGEST_LABEL else f"{label[: LONGEST_LABEL - 1]}…"
        axes.text(position + 0.5, y + 0.21, label, ha="center", va="center", fontsize=6, color=ink, family="monospace")
        if deviation.mask[position]:
            score = f"{deviation.scores[position]:.1f}"
            axes.text(position + 0.5, y - 0.12, score, ha="center", va="center", fontsize=5.5, color="0.4")


def _printable(token: str) -> str:
    """Format a token as a label: spaces visible, special tokens as "end", nothing that matplotlib interprets."""
    if token.startswith("<|"):
        return "end"
    text = "".join(c if c.isprintable() and c != "\ufffd" else "?" for c in token.replace(" ", "␣"))
    return text.replace("$", r"\$")
