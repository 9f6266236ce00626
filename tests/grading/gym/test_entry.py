"""Entries as JSON text."""

import datetime

import numpy as np
import pytest

from rlfr_vlm.grading.gym.entry import pack, unpack


def test_an_entry_comes_back_with_its_types():
    entry = {
        "question": "?",
        "answer": None,
        "metadata": {"edges": [(0, 1)], "colours": {0: "red", 1: None}, "$odd": {"$tuple": 1}, "seen": {2, 1}},
    }
    assert unpack(pack("graph_color", {"max_n": "4"}, entry)) == ("graph_color", {"max_n": "4"}, entry)


def test_values_of_numpy_and_others_become_plain():
    entry = {"answer": "1", "metadata": {"n": np.int64(3), "m": np.eye(2, dtype=int), "d": datetime.date(2026, 1, 2)}}
    _, _, stored = unpack(pack("t", {}, entry))
    assert stored["metadata"] == {"n": 3, "m": [[1, 0], [0, 1]], "d": "2026-01-02"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "{}",
        '{"task": "t", "options": {}, "entry": []}',
        '{"task": "t", "options": {"a": 1}, "entry": {}}',
        '{"task": "t", "options": {}, "entry": {"question": "?"}}',
        "[" * 100000,
    ],
)
def test_what_is_no_entry_is_refused(text):
    with pytest.raises(ValueError, match="no entry"):
        unpack(text)
