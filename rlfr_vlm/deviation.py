"""Measure the deviation of responses from a flow field, and what else their tokens say.

Letters: S timesteps, L hooked layers, B responses of a batch, P sequence length, T response tokens, D hidden width.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlfr_vlm.answer_position import token_before_answer
from rlfr_vlm.data.encode import Encoded, append_responses, encode_prompts, tokenizer_of
from rlfr_vlm.data.rows import Row
from rlfr_vlm.evaluate import Response
from rlfr_vlm.flow import FlowSpec, NoisePlan, VelocityField, layer_deviations, response_statistic
from rlfr_vlm.flow.noise import PAPER_NOISE
from rlfr_vlm.flow.pairing import FlowInputs
from rlfr_vlm.models.latents import Latents, capture_for_field, only_first_blocks
from rlfr_vlm.visual_dependency import PIXELS, blank_inputs, token_dependency

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin


@dataclass
class TokenMeasures:
    """What a full forward pass says of the tokens of one response.

    Attributes:
        entropies: (T,) nats, of the distribution each token was drawn from.
        logps: (T,) log-probability of each token at temperature 1.
        norms: (L, T) root mean square over D of the raw latents.
        mean_latents: (L, D) mean raw latents over the tokens.
        visual_dependency: (T,) nats (see `rlfr_vlm.visual_dependency`); None without images.
    """

    entropies: Tensor
    logps: Tensor
    norms: Tensor
    mean_latents: Tensor
    visual_dependency: Tensor | None = None


@dataclass
class ResponseDeviation:
    """Deviations of the tokens of one response.

    Attributes:
        deviations: (S, L, T), 0 at tokens outside `mask`.
        mask: (T,) bool, True at tokens that have a partner.
        before_answer: index of the token before the answer's marker.
        measures: what a full forward pass says; None if not asked for.
    """

    deviations: Tensor
    mask: Tensor
    before_answer: int = 0
    measures: TokenMeasures | None = None

    @property
    def scores(self) -> Tensor:
        """Deviation (T,) of each token: the mean over timesteps and layers."""
        return self.deviations.mean(dim=(0, 1))

    @property
    def entropies(self) -> Tensor | None:
        """(T,) nats, or None if not measured."""
        return None if self.measures is None else self.measures.entropies

    @property
    def mean(self) -> float:
        """Mean of `scores` over the tokens of `mask`; 0 if there are none."""
        return self._statistic("mean")

    @property
    def max(self) -> float:
        """Largest of `scores` over the tokens of `mask`; 0 if there are none."""
        return self._statistic("max")

    def _statistic(self, name: str) -> float:
        return response_statistic(self.scores[None], self.mask[None], name).item()

    def by_layer(self, timesteps: Sequence[int]) -> Tensor:
        """Mean (L, T) over the timesteps with these indices."""
        return self.deviations[list(timesteps)].mean(dim=0)

    def select(self, timesteps: int | Sequence[int], layer: int | None = None) -> "ResponseDeviation":
        """The same response at one or several timesteps and one layer (an index of L), or at all layers."""
        layers = slice(None) if layer is None else slice(layer, layer + 1)
        steps = [timesteps] if isinstance(timesteps, int) else list(timesteps)
        return ResponseDeviation(self.deviations[steps][:, layers], self.mask, self.before_answer, self.measures)


def flow_inputs_of(policy: "PreTrainedModel", batch: Encoded, spec: FlowSpec) -> FlowInputs:
    """Latents of the responses of `batch` under `policy`, paired for `spec`, without gradient.

    The forward pass ends at the deepest hooked block and computes no logits.
    """
    return _pair(_shallow_pass(policy, batch, spec), batch, spec)


def response_deviations(
    policy: "PreTrainedModel",
    processing_class: "PreTrainedTokenizerBase | ProcessorMixin",
    rows: Sequence[Row],
    responses: Sequence[Response],
    field: VelocityField,
    spec: FlowSpec,
    *,
    timesteps: Sequence[float] = (0.8,),
    noise: NoisePlan = PAPER_NOISE,
    groups: Sequence[int] | None = None,
    seed: int = 0,
    batch_size: int = 256,
    with_measures: bool = False,
    progress: str = "",
) -> list[ResponseDeviation]:
    """Measure how far each token of each response deviates from a flow field, once.

    Args:
        timesteps, noise, seed: see `Scoring`.

    Returns:
        One `ResponseDeviation` per response; further arguments and errors as for `score_responses`.
    """
    [deviations] = score_responses(
        policy,
        processing_class,
        rows,
        responses,
        [Scoring(field, spec, timesteps, noise, seed)],
        groups=groups,
        batch_size=batch_size,
        with_measures=with_measures,
        progress=progress,
    )
    return deviations


@dataclass(frozen=True)
class Scoring:
    """How responses are scored once.

    Attributes:
        field: a flow field fitted to latents of the policy, on its device.
        spec: specification of the field, as `load_field` returns it.
        timesteps: S values in [0, 1); all use the same noise. RLFR rewards 0.8.
        noise: how noise is drawn; RLFR draws once for each token.
        seed: of the noise; the same seed and batch size draw the same noise.
    """

    field: VelocityField
    spec: FlowSpec
    timesteps: Sequence[float] = (0.8,)
    noise: NoisePlan = PAPER_NOISE
    seed: int = 0


@torch.no_grad()
def score_responses(
    policy: "PreTrainedModel",
    processing_class: "PreTrainedTokenizerBase | ProcessorMixin",
    rows: Sequence[Row],
    responses: Sequence[Response],
    scorings: Sequence[Scoring],
    *,
    groups: Sequence[int] | None = None,
    batch_size: int = 256,
    with_measures: bool = False,
    progress: str = "",
) -> list[list[ResponseDeviation]]:
    """Measure how far each token of each response deviates from flow fields, in several ways.

    Fields that need the same latents share a forward pass.

    Args:
        policy: the model whose latents are measured, on its device and in evaluation mode.
        processing_class: processor or tokenizer of the policy.
        rows: data rows with `prompt` (messages) and optional `images`.
        responses: one per row, each with at least one token.
        scorings: fields, and ways to score with them.
        groups: number of the prompt of each response, which noise shared by a group needs.
        batch_size: responses per forward pass.
        with_measures: also measure `TokenMeasures`. Needs a full forward pass, with logits of the response tokens.
        progress: label of a progress bar; none is shown without a label or for a single batch.

    Returns:
        For each scoring one `ResponseDeviation` per response, on the CPU: `deviations` (S, L, T) and `mask` (T,), with
        T the number of tokens of that response.

    Raises:
        ValueError: the noise is shared by groups, and `groups` is missing.
    """
    from tqdm import tqdm

    tokenizer = tokenizer_of(processing_class)
    scorers = [_Scorer(scoring, groups, policy.device) for scoring in scorings]
    results: list[list[ResponseDeviation]] = [[] for _ in scorings]
    hidden_bar = not progress or len(rows) <= batch_size
    for start in tqdm(range(0, len(rows), batch_size), desc=progress, unit="batch", disable=hidden_bar):
        indices = range(start, min(start + batch_size, len(rows)))
        prompts = encode_prompts(processing_class, [rows[i] for i in indices])
        ids = [responses[i].ids for i in indices]
        batch = append_responses(prompts, ids, tokenizer.pad_token_id).to(policy.device)
        before_answer = [token_before_answer(tokens, tokenizer) for tokens in ids]
        passes: dict[tuple[object, ...], tuple[Latents, Sequence[TokenMeasures | None]]] = {}
        for scoring, scorer, scored in zip(scorings, scorers, results, strict=True):
            if (key := scoring.spec.capture_key) not in passes:
                passes[key] = _pass(policy, batch, scoring.spec, with_measures)
            latents, measures = passes[key]
            inputs = _pair(latents, batch, scoring.spec)
            deviations = scorer.deviations(inputs, indices).cpu()
            scored += [
                ResponseDeviation(
                    deviations[:, :, row, : len(tokens)],
                    inputs.mask[row, : len(tokens)].cpu(),
                    before_answer[row],
                    measures[row],
                )
                for row, tokens in enumerate(ids)
            ]
    return results


class _Scorer:
    """Scores batches of responses in one way; the noise of groups is drawn when it is made.

    Raises:
        ValueError: the noise is shared by groups, and `groups` is missing.
    """

    def __init__(self, scoring: Scoring, groups: Sequence[int] | None, device: torch.device) -> None:
        self.scoring = scoring
        self.generator = torch.Generator(device=device).manual_seed(scoring.seed)
        self.table: Tensor | None = None
        if scoring.noise.shared == "group":
            if groups is None:
                raise ValueError("noise that a group shares needs the number of each response's prompt (groups)")
            known = {group: number for number, group in enumerate(dict.fromkeys(groups))}
            self.numbers = [known[group] for group in groups]
            self.table = self._draw(len(known))

    def _draw(self, count: int) -> Tensor:
        layers, width = len(self.scoring.spec.layer_indices), self.scoring.spec.hidden_size
        return self.scoring.noise.draw(count, layers, width, self.generator, self.generator.device)

    def deviations(self, inputs: FlowInputs, indices: Sequence[int]) -> Tensor:
        """Deviations (S, L, B, T) of the responses with these indices."""
        noise = self.scoring.noise
        row_noise = None
        if self.table is not None:
            row_noise = self.table[:, :, [self.numbers[index] for index in indices]]
        elif noise.shared != "token":
            row_noise = self._draw(len(indices))
        return layer_deviations(
            self.scoring.field,
            inputs,
            self.scoring.timesteps,
            generator=self.generator,
            row_noise=row_noise,
            draws=noise.draws,
            antithetic=noise.uses_both_signs,
            contrast=self.scoring.spec.is_contrast,
        )


@dataclass(frozen=True)
class StackedDeviations:
    """Deviations of N responses, padded to the longest.

    Attributes:
        values: (S, L, N, T), 0 at padding.
        mask: (N, T) bool.
        before_answer: (N,) index of the token before each answer's marker.
    """

    values: Tensor
    mask: Tensor
    before_answer: Tensor

    @classmethod
    def of(cls, deviations: Sequence[ResponseDeviation]) -> "StackedDeviations":
        """Stack the deviations of at least one response."""
        longest = max(deviation.mask.shape[0] for deviation in deviations)
        mask = torch.zeros(len(deviations), longest, dtype=torch.bool)
        values = torch.zeros(*deviations[0].deviations.shape[:2], len(deviations), longest)
        for row, deviation in enumerate(deviations):
            length = deviation.mask.shape[0]
            mask[row, :length] = deviation.mask
            values[:, :, row, :length] = deviation.deviations
        return cls(values, mask, torch.tensor([deviation.before_answer for deviation in deviations]))

    def statistic(
        self, name: str, timesteps: Sequence[int] | slice = slice(None), layers: Sequence[int] | slice = slice(None)
    ) -> Tensor:
        """One of `rlfr_vlm.flow.STATISTICS` (N,) of the mean over timesteps and layers with these indices."""
        scores = self.values[timesteps][:, layers].mean(dim=(0, 1))
        return response_statistic(scores, self.mask, name, self.before_answer)


def _capture(policy: "PreTrainedModel", batch: Encoded, spec: FlowSpec) -> AbstractContextManager[list[Latents]]:
    return capture_for_field(policy, spec, batch.input_ids, batch.attention_mask, batch.completion_mask.shape[1])


def _pass(
    policy: "PreTrainedModel", batch: Encoded, spec: FlowSpec, with_measures: bool
) -> tuple[Latents, Sequence[TokenMeasures | None]]:
    """Latents of the responses, and their measures if they are asked for."""
    if with_measures:
        return _full_pass(policy, batch, spec)
    return _shallow_pass(policy, batch, spec), [None] * len(batch.input_ids)


@torch.no_grad()
def _shallow_pass(policy: "PreTrainedModel", batch: Encoded, spec: FlowSpec) -> Latents:
    """Latents of a forward pass that ends at the deepest hooked block."""
    with only_first_blocks(policy, max(spec.layer_indices)) as backbone, _capture(policy, batch, spec) as captured:
        backbone(**batch.model_inputs(), use_cache=False)
    return captured[0]


@torch.no_grad()
def _full_pass(policy: "PreTrainedModel", batch: Encoded, spec: FlowSpec) -> tuple[Latents, list[TokenMeasures]]:
    """Latents and measures of a full forward pass, and with images of one more with blank ones."""
    mask = batch.completion_mask
    kept_logits = mask.shape[1] + 1  # the first response token is drawn at the last prompt token
    with _capture(policy, batch, spec) as captured:
        output = policy(**batch.model_inputs(), use_cache=False, logits_to_keep=kept_logits)
    drawn_from = output.logits[:, :-1].float().log_softmax(dim=-1)
    dependency = None
    if any(name in batch.extra for name in PIXELS):
        blank_output = policy(**blank_inputs(batch.model_inputs()), use_cache=False, logits_to_keep=kept_logits)
        dependency = token_dependency(drawn_from, blank_output.logits[:, :-1]).cpu()
    tokens = batch.input_ids[:, -mask.shape[1] :].unsqueeze(-1)
    logps = drawn_from.gather(-1, tokens).squeeze(-1).cpu()
    entropies = torch.distributions.Categorical(logits=drawn_from).entropy().cpu()
    hidden = captured[0].hidden[:, :, -mask.shape[1] :].float()
    norms = hidden.square().mean(dim=-1).sqrt().cpu()
    means = ((hidden * mask[None, ..., None]).sum(dim=2) / mask.sum(dim=1).clamp(min=1)[:, None]).cpu()
    lengths = mask.sum(dim=1).tolist()
    measures = [
        TokenMeasures(
            entropies[row, :length],
            logps[row, :length],
            norms[:, row, :length],
            means[:, row],
            None if dependency is None else dependency[row, :length],
        )
        for row, length in enumerate(lengths)
    ]
    return captured[0], measures


def _pair(latents: Latents, batch: Encoded, spec: FlowSpec) -> FlowInputs:
    """Field inputs of captured latents."""
    valid = batch.attention_mask[:, -latents.hidden.shape[2] :]
    return spec.inputs(latents.hidden, valid, batch.completion_mask.shape[1], latents.image, latents.prompt)
