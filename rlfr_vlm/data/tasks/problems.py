"""What the drawn tasks share: problems from a seed, with kinds and levels in turn, and their rows."""

import io
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Generic, TypeVar

from PIL import Image, ImageFont

from rlfr_vlm.data.digits import SPLITS
from rlfr_vlm.data.rows import Row
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

LEVELS = (1, 2, 3)
ATTEMPTS = 1000  # draws of one row before the task counts as exhausted
FORMAT = "Put the final answer in \\boxed{}."

Scene = TypeVar("Scene", bound=Hashable)


@dataclass(frozen=True)
class Problem(Generic[Scene]):
    """A question about a scene.

    Attributes:
        scene: everything that the image shows.
        question: without the request for a box.
        answer: as text.
        steps: sentences from what is seen to the answer.
        options: texts to choose from, which the question names; empty for an open question.
        answer_type: `text` if only the answer's own spelling is right. Else the grader takes 8:40 and 9:45 for ratios,
            which are equal, and 3C for the same product as C3.
    """

    scene: Scene
    question: str
    answer: str
    steps: tuple[str, ...]
    options: tuple[str, ...] = ()
    answer_type: str | None = None

    @property
    def response(self) -> str:
        """The expert response."""
        return " ".join((*self.steps, f"\\boxed{{{self.answer}}}"))


@dataclass(frozen=True)
class Task(Generic[Scene]):
    """A task whose images are drawn.

    Attributes:
        name: as in `dataset_name`.
        kinds: kinds of questions.
        make: draws up a problem from a random generator, split, kind and level. Scenes of the two splits differ in
            colours, so that no image is in both.
        draw: shows a scene. Equal scenes have equal images.
    """

    name: str
    kinds: tuple[str, ...]
    make: Callable[[Random, str, str, int], Problem[Scene]]
    draw: Callable[[Scene], Image.Image]

    def problems(self, split: str, size: int, seed: int) -> Iterator[tuple[str, int, Problem[Scene]]]:
        """Yield kind, level and problem of each row. No two rows have the same scene.

        A row has a generator of its own, seeded with a text: Python hashes it alike on every machine, and a smaller
        size gives the first rows of a larger one.

        Raises:
            UserError: the task has fewer different scenes.
        """
        if split not in SPLITS:
            raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
        seen: set[Scene] = set()
        for number in range(size):
            kind = self.kinds[number % len(self.kinds)]
            level = LEVELS[number // len(self.kinds) % len(LEVELS)]
            rng = Random(f"{self.name} {split} {seed} {number}")
            for _ in range(ATTEMPTS):
                problem = self.make(rng, split, kind, level)
                if problem.scene not in seen:
                    break
            else:
                raise UserError(f"{self.name} has fewer than {size} different images. Set dataset_limit lower.")
            seen.add(problem.scene)
            yield kind, level, problem

    def rows(self, split: str, size: int, seed: int) -> list[Row]:
        """Return `size` rows: the columns of the row format, with images as PNG, and task, kind and difficulty.

        Kinds alternate with each row, difficulties with each round of kinds.
        """
        return [
            {
                "prompt": [{"role": "user", "content": f"{problem.question} {FORMAT}"}],
                "images": [{"bytes": png(self.draw(problem.scene))}],
                "answer": problem.answer,
                "response": problem.response,
                "options": list(problem.options) or None,
                "answer_type": problem.answer_type,
                "task": self.name,
                "kind": kind,
                "difficulty": level,
            }
            for kind, level, problem in self.problems(split, size, seed)
        ]

    def load(self, split: str, size: int = 4096, seed: int = 0) -> "Dataset":
        """Return the rows as a dataset."""
        from datasets import Dataset

        return Dataset.from_list(self.rows(split, size, seed))


def png(image: Image.Image) -> bytes:
    """Return an image as the bytes of a PNG file, compressed a little: drawings are small, and this is fast."""
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@cache
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the font that ships with Pillow, which is the same on every machine."""
    return ImageFont.load_default(size)


def one_of(words: tuple[str, ...]) -> str:
    """Return words as a choice.

    >>> one_of(("red", "green", "blue"))
    'red, green or blue'
    """
    return f"{', '.join(words[:-1])} or {words[-1]}"
