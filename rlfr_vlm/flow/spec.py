"""What a field was fitted on, stored beside its weights, and whether it fits a policy."""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError
from rlfr_vlm.flow.pairing import CONTEXT_MODES, ContextMode, FlowInputs, pair_tokens
from rlfr_vlm.provenance import short_hash

logger = logging.getLogger(__name__)


def resolve_layers(percentiles: Sequence[float], num_layers: int) -> tuple[int, ...]:
    """Decoder blocks, counted from 1, at the given shares of the depth: round(p * num_layers), at least 1.

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


def policy_config_hash(text_config: Any) -> str:
    """Short hash of the sizes that define the language tower, equal for every checkpoint of one architecture."""
    names = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
             "intermediate_size", "vocab_size", "rms_norm_eps", "tie_word_embeddings")  # fmt: skip
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
        layer_indices: the blocks they resolve to, counted from 1.
        context_mode, shift: how tokens are paired (see `rlfr_vlm.flow.pairing`).
        image_context: whether the field also takes the mean latent of the image tokens.
        eps: RMSNorm epsilon.
        policy_name, policy_config_hash: the policy the latents came from.
        data, steps, final_loss: what it was fitted on, for how long, and the held-out loss reached.
        latent_mean, latent_std: per-layer statistics, when latents are normalised before the field sees them.
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

    def __post_init__(self) -> None:
        if self.context_mode not in CONTEXT_MODES:
            raise UserError(f"Unknown context mode {self.context_mode!r}; choose one of {', '.join(CONTEXT_MODES)}.")
        if self.shift < 1:
            raise UserError(f"shift is {self.shift}; a token's partner is at least 1 away. Set shift to 1 or more.")
        for name in ("layer_percentiles", "layer_indices", "latent_mean", "latent_std"):
            value = getattr(self, name)
            setattr(self, name, None if value is None else tuple(value))

    @classmethod
    def for_policy(
        cls, text_config: Any, policy_name: str, depth: int, percentiles: Sequence[float], **others: Any
    ) -> "FlowSpec":
        """The spec of a new field for a policy with this text config."""
        return cls(
            hidden_size=text_config.hidden_size,
            depth=depth,
            num_layers=text_config.num_hidden_layers,
            layer_percentiles=tuple(percentiles),
            layer_indices=resolve_layers(percentiles, text_config.num_hidden_layers),
            eps=getattr(text_config, "rms_norm_eps", 1e-6),
            policy_name=policy_name,
            policy_config_hash=policy_config_hash(text_config),
            **others,
        )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "FlowSpec":
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise UserError(f"The flow spec has unknown entries: {', '.join(unknown)}. It may need a newer rlfr-vlm.")
        try:
            return cls(**values)
        except TypeError as error:
            raise UserError(f"The flow spec is incomplete: {error}.") from None

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def inputs(self, hidden: Tensor, valid: Tensor, num_response: int, image: Tensor | None = None) -> FlowInputs:
        """Normalise captured latents if the field wants it, and pair them.

        Args:
            hidden: (L, B, S, D) captured latents (see `rlfr_vlm.models.latents`).
            valid: (B, S) bool, False at padding.
            num_response: T.
            image: (L, B, D) or None.
        """
        hidden, image = self._normalise(hidden), None if image is None else self._normalise(image)
        target, cond, mask = pair_tokens(hidden, valid.bool(), num_response, self.context_mode, self.shift)
        positions = torch.tensor([i / self.num_layers for i in self.layer_indices], device=hidden.device)
        return FlowInputs(target, cond, mask, positions, image)

    def _normalise(self, latents: Tensor) -> Tensor:
        if self.latent_mean is None or self.latent_std is None:
            return latents
        shape = (-1,) + (1,) * (latents.ndim - 1)
        mean = torch.tensor(self.latent_mean, device=latents.device).view(shape)
        std = torch.tensor(self.latent_std, device=latents.device).view(shape)
        return (latents.float() - mean) / std


def check_fits_policy(spec: FlowSpec, text_config: Any, policy_name: str, has_vision: bool = True) -> None:
    """Refuse a field that cannot have been fitted on this policy.

    Args:
        has_vision: whether the policy takes images; a field with image context needs that.

    Raises:
        UserError: naming the field's side and the policy's side of each difference.
    """
    sides = [
        ("hidden width", spec.hidden_size, text_config.hidden_size),
        ("number of layers", spec.num_layers, text_config.num_hidden_layers),
        (
            "blocks",
            list(spec.layer_indices),
            list(resolve_layers(spec.layer_percentiles, text_config.num_hidden_layers)),
        ),
    ]
    differences = [f"{what}: field {ours}, policy {theirs}" for what, ours, theirs in sides if ours != theirs]
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
            "depth; its deviations may mean little here.", spec.policy_name, policy_name,
        )  # fmt: skip


def check_context(spec: FlowSpec, mode: str, shift: int) -> None:
    """Refuse to score with another pairing than the field was fitted with (RLFR's release does just that)."""
    if (spec.context_mode, spec.shift) != (mode, shift):
        raise UserError(
            f"The flow field was fitted with context {spec.context_mode} (shift {spec.shift}), the configuration asks "
            f"for {mode} (shift {shift}). Set flow_context_mode: {spec.context_mode} and flow_shift: {spec.shift}, or "
            "fit a field in the mode you want."
        )


def check_same_field(ours: FlowSpec, saved: FlowSpec, where: str) -> None:
    """Refuse to continue a field from a checkpoint of another one."""
    names = ("hidden_size", "depth", "num_layers", "layer_indices", "context_mode", "shift", "image_context")
    differences = [
        f"{name}: here {getattr(ours, name)}, checkpoint {getattr(saved, name)}"
        for name in names
        if getattr(ours, name) != getattr(saved, name)
    ]
    if differences:
        raise UserError(
            f"The flow field in {where} is another one: {'; '.join(differences)}. Use the settings it was made with, "
            "or start anew without --resume."
        )
