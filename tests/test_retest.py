"""Test-retest measures against values counted by hand."""

import math

import pytest
import torch

from rlfr_vlm.retest import row_correlation, sign_agreement


def test_a_token_rewarded_once_is_a_disagreement():
    """First rewards tokens 0 and 1, second tokens 1 and 2; of these four rewards the two of token 1 agree."""
    assert sign_agreement(torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[0.0, -0.5, 1.0]])) == 0.5
    assert sign_agreement(torch.tensor([[1.0, -2.0]]), torch.tensor([[3.0, 4.0]])) == 0.5
    assert math.isnan(sign_agreement(torch.zeros(1, 2), torch.zeros(1, 2)))


def test_correlation_is_within_rows_and_over_the_mask():
    """Row 0 correlates perfectly though its level differs, row 1 by -1, and row 2 has two tokens only."""
    first = torch.tensor([[1.0, 2.0, 3.0, 99.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 0.0, 0.0]])
    second = torch.tensor([[11.0, 12.0, 13.0, -5.0], [4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    assert row_correlation(first[:1], second[:1], mask[:1]) == pytest.approx(1.0)
    assert row_correlation(first, second, mask) == pytest.approx(0.0)
    assert math.isnan(row_correlation(first[2:], second[2:], mask[2:]))
    assert math.isnan(row_correlation(torch.ones(1, 4), second[:1], mask[:1]))
