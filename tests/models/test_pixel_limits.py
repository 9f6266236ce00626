"""image_min_pixels and image_max_pixels act in each family's own units, or are refused by the family's name."""

import pytest
import torch
from PIL import Image

from rlfr_vlm.data.lengths import TokenCounter
from rlfr_vlm.data.prompts import build_messages
from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of_processor
from tests.models.small_families import VISION, build_processor

LARGE = (640, 480)
# family: image size, its image tokens, limits (min, max), its image tokens under them
KEPT = {
    # tokens of 28 x 28 pixels, 16 at most; 640 x 480 shrinks to 4 x 3 of them, below four to 2 x 1
    "Qwen2-VL": [(LARGE, 12, (None, 4 * 784), 2), ((28, 28), 1, (4 * 784, None), 4)],
    "Qwen2.5-VL": [(LARGE, 12, (None, 4 * 784), 2), ((28, 28), 1, (4 * 784, None), 4)],
    "Qwen3-VL": [(LARGE, 12, (None, 4 * 1024), 2), ((32, 32), 1, (4 * 1024, None), 4)],
    "Qwen3-VL-MoE": [(LARGE, 12, (None, 4 * 1024), 2), ((32, 32), 1, (4 * 1024, None), 4)],
    "Qwen3.5": [(LARGE, 12, (None, 4 * 1024), 2), ((32, 32), 1, (4 * 1024, None), 4)],
    # its processor limits the pixels of two frames
    "GLM-4.1V": [(LARGE, 12, (None, 4 * 784), 2), ((28, 28), 1, (4 * 784, None), 4)],
    "GLM-4.6V": [(LARGE, 12, (None, 4 * 784), 2), ((28, 28), 1, (4 * 784, None), 4)],
    # tiles of 28 x 28 pixels with one token: 2 x 2 and a thumbnail, or one
    "InternVL": [(LARGE, 5, (None, 2 * 784), 1), ((28, 28), 1, (3 * 784, None), 5)],
    # 70 tokens of 24 x 24 pixels: 9 x 7; 140: 13 x 10
    "Gemma 4": [(LARGE, 63, (None, 140 * 576), 130)],
    # the longer side has two tiles or one; a tile has four tokens, and so has the image as a whole
    "SmolVLM": [(LARGE, 20, (None, 32 * 32), 4)],
    "Idefics3": [(LARGE, 20, (None, 32 * 32), 4)],
    # the longer side has four tokens or two
    "Pixtral": [(LARGE, 12, (None, 28 * 28), 4)],
    "Mistral 3": [(LARGE, 12, (None, 56 * 56), 4)],
    # 2 x 2 tiles of four tokens and 4 x 3 tokens of the whole; 2 tiles and 3 x 2; no tiles and 2 x 1
    "LFM2-VL": [
        (LARGE, 28, (None, 8 * 1024), 14),
        (LARGE, 28, (None, 4 * 1024), 2),
        ((32, 32), 4, (8 * 1024, None), 9),
    ],
}  # fmt: skip


def image_tokens(name, processor, size):
    """Image tokens that the processor makes, after checking that all tokens were counted right."""
    from rlfr_vlm.data.encode import encode_prompts

    row = {"prompt": build_messages("sum?", 1), "images": [Image.new("RGB", size)]}
    ids = encode_prompts(processor, [row]).input_ids[0]
    assert TokenCounter(processor).prompt_tokens([row], [[size]]) == [len(ids)]
    image_token = VISION[name].config(processor.tokenizer.convert_tokens_to_ids)
    image_id = image_token.get("image_token_id", image_token.get("image_token_index"))
    return int((ids == torch.tensor(image_id)).sum())


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in KEPT.items() for case in cases])
def test_limits_are_kept(name, case):
    size, before, limits, after = case
    processor = build_processor(VISION[name])
    assert image_tokens(name, processor, size) == before
    family_of_processor(processor).limit_pixels(processor, *limits)
    assert image_tokens(name, processor, size) == after


REFUSED = [
    *((name, limits) for name in ("Gemma 3", "LLaVA", "LLaVA-NeXT", "LLaVA-OneVision")
      for limits in ((784, None), (None, 784))),
    *((name, (784, None)) for name in ("Gemma 4", "SmolVLM", "Idefics3", "Pixtral", "Mistral 3")),
    ("Gemma 4", (None, 70 * 576 - 1)), ("InternVL", (None, 783)), ("SmolVLM", (None, 32 * 32 - 1)),
    ("Pixtral", (None, 14 * 14 - 1)), ("LFM2-VL", (None, 4 * 1024 - 1)), ("LFM2-VL", (17 * 1024, None)),
    ("Qwen2-VL", (17 * 784, None)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "limits"), REFUSED)
def test_limits_that_cannot_be_kept_are_refused_by_name(name, limits):
    processor = build_processor(VISION[name])
    family = family_of_processor(processor)
    option = "image_min_pixels" if limits[0] else "image_max_pixels"
    with pytest.raises(UserError) as caught:
        family.limit_pixels(processor, *limits)
    named = "Images would have" if name == "Qwen2-VL" else name if name == "Gemma 4" else family.name
    text = str(caught.value)
    assert option in text and named in text and str(limits[0] or limits[1]) in text


def test_a_text_policy_takes_no_limits(text_tokenizer):
    with pytest.raises(UserError, match="image_max_pixels are None and 784, but text-only policies take no images"):
        family_of_processor(text_tokenizer).limit_pixels(text_tokenizer, None, 784)
