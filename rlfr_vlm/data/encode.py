"""Encode rows as tensors, with the same chat template and processor calls for fitting, warm start and evaluation.

Letters: B rows, P prompt length (left-padded), T response length (right-padded).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from rlfr_vlm.data.prompts import flatten_text, videos_in
from rlfr_vlm.data.rows import BadRow, Messages, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from rlfr_vlm.data.videos import Video

    ProcessingClass: TypeAlias = PreTrainedTokenizerBase | ProcessorMixin

TemplateArguments: TypeAlias = dict[str, Any]  # keyword arguments of `apply_chat_template`


@dataclass
class Encoded:
    """A batch ready for a forward pass.

    Attributes:
        input_ids, attention_mask: (B, P) or (B, P + T).
        completion_mask: (B, T) bool, True at response tokens; T is 0 without responses.
        extra: the processor's other tensors (pixel_values, image_grid_thw, pixel_values_videos, mm_token_type_ids).
    """

    input_ids: Tensor
    attention_mask: Tensor
    completion_mask: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)

    def model_inputs(self) -> dict[str, Tensor]:
        """Return the keyword arguments of the model's forward method."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask, **self.extra}

    def to(self, device: torch.device) -> "Encoded":
        """Return a copy on another device."""
        extra = {name: tensor.to(device) for name, tensor in self.extra.items()}
        return Encoded(
            self.input_ids.to(device), self.attention_mask.to(device), self.completion_mask.to(device), extra
        )


def tokenizer_of(processing_class: "ProcessingClass") -> "PreTrainedTokenizerBase":
    """Return the tokenizer of a processor, or the tokenizer itself."""
    return getattr(processing_class, "tokenizer", processing_class)


def is_text_only(processing_class: "ProcessingClass") -> bool:
    """Return whether this is a tokenizer without an image processor."""
    return tokenizer_of(processing_class) is processing_class


def special_tokens(processing_class: "ProcessingClass") -> tuple[str, ...]:
    """Return the texts that the tokenizer never reads as text."""
    return tuple(token for token in tokenizer_of(processing_class).all_special_tokens if token)


def render_prompt(
    processing_class: "ProcessingClass", messages: Messages, template: TemplateArguments | None = None
) -> str:
    """Return the exact prompt string up to the start of the response.

    Args:
        processing_class: processor or tokenizer with the chat template.
        messages: the prompt.
        template: additional keyword arguments of the chat template.
    """
    if is_text_only(processing_class):
        messages = flatten_text(messages)
    return processing_class.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **(template or {})
    )


def checked_prompt(processing_class: "ProcessingClass", row: Row) -> str:
    """Return the prompt string of a row.

    Raises:
        BadRow: the chat template refuses the prompt, e.g. because two turns are of one role.
    """
    from jinja2 import TemplateError

    try:
        return render_prompt(processing_class, row["prompt"])
    except TemplateError as error:
        raise BadRow("prompt", f"the policy's chat template refuses the messages: {error}") from None


def encode_prompts(
    processing_class: "ProcessingClass", rows: Sequence[Row], template: TemplateArguments | None = None
) -> Encoded:
    """Encode the prompts (messages), images and videos of rows, padded on the left."""
    texts = [render_prompt(processing_class, row["prompt"], template) for row in rows]
    images = [list(row.get("images") or []) for row in rows]
    arguments: dict[str, Any] = {"text": texts, "padding": True, "padding_side": "left", "return_tensors": "pt"}
    if any(images):
        arguments["images"] = images
    arguments |= video_arguments([video for row in rows for video in videos_in(row["prompt"])])
    if is_text_only(processing_class):
        arguments["add_special_tokens"] = False  # the chat template already adds them
    batch = dict(processing_class(**arguments))
    input_ids, attention_mask = batch.pop("input_ids"), batch.pop("attention_mask")
    if "second_per_grid_ts" in batch:
        batch["second_per_grid_ts"] = torch.as_tensor(batch["second_per_grid_ts"])
    extra = {name: value for name, value in batch.items() if isinstance(value, Tensor)}
    empty = torch.zeros(input_ids.shape[0], 0, dtype=torch.bool)
    return Encoded(input_ids, attention_mask, empty, extra)


def video_arguments(videos: "Sequence[Video]") -> dict[str, Any]:
    """Return the keyword arguments with which a processor takes the videos of a batch; none without videos.

    Frames are drawn already (data/videos.py), so the processor must not draw again.
    """
    if not videos:
        return {}
    import numpy as np
    from transformers.video_utils import VideoMetadata

    return {
        "videos": [np.stack([np.asarray(frame) for frame in video.frames]) for video in videos],
        "video_metadata": [
            VideoMetadata(len(video.frames), fps=video.fps, frames_indices=list(range(len(video.frames))))
            for video in videos
        ],
        "do_sample_frames": False,
        "cap_pixels_per_frame": True,  # bounds all frames together, as qwen-vl-utils does; soon transformers' default
    }


def append_responses(prompts: Encoded, responses: Sequence[Sequence[int]], pad_token_id: int) -> Encoded:
    """Append response token ids to the prompts, padded on the right."""
    length = max(map(len, responses))
    ids = torch.full((len(responses), length), pad_token_id)
    mask = torch.zeros(len(responses), length, dtype=torch.bool)
    for row, response in enumerate(responses):
        ids[row, : len(response)] = torch.tensor(response, dtype=torch.long)
        mask[row, : len(response)] = True
    extra = dict(prompts.extra)
    for name in ("mm_token_type_ids", "token_type_ids"):
        if name in extra:
            extra[name] = torch.cat([extra[name], extra[name].new_zeros(ids.shape)], dim=1)
    return Encoded(
        torch.cat([prompts.input_ids, ids], dim=1),
        torch.cat([prompts.attention_mask, mask.to(prompts.attention_mask.dtype)], dim=1),
        mask,
        extra,
    )


def encode_examples(processing_class: "ProcessingClass", rows: Sequence[Row]) -> Encoded:
    """Encode prompts with their expert responses, each followed by the end-of-sequence token."""
    tokenizer = tokenizer_of(processing_class)
    responses = [
        tokenizer(row["response"], add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] for row in rows
    ]
    pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return append_responses(encode_prompts(processing_class, rows), responses, pad)
