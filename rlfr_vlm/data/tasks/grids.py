"""Embedded task `grids`: a small grid world with a start S, a goal G, walls and coins.

The goal can always be reached. The test split has other colours and grids that are wider than high.
"""

from collections import deque
from dataclasses import dataclass
from random import Random
from string import ascii_uppercase
from typing import TypeAlias

from PIL import Image, ImageDraw

from rlfr_vlm.data.tasks.problems import Problem, Task, font

KINDS = ("coins", "goal", "path")
CELL = 28  # pixels; one image token of Qwen2.5-VL covers 28x28. Names of columns and rows take one cell, too
WALL_SHARE, COIN_SHARE = 0.25, 0.3  # of all cells
INK = "#202020"

Cell: TypeAlias = tuple[int, int]  # column and row, from 0 at the top left


@dataclass(frozen=True)
class Look:
    """How the grids of a split look: columns and rows by level, and colours as (floor, wall, coin, ends)."""

    sizes: dict[int, tuple[int, int]]
    palettes: tuple[tuple[str, str, str, str], ...]


LOOKS = {
    "train": Look(
        {1: (4, 4), 2: (5, 5), 3: (6, 6)},
        (("#ffffff", "#505050", "#f0b000", "#b8dcff"), ("#fff6e8", "#804020", "#e8a000", "#c0f0c0")),
    ),
    "test": Look(
        {1: (5, 4), 2: (6, 5), 3: (7, 6)},
        (("#e8f0e8", "#203860", "#e06030", "#f8c8d8"), ("#ece8f4", "#206048", "#c040a0", "#f4f0a0")),
    ),
}


@dataclass(frozen=True)
class Grid:
    """A grid world. Walls, coins, start and goal are in different cells."""

    columns: int
    rows: int
    start: Cell
    goal: Cell
    walls: frozenset[Cell]
    coins: frozenset[Cell]
    palette: tuple[str, str, str, str]


def name_of(cell: Cell) -> str:
    """Return the column's letter and the row's number.

    >>> name_of((1, 2))
    'B3'
    """
    return f"{ascii_uppercase[cell[0]]}{cell[1] + 1}"


def shortest_path(grid: Grid) -> list[Cell] | None:
    """Return the cells of a shortest path from start to goal, both included; None if there is no path."""
    came_from: dict[Cell, Cell | None] = {grid.start: None}
    queue = deque([grid.start])
    while queue:
        cell: Cell | None = queue.popleft()
        assert cell is not None
        if cell == grid.goal:
            path = []
            while cell is not None:
                path.append(cell)
                cell = came_from[cell]
            return path[::-1]
        x, y = cell
        for step in ((x + 1, y), (x, y + 1), (x - 1, y), (x, y - 1)):
            inside = 0 <= step[0] < grid.columns and 0 <= step[1] < grid.rows
            if inside and step not in grid.walls and step not in came_from:
                came_from[step] = cell
                queue.append(step)
    return None


def make(rng: Random, split: str, kind: str, level: int) -> Problem[Grid]:
    """Draw up a grid and a question of a kind."""
    look = LOOKS[split]
    columns, rows = look.sizes[level]
    cells = [(x, y) for y in range(rows) for x in range(columns)]
    walls, coins = round(WALL_SHARE * len(cells)), round(COIN_SHARE * len(cells))
    palette = rng.choice(look.palettes)
    while True:
        start, goal, *rest = rng.sample(cells, 2 + walls + coins)
        grid = Grid(columns, rows, start, goal, frozenset(rest[:walls]), frozenset(rest[walls:]), palette)
        path = shortest_path(grid)
        if path is not None and len(path) > 2:
            break
    side = rng.choice(("column", "row"))
    return ask(grid, kind, side, rng.randrange(columns if side == "column" else rows))


def ask(grid: Grid, kind: str, side: str = "row", index: int = 0) -> Problem[Grid]:
    """Return the question of a kind; side and index name the row or column whose coins are counted."""
    steps: tuple[str, ...]
    if kind == "coins":
        name = ascii_uppercase[index] if side == "column" else str(index + 1)
        found = sorted(cell for cell in grid.coins if cell[side == "row"] == index)
        where = f"are in {', '.join(map(name_of, found))}" if found else "are in none of its cells"
        steps = (f"In {side} {name} coins {where}.", f"That makes {len(found)}.")
        return Problem(grid, f"How many coins are in {side} {name}?", str(len(found)), steps)
    goal = name_of(grid.goal)
    if kind == "goal":
        steps = (f"G is in column {goal[0]}.", f"G is in row {goal[1]}.")
        question = "In which cell is the goal G? Answer with column letter and row number, such as B2."
        return Problem(grid, question, goal, steps, answer_type="text")
    path = shortest_path(grid)
    assert path is not None, "the goal cannot be reached"
    steps = (
        f"S is in {name_of(grid.start)} and G is in {goal}.",
        f"A shortest path goes to {', '.join(map(name_of, path[1:]))}.",
        f"These are {len(path) - 1} moves.",
    )
    question = (
        "How many moves does the shortest path from S to G take? A move goes one cell up, down, left or right, "
        "and not into a wall."
    )
    return Problem(grid, question, str(len(path) - 1), steps)


def draw(grid: Grid) -> Image.Image:
    """Draw a grid with the names of columns above and of rows on the left."""
    floor, wall, coin, ends = grid.palette
    image = Image.new("RGB", ((grid.columns + 1) * CELL, (grid.rows + 1) * CELL), floor)
    pen = ImageDraw.Draw(image)
    middle = CELL // 2
    for x in range(grid.columns):
        pen.text(((x + 1) * CELL + middle, middle), ascii_uppercase[x], fill=INK, font=font(15), anchor="mm")
    for y in range(grid.rows):
        pen.text((middle, (y + 1) * CELL + middle), str(y + 1), fill=INK, font=font(15), anchor="mm")
        for x in range(grid.columns):
            left, top = (x + 1) * CELL, (y + 1) * CELL
            fill = wall if (x, y) in grid.walls else ends if (x, y) in (grid.start, grid.goal) else floor
            pen.rectangle((left, top, left + CELL - 1, top + CELL - 1), fill=fill, outline="#909090")
            if (x, y) in grid.coins:
                pen.ellipse((left + 7, top + 7, left + CELL - 8, top + CELL - 8), fill=coin, outline=INK)
    for cell, letter in ((grid.start, "S"), (grid.goal, "G")):
        place = ((cell[0] + 1) * CELL + middle, (cell[1] + 1) * CELL + middle)
        pen.text(place, letter, fill=INK, font=font(17), anchor="mm")
    return image


GRIDS = Task("grids", KINDS, make, draw)
