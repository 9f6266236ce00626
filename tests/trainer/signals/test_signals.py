"""The index of signals covers every part of a method."""

from rlfr_vlm.options import METHOD_PARTS
from rlfr_vlm.trainer.signals import SIGNALS


def test_every_method_part_but_the_outcome_has_a_signal():
    assert set(SIGNALS) == set(METHOD_PARTS) - {"rlvr"}
