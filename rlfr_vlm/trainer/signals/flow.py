"""Score rollouts with the flow field, and fit the field to accepted responses during reinforcement learning.

The field is not part of the policy module, so that vLLM's weight sync and checkpoints of the policy exclude it. Its
optimiser and its random generator are separate, so that the policy's gradients and sampling do not depend on it.

Letters: L hooked layers, B samples, S captured positions, T response tokens, D hidden width.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributed.optim import ZeroRedundancyOptimizer

from rlfr_vlm.errors import UserError
from rlfr_vlm.flow import (
    RIGHT,
    WRONG,
    FlowSpec,
    NoisePlan,
    VelocityField,
    check_context,
    check_fits_policy,
    check_same_field,
    layer_deviations,
    load_field,
    save_field,
    token_flow_losses,
)
from rlfr_vlm.flow.path import UPDATE_TOKENS
from rlfr_vlm.flow.storage import FIELD_FOLDER
from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.models.latents import Latents
from rlfr_vlm.models.towers import find_language_tower, find_vision_tower
from rlfr_vlm.trainer.signals.flow_noise import RolloutNoise

if TYPE_CHECKING:
    from accelerate import Accelerator

OPTIMIZER_FILE = "flow_optimizer.pt"
GENERATOR_FILE = "flow_generator_rank{rank}.pt"
COMMON_GENERATOR_FILE = "flow_generator.pt"
RETEST_SEED = 1 << 20  # added to the seed, for noise that is independent of the run's


class OnlineFlow:
    """Scores with the field and updates it.

    Args:
        field, spec: the fitted field.
        options: flow options of the run.
        accelerator: of the trainer; gives device, autocast and reductions.
        seed: of the noise; each rank draws different noise.
    """

    def __init__(
        self,
        field: VelocityField,
        spec: FlowSpec,
        options: FlowOptions,
        accelerator: "Accelerator",
        seed: int,
    ) -> None:
        self.field = field.to(accelerator.device)
        self.spec = spec
        self.options = options
        self.accelerator = accelerator
        self.optimizer = sharded_adamw(
            self.field, lr=options.flow_learning_rate, weight_decay=options.flow_weight_decay
        )
        self.generator = torch.Generator(device=accelerator.device)
        self.generator.manual_seed(seed + accelerator.process_index)
        self.common_generator = torch.Generator().manual_seed(seed)
        self.seed = seed
        self.plan = noise_plan(options)
        self.scored_layers = scored_layers(spec, options.flow_score_layers)
        self._loss_sum = torch.zeros((), device=accelerator.device)
        self._weight_sum = torch.zeros((), device=accelerator.device)

    def draw_noise(self, num_rows: int, group_size: int, *, independent: bool = False) -> RolloutNoise:
        """Draw the noise of a rollout.

        Args:
            num_rows: of this rank.
            group_size: adjacent rows, over all ranks, that answer the same prompt.
            independent: draw other noise than the run's, and leave the run's generators as they are.
        """
        rank, ranks = self.accelerator.process_index, self.accelerator.num_processes
        rows = range(rank * num_rows, (rank + 1) * num_rows)
        own, common = self.generator, self.common_generator
        if independent:
            own = torch.Generator(device=self.accelerator.device).manual_seed(self.seed + RETEST_SEED + 1 + rank)
            common = torch.Generator().manual_seed(self.seed + RETEST_SEED)
        return RolloutNoise.begin(self.plan, self.spec, own, common, rows, group_size, ranks * num_rows)

    @torch.no_grad()
    def score(
        self,
        latents: Latents,
        valid: Tensor,
        num_response: int,
        row_noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Deviation (L, B, T) of each response token in each layer, and the mask (B, T) of tokens that have one.

        Args:
            latents: captured at the last S positions.
            valid: (B, S) attention mask of those positions.
            num_response: T.
            row_noise: (R, L, B, D) noise of the rows; None draws it for each token.
            generator: of the noise of each token; None is that of this rank.
        """
        inputs = self.spec.inputs(latents.hidden, valid, num_response, latents.image, latents.prompt)
        with self._autocast():
            scores = layer_deviations(
                self.field,
                inputs,
                self.options.flow_timesteps,
                generator=self.generator if generator is None else generator,
                row_noise=row_noise,
                draws=self.plan.draws,
                antithetic=self.plan.uses_both_signs,
                contrast=self.spec.is_contrast,
            )
        return scores.mean(dim=0), inputs.mask

    def accumulate(self, latents: Latents, valid: Tensor, weights: Tensor, is_right: Tensor | None = None) -> None:
        """Add the gradient of the weighted flow-matching loss of one micro-batch.

        Sums are accumulated, and `step` divides by the total weight. So the update does not depend on how the batch
        was split over micro-batches and ranks, except for the noise drawn.

        Args:
            weights: (B, T), 1 for accepted tokens, `flow_soft_weight` for others, 0 at padding.
            is_right: (B,) bool, classes of the responses, which a contrast field needs.
        """
        inputs = self.spec.inputs(latents.hidden, valid, weights.shape[1], latents.image, latents.prompt)
        if self.spec.is_contrast and is_right is not None:
            inputs.label = torch.where(is_right, RIGHT, WRONG)
        inputs.mask = inputs.mask & (weights > 0)
        # The loss is computed outside any checkpointed region: inside one it would have no graph.
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
        """Average over ranks, step the optimiser, and return the mean loss; None if nothing was accepted.

        Raises:
            UserError: the gradient is not finite; the field stays as it was.
        """
        gradients = self._reduced_gradients()
        loss_sum, weight = gradients[-2].item(), gradients[-1].item()
        if not gradients.isfinite().all():
            raise UserError(
                f"The gradient of the flow field is not finite (its loss is {loss_sum / max(weight, 1e-9):g}), so the "
                f"field was not updated and training stopped. Lower flow_learning_rate (it is "
                f"{self.options.flow_learning_rate:g}) and resume from the last checkpoint, or set flow_update: false."
            )
        if weight > 0:
            self._assign_gradients(gradients[:-2] / weight)
            torch.nn.utils.clip_grad_norm_(self.field.parameters(), self.options.flow_max_grad_norm)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._loss_sum.zero_()
        self._weight_sum.zero_()
        return loss_sum / weight if weight > 0 else None

    def save(self, directory: Path) -> None:
        """Write field and optimiser (equal on all ranks) and the generator of this rank into a checkpoint."""
        directory.mkdir(parents=True, exist_ok=True)
        if isinstance(self.optimizer, ZeroRedundancyOptimizer):
            self.optimizer.consolidate_state_dict(to=0)
        if self.accelerator.is_main_process:
            save_field(directory / FIELD_FOLDER, self.field, self.spec)
            torch.save(self.optimizer.state_dict(), directory / OPTIMIZER_FILE)
            torch.save(self.common_generator.get_state(), directory / COMMON_GENERATOR_FILE)
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
        if (directory / COMMON_GENERATOR_FILE).exists():  # absent in older checkpoints
            self.common_generator.set_state(_load(directory / COMMON_GENERATOR_FILE))

    @property
    def _generator_file(self) -> str:
        return GENERATOR_FILE.format(rank=self.accelerator.process_index)

    def _autocast(self) -> AbstractContextManager[object]:
        return self.accelerator.autocast()

    def _reduced_gradients(self) -> Tensor:
        """All gradients, the loss sum and the weight sum as one vector, summed over ranks in one reduction."""
        parts = [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in self.field.parameters()]
        bucket = torch.cat([*parts, self._loss_sum.view(1), self._weight_sum.view(1)])
        return self.accelerator.reduce(bucket, reduction="sum")

    def _assign_gradients(self, gradients: Tensor) -> None:
        start = 0
        for parameter in self.field.parameters():
            parameter.grad = gradients[start : start + parameter.numel()].view_as(parameter)
            start += parameter.numel()


