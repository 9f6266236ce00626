"""The process that generates rows: `python -m rlfr_vlm.grading.gym.generator REQUEST` writes them as JSON lines."""

import json
import os
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading.gym.entry import pack
from rlfr_vlm.grading.gym.names import LIBRARY
from rlfr_vlm.grading.gym.tasks import open_task

FORMAT = "Put the final answer between <answer> and </answer>."
ANY_ANSWER = "(any solution that the task's scorer takes)"  # of tasks whose entries have no answer


def rows_of(task: str, options: Mapping[str, str], size: int, seed: int) -> Iterator[JsonObject]:
    """Yield the rows of a task. It seeds the global random generators, so call it in a process of its own.

    Raises:
        UserError: reasoning-gym refuses the task or an option.
    """
    import numpy as np

    dataset = open_task(task, options, seed=seed, size=size)
    for index in range(size):
        random.seed(seed + index)
        np.random.seed(seed + index)
        entry = dataset[index]
        yield {
            "prompt": [{"role": "user", "content": f"{entry['question'].rstrip()}\n\n{FORMAT}"}],
            "answer": ANY_ANSWER if entry["answer"] is None else str(entry["answer"]),
            "source": f"{LIBRARY}/{task}",
            LIBRARY: pack(task, options, entry),
        }


def main() -> None:
    """Write the rows of the request in the first argument, or the message of an error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the library prints while it is imported
    request = json.loads(sys.argv[1])
    try:
        for row in rows_of(request["task"], request["options"], request["size"], request["seed"]):
            print(json.dumps(row), file=replies)
    except UserError as error:
        print(json.dumps({"error": str(error)}), file=replies)
    replies.close()


if __name__ == "__main__":
    with suppress(BrokenPipeError, KeyboardInterrupt):  # the parent has ended, or ends
        main()
