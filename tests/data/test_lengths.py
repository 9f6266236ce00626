"""Computed token counts equal the processor's, and prompts that are too long are dropped, downscaled or rejected."""

import json

import pytest
from PIL import Image
from qwen_vl_utils.vision_process import smart_resize

from rlfr_vlm.data.encode import encode_prompts
from rlfr_vlm.data.lengths import TokenCounter, plan_lengths, refuse_prompts_beyond_context
from rlfr_vlm.data.load import as_dataset, read_rows
from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of_processor
from rlfr_vlm.models.qwen_vl import SmartResizeGrid
from rlfr_vlm.options import DataOptions

SIZES = [(56, 28), (28, 56), (100, 75), (640, 480), (30, 900), (13, 29), (2000, 1500), (57, 57)]


@pytest.mark.parametrize("size", SIZES)
def test_image_tokens_equal_the_processors(processor, size):
    grid = family_of_processor(processor).image_grid(processor)
    image = Image.new("RGB", size)
    thw = processor.image_processor(images=[image], return_tensors="pt")["image_grid_thw"][0]
    assert grid.tokens(*size) == thw.prod().item() // processor.image_processor.merge_size**2


@pytest.mark.parametrize("size", SIZES)
def test_image_tokens_equal_qwen_vl_utils(size):
    """Published limits of Qwen2.5-VL: 4 to 1280 tokens of 28 x 28 pixels."""
    width, height = size
    rows, columns = smart_resize(height, width, 28, 4 * 28 * 28, 1280 * 28 * 28)
    assert SmartResizeGrid(14, 2, 4 * 28 * 28, 1280 * 28 * 28).tokens(width, height) == (rows // 28) * (columns // 28)


@pytest.fixture
def long_rows(tmp_path):
    """Rows 0 to 2 have images of 2, 30 and twice 30 tokens; row 3 has short text and row 4 long text."""
    sizes = {"a": (56, 28), "b": (28 * 6, 28 * 5), "c": (28 * 6, 28 * 5)}
    for name, size in sizes.items():
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    images = [["a.png"], ["b.png"], ["b.png", "c.png"], [], []]
    prompts = ["sum?"] * 4 + ["sum? " * 40]
    lines = [json.dumps({"prompt": p, "images": i}) for p, i in zip(prompts, images, strict=True)]
    (tmp_path / "rows.jsonl").write_text("\n".join([*lines, "{broken"]))
    return read_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl"), bad_row_limit=0.5))


def prompt_lengths(processor, rows, numbers):
    loaded = [rows.load(number) for number in numbers]
    return [int(encode_prompts(processor, [row]).attention_mask.sum()) for row in loaded]


def test_prompt_lengths_equal_the_processors(processor, long_rows):
    numbers = range(5)
    rows = [long_rows.parse(number) for number in numbers]
    sizes = [[image.size for image in long_rows.load(number)["images"]] for number in numbers]
    assert TokenCounter(processor).prompt_tokens(rows, sizes) == prompt_lengths(processor, long_rows, numbers)


def test_dropping(processor, long_rows):
    limit = max(prompt_lengths(processor, long_rows, [0, 3]))
    plan = plan_lengths(long_rows, processor, limit, "drop")
    assert plan.kept == [0, 3, 5]  # the broken row is replaced and counted when it is read
    assert plan.counts == {"within the limit": 2, "dropped": 3}
    assert len(as_dataset(long_rows, plan.kept)) == 3


def test_downscaling(processor, long_rows):
    limit = max(prompt_lengths(processor, long_rows, [0, 3])) + 6
    plan = plan_lengths(long_rows, processor, limit, "downscale")
    assert plan.kept == [0, 1, 2, 3, 5] and set(plan.pixel_limits) == {1, 2}
    assert plan.counts == {"within the limit": 2, "downscaled": 2, "dropped": 1}
    long_rows.pixel_limits = plan.pixel_limits
    assert max(prompt_lengths(processor, long_rows, [1, 2])) <= limit


def test_downscaling_uses_the_room_that_small_images_leave(processor):
    """A 28 x 28 image is one token. The large image gets the rest of the limit, not half of it."""
    counter = TokenCounter(processor)
    limit = counter.image_tokens([(28, 28), (1120, 1120)]) // 2
    pixels = counter.pixels_that_fit(0, [(28, 28), (1120, 1120)], limit)
    assert pixels > 0.9 * (limit - 2) * counter.grid.side**2
    counter.pixels_that_fit(0, [(5550, 28)], 50)  # an image that becomes too thin for the processor is no error


def test_stopping_names_the_row(processor, long_rows):
    with pytest.raises(UserError, match=r"Row 1 has \d+ prompt tokens, more than max_prompt_tokens"):
        plan_lengths(long_rows, processor, max(prompt_lengths(processor, long_rows, [0, 3])), "stop")
    with pytest.raises(UserError, match="long_prompts is 'cut'"):
        plan_lengths(long_rows, processor, 100, "cut")


def test_prompts_that_leave_no_room_for_a_response_are_refused(processor, long_rows):
    """Exactly at the edge, for the longest text and for the images; the broken row is left to training."""
    lengths = prompt_lengths(processor, long_rows, range(5))
    longest = max(lengths)
    refuse_prompts_beyond_context(long_rows, processor, longest + 8, 8)
    refuse_prompts_beyond_context(long_rows, processor, None, 8)
    with pytest.raises(
        UserError, match=rf"1 prompts do not fit .* context of {longest + 7} tokens .* has {longest}\."
    ):
        refuse_prompts_beyond_context(long_rows, processor, longest + 7, 8)
    with pytest.raises(UserError, match=rf"5 prompts do not fit .* row {lengths.index(longest)} has {longest}"):
        refuse_prompts_beyond_context(long_rows, processor, 8, 8)


def test_descriptions_of_tools_count(processor, long_rows):
    lengths = prompt_lengths(processor, long_rows, range(5))
    long_rows.added_tokens = 3
    refuse_prompts_beyond_context(long_rows, processor, max(lengths) + 3 + 8, 8)
    with pytest.raises(UserError, match=rf"1 prompts do not fit .* has {max(lengths) + 3}\."):
        refuse_prompts_beyond_context(long_rows, processor, max(lengths) + 3 + 7, 8)
    assert plan_lengths(long_rows, processor, max(lengths) + 3, "drop").counts["dropped"] == 0
    assert plan_lengths(long_rows, processor, max(lengths) + 2, "drop").counts["dropped"] == 1


def test_text_policies(text_tokenizer, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "sum?"}\n{"prompt": "sum? sum? sum? sum?"}')
    rows = read_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl")))
    (count,) = TokenCounter(text_tokenizer).prompt_tokens([rows.parse(0)], [[]])
    assert plan_lengths(rows, text_tokenizer, count, "drop").kept == [0]


def test_images_are_resized_like_in_the_processor(processor):
    """Images get 3 to 12 tokens. An image of the right size is returned unchanged."""
    from PIL import Image

    grid = SmartResizeGrid(patch=14, merge=2, min_pixels=3 * 28**2, max_pixels=12 * 28**2)
    thin = Image.new("RGB", (1000, 40))
    assert grid.resized(thin) is thin
    for size in ((28, 28), (56, 56), (500, 300), (300, 200)):
        resized = grid.resized(Image.new("RGB", size))
        assert grid.tokens(*size) == (resized.width // 28) * (resized.height // 28)
        assert resized.width * resized.height >= grid.min_pixels
        assert grid.resized(resized) is resized
