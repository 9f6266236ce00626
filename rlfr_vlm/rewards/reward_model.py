"""Reward from a reward model: a Hugging Face sequence-classification model with one output, run in this process.

The model reads the whole conversation, prompt and response, in its own chat format.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.encode import is_text_only, tokenizer_of
from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.data.rows import Messages
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards.completion import Completion, Prompt, completion_text

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass

DTYPES = ("auto", "float32", "bfloat16", "float16")


class RewardModel:
    """The reward function. A score that is not finite is None, undecided.

    Args:
        options: name, device, type and batch size of the model.

    Raises:
        UserError: no model is named, it cannot be loaded, or it has other than one output.
    """

    def __init__(self, options: RewardOptions) -> None:
        self.__name__ = "reward_model"
        self.batch_size = options.reward_model_batch_size
        self.model, self.processing_class = load_reward_model(options)

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], **kwargs: Any
    ) -> list[float | None]:
        images = kwargs.get("images") or [[] for _ in prompts]
        conversations = [
            conversation_of(prompt, completion_text(completion))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        scores: list[float | None] = []
        for start in range(0, len(conversations), self.batch_size):
            chunk = slice(start, start + self.batch_size)
            scores += self._scores(conversations[chunk], [row or [] for row in images[chunk]])
        return scores

    def _scores(self, conversations: Sequence[Messages], images: "Sequence[Sequence[Image]]") -> list[float | None]:
        import torch

        text_only = is_text_only(self.processing_class)
        texts = [
            self.processing_class.apply_chat_template(
                flatten_text(messages) if text_only else messages, tokenize=False
            )
            for messages in conversations
        ]
        arguments: dict[str, Any] = {"text": texts, "padding": True, "return_tensors": "pt"}
        if text_only:
            arguments["add_special_tokens"] = False  # the chat template already adds them
        elif any(images):
            arguments["images"] = [list(row) for row in images]
        batch = self.processing_class(**arguments).to(self.model.device)
        with torch.inference_mode():
            logits = self.model(**batch).logits[:, 0].float().tolist()
        return [score if math.isfinite(score) else None for score in logits]


def load_reward_model(options: RewardOptions) -> "tuple[PreTrainedModel, ProcessingClass]":
    """Load the model of the options and its tokenizer, or its processor if it takes images.

    Raises:
        UserError: no model is named, it cannot be loaded, or it has other than one output.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoProcessor

    name, dtype, device = options.reward_model, options.reward_model_dtype, options.reward_model_device
    if not name:
        raise UserError("The reward reward_model needs the setting reward_model, a folder or hub id.")
    if dtype not in DTYPES:
        raise UserError(f"reward_model_dtype is {dtype!r}; choose one of {', '.join(DTYPES)}.")
    if device == "auto":
        device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
    try:
        model = AutoModelForSequenceClassification.from_pretrained(name, dtype=dtype).to(device).eval()
        processing_class = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"Cannot load the reward model {name!r} on {device}: {reason[:300]}") from None
    if model.config.num_labels != 1:
        raise UserError(
            f"The reward model {name!r} has {model.config.num_labels} outputs, and a reward is one number. Name a "
            "model that was trained with num_labels=1."
        )
    tokenizer = tokenizer_of(processing_class)
    if not tokenizer.chat_template and not getattr(processing_class, "chat_template", None):
        raise UserError(f"The reward model {name!r} has no chat template, so it cannot read conversations.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    # The model finds the last token of a row by the id of padding.
    model.config.get_text_config().pad_token_id = model.config.pad_token_id = tokenizer.pad_token_id
    model.requires_grad_(False)
    return model, processing_class


def conversation_of(prompt: Prompt, response: str) -> Messages:
    """Return prompt and response as messages."""
    asked: Messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    return [*asked, {"role": "assistant", "content": response}]
