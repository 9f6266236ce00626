"""The specification of a field, stored beside its weights, and checks that a field fits a policy."""

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.flow.pairing import CONTEXT_MODES, ContextMode, FlowInputs, context_lead, pair_tokens
from rlfr_vlm.provenance import short_hash

logger = logging.getLogger(__name__)

Reference = Literal["expert", "own", "contrast"]
REFERENCES: tuple[str, ...] = get_args(Reference)
LatentForm = Literal["raw", "sphere", "minus_prompt"]
LATENT_FORMS: tuple[str, ...] = get_args(LatentForm)


def resolve_layers(percentiles: Sequence[float], num_layers: int) -> tuple[int, ...]:
    """Return the decoder blocks, counted from 1, at shares p of the depth: round(p * num_layers), at least 1.

    Raises:
        UserError: a share is outside (0, 1], there is none, or two of them give the same block.

    >>> resolve_layers((0.25, 0.5, 0.75), 36)
    (9, 18, 27)
    """
    for p in percentiles:
        if not 0 < p <= 1:
            raise UserError(
                f"Layer percentile {p} is outside (0, 1]. Set flow_layers to shares such as 0.25 0.5 0.75."
            )
    indices = tuple(max(1, round(p * num_layers)) for p in percentiles)
    if not indices or len(set(indices)) != len(indices):
        raise UserError(
            f"Layer percentiles {list(percentiles)} name the blocks {list(indices)} of a policy with {num_layers} "
            "layers; each block may stand once and there must be at least one. Set flow_layers accordingly."
        )
    return indices


class TextConfig(Protocol):
    """Sizes of a policy's language tower, as transformers' text configurations have them."""

    hidden_size: int
    num_hidden_layers: int


def policy_config_hash(text_config: TextConfig) -> str:
    """Return a short hash of the language tower's sizes, which is equal for all checkpoints of one architecture."""
    names = (
        "model_type",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "intermediate_size",
        "vocab_size",
        "rms_norm_eps",
        "tie_word_embeddings",
    )
    sizes = {name: getattr(text_config, name, None) for name in names}
    return short_hash(sizes)


