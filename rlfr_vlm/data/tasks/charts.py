"""Embedded task `charts`: bar and line charts of a few named categories with integer values.

Values of a chart are distinct, so that the larger of two and the largest of all are unique. The test split has other
names, colours and a longer axis with smaller steps.
"""

from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from rlfr_vlm.data.tasks.problems import Problem, Task, font, one_of

KINDS = ("value", "larger", "difference", "sum", "largest")
CATEGORIES = {1: 3, 2: 4, 3: 6}  # by level
STYLES = ("bar", "line")
HEIGHT, LEFT, BASE = 168, 24, 148  # pixels: height of the image, left end and height of the horizontal axis
INK, GRID = "#202020", "#b8b8b8"


@dataclass(frozen=True)
class Look:
    """How the charts of a split look.

    Attributes:
        names: names of categories.
        backgrounds, colours: colours of the image, and of bars and lines.
        width: of the image in pixels.
        top: largest value.
        unit: pixels of a value of 1.
    """

    names: tuple[str, ...]
    backgrounds: tuple[str, ...]
    colours: tuple[str, ...]
    width: int
    top: int
    unit: int


LOOKS = {
    "train": Look(
        ("pear", "plum", "kiwi", "lime", "fig", "corn", "leek", "bean"),
        ("#ffffff", "#fff8e4", "#f0f6ea"),
        ("#1f6fb4", "#c03028", "#2c8a3c"),
        *(224, 10, 14),
    ),
    "test": Look(
        ("cat", "dog", "cow", "hen", "fox", "owl", "bee", "goat"),
        ("#e6ecf6", "#f6e6ee"),
        ("#7a3fa0", "#d07000"),
        *(196, 12, 11),
    ),
}


@dataclass(frozen=True)
class Chart:
    """A chart. Attributes as in `Look`; `values` are those of `names`, in order from left to right."""

    style: str
    names: tuple[str, ...]
    values: tuple[int, ...]
    background: str
    colour: str
    width: int
    top: int
    unit: int

    def x(self, index: int) -> int:
        """Horizontal centre of a category."""
        return LEFT + (2 * index + 1) * (self.width - LEFT) // (2 * len(self.names))

    def y(self, value: int) -> int:
        """Height of a value."""
        return BASE - value * self.unit


def make(rng: Random, split: str, kind: str, level: int) -> Problem[Chart]:
    """Draw up a chart and a question of a kind."""
    look, count = LOOKS[split], CATEGORIES[level]
    chart = Chart(
        rng.choice(STYLES),
        tuple(rng.sample(look.names, count)),
        tuple(rng.sample(range(1, look.top + 1), count)),
        rng.choice(look.backgrounds),
        rng.choice(look.colours),
        *(look.width, look.top, look.unit),
    )
    first, second = rng.sample(range(count), 2)
    return ask(chart, kind, first, second)


def ask(chart: Chart, kind: str, first: int, second: int) -> Problem[Chart]:
    """Return the question of a kind about the categories at two places; some kinds need one of them or none.

    >>> chart = Chart("bar", ("fig", "plum"), (3, 8), "white", "blue", 224, 10, 14)
    >>> ask(chart, "difference", 0, 1).response
    'fig is at 3. plum is at 8. 8 - 3 = 5. \\\\boxed{5}'
    """
    names, values = chart.names, chart.values
    read = tuple(f"{name} is at {value}." for name, value in zip(names, values, strict=True))
    pair = (read[first], read[second])
    low, high = sorted((first, second), key=lambda index: values[index])
    if kind == "value":
        return Problem(chart, f"What is the value of {names[first]}?", str(values[first]), (read[first],))
    if kind == "larger":
        options = (names[first], names[second])
        last = f"{values[high]} > {values[low]}, so {names[high]} is larger."
        return Problem(chart, f"Which value is larger, {one_of(options)}?", names[high], (*pair, last), options)
    if kind == "difference":
        question = f"What is the difference between the values of {names[first]} and {names[second]}?"
        answer = str(values[high] - values[low])
        return Problem(chart, question, answer, (*pair, f"{values[high]} - {values[low]} = {answer}."))
    if kind == "sum":
        answer = str(sum(values))
        last = f"{' + '.join(map(str, values))} = {answer}."
        return Problem(chart, "What is the sum of all values?", answer, (*read, last))
    top = values.index(max(values))
    last = f"The largest value is {values[top]}, of {names[top]}."
    return Problem(chart, f"Which has the largest value, {one_of(names)}?", names[top], (*read, last), names)


def draw(chart: Chart) -> Image.Image:
    """Draw a chart with a line for each value of the axis."""
    image = Image.new("RGB", (chart.width, HEIGHT), chart.background)
    pen = ImageDraw.Draw(image)
    for value in range(chart.top + 1):
        y = chart.y(value)
        pen.line((LEFT, y, chart.width - 1, y), fill=GRID if value else INK)
        if value % 2 == 0:
            pen.text((LEFT - 4, y), str(value), fill=INK, font=font(12), anchor="rm")
    pen.line((LEFT, chart.y(chart.top), LEFT, BASE), fill=INK)
    points = [(chart.x(index), chart.y(value)) for index, value in enumerate(chart.values)]
    for name, (x, y) in zip(chart.names, points, strict=True):
        pen.text((x, BASE + 15), name, fill=INK, font=font(12), anchor="ms")
        if chart.style == "bar":
            pen.rectangle((x - 8, y, x + 8, BASE - 1), fill=chart.colour)
        else:
            pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=chart.colour)
    if chart.style == "line":
        pen.line(points, fill=chart.colour, width=2)
    return image


CHARTS = Task("charts", KINDS, make, draw)
