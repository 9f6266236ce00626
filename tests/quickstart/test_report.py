"""The quick start's comparison is the sweep's: paired by seed, without seeds in which nothing was decided."""

from pathlib import Path

import pytest

from rlfr_vlm.evaluate import Accuracy
from rlfr_vlm.quickstart.recipe import QuickstartRecipe
from rlfr_vlm.quickstart.run import QuickstartResult
from rlfr_vlm.sweep.definition import Sweep
from rlfr_vlm.sweep.table import notes_of, table_of


def test_a_seed_without_decided_answers_is_no_zero():
    """Sampled: 0.5 - 0.25 and 0.75 - 0.25. Of seed 3 nothing is decided; greedy has no pair at all."""
    quarter, nothing = Accuracy(1, 3, 0), Accuracy(0, 0, 4)
    rlfr = {1: Accuracy(2, 2, 0), 2: Accuracy(3, 1, 0), 3: nothing}
    result = QuickstartResult(QuickstartRecipe(), Sweep(Path("out"), ("rlvr", "rlfr"), (1, 2, 3)))
    for seed, accuracy in rlfr.items():
        result.trained["rlvr", seed] = {"sampled": quarter, "greedy": nothing}
        result.trained["rlfr", seed] = {"sampled": accuracy, "greedy": quarter}
    comparison = result.comparison()
    row = comparison.rows[1]
    assert row.differences["greedy"] is None and row.means == {"sampled": 0.625, "greedy": 0.25}
    sampled = row.differences["sampled"]
    assert sampled["seeds"] == [1, 2] and sampled["per_seed"] == [0.25, 0.5]
    assert sampled["mean"] == pytest.approx(0.375)
    assert table_of(comparison)[1][1][-1] == "no pair"
    assert "rlfr has no value for seed 3: not measured, or undecided." in notes_of(comparison)
