"""Rows of a rollout as arguments of a log-prob pass.

Letters: B rows, W columns of prompt and response, T response columns.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from rlfr_vlm.models.shared_prefix.prompts import RowImages, rows_by_prompt
from rlfr_vlm.trainer.trl_seams import LOGPROB_IMAGE_KEYS, SEQUENCE_KEYS, Batch


@dataclass(frozen=True)
class PassInputs:
    """Arguments of a log-prob pass.

    Attributes:
        input_ids, attention_mask: (B, W).
        num_response: T.
        images: keyword arguments that hold the images.
    """

    input_ids: Tensor
    attention_mask: Tensor
    num_response: int
    images: Mapping[str, Any]

    @classmethod
    def of_batch(cls, batch: Batch) -> "PassInputs":
        """Prompts and responses of a rollout's batch."""
        return cls(
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].shape[1],
            {key: batch[key] for key in LOGPROB_IMAGE_KEYS if key in batch},
        )

    @cached_property
    def row_images(self) -> RowImages | None:
        """Images of the rows, in the layout of Qwen2-VL; None without any."""
        return RowImages.of_batch(self.images, len(self.input_ids))

    def of_rows(self, rows: list[int]) -> "PassInputs":
        """These rows alone."""
        images = {key: self.images[key][rows] for key in SEQUENCE_KEYS if self.images.get(key) is not None}
        own = self.row_images and self.row_images.of_rows(rows)
        if own is not None:
            images |= own.as_batch()
        return PassInputs(self.input_ids[rows], self.attention_mask[rows], self.num_response, images)

    def prompts(self) -> list[list[int]]:
        """Numbers of the rows that share a prompt."""
        columns = slice(0, self.input_ids.shape[1] - self.num_response)
        return rows_by_prompt(self.input_ids[:, columns], self.attention_mask[:, columns], self.row_images)
