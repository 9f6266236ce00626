"""Shapes: questions on a picture made by hand, and shapes counted in the pixels of the images."""

import re
from collections import Counter

import numpy as np
import pytest
from PIL import ImageColor
from scipy import ndimage

from rlfr_vlm.data.tasks.shapes import (
    COUNTS,
    LOOKS,
    SHAPES,
    Picture,
    Shape,
    count_of,
    draw,
    most_common_colour,
    position_of,
)

# red circle top left, red square top right, blue square bottom left, red circle bottom right
PICTURE = Picture(
    (
        Shape("red", "circle", 20, 20, 10),
        Shape("red", "square", 140, 20, 10),
        Shape("blue", "square", 20, 140, 10),
        Shape("red", "circle", 140, 140, 10),
    ),
    "#ffffff",
    168,
)


def test_counts_by_hand():
    circles = count_of("red", "circle", PICTURE)
    assert circles.response == (
        r"Of red shapes I see: circle 2, square 1. So the number of red circles is 2. \boxed{2}"
    )
    none = count_of("green", "circle", PICTURE)
    assert none.response == r"Of green shapes I see: none. So the number of green circles is 0. \boxed{0}"


@pytest.mark.parametrize(
    ("first", "second", "side", "answer", "relation"),
    [
        (2, 1, "x", "yes", "left of"),
        (1, 2, "x", "no", "right of"),
        (1, 2, "y", "yes", "above"),
        (2, 1, "y", "no", "below"),
    ],
)
def test_positions_by_hand(first, second, side, answer, relation):
    names = ("red circle", "red square", "blue square")
    problem = position_of(PICTURE, first, second, side)
    assert problem.answer == answer
    assert problem.steps[0] == f"The {names[first]} is {relation} the {names[second]}."


def test_the_most_common_colour_by_hand():
    problem = most_common_colour(PICTURE, ("red", "green", "blue"))
    assert problem.question == "Which colour occurs most often, red, green or blue?"
    assert problem.response == r"I count the shapes by colour: red 3, blue 1. Most are red. \boxed{red}"


def shapes_in_pixels(picture: Picture, split: str) -> list[tuple[str, str, float, float]]:
    """Colour, form and middle of each connected area, from the share of its surrounding square that it fills.

    A square fills all of it, a circle pi / 4, a triangle a half.
    """
    pixels = np.asarray(draw(picture))
    found = []
    for name, value in LOOKS[split].colours.items():
        areas, _ = ndimage.label((pixels == ImageColor.getrgb(value)).all(axis=2))
        for number, (rows, columns) in enumerate(ndimage.find_objects(areas), start=1):
            share = (areas[rows, columns] == number).mean()
            form = "square" if share > 0.95 else "circle" if share > 0.65 else "triangle"
            found.append((name, form, (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2))
    return found


def answer_from(found: list[tuple[str, str, float, float]], kind: str, question: str) -> str:
    if kind == "colour":
        (most, count), *others = Counter(colour for colour, *_ in found).most_common()
        assert all(other < count for _, other in others)
        return most
    named = re.findall(r"(\w+) (circle|square|triangle)", question)
    if kind == "count":
        return str(sum(shape[:2] == named[0] for shape in found))
    [one], [two] = ([shape for shape in found if shape[:2] == name] for name in named)  # each is unique
    side = 2 if "left of" in question else 3
    assert abs(one[side] - two[side]) >= 20  # slots differ, so that the shapes are side by side
    return "yes" if one[side] < two[side] else "no"


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_follow_from_the_pixels(split):
    answers = Counter()
    for kind, level, problem in SHAPES.problems(split, 207, seed=3):
        found = shapes_in_pixels(problem.scene, split)
        drawn = [(shape.colour, shape.form) for shape in problem.scene.shapes]
        assert Counter(shape[:2] for shape in found) == Counter(drawn) and len(found) == COUNTS[level]
        assert answer_from(found, kind, problem.question) == problem.answer
        answers[problem.answer] += 1
    # half of 69 positions are yes; five standard deviations of the difference are 42
    assert abs(answers["yes"] - answers["no"]) < 42
    assert all(answers[colour] >= 1 for colour in LOOKS[split].colours)


def test_no_two_shapes_touch_and_none_is_cut():
    for split in LOOKS:
        for _, _, problem in SHAPES.problems(split, 200, seed=9):
            shapes = problem.scene.shapes
            for number, one in enumerate(shapes):
                assert one.radius <= min(one.x, one.y) and max(one.x, one.y) + one.radius < problem.scene.size
                for two in shapes[:number]:
                    assert max(abs(one.x - two.x), abs(one.y - two.y)) > one.radius + two.radius + 1


def test_the_splits_have_their_own_colours():
    assert not set(LOOKS["train"].colours.values()) & set(LOOKS["test"].colours.values())
