"""Yardsticks beside the deviation: what simpler numbers of the same responses say about right and wrong."""

from collections.abc import Sequence

import numpy as np
import torch

from rlfr_vlm.correctness_auc import AucRow, Outcomes, WithinGroups
from rlfr_vlm.deviation import ResponseDeviation
from rlfr_vlm.evaluate import Response

FOLDS = 5
PENALTY = 0.1  # inverse strength of the linear head's L2 penalty; there are few responses and many channels


class Yardstick(AucRow):
    """An `AucRow`, wrong above right, with the name of the number that it is measured for."""

    name: str


def yardsticks(
    deviations: Sequence[ResponseDeviation],
    responses: Sequence[Response],
    groups: Sequence[int],
    layers: Sequence[int],
) -> list[Yardstick]:
    """AUC, wrong above right, of the length, mean log-prob, mean entropy, visual dependency, and linear heads.

    The head is a logistic regression on the mean latents of a response in one layer. Each response is scored by a head
    that was fitted without the responses to its prompt. So its AUC is about what these latents say at best.

    Args:
        groups: number of the prompt of each response.
        layers: (L,) decoder blocks, counted from 1.
    """
    scores: dict[str, Sequence[float]] = {"length": [len(response.ids) for response in responses]}
    measured = [deviation.measures for deviation in deviations]
    if all(measures is not None for measures in measured):
        known = [measures for measures in measured if measures is not None]
        scores["low mean log-prob"] = [-measures.logps.mean().item() for measures in known]
        scores["mean entropy"] = [measures.entropies.mean().item() for measures in known]
        if all(measures.visual_dependency is not None for measures in known):
            dependencies = [m.visual_dependency for m in known if m.visual_dependency is not None]
            scores["low visual dependency"] = [-dependency.mean().item() for dependency in dependencies]
        latents = torch.stack([measures.mean_latents for measures in known]).numpy()
        for index, layer in enumerate(layers):
            head = head_scores(latents[:, index], responses, groups)
            if head is not None:
                scores[f"linear head on layer {layer}"] = head
    outcomes = Outcomes.of(responses, groups)
    return [
        {"name": name, **outcomes.auc(torch.tensor(values, dtype=torch.float64))} for name, values in scores.items()
    ]


def head_scores(latents: np.ndarray, responses: Sequence[Response], groups: Sequence[int]) -> list[float] | None:
    """Log-odds of being wrong, of each response, by a linear head that has not seen its prompt.

    Args:
        latents: (N, D).

    Returns:
        (N,) log-odds, 0 for undecided responses; None if there are too few prompts, or a fold has one class only.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    outcomes = Outcomes.of(responses)
    wrong, right = outcomes.wrong.numpy(), outcomes.right.numpy()
    decided = np.flatnonzero(wrong | right)
    numbers = np.array(groups)[decided]
    if len(set(numbers)) < FOLDS:
        return None
    scores = np.zeros(len(responses))
    for train, test in GroupKFold(FOLDS).split(decided, groups=numbers):
        labels = wrong[decided[train]]
        if labels.all() or not labels.any():
            return None
        head = make_pipeline(StandardScaler(), LogisticRegression(C=PENALTY, max_iter=1000))
        head.fit(latents[decided[train]], labels)
        scores[decided[test]] = head.decision_function(latents[decided[test]])
    return [float(score) for score in scores]


def within_text(within: WithinGroups) -> str:
    """The AUC of responses to the same prompt as text, with its interval and number of prompts."""
    if within["auc"] is None:
        return "undefined: no prompt has right and wrong responses; --samples sets how many each gets"
    low, high = within["ci95"]
    return f"{within['auc']:.3f} [{low:.3f}, {high:.3f}], {within['groups']} prompts with both"