Flow = tuple[VelocityField, FlowSpec]


def find_flow(flow: Flow | None, options: FlowOptions) -> Flow:
    """Return the field and its spec: `flow`, or if it is None the field in the folder `flow_path`.

    Raises:
        UserError: both are missing, or the folder holds no field.
    """
    if flow is None and options.flow_path:
        flow = load_field(options.flow_path)
    if flow is None:
        raise UserError(
            f"flow_coef is {options.flow_coef} but there is no flow field: flow_path is not set. Fit a field with "
            "`rlfr fit-flow` and set flow_path to its folder, or set flow_coef: 0 (or method: rlvr)."
        )
    return flow


def noise_plan(options: FlowOptions) -> NoisePlan:
    """How the noise of a run's deviations is drawn.

    Raises:
        UserError: a setting is not known.
    """
    return NoisePlan(options.flow_noise, options.flow_noise_draws, options.flow_antithetic)  # type: ignore[arg-type]


def scored_layers(spec: FlowSpec, blocks: Sequence[int]) -> list[int]:
    """Indices, among the field's layers, of the blocks whose deviations are rewarded; all if `blocks` is empty.

    Raises:
        UserError: the field was not fitted on one of the blocks.
    """
    if unknown := [block for block in blocks if block not in spec.layer_indices]:
        raise UserError(
            f"flow_score_layers has block {unknown[0]}, but the field was fitted on the blocks "
            f"{', '.join(map(str, spec.layer_indices))}. Choose among them."
        )
    return [spec.layer_indices.index(block) for block in blocks] or list(range(len(spec.layer_indices)))


def check_flow(flow: Flow, options: FlowOptions, policy: torch.nn.Module) -> None:
    """Refuse a field that was fitted in another mode or for another policy.

    Raises:
        UserError: names the difference and what to do.
    """
    check_context(flow[1], options.flow_context_mode, options.flow_shift)
    scored_layers(flow[1], options.flow_score_layers)
    if flow[1].is_contrast and options.flow_update and options.flow_accept == "entropy":
        raise UserError(
            "flow_accept is entropy, but the field tells right from wrong responses and is updated on both. Set "
            "flow_accept: correct, or flow_update: false."
        )
    name = str(getattr(policy, "name_or_path", "the policy"))
    has_vision = find_vision_tower(policy) is not None
    check_fits_policy(flow[1], find_language_tower(policy).config, name, has_vision=has_vision)


def sharded_adamw(field: torch.nn.Module, *, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW whose two moments per parameter are sharded over the ranks; each rank steps and broadcasts its share."""
    if torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1:
        return ZeroRedundancyOptimizer(field.parameters(), torch.optim.AdamW, lr=lr, weight_decay=weight_decay)
    return torch.optim.AdamW(field.parameters(), lr=lr, weight_decay=weight_decay)


def _load(path: Path) -> Any:
    return torch.load(path, map_location="cpu", weights_only=True)
