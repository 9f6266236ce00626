"""Tokenize the prompts of a rollout that has videos, and split their images and videos by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlfr_vlm.data.encode import TemplateArguments, encode_prompts
from rlfr_vlm.data.prompts import videos_in
from rlfr_vlm.data.rows import Messages
from rlfr_vlm.models.row_media import RowMedia, joined_media, media_of_rows
from rlfr_vlm.rewards.completion import Prompt
from rlfr_vlm.trainer.trl_seams import LOGPROB_IMAGE_KEYS, Batch

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass


@dataclass(frozen=True)
class VideoPrompts:
    """Prompts of a rollout.

    Attributes:
        ids: token ids of each prompt, without padding.
        media: images and videos of each prompt; prompts of a group share theirs.
        token_types: of each token of each prompt, as `generate` needs them.
    """

    ids: list[list[int]]
    media: list[RowMedia]
    token_types: list[list[int]]

    def fields(self) -> dict[str, Tensor | list[list[int]]]:
        """What TRL hands to `generate` beside the token ids."""
        return {**joined_media(self.media), "mm_token_type_ids": self.token_types}


def conversations_with_videos(prompts: Sequence[Prompt]) -> list[Messages] | None:
    """The prompts of a rollout as messages, if one of them has a video; else None."""
    conversations = [prompt for prompt in prompts if not isinstance(prompt, str)]
    return conversations if any(map(videos_in, conversations)) else None


def tokenize(
    prompts: Sequence[Messages], processing_class: "ProcessingClass", template: TemplateArguments
) -> VideoPrompts:
    """Tokenize prompts with images and videos in their messages; equal prompts are processed once."""
    numbers: dict[tuple[Any, ...], int] = {}
    distinct: list[Messages] = []
    row_of: list[int] = []
    for prompt in prompts:
        key = _identity(prompt)
        if key not in numbers:
            numbers[key] = len(distinct)
            distinct.append(prompt)
        row_of.append(numbers[key])
    rows = [{"prompt": prompt, "images": _images_in(prompt)} for prompt in distinct]
    batch = encode_prompts(processing_class, rows, template)
    media = media_of_rows(
        batch.extra, [len(row["images"]) for row in rows], [len(videos_in(row["prompt"])) for row in rows]
    )
    kept = batch.attention_mask.bool()
    ids = [row[mask].tolist() for row, mask in zip(batch.input_ids, kept, strict=True)]
    types = [row[mask].tolist() for row, mask in zip(batch.extra["mm_token_type_ids"], kept, strict=True)]
    return VideoPrompts([ids[row] for row in row_of], [media[row] for row in row_of], [types[row] for row in row_of])


def keep_media_by_row(batch: Batch) -> None:
    """Keep images and videos of a rollout in `media` alone, so that it can be joined with a rollout of the other form.

    TRL processes prompts with images once more, without their videos: its tensors are dropped. Those of a rollout
    without videos are split by row.
    """
    images = {key: batch[key] for key in LOGPROB_IMAGE_KEYS if batch.get(key) is not None}
    if not any(batch["media"]) and "pixel_values" in images:
        batch["media"] = media_of_rows(images, images["num_images"], [0] * len(batch["media"]))
    for key in LOGPROB_IMAGE_KEYS:
        batch.pop(key, None)


def _images_in(prompt: Messages) -> list[Any]:
    """Images in the blocks of a prompt, where TRL puts them."""
    contents = [message["content"] for message in prompt if isinstance(message["content"], list)]
    return [block["image"] for content in contents for block in content if block["type"] == "image"]


def _identity(prompt: Messages) -> tuple[Any, ...]:
    """Equal for prompts of the same texts and the same image and video objects."""
    media = tuple(id(value) for value in (*_images_in(prompt), *videos_in(prompt)))
    texts = tuple(
        (message["role"], message["content"])
        if isinstance(message["content"], str)
        else (message["role"], *((block["type"], block.get("text")) for block in message["content"]))
        for message in prompt
    )
    return texts, media
