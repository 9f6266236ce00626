"""Embedded task `word_problems`: sums, differences and short stories in text, with exact answers.

Each prompt begins with two worked examples as earlier turns: a language model of 135M parameters states its answer in
that form, and without them it is right in 5 % of its responses. No question is in both splits.
"""

import random
import zlib
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING

from rlfr_vlm.data.digits import SPLITS
from rlfr_vlm.data.rows import Row

if TYPE_CHECKING:
    from datasets import Dataset

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo")
THINGS = ("apples", "books", "coins", "pencils", "shells", "stamps")
TRIES = 500  # draws for a problem, before its kind counts as used up
TEST_SHARE = 5  # one question in so many is of the test split
EXAMPLES = (
    ("What is 3 + 14?", "3 + 14 = 17. The answer is 17."),
    ("Ida has 9 pens and gives 4 away. How many pens are left?", "9 - 4 = 5. The answer is 5."),
)


def sum_of_two(draw: random.Random) -> tuple[str, str, int]:
    a, b = draw.randint(2, 20), draw.randint(2, 20)
    return f"What is {a} + {b}?", f"{a} + {b}", a + b


def difference(draw: random.Random) -> tuple[str, str, int]:
    a = draw.randint(5, 20)
    b = draw.randint(1, a - 1)
    return f"What is {a} - {b}?", f"{a} - {b}", a - b


def story(draw: random.Random) -> tuple[str, str, int]:
    name, thing = draw.choice(NAMES), draw.choice(THINGS)
    a, b = draw.randint(2, 12), draw.randint(2, 9)
    if draw.random() < 0.5:
        question = f"{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?"
        return question, f"{a} + {b}", a + b
    low = min(a, b)
    question = f"{name} has {a + low} {thing} and gives {low} away. How many {thing} are left?"
    return question, f"{a + low} - {low}", a


# Each returns the question, the working and the answer.
KINDS: tuple[Callable[[random.Random], tuple[str, str, int]], ...] = (sum_of_two, difference, story)


def split_of(question: str) -> str:
    """Return the split of a question, which follows from its text."""
    return "test" if zlib.crc32(question.encode()) % TEST_SHARE == 0 else "train"


def word_problems(seed: int, split: str | None = None, known: Collection[str] = ()) -> Iterator[Row]:
    """Yield different problems, kinds in turn, with expert responses, until no more are found.

    Args:
        seed: of the draws.
        split: train or test; None takes the questions of both.
        known: questions that must not be among them.
    """
    turns = [
        {"role": role, "content": text}
        for example in EXAMPLES
        for role, text in zip(("user", "assistant"), example, strict=True)
    ]
    draw, seen, count = random.Random(seed), set(known), 0
    used_up = tries = 0
    while used_up < len(KINDS):
        kind = KINDS[(count + used_up) % len(KINDS)]
        question, working, answer = kind(draw)
        tries += 1
        if tries > TRIES:
            used_up, tries = used_up + 1, 0
        elif question not in seen and split in (None, split_of(question)):
            seen.add(question)
            tries = used_up = 0
            count += 1
            yield {
                "prompt": [*turns, {"role": "user", "content": question}],
                "answer": str(answer),
                "response": f"{working} = {answer}. The answer is {answer}.",
                "kind": kind.__name__,
            }


def load_word_problems(split: str, size: int = 4096, seed: int = 0) -> "Dataset":
    """Return the task as a dataset with the columns prompt, answer, response and kind.

    Args:
        size: largest number of rows; the split train has some 6,000, the split test some 1,500.
    """
    from itertools import islice

    from datasets import Dataset

    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    return Dataset.from_list(list(islice(word_problems(seed, split), size)))
