"""Tokenize the prompts of a rollout that has videos, and split their images and videos by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from rlfr_vlm.data.encode import TemplateArguments, encode_prompts
from rlfr_vlm.data.prompts import media_in, videos_in
from rlfr_vlm.data.rows import Messages
from rlfr_vlm.errors import UserError
from rlfr_vlm.models.family import ModelFamily
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


def refuse_videos(family: ModelFamily, *, uses_vllm: bool, is_sharded: bool) -> None:
    """Refuse videos where they would not train as they were seen.

    Args:
        is_sharded: the policy's weights are spread over several processes.

    Raises:
        UserError: the policy takes none, or the run uses vLLM or sharded weights.
    """
    if not family.takes_videos:
        raise UserError(f"The data has videos, and {family.name} take none here. Remove the rows with videos.")
    if uses_vllm:
        raise UserError(
            "The data has videos, and vLLM draws and resizes their frames itself, so the policy would train on "
            "frames that the engine did not see. Set rollout: hf."
        )
    if is_sharded:
        raise UserError(
            "The data has videos, and the policy's weights are sharded (DeepSpeed ZeRO-3 or FSDP): processes with "
            "and without videos would wait for each other for ever. Use ZeRO-2 or plain data parallelism."
        )


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
    rows = [{"prompt": prompt, "images": media_in(prompt, "image")} for prompt in distinct]
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


def _identity(prompt: Messages) -> tuple[Any, ...]:
    """Equal for prompts of the same texts and the same image and video objects."""
    media = tuple(id(value) for value in (*media_in(prompt, "image"), *videos_in(prompt)))
    texts = tuple(
        (message["role"], message["content"])
        if isinstance(message["content"], str)
        else (message["role"], *((block["type"], block.get("text")) for block in message["content"]))
        for message in prompt
    )
    return texts, media
