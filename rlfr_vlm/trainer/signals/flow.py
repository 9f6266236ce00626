"""The flow field during reinforcement learning: it scores rollouts and goes on being fitted to accepted responses.

The field lives outside the policy module (vLLM's weight sync and checkpoints of the policy must not see it), has its
own optimiser and its own random generator, so neither the policy's gradients nor its sampling know of it.

Letters: L hooked layers, B samples, S captured positions, T response tokens, D hidden width.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.optim import ZeroRedundancyOptimizer

from rlfr_vlm.errors import UserError
from rlfr_vlm.flow import (
    FlowSpec,
    VelocityField,
    check_context,
    check_fits_policy,
    check_same_field,
    context_lead,
    layer_deviations,
    load_field,
    save_field,
    token_flow_losses,
)
from rlfr_vlm.flow.path import UPDATE_TOKENS
from rlfr_vlm.flow.storage import FIELD_FOLDER
from rlfr_vlm.models.latents import Latents, find_language_tower
from rlfr_vlm.models.vision import find_vision_tower
from rlfr_vlm.options import FlowOptions

OPTIMIZER_FILE = "flow_optimizer.pt"
GENERATOR_FILE = "flow_generator_rank{rank}.pt"


class OnlineFlow:
    """Scores with the field and updates it.

    Args:
        field, spec: the fitted field.
        options: the flow options of the run.
        accelerator: of the trainer; gives device, autocast and reductions.
        seed: of the noise; each process draws its own.
    """

    def __init__(
        self, field: VelocityField, spec: FlowSpec, options: FlowOptions, accelerator: Any, seed: int
    ) -> None:
        self.field = field.to(accelerator.device)
        self.spec = spec
        self.options = options
        self.accelerator = accelerator
        self.lead = context_lead(spec.context_mode, spec.shift)
        self.optimizer = sharded_adamw(
            self.field, lr=options.flow_learning_rate, weight_decay=options.flow_weight_decay
        )
        self.generator = torch.Generator(device=accelerator.device)
        self.generator.manual_seed(seed + accelerator.process_index)
        self._loss_sum = torch.zeros((), device=accelerator.device)
        self._weight_sum = torch.zeros((), device=accelerator.device)

    @torch.no_grad()
    def score(self, latents: Latents, valid: Tensor, num_response: int) -> tuple[Tensor, Tensor]:
        """Deviation (L, B, T) of each response token in each layer, and the mask (B, T) of tokens that have one.

        Args:
            latents: captured at the last S positions.
            valid: (B, S) attention mask of those positions.
            num_response: T.
        """
        inputs = self.spec.inputs(latents.hidden, valid, num_response, latents.image)
        with self._autocast():
            scores = layer_deviations(self.field, inputs, self.options.flow_timesteps, generator=self.generator)
        return scores.mean(dim=0), inputs.mask

    def accumulate(self, latents: Latents, valid: Tensor, weights: Tensor) -> None:
        """Add the gradient of the weighted flow-matching loss of one micro-batch.

        Sums, not means, are accumulated; `step` divides by the total weight, so but for the noise drawn the update
        does not depend on how the batch was split over micro-batches and processes.

        Args:
            weights: (B, T), 1 for accepted tokens, `flow_soft_weight` for others, 0 at padding.
        """
        inputs = self.spec.inputs(latents.hidden, valid, weights.shape[1], latents.image)
        inputs.mask = inputs.mask & (weights > 0)
        # Latents and the loss are made here, outside any checkpointed region, with gradients on.
        for part in inputs.chunks(UPDATE_TOKENS):
            with torch.enable_grad():
                with self._autocast():
                    losses = token_flow_losses(
                        self.field, part, noise_repeats=self.options.flow_noise_repeats, generator=self.generator
                    )
                token_weights = weights[part.mask]
                loss = (losses.mean(dim=(0, 1)) * token_weights).sum()
                loss.backward()
            self._loss_sum += loss.detach()
            self._weight_sum += token_weights.sum()

    def step(self) -> float | None:
        """Average over processes, step the optimiser, and return the mean loss; None when nothing was accepted."""
        gradients = self._reduced_gradients()
        loss_sum, weight = gradients[-2].item(), gradients[-1].item()
        if weight > 0:
            self._assign_gradients(gradients[:-2] / weight)
            torch.nn.utils.clip_grad_norm_(self.field.parameters(), self.options.flow_max_grad_norm)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._loss_sum.zero_()
        self._weight_sum.zero_()
        return loss_sum / weight if weight > 0 else None

    def save(self, directory: Path) -> None:
        """Write field and optimiser, the same on all processes, and this process's generator into a checkpoint."""
        directory.mkdir(parents=True, exist_ok=True)
        if isinstance(self.optimizer, ZeroRedundancyOptimizer):
            self.optimizer.consolidate_state_dict(to=0)
        if self.accelerator.is_main_process:
            save_field(directory / FIELD_FOLDER, self.field, self.spec)
            torch.save(self.optimizer.state_dict(), directory / OPTIMIZER_FILE)
        torch.save(self.generator.get_state(), directory / self._generator_file)

    def load(self, directory: Path) -> None:
        """Restore what `save` wrote.

        Raises:
            UserError: the checkpoint has no flow state, or that of another field.
        """
        field, spec = load_field(directory / FIELD_FOLDER)
        check_same_field(self.spec, spec, str(directory))
        for name in (OPTIMIZER_FILE, self._generator_file):
            if not (directory / name).exists():
                raise UserError(
                    f"{directory} has no {name}: it was written by a run with fewer processes, or not completely. "
                    "Resume with the same number of processes, or from another checkpoint."
                )
        self.field.load_state_dict(field.state_dict())
        self.spec = spec
        self.optimizer.load_state_dict(_load(directory / OPTIMIZER_FILE))
        self.generator.set_state(_load(directory / self._generator_file))

    @property
    def _generator_file(self) -> str:
        return GENERATOR_FILE.format(rank=self.accelerator.process_index)

    def _autocast(self) -> AbstractContextManager[Any]:
        return self.accelerator.autocast()

    def _reduced_gradients(self) -> Tensor:
        """All gradients, the loss sum and the weight sum in one vector, summed over processes in one reduction."""
        parts = [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in self.field.parameters()]
        bucket = torch.cat([*parts, self._loss_sum.view(1), self._weight_sum.view(1)])
        return self.accelerator.reduce(bucket, reduction="sum")

    def _assign_gradients(self, gradients: Tensor) -> None:
        start = 0
        for parameter in self.field.parameters():
            parameter.grad = gradients[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()


def check_flow(flow: tuple[VelocityField, FlowSpec] | None, options: FlowOptions, policy: torch.nn.Module) -> None:
    """Refuse a field that is not there, or was fitted in another mode or for another policy.

    Raises:
        UserError: which, and what to do.
    """
    if flow is None:
        raise UserError(
            f"flow_coef is {options.flow_coef} but there is no flow field. Fit one with `rlfr fit-flow` and set "
            "flow_path to its folder, or set flow_coef: 0 (or method: rlvr)."
        )
    check_context(flow[1], options.flow_context_mode, options.flow_shift)
    name = str(getattr(policy, "name_or_path", "the policy"))
    sees = find_vision_tower(policy) is not None
    check_fits_policy(flow[1], find_language_tower(policy).config, name, has_vision=sees)


def sharded_adamw(field: torch.nn.Module, **settings: Any) -> torch.optim.Optimizer:
    """AdamW whose two moments per parameter are spread over the processes; each steps its share and broadcasts it."""
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        return ZeroRedundancyOptimizer(field.parameters(), torch.optim.AdamW, **settings)
    return torch.optim.AdamW(field.parameters(), **settings)


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)
