"""Embedded task `clocks`: the face of a clock with two hands.

Levels differ in the minutes: quarters of an hour, multiples of five, any. The test split has other colours and a
larger face with four numerals instead of twelve.
"""

import math
from dataclasses import dataclass
from random import Random

from PIL import Image, ImageDraw

from rlfr_vlm.data.tasks.problems import Problem, Task, font

KINDS = ("time", "to_hour", "later")
AS_TIME = "Answer as H:MM, such as 7:05."
STEPS = {1: 15, 2: 5, 3: 1}  # minutes between the times of a level
SHIFT = 6  # pixels, largest distance of the face from the middle in each direction
FRAME = 4  # pixels between the face's edge and the ticks
INK = "#101010"


@dataclass(frozen=True)
class Look:
    """How the clocks of a split look: colours, sizes in pixels, and the hours that have a numeral."""

    backgrounds: tuple[str, ...]
    faces: tuple[str, ...]
    hands: tuple[str, ...]
    size: int
    radius: int
    numerals: tuple[int, ...]


LOOKS = {
    "train": Look(
        ("#dde6ee", "#e8e0d0"), ("#ffffff", "#fffbe8"), ("#2050c0", "#c02020", "#208038"), 196, 90, tuple(range(1, 13))
    ),
    "test": Look(("#3a4a3a", "#50405a"), ("#f4e4ea", "#e4f0e0"), ("#8020a0", "#b06000"), 224, 104, (3, 6, 9, 12)),
}


@dataclass(frozen=True)
class Clock:
    """A clock. `hour` is 1 to 12; x and y are the centre of the face; others as in `Look`."""

    hour: int
    minute: int
    x: int
    y: int
    background: str
    face: str
    hands: str
    size: int
    radius: int
    numerals: tuple[int, ...]

    def point(self, turn: float, length: float) -> tuple[int, int]:
        """Pixel at a distance from the centre; `turn` is 0 at 12 and 0.25 at 3.

        The inner rounding removes the last bits of sine and cosine, in which machines differ.
        """
        x, y = length * math.sin(math.tau * turn), -length * math.cos(math.tau * turn)
        return self.x + round(round(x, 6)), self.y + round(round(y, 6))


def make(rng: Random, split: str, kind: str, level: int) -> Problem[Clock]:
    """Draw up a clock and a question of a kind."""
    look, step = LOOKS[split], STEPS[level]
    clock = Clock(
        rng.randint(1, 12),
        rng.randrange(step if kind == "to_hour" else 0, 60, step),  # a full hour has no next one that is clear
        look.size // 2 + rng.randint(-SHIFT, SHIFT),
        look.size // 2 + rng.randint(-SHIFT, SHIFT),
        rng.choice(look.backgrounds),
        rng.choice(look.faces),
        rng.choice(look.hands),
        *(look.size, look.radius - SHIFT, look.numerals),
    )
    return ask(clock, kind, rng.randrange(step, 60, step))


def ask(clock: Clock, kind: str, later: int) -> Problem[Clock]:
    """Return the question of a kind; `later` is a number of minutes below 60.

    >>> clock = Clock(12, 50, 98, 98, "white", "white", "black", 196, 84, (12,))
    >>> ask(clock, "later", 25).response
    'The clock shows 12:50. 50 + 25 = 75. 75 - 60 = 15, and the hour after 12 is 1. \\\\boxed{1:15}'
    """
    hour, minute = clock.hour, clock.minute
    shown, after = f"{hour}:{minute:02}", hour % 12 + 1
    steps: tuple[str, ...]
    if kind == "time":
        place = f"points at {hour}" if minute == 0 else f"is between {hour} and {after}"
        steps = (f"The short hand {place}.", f"The long hand is at {minute} minutes.")
        return Problem(clock, f"What time does the clock show? {AS_TIME}", shown, steps, answer_type="text")
    if kind == "to_hour":
        answer = str(60 - minute)
        steps = (f"The clock shows {shown}.", f"60 - {minute} = {answer}.")
        return Problem(clock, "How many minutes are left until the next full hour?", answer, steps)
    total = minute + later
    steps = (f"The clock shows {shown}.", f"{minute} + {later} = {total}.")
    if total >= 60:
        hour, total = after, total - 60
        steps = (*steps, f"{total + 60} - 60 = {total}, and the hour after {clock.hour} is {after}.")
    question = f"What time is it {later} minutes later than the clock shows? {AS_TIME}"
    return Problem(clock, question, f"{hour}:{total:02}", steps, answer_type="text")


def draw(clock: Clock) -> Image.Image:
    """Draw a clock. The hour hand moves with the minutes; ticks of five minutes are longer.

    Numerals are drawn last, in another colour than the hands, so that a hand hides none.
    """
    image = Image.new("RGB", (clock.size, clock.size), clock.background)
    pen = ImageDraw.Draw(image)
    x, y, edge = clock.x, clock.y, clock.radius
    pen.ellipse((x - edge, y - edge, x + edge, y + edge), fill=clock.face, outline=INK, width=2)
    outer = edge - FRAME
    for minute in range(60):
        inner, width = (outer - 8, 2) if minute % 5 == 0 else (outer - 4, 1)
        pen.line((clock.point(minute / 60, inner), clock.point(minute / 60, outer)), fill=INK, width=width)
    hour_turn = (clock.hour + clock.minute / 60) / 12
    pen.line(((x, y), clock.point(hour_turn, edge * 0.5)), fill=clock.hands, width=6)
    pen.line(((x, y), clock.point(clock.minute / 60, outer - 9)), fill=clock.hands, width=3)
    pen.ellipse((x - 4, y - 4, x + 4, y + 4), fill=clock.hands)
    for hour in clock.numerals:
        pen.text(clock.point(hour / 12, outer - 18), str(hour), fill=INK, font=font(15), anchor="mm")
    return image


CLOCKS = Task("clocks", KINDS, make, draw)
