"""Grids: shortest paths and questions on grids made by hand, and answers recomputed from the images."""

import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import ImageColor

from rlfr_vlm.data.tasks.grids import CELL, GRIDS, LOOKS, Grid, ask, draw, shortest_path

PALETTE = LOOKS["train"].palettes[0]


def grid(*lines: str) -> Grid:
    """Grid from lines of `S`, `G`, `#` for walls, `o` for coins and `.`."""
    cells = {(x, y): mark for y, line in enumerate(lines) for x, mark in enumerate(line)}

    def where(mark: str) -> list[tuple[int, int]]:
        return [cell for cell, found in cells.items() if found == mark]

    [start], [goal] = where("S"), where("G")
    return Grid(len(lines[0]), len(lines), start, goal, frozenset(where("#")), frozenset(where("o")), PALETTE)


@pytest.mark.parametrize(
    ("lines", "moves"),
    [
        (("SG", ".."), 1),
        (("S.", ".G"), 2),
        (("S#G", "...", "###"), 4),  # down, right, right, up
        (("S#G", ".#.", "..."), 6),  # around the wall: two down, two right, two up
        (("S#..", ".#.#", ".#.G", "...."), 7),  # three down, three right, one up
        (("So.G", "####", "...."), 3),  # coins do not block
        (("S#G", "##.", "..."), None),
    ],
)
def test_shortest_paths_by_hand(lines, moves):
    path = shortest_path(grid(*lines))
    assert (len(path) - 1 if path else None) == moves


WORLD = grid("S#Go", ".#.o", "....", "o.#.")


@pytest.mark.parametrize(
    ("arguments", "response"),
    [
        (("coins", "column", 3), r"In column D coins are in D1, D2. That makes 2. \boxed{2}"),
        (("coins", "row", 3), r"In row 4 coins are in A4. That makes 1. \boxed{1}"),
        (("coins", "row", 2), r"In row 3 coins are in none of its cells. That makes 0. \boxed{0}"),
        (("goal",), r"G is in column C. G is in row 1. \boxed{C1}"),
        (
            ("path",),
            "S is in A1 and G is in C1. A shortest path goes to A2, A3, B3, C3, C2, C1. "
            r"These are 6 moves. \boxed{6}",
        ),
    ],
)
def test_questions_by_hand(arguments, response):
    assert ask(WORLD, *arguments).response == response


def cells_in_pixels(world: Grid) -> dict[str, str]:
    """What each cell shows, from the colours at its middle and near its corner: floor, wall, coin or end."""
    pixels = np.asarray(draw(world))
    colours = dict(zip(map(ImageColor.getrgb, world.palette), ("floor", "wall", "coin", "end"), strict=True))
    cells = {}
    for y in range(world.rows):
        for x in range(world.columns):
            left, top = (x + 1) * CELL, (y + 1) * CELL
            ground = colours[tuple(map(int, pixels[top + 3, left + 3]))]
            middle = colours.get(tuple(map(int, pixels[top + CELL // 2, left + CELL // 2])))
            cells[f"{'ABCDEFG'[x]}{y + 1}"] = "coin" if middle == "coin" else ground
    return cells


def distance(cells: dict[str, str], start: str, goal: str) -> int:
    """Moves from start to goal, by growing the set of cells that are reached."""
    reached, moves = {start}, 0
    while goal not in reached:
        reached |= {
            cell
            for cell, shown in cells.items()
            for other in reached
            if shown != "wall" and abs(ord(cell[0]) - ord(other[0])) + abs(int(cell[1]) - int(other[1])) == 1
        }
        moves += 1
        assert moves <= len(cells)
    return moves


@pytest.mark.parametrize("split", ["train", "test"])
def test_answers_follow_from_the_pixels(split):
    for kind, level, problem in GRIDS.problems(split, 210, seed=2):
        cells = cells_in_pixels(problem.scene)
        assert len(cells) == {"train": (16, 25, 36), "test": (20, 30, 42)}[split][level - 1]
        ends = [cell for cell, shown in cells.items() if shown == "end"]
        assert len(ends) == 2
        if kind == "coins":
            name = re.search(r"(?:row|column) (\w)\?", problem.question)[1]
            assert problem.answer == str(sum(shown == "coin" and name in cell for cell, shown in cells.items()))
        elif kind == "goal":
            assert problem.answer in ends
        else:
            assert problem.answer == str(distance(cells, *ends)) and int(problem.answer) >= 2


def test_the_goal_has_the_letter_g_and_the_start_s():
    """Swapping start and goal changes these two cells of the image and no other."""
    one, two = grid("S..", "..G"), grid("G..", "..S")
    changed = np.nonzero((np.asarray(draw(one)) != np.asarray(draw(two))).any(axis=2))
    assert {(x // CELL, y // CELL) for y, x in zip(*changed, strict=True)} == {(1, 1), (3, 2)}


def test_expert_paths_go_one_cell_a_move_and_into_no_wall():
    for split in LOOKS:
        for kind, _, problem in GRIDS.problems(split, 200, seed=6):
            if kind != "path":
                continue
            names = re.findall(r"\b[A-G]\d\b", problem.steps[1])
            start, goal = re.findall(r"\b[A-G]\d\b", problem.steps[0])
            places = [(ord(name[0]) - ord("A"), int(name[1]) - 1) for name in (start, *names)]
            assert names[-1] == goal and str(len(names)) == problem.answer
            assert not set(places) & problem.scene.walls
            assert all(abs(a - c) + abs(b - d) == 1 for (a, b), (c, d) in pairwise(places))
