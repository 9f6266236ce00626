"""Embedded task `shapes`: circles, squares and triangles of several colours that do not overlap.

Each shape lies in a slot of its own. The test split has other colours and larger shapes.
"""

from collections import Counter
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from rlfr_vlm.data.tasks.problems import Problem, Task, one_of

KINDS = ("count", "position", "colour")
FORMS = ("circle", "square", "triangle")
COUNTS = {1: 4, 2: 7, 3: 10}  # shapes by level
MOST_COUNTED = {1: 3, 2: 5, 3: 7}  # largest answer of `count` by level
SLOTS = 4  # in a row and in a column
YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Look:
    """How the scenes of a split look: colours by name, and pixels: a slot's side, least and largest radius."""

    backgrounds: tuple[str, ...]
    colours: dict[str, str]
    slot: int
    radii: tuple[int, int]


LOOKS = {
    "train": Look(
        ("#ffffff", "#f4f0e4"),
        {"red": "#d02020", "green": "#20a040", "blue": "#2050d0", "black": "#101010"},
        42,
        (10, 13),
    ),
    "test": Look(
        ("#d8e8f0", "#e8e0e8"),
        {"orange": "#f08000", "purple": "#8020a0", "yellow": "#f0d800", "brown": "#704018"},
        49,
        (12, 18),
    ),
}


@dataclass(frozen=True)
class Shape:
    """A shape; x, y and radius are the centre and half the side of the square around it, in pixels."""

    colour: str
    form: str
    x: int
    y: int
    radius: int

    @property
    def name(self) -> str:
        return f"{self.colour} {self.form}"


@dataclass(frozen=True)
class Picture:
    """Shapes on a square image."""

    shapes: tuple[Shape, ...]
    background: str
    size: int


def make(rng: Random, split: str, kind: str, level: int) -> Problem[Picture]:
    """Draw up a picture and a question of a kind."""
    look, count = LOOKS[split], COUNTS[level]
    names = [(colour, form) for colour in look.colours for form in FORMS]
    target, other = rng.sample(names, 2)
    if kind == "count":
        times = rng.randint(0, MOST_COUNTED[level])
        rest = [name for name in names if name != target]
        return count_of(*target, _picture(rng, look, [target] * times + rng.choices(rest, k=count - times)))
    if kind == "position":
        rest = [name for name in names if name not in (target, other)]
        picture = _picture(rng, look, [target, other, *rng.choices(rest, k=count - 2)])
        apart = [side for side in ("x", "y") if _slot(picture, 0, side, look) != _slot(picture, 1, side, look)]
        first, second = rng.sample((0, 1), 2)
        return position_of(picture, first, second, rng.choice(apart))
    while True:
        shapes = rng.choices(names, k=count)
        most = Counter(colour for colour, _ in shapes).most_common(2)
        if len(most) == 1 or most[0][1] > most[1][1]:
            return most_common_colour(_picture(rng, look, shapes), tuple(look.colours))


def _picture(rng: Random, look: Look, names: list[tuple[str, str]]) -> Picture:
    """Place shapes into slots by chance. They keep to their slots, whatever their size and shift."""
    shapes = []
    for (colour, form), place in zip(names, rng.sample(range(SLOTS**2), len(names)), strict=True):
        radius = rng.randint(*look.radii)
        free = look.slot - 2 * radius - 2
        x = place % SLOTS * look.slot + radius + 1 + rng.randint(0, free)
        y = place // SLOTS * look.slot + radius + 1 + rng.randint(0, free)
        shapes.append(Shape(colour, form, x, y, radius))
    return Picture(tuple(shapes), rng.choice(look.backgrounds), SLOTS * look.slot)


def _slot(picture: Picture, index: int, side: str, look: Look) -> int:
    """Column (side x) or row (side y) of a shape's slot."""
    return getattr(picture.shapes[index], side) // look.slot


def count_of(colour: str, form: str, picture: Picture) -> Problem[Picture]:
    """How many shapes of a colour and form there are."""
    forms = Counter(shape.form for shape in picture.shapes if shape.colour == colour)
    seen = ", ".join(f"{form} {forms[form]}" for form in FORMS if forms[form])
    steps = (f"Of {colour} shapes I see: {seen or 'none'}.", f"So the number of {colour} {form}s is {forms[form]}.")
    return Problem(picture, f"How many {colour} {form}s are there?", str(forms[form]), steps)


def position_of(picture: Picture, first: int, second: int, side: str) -> Problem[Picture]:
    """Whether a shape is left of (side x) or above (side y) another one. Both are the only ones of their names."""
    one, two = picture.shapes[first], picture.shapes[second]
    before, after = ("left of", "right of") if side == "x" else ("above", "below")
    true = getattr(one, side) < getattr(two, side)
    answer = "yes" if true else "no"
    steps = (f"The {one.name} is {before if true else after} the {two.name}.", f"So the answer is {answer}.")
    question = f"Is the {one.name} {before} the {two.name}? Answer yes or no."
    return Problem(picture, question, answer, steps, YES_NO)


def most_common_colour(picture: Picture, colours: tuple[str, ...]) -> Problem[Picture]:
    """Which colour most shapes have. One colour has more shapes than any other."""
    counts = Counter(shape.colour for shape in picture.shapes)
    answer = counts.most_common(1)[0][0]
    seen = ", ".join(f"{colour} {counts[colour]}" for colour in colours if counts[colour])
    steps = (f"I count the shapes by colour: {seen}.", f"Most are {answer}.")
    return Problem(picture, f"Which colour occurs most often, {one_of(colours)}?", answer, steps, colours)


def draw(picture: Picture) -> Image.Image:
    """Draw a picture."""
    image = Image.new("RGB", (picture.size, picture.size), picture.background)
    pen = ImageDraw.Draw(image)
    colours = {name: value for look in LOOKS.values() for name, value in look.colours.items()}
    for shape in picture.shapes:
        x, y, r, fill = shape.x, shape.y, shape.radius, colours[shape.colour]
        if shape.form == "circle":
            pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)
        elif shape.form == "square":
            pen.rectangle((x - r, y - r, x + r, y + r), fill=fill)
        else:
            pen.polygon(((x, y - r), (x + r, y + r), (x - r, y + r)), fill=fill)
    return image


SHAPES = Task("shapes", KINDS, make, draw)
