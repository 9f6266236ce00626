"""Measure the deviation of responses from a flow field, and the AUC with which it tells wrong from right.

Letters: S timesteps, L hooked layers, B responses of a batch, P sequence length, T response tokens, D hidden width.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NotRequired, TypedDict

import torch
from torch import Tensor

from rlfr_vlm.data.encode import Encoded, append_responses, encode_prompts, tokenizer_of
from rlfr_vlm.data.rows import Row
from rlfr_vlm.evaluate import Response
from rlfr_vlm.flow import FlowSpec, VelocityField, layer_deviations
from rlfr_vlm.flow.pairing import FlowInputs, context_lead
from rlfr_vlm.models import family_of
from rlfr_vlm.models.latents import Latents, capture_latents, only_first_blocks
from rlfr_vlm.models.towers import unwrap
from rlfr_vlm.stats import auc, auc_interval, within_group_auc

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


class WithinGroups(TypedDict):
    """AUC over pairs of responses to the same prompt, its 95 % interval, prompts with both kinds, and pairs."""

    auc: float | None
    ci95: list[float]
    groups: int
    pairs: int


class AucRow(TypedDict):
    """Area under the ROC curve, its 95 % interval [low, high], and the numbers of wrong and right responses.

    Attributes:
        within_groups: only pairs of the same prompt, which are what training can use; absent if the prompts were not
            given.
    """

    auc: float | None
    ci95: list[float] | None
    n_wrong: int
    n_right: int
    within_groups: NotRequired[WithinGroups]


@dataclass
class ResponseDeviation:
    """Deviations of the tokens of one response.

    Attributes:
        deviations: (S, L, T), 0 at tokens outside `mask`.
        mask: (T,) bool, True at tokens that have a partner.
        entropies: (T,) nats, of the distribution each token was drawn from, or None if not measured.
        norms: (L, T) root mean square over D of the raw latents, or None if not measured.
    """

    deviations: Tensor
    mask: Tensor
    entropies: Tensor | None = None
    norms: Tensor | None = None

    @property
    def scores(self) -> Tensor:
        """Deviation (T,) of each token: the mean over timesteps and layers."""
        return self.deviations.mean(dim=(0, 1))

    @property
    def mean(self) -> float:
        """Mean of `scores` over the tokens of `mask`; 0 if there are none."""
        return self.scores[self.mask].mean().item() if self.mask.any() else 0.0

    @property
    def max(self) -> float:
        """Largest of `scores` over the tokens of `mask`; 0 if there are none."""
        return self.scores[self.mask].max().item() if self.mask.any() else 0.0

    def by_layer(self, timesteps: Sequence[int]) -> Tensor:
        """Mean (L, T) over the timesteps with these indices."""
        return self.deviations[list(timesteps)].mean(dim=0)

    def select(self, timestep: int, layer: int | None = None) -> "ResponseDeviation":
        """The same response at one timestep and one layer (an index of L), or at all layers."""
        layers = slice(None) if layer is None else slice(layer, layer + 1)
        return ResponseDeviation(self.deviations[timestep : timestep + 1, layers], self.mask)


def flow_inputs_of(policy: "PreTrainedModel", batch: Encoded, spec: FlowSpec) -> FlowInputs:
    """Latents of the responses of `batch` under `policy`, paired for `spec`, without gradient.

    The forward pass ends at the deepest hooked block and computes no logits.
    """
    return _pair(_shallow_pass(policy, batch, spec), batch, spec)


@torch.no_grad()
def response_deviations(
    policy: "PreTrainedModel",
    processing_class: "PreTrainedTokenizerBase | ProcessorMixin",
    rows: Sequence[Row],
    responses: Sequence[Response],
    field: VelocityField,
    spec: FlowSpec,
    *,
    timesteps: Sequence[float] = (0.8,),
    seed: int = 0,
    batch_size: int = 256,
    with_entropies: bool = False,
    with_norms: bool = False,
    progress: str = "",
) -> list[ResponseDeviation]:
    """Measure how far each token of each response deviates from a flow field.

    Args:
        policy: the model whose latents are measured, on its device and in evaluation mode.
        processing_class: processor or tokenizer of the policy.
        rows: data rows with `prompt` (messages) and optional `images`.
        responses: one per row, each with at least one token.
        field: a flow field fitted to latents of this policy, on the same device.
        spec: specification of the field, as `load_field` returns it.
        timesteps: S values in [0, 1); all use the same noise. RLFR rewards 0.8.
        seed: of the noise; the same seed and batch size draw the same noise.
        batch_size: responses per forward pass.
        with_entropies: also measure entropies. Needs a full forward pass, with logits of the response tokens.
        with_norms: also measure the norms of the raw latents.
        progress: label of a progress bar; none is shown without a label or for a single batch.

    Returns:
        One `ResponseDeviation` per response, on the CPU: `deviations` (S, L, T) and `mask` (T,), with T the number of
        tokens of that response, and `entropies` (T,) and `norms` (L, T) if asked for.
    """
    from tqdm import tqdm

    generator = torch.Generator(device=policy.device).manual_seed(seed)
    pad = tokenizer_of(processing_class).pad_token_id
    results: list[ResponseDeviation] = []
    hidden_bar = not progress or len(rows) <= batch_size
    for start in tqdm(range(0, len(rows), batch_size), desc=progress, unit="batch", disable=hidden_bar):
        indices = range(start, min(start + batch_size, len(rows)))
        prompts = encode_prompts(processing_class, [rows[i] for i in indices])
        batch = append_responses(prompts, [responses[i].ids for i in indices], pad).to(policy.device)
        entropies = None
        if with_entropies:
            latents, entropies = _full_pass(policy, batch, spec)
        else:
            latents = _shallow_pass(policy, batch, spec)
        inputs = _pair(latents, batch, spec)
        deviations = layer_deviations(field, inputs, timesteps, generator=generator).cpu()
        norms = _root_mean_squares(latents, batch) if with_norms else None
        lengths = [len(responses[i].ids) for i in indices]
        results += _split_rows(lengths, deviations, inputs.mask, entropies, norms)
    return results


def _split_rows(
    lengths: Sequence[int], deviations: Tensor, mask: Tensor, entropies: Tensor | None, norms: Tensor | None
) -> list[ResponseDeviation]:
    """Split the measurements of a batch into one `ResponseDeviation` per response, without padding, on the CPU.

    Args:
        lengths: number of tokens of each response.
        deviations: (S, L, B, T).
        mask: (B, T).
        entropies: (B, T), or None.
        norms: (L, B, T), or None.
    """
    return [
        ResponseDeviation(
            deviations[:, :, row, :length],
            mask[row, :length].cpu(),
            None if entropies is None else entropies[row, :length].cpu(),
            None if norms is None else norms[:, row, :length],
        )
        for row, length in enumerate(lengths)
    ]


def correctness_auc(
    deviations: Sequence[ResponseDeviation], responses: Sequence[Response], groups: Sequence[int] | None = None
) -> dict[str, AucRow]:
    """AUC of the deviation of a response (mean and maximum over its tokens), wrong above right.

    The AUC over all pairs includes how hard prompts are; `within_groups` compares responses to the same prompt.
    Undecided responses are left out. The interval is that of Hanley and McNeil at 95 %. AUC and interval are None if
    no response is wrong or none is right.

    Args:
        groups: number of the prompt of each response; None leaves `within_groups` out.

    Returns:
        For each of `mean` and `max`: `auc`, `ci95` ([low, high]), `n_wrong`, `n_right` and `within_groups`.
    """
    table: dict[str, AucRow] = {}
    for statistic in ("mean", "max"):
        values: dict[float, list[float]] = {0.0: [], 1.0: []}
        for deviation, response in zip(deviations, responses, strict=True):
            if response.score in values:
                values[response.score].append(getattr(deviation, statistic))
        value = auc(torch.tensor(values[0.0]), torch.tensor(values[1.0]))
        counts = len(values[0.0]), len(values[1.0])
        interval = None if value is None else list(auc_interval(value, *counts))
        table[statistic] = {"auc": value, "ci95": interval, "n_wrong": counts[0], "n_right": counts[1]}
        if groups is not None:
            scores = torch.tensor([getattr(deviation, statistic) for deviation in deviations])
            outcomes = torch.tensor([math.nan if one.score is None else one.score for one in responses])
            within = within_group_auc(scores, outcomes == 0, outcomes == 1, torch.tensor(groups))
            table[statistic]["within_groups"] = {
                "auc": within.value,
                "ci95": [within.low, within.high],
                "groups": within.groups,
                "pairs": within.pairs,
            }
    return table


def _image_mask(policy: "PreTrainedModel", batch: Encoded, spec: FlowSpec) -> Tensor | None:
    """Image tokens (B, P) of the batch, or None if the field takes no image context or the policy no images."""
    image_token = family_of(policy).image_token_id(unwrap(policy).config)
    return batch.input_ids == image_token if spec.image_context and image_token is not None else None


def _captured_positions(batch: Encoded, spec: FlowSpec) -> int:
    """Number of last positions whose latents are needed: the response and its context lead."""
    return batch.completion_mask.shape[1] + context_lead(spec.context_mode, spec.shift)


@torch.no_grad()
def _shallow_pass(policy: "PreTrainedModel", batch: Encoded, spec: FlowSpec) -> Latents:
    """Latents of a forward pass that ends at the deepest hooked block."""
    last, image_mask = _captured_positions(batch, spec), _image_mask(policy, batch, spec)
    with (
        only_first_blocks(policy, max(spec.layer_indices)) as backbone,
        capture_latents(policy, spec.layer_indices, last, image_mask=image_mask) as captured,
    ):
        backbone(**batch.model_inputs(), use_cache=False)
    return captured[0]


@torch.no_grad()
def _full_pass(policy: "PreTrainedModel", batch: Encoded, spec: FlowSpec) -> tuple[Latents, Tensor]:
    """Latents, and entropies (B, T) of the distribution each response token was drawn from, of a full forward pass."""
    last, image_mask = _captured_positions(batch, spec), _image_mask(policy, batch, spec)
    kept_logits = batch.completion_mask.shape[1] + 1  # the first response token is drawn at the last prompt token
    with capture_latents(policy, spec.layer_indices, last, image_mask=image_mask) as captured:
        output = policy(**batch.model_inputs(), use_cache=False, logits_to_keep=kept_logits)
    entropies = torch.distributions.Categorical(logits=output.logits[:, :-1].float()).entropy()
    return captured[0], entropies


def _pair(latents: Latents, batch: Encoded, spec: FlowSpec) -> FlowInputs:
    """Field inputs of captured latents."""
    valid = batch.attention_mask[:, -latents.hidden.shape[2] :]
    return spec.inputs(latents.hidden, valid, batch.completion_mask.shape[1], latents.image)


def _root_mean_squares(latents: Latents, batch: Encoded) -> Tensor:
    """Root mean square (L, B, T) over D of the latents of the response tokens, on the CPU."""
    hidden = latents.hidden[:, :, -batch.completion_mask.shape[1] :]
    return hidden.float().square().mean(dim=-1).sqrt().cpu()
