"""Charts: questions on a chart made by hand, and answers read back from the pixels of the images."""

import re

import numpy as np
import pytest
from PIL import ImageColor

from rlfr_vlm.data.tasks.charts import BASE, CATEGORIES, CHARTS, KINDS, LEFT, LOOKS, Chart, ask, draw

CHART = Chart("bar", ("fig", "plum", "kiwi"), (3, 8, 5), "#ffffff", "#c03028", 224, 10, 14)


@pytest.mark.parametrize(
    ("kind", "answer", "response"),
    [
        ("value", "3", r"fig is at 3. \boxed{3}"),
        ("larger", "plum", r"fig is at 3. plum is at 8. 8 > 3, so plum is larger. \boxed{plum}"),
        ("difference", "5", r"fig is at 3. plum is at 8. 8 - 3 = 5. \boxed{5}"),
        ("sum", "16", r"fig is at 3. plum is at 8. kiwi is at 5. 3 + 8 + 5 = 16. \boxed{16}"),
        ("largest", "plum", r"fig is at 3. plum is at 8. kiwi is at 5. The largest value is 8, of plum. \boxed{plum}"),
    ],
)
def test_questions_by_hand(kind, answer, response):
    problem = ask(CHART, kind, 0, 1)
    assert (problem.answer, problem.response) == (answer, response)


def test_a_bar_has_14_pixels_a_unit_above_the_axis_at_148():
    pixels = np.asarray(draw(CHART))
    red = (pixels == (0xC0, 0x30, 0x28)).all(axis=2)
    heights = red.sum(axis=0)
    assert sorted(set(heights.tolist())) == [0, 3 * 14, 5 * 14, 8 * 14]
    assert np.flatnonzero(red.any(axis=1)).tolist() == list(range(148 - 8 * 14, 148))


def values_in_pixels(chart: Chart) -> list[int]:
    """Values from the colour of bars, or of the markers' centres, in the columns of the category names."""
    pixels = np.asarray(draw(chart)).astype(int)
    coloured = (pixels == ImageColor.getrgb(chart.colour)).all(axis=2)
    width = (chart.width - LEFT) / len(chart.names)
    values = []
    for index in range(len(chart.names)):
        centre = round(LEFT + (index + 0.5) * width)
        rows = np.flatnonzero(coloured[:, centre - 3 : centre + 3].sum(axis=1) >= 5)
        top = rows.min() if chart.style == "bar" else (rows.min() + rows.max()) / 2
        values.append(round((BASE - top) / chart.unit))
    return values


def answer_from(values: dict[str, int], kind: str, question: str) -> str:
    named = [name for name in values if re.search(rf"\b{name}\b", question)]
    shown = [values[name] for name in named]
    if kind == "value":
        return str(*shown)
    if kind == "difference":
        return str(max(shown) - min(shown))
    if kind == "sum":
        return str(sum(values.values()))
    return max(named, key=values.__getitem__)


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_follow_from_the_pixels(split):
    for kind, level, problem in CHARTS.problems(split, 210, seed=5):
        chart = problem.scene
        values = dict(zip(chart.names, values_in_pixels(chart), strict=True))
        assert tuple(values.values()) == chart.values
        assert answer_from(values, kind, problem.question) == problem.answer
        assert len(values) == len(set(values.values())) == CATEGORIES[level]
        named = {name for name in values if re.search(rf"\b{name}\b", problem.question)}
        assert len(named) == {"value": 1, "larger": 2, "difference": 2, "sum": 0, "largest": len(values)}[kind]


def test_both_styles_and_all_values_occur_and_the_splits_have_their_own_names_and_colours():
    for split, look in LOOKS.items():
        charts = [problem.scene for _, _, problem in CHARTS.problems(split, 120, seed=0)]
        assert {chart.style for chart in charts} == {"bar", "line"}
        assert {value for chart in charts for value in chart.values} == set(range(1, look.top + 1))
    train, test = LOOKS["train"], LOOKS["test"]
    assert not set(train.names) & set(test.names) and not set(train.colours) & set(test.colours)
    assert CHARTS.kinds == KINDS
