"""Draw README's pictures of the built-in tasks: for each kind of question a row of images, one of each difficulty.

    .venv/bin/python scripts/gallery.py

The first three images of a row are of the split train, the last one is a difficult one of the split test.
"""

import textwrap
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from rlfr_vlm.data.tasks import TASKS, Problem, Task
from rlfr_vlm.data.tasks.problems import LEVELS, font

OUT = Path(__file__).resolve().parent / "screenshots"
WIDTH, CAPTION, GAP = 232, 60, 8  # pixels: of an image with its margin, of the text below it, between rows
CHARACTERS = 40  # of a line of text
COLOURS = 64


def sheet(task: Task[Any]) -> Image.Image:
    """Return the images of a task in a table, each with question and answer."""
    count = len(task.kinds) * len(LEVELS)
    train, test = (list(task.problems(split, count, seed=0)) for split in ("train", "test"))
    shown = [
        [*(problem for kind, _, problem in train if kind == wanted)]
        + [problem for kind, level, problem in test if (kind, level) == (wanted, LEVELS[-1])]
        for wanted in task.kinds
    ]
    height = max(task.draw(problem.scene).height for row in shown for problem in row) + CAPTION + GAP
    image = Image.new("RGB", (WIDTH * len(shown[0]), height * len(shown)), "#ffffff")
    for row, problems in enumerate(shown):
        for column, problem in enumerate(problems):
            paste(image, task, problem, column * WIDTH + GAP // 2, row * height + GAP // 2)
    return image


def paste(image: Image.Image, task: Task[Any], problem: Problem[Any], left: int, top: int) -> None:
    """Put the image of a problem onto the table, with its text below."""
    drawn = task.draw(problem.scene)
    image.paste(drawn, (left, top))
    text = "\n".join([*textwrap.wrap(problem.question, CHARACTERS), f"Answer: {problem.answer}"])
    ImageDraw.Draw(image).multiline_text(
        (left, top + drawn.height + 4), text, fill="#202020", font=font(11), spacing=1
    )


def main() -> None:
    OUT.mkdir(exist_ok=True)
    for name, task in TASKS.items():
        path = OUT / f"{name}.png"
        sheet(task).quantize(COLOURS).save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
