"""What a field says about a policy's responses: deviations per layer and timestep, entropies, latent norms.

Letters: S timesteps, L hooked layers, B responses, T response tokens, D hidden width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rlfr_vlm.data.encode import Encoded, append_responses, encode_prompts, tokenizer_of
from rlfr_vlm.evaluate import Response
from rlfr_vlm.flow import FlowSpec, VelocityField, layer_deviations
from rlfr_vlm.flow.pairing import context_lead
from rlfr_vlm.models.latents import Latents, capture_latents


@dataclass
class Probed:
    """One response.

    Attributes:
        deviations: (S, L, T), 0 where a token has no partner.
        mask: (T,) tokens that have one.
        entropies: (T,) nats, over the vocabulary without vision tokens.
        norms: (L, T) root mean square over D of the raw latents.
    """

    deviations: Tensor
    mask: Tensor
    entropies: Tensor
    norms: Tensor

    def layers_at(self, timesteps: Sequence[int]) -> Tensor:
        """(L, T) mean over the timesteps with these numbers."""
        return self.deviations[list(timesteps)].mean(dim=0)

    def statistic(self, name: str, scores: Tensor) -> float:
        """`mean` or `max` of scores (T,) over the tokens that have one; 0 without any."""
        own = scores[self.mask]
        return 0.0 if not len(own) else float(own.mean() if name == "mean" else own.max())


@torch.no_grad()
def probe_responses(
    policy: Any,
    processing_class: Any,
    rows: Sequence[dict[str, Any]],
    responses: Sequence[Response],
    field: VelocityField,
    spec: FlowSpec,
    timesteps: Sequence[float],
    *,
    seed: int = 0,
    batch_size: int = 8,
) -> list[Probed]:
    """Probe `responses` to `rows`, one each; the same seed draws the same noise.

    Args:
        timesteps: as of `layer_deviations`, all with the same noise.
        batch_size: responses of one forward pass.
    """
    from tqdm import tqdm

    generator = torch.Generator(device=policy.device).manual_seed(seed)
    pad = tokenizer_of(processing_class).pad_token_id
    probed: list[Probed] = []
    for start in tqdm(range(0, len(rows), batch_size), desc="probe", unit="batch", disable=len(rows) <= batch_size):
        chunk = range(start, min(start + batch_size, len(rows)))
        prompts = encode_prompts(processing_class, [rows[i] for i in chunk])
        batch = append_responses(prompts, [responses[i].ids for i in chunk], pad).to(policy.device)
        latents, entropies = _forward(policy, batch, spec)
        num_response = batch.completion_mask.shape[1]
        valid = batch.attention_mask[:, -latents.hidden.shape[2] :]
        inputs = spec.inputs(latents.hidden, valid, num_response, latents.image)
        deviations = layer_deviations(field, inputs, timesteps, generator=generator).cpu()
        norms = latents.hidden[:, :, -num_response:].float().square().mean(dim=-1).sqrt().cpu()
        for place, number in enumerate(chunk):
            length = len(responses[number].ids)
            probed.append(Probed(
                deviations[:, :, place, :length], inputs.mask[place, :length].cpu(), entropies[place, :length].cpu(),
                norms[:, place, :length],
            ))  # fmt: skip
    return probed


def _forward(policy: Any, batch: Encoded, spec: FlowSpec) -> tuple[Latents, Tensor]:
    """Latents at the responses (and their lead), and entropies (B, T) of what each response token was drawn from."""
    num_response = batch.completion_mask.shape[1]
    image_token = getattr(policy.config, "image_token_id", None)
    image_mask = batch.input_ids == image_token if spec.image_context and image_token is not None else None
    last = num_response + context_lead(spec.context_mode, spec.shift)
    with capture_latents(policy, spec.layer_indices, last, image_mask=image_mask) as captured:
        output = policy(**batch.model_inputs(), use_cache=False, logits_to_keep=num_response + 1)
    entropies = torch.distributions.Categorical(logits=output.logits[:, :-1].float()).entropy()
    return captured[0], entropies
