"""Weigh advantages by visual dependency (VPPO, arXiv 2510.09285): how much a token's distribution owes to the image.

The pass that computes the old log-probs keeps the last hidden states of the response; one more pass with blank images
gives those without. Their logits are computed in parts, so that no (B, T, V) tensor exists.

Letters: B responses, N responses of all ranks, P sequence length, T response tokens, D hidden width, V vocabulary.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlfr_vlm.errors import UserError
from rlfr_vlm.models.latents import last_positions, layout_of
from rlfr_vlm.models.logits import response_logits
from rlfr_vlm.models.towers import find_language_tower, find_vision_tower
from rlfr_vlm.options import VisualOptions
from rlfr_vlm.trainer.records.metrics import dependency_metrics
from rlfr_vlm.visual_dependency import blank_inputs, dependency_scale, pivotal_tokens, token_dependency

if TYPE_CHECKING:
    from rlfr_vlm.trainer.passes import LogProbPass

TOKENS_AT_ONCE = 512  # whose logits are in memory


@dataclass
class HiddenPass:
    """Watches a log-prob pass: keeps the last hidden states from which the response tokens were drawn."""

    chunks: list[Tensor] = field(default_factory=list)

    @contextmanager
    def watching(
        self, model: nn.Module, input_ids: Tensor, attention_mask: Tensor, num_response: int
    ) -> Iterator[None]:
        """Keep hidden states (rows, T, D) of each chunk of rows while the pass runs."""
        self.chunks = []

        def keep(module: nn.Module, inputs: object, arguments: dict[str, Any], output: Any) -> None:
            hidden = last_positions(output[0], num_response + 1, layout_of(arguments))
            self.chunks.append(hidden[:, :-1].detach().clone())

        hook = find_language_tower(model).module.register_forward_hook(keep, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def finished(self, logps: Tensor, entropies: Tensor | None) -> None:
        """Do nothing: the hidden states are all that is needed."""

    def take(self) -> Tensor:
        """Hidden states (B, T, D) of all chunks; they are not kept any longer."""
        hidden, self.chunks = torch.cat(self.chunks), []
        return hidden


@dataclass
class Together:
    """Watches a log-prob pass with several objects."""

    passes: "tuple[LogProbPass, ...]"

    @contextmanager
    def watching(
        self, model: nn.Module, input_ids: Tensor, attention_mask: Tensor, num_response: int
    ) -> Iterator[None]:
        """Enter the contexts of all."""
        with ExitStack() as stack:
            for watched in self.passes:
                stack.enter_context(watched.watching(model, input_ids, attention_mask, num_response))
            yield

    def finished(self, logps: Tensor, entropies: Tensor | None) -> None:
        """Give the result of the pass to all."""
        for watched in self.passes:
            watched.finished(logps, entropies)


def rows_with_images(batch: Mapping[str, Any], rows: int) -> Tensor:
    """(B,) bool, rows of a rollout whose prompt has an image or a video.

    Args:
        batch: TRL's; it has no pixel values if no prompt has an image.
        rows: B.
    """
    media = batch.get("media")
    if media is not None and any(media):
        return torch.tensor([bool(row) for row in media])
    if batch.get("pixel_values") is None:
        return torch.zeros(rows, dtype=torch.bool)
    counts = batch.get("num_images")
    return torch.ones(rows, dtype=torch.bool) if counts is None else torch.tensor(counts) > 0


class VisualDependency:
    """Measures the visual dependency of a rollout's tokens, and weighs advantages by it."""

    def __init__(self, options: VisualOptions) -> None:
        self.options = options
        self.image_pass, self.blank_pass = HiddenPass(), HiddenPass()

    @classmethod
    def for_run(
        cls, options: VisualOptions, uses_visual: bool, policy: nn.Module, is_sharded: bool
    ) -> "VisualDependency | None":
        """The signal of a run; None if its method has no part visual.

        Raises:
            UserError: the policy takes no images, or its weights are sharded.
        """
        if not uses_visual:
            return None
        if find_vision_tower(policy) is None:
            raise UserError("The method has the part visual, but the policy takes no images. Leave the part out.")
        if is_sharded:
            raise UserError(
                "The method has the part visual, and the policy's weights are sharded (DeepSpeed ZeRO-3 or FSDP): the "
                "LM head is not whole on any process. Use ZeRO-2 or plain data parallelism, or leave the part out."
            )
        return cls(options)

    def beside(self, watched: "LogProbPass") -> Together:
        """Watch the pass of the old log-probs together with another object."""
        return Together((watched, self.image_pass))

    @staticmethod
    def without_images(images: Mapping[str, Any]) -> dict[str, Any]:
        """The same inputs with blank images and videos; `media` has them row by row."""
        if images.get("media") is not None:
            media = [row and VisualDependency.without_images(row) for row in images["media"]]
            images = {**images, "media": media}
        return blank_inputs(images)

    def dependency(self, policy: nn.Module, temperature: float) -> Tensor:
        """Dependency (B, T) of each token, in nats, from the two passes."""
        hidden, blank = self.image_pass.take(), self.blank_pass.take()
        rows, tokens, width = hidden.shape
        parts = [
            token_dependency(*(response_logits(policy, part) / temperature for part in pair))
            for pair in zip(
                hidden.view(-1, width).split(TOKENS_AT_ONCE), blank.view(-1, width).split(TOKENS_AT_ONCE), strict=True
            )
        ]
        return torch.cat(parts).view(rows, tokens)

    def of_rollout(
        self,
        dependency: Tensor,
        mask: Tensor,
        has_image: Tensor,
        outcomes: Tensor,
        *,
        threshold: float,
        group_size: int,
        gather: Callable[[Tensor], Tensor],
        local: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor | None, dict[str, float]]:
        """Weights (B, T) of the outcome advantages, None if all are 1, and the metrics of all ranks.

        Args:
            dependency, mask: (B, T).
            has_image: (B,) bool.
            outcomes: (N,) outcome rewards, NaN where undecided.
            threshold: a response is right above it.
            group_size: responses to a prompt.
            gather: joins the values of all ranks.
            local: takes this rank's part (B,) of values (N,).
        """
        means = gather(dependency.sum(dim=1) / mask.sum(dim=1).clamp(min=1))
        scale = dependency_scale(means, gather(has_image), self.options.visual_min_scale)
        metrics = dependency_metrics(means, outcomes, threshold, group_size)
        return self.weights(dependency, mask, has_image, local(scale)), metrics

    def weights(self, dependency: Tensor, mask: Tensor, has_image: Tensor, scale: Tensor) -> Tensor | None:
        """Weight (B, T) of each token's outcome advantage; None if the options make all of them 1.

        Args:
            dependency, mask: (B, T).
            has_image: (B,) bool; without images all tokens of a response count.
            scale: (B,).
        """
        options = self.options
        if options.visual_share >= 1 and options.visual_min_scale >= 1:
            return None
        chosen = pivotal_tokens(dependency, mask, options.visual_share) | ~has_image.unsqueeze(1)
        return chosen * scale.unsqueeze(1)
