"""Return prompts as lists of token ids without padding, from processors that do otherwise by default.

TRL tokenizes the prompts of a rollout without padding, and takes every token of the result for one of the prompt (read
in TRL 1.16.0). Gemma 4's processor pads, so that padding would be part of the prompt; Pixtral's makes tensors, which
fails where two prompts differ in length (read in transformers 5.17.0).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass

TOKEN_KEYS = ("input_ids", "token_type_ids", "mm_token_type_ids")  # one value for each token


@contextmanager
def unpadded_prompts(processing_class: "ProcessingClass", needed: bool) -> Iterator[None]:
    """Let `apply_chat_template` pad inside the context, and remove the padding from its result.

    Args:
        needed: the processor pads or returns tensors (`ModelFamily.pads_prompts`); False changes nothing.
    """
    if not needed:
        yield
        return
    original = processing_class.apply_chat_template

    def apply(*args: Any, tokenize: bool = False, **kwargs: Any) -> Any:
        if not tokenize:
            return original(*args, tokenize=tokenize, **kwargs)
        result = original(*args, tokenize=True, processor_kwargs={"padding": True}, **kwargs)
        masks = [list(map(bool, mask)) for mask in result["attention_mask"]]
        for key in TOKEN_KEYS:
            if key in result:
                result[key] = [
                    [int(value) for value, kept in zip(row, mask, strict=True) if kept]
                    for row, mask in zip(result[key], masks, strict=True)
                ]
        return result

    processing_class.apply_chat_template = apply
    try:
        yield
    finally:
        del processing_class.apply_chat_template
