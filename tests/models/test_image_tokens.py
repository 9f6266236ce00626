"""Counts of image tokens are remembered, and what they lean on in transformers 5.17 is as it was read."""

import inspect

import pytest
import transformers

from rlfr_vlm.models.image_tokens import CountedGrid
from tests.models.small_families import VISION, build_processor


def test_images_with_the_same_key_are_counted_once():
    counted = []

    def count(width, height):
        counted.append((width, height))
        return width // 10

    grid = CountedGrid(count, key=lambda width, height: width, shrinks=True, side=10)
    assert [grid.tokens(20, 5), grid.tokens(20, 9), grid.tokens(30, 5)] == [2, 2, 3]
    assert counted == [(20, 5), (30, 5)]
    assert grid.row_tokens([(20, 1), (30, 1)]) == 5 and grid.row_tokens([]) == 0


def test_a_row_of_several_images_of_llava_onevision():
    """One image becomes a square of four tokens and tiles, each of several a square of four and the newline's."""
    from rlfr_vlm.models import family_of_processor

    processor = build_processor(VISION["LLaVA-OneVision"])
    grid = family_of_processor(processor).image_grid(processor)
    assert grid.row_tokens([(56, 28), (640, 480)]) == 2 * (4 + 1)
    assert grid.row_tokens([(56, 28)]) > 5


ARITHMETIC = ("Qwen2VL", "Qwen3VL", "Glm4v", "Glm46V", "InternVL", "Llava", "LlavaNext", "LlavaOnevision", "Pixtral")


@pytest.mark.parametrize("name", ARITHMETIC)
def test_processors_have_their_own_arithmetic(name):
    function = getattr(transformers, f"{name}Processor")._get_num_multimodal_tokens
    assert list(inspect.signature(function).parameters)[:2] == ["self", "image_sizes"]


def test_names_that_counting_the_tiles_of_lfm2_leans_on():
    processor = transformers.Lfm2VlImageProcessor
    assert list(inspect.signature(processor._get_grid_layout).parameters) == [
        "self", "height", "width", "min_tiles", "max_tiles", "tile_size",
    ]  # fmt: skip
    assert list(inspect.signature(processor._is_image_too_large).parameters)[1:] == [
        "height", "width", "max_image_tokens", "encoder_patch_size", "downsample_factor", "max_pixels_tolerance",
    ]  # fmt: skip


def test_defaults_that_unpadded_prompts_works_around():
    """A failure means that `pads_prompts` of Gemma 4 or Pixtral can go."""
    from transformers.models.gemma4.processing_gemma4 import Gemma4ProcessorKwargs
    from transformers.models.pixtral.processing_pixtral import PixtralProcessorKwargs

    assert Gemma4ProcessorKwargs._defaults["text_kwargs"]["padding"] is True
    assert PixtralProcessorKwargs._defaults["common_kwargs"]["return_tensors"] == "pt"