@dataclass
class FlowSpec:
    """Everything besides the weights that is needed to use a field.

    Attributes:
        hidden_size: D.
        depth: number of residual blocks.
        num_layers: decoder blocks of the policy.
        layer_percentiles: shares of the depth at which latents are taken.
        layer_indices: decoder blocks at those shares, counted from 1.
        context_mode, shift: pairing of the tokens (see `rlfr_vlm.flow.pairing`).
        image_context: whether the field also takes the mean latent of the image tokens.
        eps: RMSNorm epsilon.
        policy_name, policy_config_hash: the policy that gave the latents.
        data, steps, final_loss: description of the data, training steps, and the final held-out loss.
        latent_mean, latent_std: per-layer statistics with which latents are normalised; None without normalisation.
        reference: what the field was fitted on: an expert's responses, the policy's own ones, or both the right and
            the wrong ones of the policy, told apart by a class input (contrast).
        latents: form of the latents: raw; sphere (scaled to root mean square 1); minus_prompt (minus the mean latent
            of the prompt's tokens). Statistics are taken after that.
        recommended: what `rlfr inspect --grid` found to tell right from wrong best; None before.
    """

    hidden_size: int
    depth: int
    num_layers: int
    layer_percentiles: tuple[float, ...]
    layer_indices: tuple[int, ...]
    context_mode: ContextMode = "token_pre"
    shift: int = 1
    image_context: bool = False
    eps: float = 1e-6
    policy_name: str = ""
    policy_config_hash: str = ""
    data: str = ""
    steps: int = 0
    final_loss: float | None = None
    latent_mean: tuple[float, ...] | None = None
    latent_std: tuple[float, ...] | None = None
    reference: Reference = "expert"
    latents: LatentForm = "raw"
    recommended: JsonObject | None = None

    def __post_init__(self) -> None:
        if self.context_mode not in CONTEXT_MODES:
            raise UserError(f"Unknown context mode {self.context_mode!r}; choose one of {', '.join(CONTEXT_MODES)}.")
        for name, known in (("reference", REFERENCES), ("latents", LATENT_FORMS)):
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"The flow spec has {name} {value!r}; it must be one of {', '.join(known)}.")
        if self.shift < 1:
            raise UserError(
                f"shift is {self.shift}; the conditioning token is at least 1 away. Set shift to 1 or more."
            )
        for name in ("layer_percentiles", "layer_indices", "latent_mean", "latent_std"):
            value = getattr(self, name)
            if value is not None and not _is_list_of_numbers(value):
                raise UserError(f"The flow spec has {name} {value!r}; it must be a list of finite numbers.")
            setattr(self, name, None if value is None else tuple(value))
        self._check_sizes()
        self._check_statistics()

    def _check_sizes(self) -> None:
        """Refuse sizes that no field has."""
        for name in ("hidden_size", "depth", "num_layers"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise UserError(f"The flow spec has {name} {value!r}; it must be a whole number from 1 on.")
        if not isinstance(self.eps, int | float) or not 0 < self.eps < 1:
            raise UserError(f"The flow spec has eps {self.eps!r}; it must lie between 0 and 1.")
        blocks = self.layer_indices
        if len(blocks) != len(self.layer_percentiles) or not all(1 <= block <= self.num_layers for block in blocks):
            raise UserError(
                f"The flow spec has layer_indices {list(blocks)} and layer_percentiles "
                f"{list(self.layer_percentiles)}; there must be as many of both, and each block one of 1 to "
                f"num_layers ({self.num_layers})."
            )

    def _check_statistics(self) -> None:
        """Refuse statistics that cannot normalise latents."""
        mean, std = self.latent_mean, self.latent_std
        if mean is None and std is None:
            return
        if mean is None or std is None or not len(mean) == len(std) == len(self.layer_indices):
            raise UserError(
                f"The flow spec has latent_mean {mean} and latent_std {std}; it needs both or neither, with a value "
                f"for each of its {len(self.layer_indices)} layers."
            )
        if not all(value > 0 for value in std):
            raise UserError(
                f"The flow spec has latent_std {list(std)}; latents are divided by it. Fit the field again."
            )

    @classmethod
    def for_policy(
        cls, text_config: TextConfig, policy_name: str, depth: int, percentiles: Sequence[float], **fields: Any
    ) -> "FlowSpec":
        """Return the spec of a new field for a policy with this text config.

        Args:
            percentiles: shares of the depth at which latents are taken.
            fields: further attributes of the spec.
        """
        return cls(
            hidden_size=text_config.hidden_size,
            depth=depth,
            num_layers=text_config.num_hidden_layers,
            layer_percentiles=tuple(percentiles),
            layer_indices=resolve_layers(percentiles, text_config.num_hidden_layers),
            eps=getattr(text_config, "rms_norm_eps", 1e-6),
            policy_name=policy_name,
            policy_config_hash=policy_config_hash(text_config),
            **fields,
        )

    @classmethod
    def from_dict(cls, values: JsonObject) -> "FlowSpec":
        names = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - names):
            raise UserError(f"The flow spec has unknown entries: {', '.join(unknown)}. It may need a newer rlfr-vlm.")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"The flow spec is incomplete: {error}.") from None

    def to_dict(self) -> JsonObject:
        return dataclasses.asdict(self)

    @property
    def is_contrast(self) -> bool:
        """Whether the field has a class input for right and wrong responses."""
        return self.reference == "contrast"

    @property
    def capture_key(self) -> tuple[object, ...]:
        """What of a forward pass the field needs; fields with equal keys can share one."""
        lead = context_lead(self.context_mode, self.shift)
        return self.layer_indices, lead, self.image_context, self.needs_prompt_mean

    @property
    def needs_prompt_mean(self) -> bool:
        """Whether the mean latent of the prompt's tokens must be captured."""
        return self.latents == "minus_prompt"

    def inputs(
        self,
        hidden: Tensor,
        valid: Tensor,
        num_response: int,
        image: Tensor | None = None,
        prompt: Tensor | None = None,
    ) -> FlowInputs:
        """Pair captured latents, in the form of the spec and normalised if it has statistics.

        Args:
            hidden: (L, B, S, D) captured latents (see `rlfr_vlm.models.latents`).
            valid: (B, S) bool, False at padding.
            num_response: T.
            image: (L, B, D) or None.
            prompt: (L, B, D) mean latents of the prompts, which minus_prompt needs.
        """
        hidden = self._normalise(self._in_form(hidden, prompt))
        image = None if image is None else self._normalise(self._in_form(image, prompt))
        target, cond, mask = pair_tokens(hidden, valid.bool(), num_response, self.context_mode, self.shift)
        positions = torch.tensor([i / self.num_layers for i in self.layer_indices], device=hidden.device)
        return FlowInputs(target, cond, mask, positions, image)

    def _in_form(self, latents: Tensor, prompt: Tensor | None) -> Tensor:
        """Latents (L, B, ..., D) in the form of the spec."""
        if self.latents == "sphere":
            values = latents.float()
            return values * values.square().mean(dim=-1, keepdim=True).clamp(min=1e-12).rsqrt()
        if self.latents == "minus_prompt":
            assert prompt is not None
            return latents - (prompt if latents.dim() == prompt.dim() else prompt.unsqueeze(2))
        return latents

    def _normalise(self, latents: Tensor) -> Tensor:
        if self.latent_mean is None or self.latent_std is None:
            return latents
        shape = (-1,) + (1,) * (latents.ndim - 1)
        mean = torch.tensor(self.latent_mean, device=latents.device).view(shape)
        std = torch.tensor(self.latent_std, device=latents.device).view(shape)
        return (latents.float() - mean) / std


