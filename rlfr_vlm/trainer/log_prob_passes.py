"""TRL's log-prob pass as this package runs it: watched, with images as families take them, and prompts run once.

Subclasses put the object that watches the next pass into `_pass`, and the media of the rows into `_media`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rlfr_vlm.models import ModelFamily, family_of
from rlfr_vlm.models.dummy_image import without_missing_images
from rlfr_vlm.models.image_features import ImageFeatureCache
from rlfr_vlm.models.pass_images import prepared_pass, with_image_numbers
from rlfr_vlm.models.row_media import RowMedia, with_row_media
from rlfr_vlm.models.towers import unwrap
from rlfr_vlm.trainer.latent_pass import run_latent_pass
from rlfr_vlm.trainer.pass_inputs import PassInputs
from rlfr_vlm.trainer.passes import LogProbPass, ScorePass, UnwatchedPass
from rlfr_vlm.trainer.records.timing import PartTimes
from rlfr_vlm.trainer.resume import ResumableGRPO, is_sharded
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from rlfr_vlm.trainer.shared_prefix import PrefixSharing
from rlfr_vlm.trainer.signals.visual import VisualDependency
from rlfr_vlm.trainer.trl_seams import KEEP_BATCH_SIZE, LOGPROB_IMAGE_KEYS, Batch


class LogProbPasses(ResumableGRPO):
    """`GRPOTrainer` whose log-prob passes can be watched, share prompts, and take images and videos of every family.

    Attributes:
        sharing: shares prompts; None without.
        image_features: keeps what a frozen tower makes of images; None without.
    """

    sharing: PrefixSharing | None = None
    image_features: ImageFeatureCache | None = None
    _times: PartTimes
    _pass: LogProbPass  # taken by the next log-prob pass
    _media: list[RowMedia] | None  # of the rows of the current rollout or update; None without videos

    @property
    def family(self) -> ModelFamily:
        """The model family of the policy."""
        return family_of(self.model)

    @property
    def _image_token_id(self) -> int | None:
        return self.family.image_token_id(unwrap(self.model).config)

    def _cache_image_features(self, args: RLFRConfig) -> ImageFeatureCache | None:
        """The cache of a rollout's image features, if the tower is frozen and whole on each process."""
        if not args.freeze_vision or not args.image_feature_cache_gb or is_sharded(self.accelerator):
            return None
        if not ImageFeatureCache.suits(self.model):
            return None
        return ImageFeatureCache(int(args.image_feature_cache_gb * 1e9), args.image_feature_cache_on == "host")

    def _uncounted_images(self) -> AbstractContextManager[None]:
        """Images of passes inside the context are in no metric of training."""
        return nullcontext() if self.image_features is None else self.image_features.uncounted()

    def _run_latent_pass(self, batch: Batch, score: ScorePass, deepest: int) -> None:
        with self._times.timed("flow_forward"):
            self._pass = score
            inputs = PassInputs.of_batch(batch)
            self._check_sharing(inputs)  # before the pass, which has no log-probs to compare
            run_latent_pass(
                self.model,
                inputs,
                deepest,
                self._get_per_token_logps_and_entropies,
                batch_size=self.args.per_device_train_batch_size,
                checkpointing_kwargs=self.args.gradient_checkpointing_kwargs,
                whole_model=self.is_fsdp_enabled,
            )

    def _run_blank_pass(self, visual: VisualDependency, batch: Batch) -> None:
        """Run the policy over the rollout with blank images and, without a pass for old log-probs, with its own."""
        inputs, size = PassInputs.of_batch(batch), self.args.per_device_train_batch_size
        images = {**inputs.images, **({"media": batch["media"]} if "media" in batch else {})}
        passes = [(visual.blank_pass, visual.without_images(images))]
        if not self.computes_old_logps:
            passes.insert(0, (visual.image_pass, images))
        with self._times.timed("visual"), torch.no_grad():
            for watched, given in passes:
                self._pass = watched
                self._get_per_token_logps_and_entropies(
                    self.model,
                    inputs.input_ids,
                    inputs.attention_mask,
                    inputs.num_response,
                    batch_size=size,
                    **given,
                )

    def _image_guard(self, policy: nn.Module) -> AbstractContextManager[None]:
        """Under ZeRO-3, FSDP or with a trained tower every rank must run the vision tower in every pass.

        Args:
            policy: the model that runs, which may be the reference model.
        """
        needs_all_ranks = is_sharded(self.accelerator) or not self.args.freeze_vision
        return without_missing_images(policy, dummy=self.accelerator.num_processes > 1 and needs_all_ranks)

    def _get_per_token_logps_and_entropies(
        self,
        model: Callable[..., Any],
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        *args: object,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        watched, self._pass = self._pass, UnwatchedPass()
        keeps_size = kwargs.pop(KEEP_BATCH_SIZE, False)
        media = kwargs.pop("media", self._media)
        if media is not None and any(media):  # TRL's images are without the videos
            kwargs = {key: value for key, value in kwargs.items() if key not in LOGPROB_IMAGE_KEYS}
        numbers = prepared_pass(self.family, kwargs)
        inputs = PassInputs(input_ids, attention_mask, logits_to_keep, kwargs)
        runs = self.model  # the shortened pass is a function
        if isinstance(model, nn.Module):
            runs = model
            self._check_sharing(inputs)
        with (
            with_row_media(runs, self.family, media),  # before the guard, which looks for missing images
            self._image_guard(runs),
            with_image_numbers(runs, numbers),
        ):
            if self.sharing is not None and not (media and any(media)):
                if not torch.is_grad_enabled() and not keeps_size:
                    batch_size = self.sharing.rows_at_once(batch_size)
                if self.sharing.applies_to(inputs, self._image_token_id):
                    model = self.sharing.instead_of(model, runs, inputs)
            with watched.watching(self.model, input_ids, attention_mask, logits_to_keep):
                result = super()._get_per_token_logps_and_entropies(
                    model, input_ids, attention_mask, logits_to_keep, batch_size, *args, **kwargs
                )
        watched.finished(result[0], result[1])
        return result

    def _check_sharing(self, inputs: PassInputs) -> None:
        """Compare a pass with shared prompts with a row-wise one, once in a run. Videos count as tokens there."""
        if self.sharing is not None and not self.sharing.is_checked:
            row_pass = super()._get_per_token_logps_and_entropies
            with self._image_guard(self.model), self._uncounted_images():
                self.sharing.check(row_pass, self.model, inputs, self._image_token_id, self.accelerator)
