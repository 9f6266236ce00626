"""Rows of equal prompts, by tokens and by pixels."""

import torch

from rlfr_vlm.models.shared_prefix.prompts import RowImages, rows_by_prompt

GRID = torch.tensor([[1, 1, 2], [1, 1, 1], [1, 1, 2], [1, 1, 2]])  # 2, 1, 2 and 2 patches
PIXELS = torch.tensor([[1.0], [2.0], [3.0], [1.0], [2.0], [1.0], [9.0]])


def images(numbers):
    return RowImages(PIXELS, GRID, numbers)


def test_padding_does_not_tell_prompts_apart():
    ids = torch.tensor([[0, 5, 6], [7, 5, 6], [0, 5, 6], [5, 6, 5]])
    mask = torch.tensor([[0, 1, 1], [1, 1, 1], [0, 1, 1], [1, 1, 1]])
    assert rows_by_prompt(ids, mask) == [[0, 2], [1], [3]]
    assert rows_by_prompt(torch.tensor([[9, 5, 6], [0, 5, 6]]), torch.tensor([[0, 1, 1]] * 2)) == [[0, 1]]


def test_equal_tokens_with_other_pixels_or_other_grids_are_other_prompts():
    ids, mask = torch.tensor([[5, 6]] * 4), torch.ones(4, 2)
    # images of 1 2, 3, 1 2 and 1 9
    assert rows_by_prompt(ids, mask, images([1, 1, 1, 1])) == [[0, 2], [1], [3]]


def test_a_row_without_images_is_no_row_with_one():
    ids, mask = torch.tensor([[5, 6]] * 5), torch.ones(5, 2)
    assert rows_by_prompt(ids, mask, images([1, 0, 1, 1, 1])) == [[0, 3], [1], [2], [4]]


def test_images_of_chosen_rows():
    chosen = images([1, 0, 2, 1]).of_rows([2, 1])
    assert chosen.pixel_values.flatten().tolist() == [3.0, 1.0, 2.0]
    assert chosen.image_grid_thw.tolist() == [[1, 1, 1], [1, 1, 2]] and chosen.numbers == [2, 0]
    assert images([1, 0, 2, 1]).of_rows([1]) is None
    assert images([1, 0, 2, 1]).chunk(1, 1) is None


def test_images_of_a_batch():
    batch = {"pixel_values": PIXELS, "image_grid_thw": GRID, "num_images": [4]}
    found = RowImages.of_batch(batch, 1)
    assert found is not None and found.as_batch() == batch
    assert RowImages.of_batch({"pixel_values": None}, 1) is None
    assert RowImages.of_batch({**batch, "pixel_values": PIXELS[:0]}, 1) is None