def _is_list_of_numbers(value: object) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number) for number in value
    )


def check_fits_policy(spec: FlowSpec, text_config: TextConfig, policy_name: str, has_vision: bool = True) -> None:
    """Refuse a field that cannot have been fitted on this policy.

    Args:
        has_vision: whether the policy takes images, as a field with image context needs.

    Raises:
        UserError: names the values of the field and of the policy that differ.
    """
    pairs = [
        ("hidden width", spec.hidden_size, text_config.hidden_size),
        ("number of layers", spec.num_layers, text_config.num_hidden_layers),
        (
            "blocks",
            list(spec.layer_indices),
            list(resolve_layers(spec.layer_percentiles, text_config.num_hidden_layers)),
        ),
    ]
    differences = [f"{name}: field {field}, policy {policy}" for name, field, policy in pairs if field != policy]
    if differences:
        raise UserError(
            f"The flow field was fitted on {spec.policy_name or 'another policy'} and does not fit {policy_name}: "
            f"{'; '.join(differences)}. Fit one for this policy with `rlfr fit-flow`."
        )
    if spec.image_context and not has_vision:
        raise UserError(
            f"The flow field takes image context, but {policy_name} is a text-only policy. Fit one without."
        )
    if spec.policy_config_hash and spec.policy_config_hash != policy_config_hash(text_config):
        logger.warning(
            "The flow field was fitted on %s, whose architecture differs from %s in something besides width and "
            "depth; its deviations may mean little here.",
            spec.policy_name,
            policy_name,
        )
    elif spec.policy_name and PurePath(spec.policy_name).name != PurePath(policy_name).name:
        logger.warning(
            "The flow field was fitted on %s, and the policy is %s, of the same sizes. If the policy does not "
            "continue that one's weights, its deviations mean nothing: fit a field on it.",
            spec.policy_name,
            policy_name,
        )


def check_context(spec: FlowSpec, mode: str, shift: int) -> None:
    """Refuse to score with a pairing that the field was not fitted with, as RLFR's release does without notice.

    Raises:
        UserError: mode or shift differ.
    """
    if (spec.context_mode, spec.shift) != (mode, shift):
        raise UserError(
            f"The flow field was fitted with context {spec.context_mode} (shift {spec.shift}), the configuration asks "
            f"for {mode} (shift {shift}). Set flow_context_mode: {spec.context_mode} and flow_shift: {spec.shift}, or "
            "fit a field in the mode you want."
        )


def check_same_field(current: FlowSpec, saved: FlowSpec, where: str) -> None:
    """Refuse to continue a field from the checkpoint of a different field.

    Args:
        current: spec of the run's field.
        saved: spec in the checkpoint.
        where: name of the checkpoint, for the message.

    Raises:
        UserError: names the values that differ.
    """
    names = (
        "hidden_size",
        "depth",
        "num_layers",
        "layer_indices",
        "context_mode",
        "shift",
        "image_context",
        "reference",
        "latents",
    )
    differences = [
        f"{name}: here {getattr(current, name)}, checkpoint {getattr(saved, name)}"
        for name in names
        if getattr(current, name) != getattr(saved, name)
    ]
    if differences:
        raise UserError(
            f"The flow field in {where} is another one: {'; '.join(differences)}. Use the settings it was made with, "
            "or start anew without --resume."
        )
