"""How far given responses deviate from a flow field, and whether that tells right from wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlfr_vlm.data.encode import append_responses, encode_prompts, tokenizer_of
from rlfr_vlm.evaluate import Response
from rlfr_vlm.flow import FlowSpec, VelocityField, velocity_deviation
from rlfr_vlm.stats import auc, auc_interval
from rlfr_vlm.trainer.flow_fit_trainer import flow_inputs_of


@dataclass
class ResponseDeviation:
    """Deviation (T,) of each token of one response, and the mask (T,) of tokens that have one."""

    scores: Tensor
    mask: Tensor

    @property
    def mean(self) -> float:
        return self.scores[self.mask].mean().item() if self.mask.any() else 0.0

    @property
    def max(self) -> float:
        return self.scores[self.mask].max().item() if self.mask.any() else 0.0


def response_deviations(
    policy: Any,
    processing_class: Any,
    rows: Sequence[dict[str, Any]],
    responses: Sequence[Response],
    field: VelocityField,
    spec: FlowSpec,
    *,
    timesteps: Sequence[float] = (0.8,),
    seed: int = 0,
    batch_size: int = 256,
) -> list[ResponseDeviation]:
    """Deviations of `responses` to `rows`, under the latents of `policy`."""
    generator = torch.Generator(device=policy.device).manual_seed(seed)
    deviations: list[ResponseDeviation] = []
    for start in range(0, len(rows), batch_size):
        chunk = range(start, min(start + batch_size, len(rows)))
        prompts = encode_prompts(processing_class, [rows[i] for i in chunk])
        pad = tokenizer_of(processing_class).pad_token_id
        batch = append_responses(prompts, [responses[i].ids for i in chunk], pad).to(policy.device)
        inputs = flow_inputs_of(policy, batch, spec)
        scores = velocity_deviation(field, inputs, timesteps, generator=generator).cpu()
        deviations += [ResponseDeviation(s, m) for s, m in zip(scores, inputs.mask.cpu(), strict=True)]
    return deviations


def correctness_auc(
    deviations: Sequence[ResponseDeviation], responses: Sequence[Response]
) -> dict[str, dict[str, Any]]:
    """AUC of response deviation (mean and maximum over tokens) for wrong above right, with its 95 % interval."""
    result: dict[str, dict[str, Any]] = {}
    for statistic in ("mean", "max"):
        values = {
            score: torch.tensor([getattr(d, statistic) for d, r in zip(deviations, responses, strict=True)
                                 if r.score == score])
            for score in (0.0, 1.0)
        }  # fmt: skip
        value = auc(values[0.0], values[1.0])
        counts = len(values[0.0]), len(values[1.0])
        interval = None if value is None else list(auc_interval(value, *counts))
        result[statistic] = {"auc": value, "ci95": interval, "n_wrong": counts[0], "n_right": counts[1]}
    return result
