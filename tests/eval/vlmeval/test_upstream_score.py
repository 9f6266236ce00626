"""VLMEvalKit's tables in all their units; what is not described is an error."""

import pytest

from rlfr_eval.vlmeval.upstream_score import upstream_percent
from rlfr_vlm.errors import UserError

PERCENT = {"column": "acc", "row": "Overall", "unit": "percent"}


def test_every_unit_becomes_percent():
    rows = [{"Task&Skill": "Overall", "acc": 62.5}, {"Task&Skill": "algebra", "acc": 10.0}]
    assert upstream_percent("MathVista", PERCENT, rows) == 62.5
    fraction = {"column": "Overall", "row": "validation", "unit": "fraction"}
    assert (
        upstream_percent(
            "MMMU", fraction, [{"split": "dev", "Overall": 1.0}, {"split": "validation", "Overall": 0.25}]
        )
        == 25
    )
    text = {"column": "Score (Strict)", "row": "0", "unit": "percent text"}
    assert upstream_percent("WeMath", text, [{"Score (Strict)": "99.81%"}]) == 99.81


def test_mathverse_has_no_overall_row_so_its_rows_are_weighted():
    score = {"column": "Overall", "row": "mean over problem_version, weighted by rows", "unit": "percent"}
    rows = [{"split": "Text Lite", "Overall": 60.0}, {"split": "Vision Only", "Overall": 20.0}]
    assert upstream_percent("MathVerse", score, rows, {"Text Lite": 3, "Vision Only": 1}) == pytest.approx(50.0)


@pytest.mark.parametrize(
    ("score", "rows"),
    [
        (PERCENT, [{"Task&Skill": "algebra", "acc": 10.0}]),
        (PERCENT, [{"Task&Skill": "Overall", "accuracy": 10.0}]),
        (PERCENT, [{"Task&Skill": "Overall", "acc": 130.0}]),
        (PERCENT, [{"Task&Skill": "Overall", "acc": None}]),
        (PERCENT, [{"Task&Skill": "Overall", "acc": 1.0}, {"Task&Skill": "Overall", "acc": 2.0}]),
        ({**PERCENT, "unit": "fraction"}, [{"Task&Skill": "Overall", "acc": 62.5}]),
        ({**PERCENT, "unit": "percent text"}, [{"Task&Skill": "Overall", "acc": 62.5}]),
        ({**PERCENT, "unit": "points"}, [{"Task&Skill": "Overall", "acc": 62.5}]),
        ({}, [{"Overall": 62.5}]),
    ],
)
def test_an_unknown_shape_is_an_error(score, rows):
    with pytest.raises(UserError, match="Some"):
        upstream_percent("Some", score, rows)
