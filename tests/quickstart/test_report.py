"""Differences in the quick start's report: paired by seed, without seeds in which nothing was decided."""

from types import SimpleNamespace

import pytest

from rlfr_vlm.evaluate import Accuracy
from rlfr_vlm.quickstart.report import paired_differences


def test_a_seed_without_decided_answers_is_no_zero():
    """Sampled: 0.5 - 0.25 and 0.75 - 0.25. Of seed 3 nothing is decided; greedy has no pair at all."""
    quarter, nothing = Accuracy(1, 3, 0), Accuracy(0, 0, 4)
    rlfr = {1: Accuracy(2, 2, 0), 2: Accuracy(3, 1, 0), 3: nothing}
    trained = {
        seed: {"rlvr": {"sampled": quarter, "greedy": nothing}, "rlfr": {"sampled": accuracy, "greedy": quarter}}
        for seed, accuracy in rlfr.items()
    }
    found = paired_differences(SimpleNamespace(trained=trained), "rlfr", "rlvr")
    assert set(found) == {"sampled"}
    assert found["sampled"]["seeds"] == [1, 2] and found["sampled"]["per_seed"] == [0.25, 0.5]
    assert found["sampled"]["mean"] == pytest.approx(0.375)
