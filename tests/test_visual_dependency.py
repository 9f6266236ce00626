"""Visual dependency against hand-derived values."""

import math

import pytest
import torch

from rlfr_vlm.visual_dependency import blank_pixels, dependency_scale, pivotal_tokens, token_dependency


def test_dependency_is_the_divergence_from_the_distribution_without_the_image():
    """With 3/4, 1/4 and without 1/2, 1/2: 3/4 ln(3/2) + 1/4 ln(1/2). The order of the arguments matters."""
    image, blank = torch.tensor([3.0, 1.0]).log(), torch.tensor([1.0, 1.0]).log()
    assert token_dependency(image, blank).item() == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2))
    assert token_dependency(blank, image).item() == pytest.approx(0.5 * math.log(4 / 3))
    assert token_dependency(image, image).item() == 0


def test_pivotal_tokens_are_chosen_within_each_response():
    dependency = torch.tensor([[0.1, 0.4, 0.3, 0.2, 0.0], [9.0, 8.0, 1.0, 5.0, 7.0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    assert pivotal_tokens(dependency, mask, 0.4).tolist() == [
        [False, True, True, False, False],
        [True, False, False, False, False],  # ceil(0.8) = 1 of two tokens
    ]
    assert torch.equal(pivotal_tokens(dependency, mask, 1.0), mask.bool())


def test_factors_have_mean_one_and_begin_at_the_smallest():
    means, images = torch.tensor([1.0, 2.0, 4.0, 9.0]), torch.tensor([True, True, True, False])
    scale = dependency_scale(means, images, 0.9)
    # units 0, 1/3, 1, mean 4/9: 0.9 + 0.1 * unit * 9 / 4
    assert scale.tolist() == pytest.approx([0.9, 0.975, 1.125, 1.0])
    assert scale[images].mean().item() == pytest.approx(1.0)
    assert dependency_scale(means, images, 1.0).tolist() == pytest.approx([1.0] * 4)


def test_equal_dependencies_and_no_images_leave_advantages_alone():
    assert dependency_scale(torch.ones(3), torch.ones(3, dtype=torch.bool), 0.5).tolist() == [1, 1, 1]
    assert dependency_scale(torch.tensor([1.0, 2.0]), torch.zeros(2, dtype=torch.bool), 0.5).tolist() == [1, 1]


def test_blank_images_differ_from_padding():
    blank = blank_pixels(torch.tensor([[0.5, -2.0], [0.0, 0.0]]))
    assert (blank[0] > 0).all() and blank[0].max() < 1e-30 and (blank[1] == 0).all()
