"""Clocks: questions on times chosen by hand, and times read back from the hands in the images."""

import datetime
import math
import re

import numpy as np
import pytest
from PIL import ImageColor

from rlfr_vlm.data.tasks.clocks import CLOCKS, LOOKS, Clock, ask, draw


def clock(hour: int, minute: int) -> Clock:
    return Clock(hour, minute, 98, 98, "#dde6ee", "#ffffff", "#c02020", 196, 84, (3, 6, 9, 12))


@pytest.mark.parametrize(
    ("time", "kind", "later", "response"),
    [
        ((8, 45), "time", 0, r"The short hand is between 8 and 9. The long hand is at 45 minutes. \boxed{8:45}"),
        ((12, 5), "time", 0, r"The short hand is between 12 and 1. The long hand is at 5 minutes. \boxed{12:05}"),
        ((3, 0), "time", 0, r"The short hand points at 3. The long hand is at 0 minutes. \boxed{3:00}"),
        ((3, 18), "to_hour", 0, r"The clock shows 3:18. 60 - 18 = 42. \boxed{42}"),
        ((3, 18), "later", 41, r"The clock shows 3:18. 18 + 41 = 59. \boxed{3:59}"),
        (
            *((11, 30), "later", 30),
            r"The clock shows 11:30. 30 + 30 = 60. 60 - 60 = 0, and the hour after 11 is 12. \boxed{12:00}",
        ),
        (
            *((12, 59), "later", 2),
            r"The clock shows 12:59. 59 + 2 = 61. 61 - 60 = 1, and the hour after 12 is 1. \boxed{1:01}",
        ),
    ],
)
def test_questions_by_hand(time, kind, later, response):
    problem = ask(clock(*time), kind, later)
    assert problem.response == response
    assert problem.response.endswith(f"\\boxed{{{problem.answer}}}")


def test_points_by_hand():
    """A quarter of a turn is to the right, half a turn is down; 4 o'clock is 120 degrees: sin 0.866, cos -0.5."""
    assert clock(1, 0).point(0.25, 10) == (108, 98)
    assert clock(1, 0).point(0.5, 10) == (98, 108)
    assert clock(1, 0).point(4 / 12, 91) == (98 + 79, 98 + 46)  # 78.8 and 45.5, which rounds to the even 46


def turn_at(coloured: np.ndarray, shown: Clock, radius: float) -> float:
    """Mean direction of the coloured pixels in a ring around the centre, as a share of a turn."""
    y, x = np.nonzero(coloured)
    dx, dy = x - shown.x, y - shown.y
    ring = abs(np.hypot(dx, dy) - radius) < 4
    return math.atan2(dx[ring].mean(), -dy[ring].mean()) / math.tau % 1


@pytest.mark.parametrize("split", ["train", "test"])
def test_times_follow_from_the_pixels(split):
    """Beyond the hour hand only the minute hand has the hands' colour; the hour hand is where the minutes put it."""
    for _, _, problem in CLOCKS.problems(split, 200, seed=4):
        shown = problem.scene
        coloured = (np.asarray(draw(shown)) == ImageColor.getrgb(shown.hands)).all(axis=2)
        minute = round(turn_at(coloured, shown, shown.radius * 0.64) * 60) % 60
        assert minute == shown.minute
        # the direction of the longer of both hands is known: the hour is the one whose hand covers the most pixels
        best = max(range(1, 13), key=lambda hour: overlap(coloured, shown, hour))
        assert best == shown.hour


def overlap(coloured: np.ndarray, shown: Clock, hour: int) -> int:
    """Pixels of the hands' colour across the place where the hour hand would be, outside the minute hand."""
    turn = (hour + shown.minute / 60) / 12
    y, x = np.nonzero(coloured)
    dx, dy = x - shown.x, y - shown.y
    along = dx * math.sin(math.tau * turn) - dy * math.cos(math.tau * turn)
    across = dx * math.cos(math.tau * turn) + dy * math.sin(math.tau * turn)
    return int(((along > 6) & (along < shown.radius * 0.5) & (abs(across) < 4)).sum())


def test_answers_follow_from_the_time_by_the_calendar():
    for split in LOOKS:
        for kind, level, problem in CLOCKS.problems(split, 300, seed=1):
            shown = problem.scene
            assert shown.minute % {1: 15, 2: 5, 3: 1}[level] == 0
            start = datetime.datetime(2000, 1, 1, shown.hour % 12, shown.minute)
            if kind == "to_hour":
                next_hour = start.replace(minute=0) + datetime.timedelta(hours=1)
                assert problem.answer == str((next_hour - start).seconds // 60) and shown.minute > 0
                continue
            minutes = int(re.search(r"\d+", problem.question)[0]) if kind == "later" else 0
            time = start + datetime.timedelta(minutes=minutes)
            assert problem.answer == f"{time.hour % 12 or 12}:{time.minute:02}"


def test_hours_of_the_test_split_have_four_numerals():
    for split, count in (("train", 12), ("test", 4)):
        for _, _, problem in CLOCKS.problems(split, 20, seed=0):
            assert len(problem.scene.numerals) == count
