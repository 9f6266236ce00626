"""Prompts with one placeholder per image, which vLLM expands itself.

TRL 1.16 passes prompts that the processor has expanded already, and vLLM 0.31 expands each placeholder again. Where an
image becomes a run of one token between others, the run is cut to one (`single_placeholders`). Elsewhere (rows, ends,
images side by side) the prompt is tokenized once more, before the processor expands it.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.encode import render_prompt, tokenizer_of
from rlfr_vlm.trainer.vllm.parity_checks import single_placeholders

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.models import ModelFamily


class PlainPrompts:
    """Makes plain prompts of the rollout's messages.

    Args:
        family: of the policy.
        processing_class: its processor.
        image_token_id: token id of image positions.
        template: further arguments of the chat template.
    """

    def __init__(
        self,
        family: "ModelFamily",
        processing_class: "ProcessingClass",
        image_token_id: int | None,
        template: Mapping[str, Any],
    ) -> None:
        self.family = family
        self.processing_class = processing_class
        self.image_token_id = image_token_id
        self.template = dict(template)
        self._messages: Sequence[Any] = []

    def remember(self, messages: Sequence[Any]) -> None:
        """Keep the messages of the prompts that are generated from next."""
        self._messages = messages

    def plain(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Plain prompts of expanded ones, in the same order.

        Args:
            prompts: token ids as the processor expanded them.
        """
        if self.image_token_id is None:
            return list(prompts)
        if self.family.images_are_runs or len(self._messages) != len(prompts):
            return [single_placeholders(ids, self.image_token_id) for ids in prompts]
        texts = [render_prompt(self.processing_class, messages, self.template) for messages in self._messages]
        tokenizer = tokenizer_of(self.processing_class)
        plain = tokenizer(texts, add_special_tokens=False)["input_ids"]
        start = tokenizer.bos_token_id  # the processor may put it before a prompt
        return [
            [start, *ids] if start is not None and expanded[0] == start != ids[0] else ids
            for ids, expanded in zip(plain, prompts, strict=True)
        ]
