"""The rows of a reasoning-gym task, from a process of their own (`generator.py`).

Some tasks iterate over sets of texts or draw from the global random generators. The process has a fixed hash seed and
seeds both generators for each entry, so that the rows follow from name, split, size and seed, and the caller's random
state is left alone.

The library makes entry i of a data set from its seed + i. A run's seed is given a range of these numbers; those of the
training rows are below `HELD_OUT`, those of the split `test` above, whatever the run's seed.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading.gym.names import check_installed, parse_name

SPLITS = ("train", "test")
DEFAULT_ROWS = 4096
MAX_ROWS = 2**20  # of a data set, so that no two seeds share an entry
SEEDS = 2**11  # ranges of a split
HELD_OUT = SEEDS * MAX_ROWS  # first seed of the split test; numpy takes seeds below twice this
GENERATOR = "rlfr_vlm.grading.gym.generator"


def first_seed(split: str, seed: int) -> int:
    """Return the generator seed of the first row.

    >>> first_seed("train", 1), first_seed("test", 0)
    (1048576, 2147483648)
    """
    return SPLITS.index(split) * HELD_OUT + seed % SEEDS * MAX_ROWS


def generate(name: str, split: str, limit: int | None = None, seed: int = 0) -> list[JsonObject]:
    """Return the rows of a task: prompt, answer, source, and the entry that its scorer needs.

    Args:
        name: such as `reasoning_gym:chain_sum?max_terms=3&size=2000`.
        split: train or test.
        limit: largest number of rows, beside the one in the name.
        seed: of the run.

    Raises:
        UserError: reasoning-gym is missing, or refuses the task or an option.
    """
    from tqdm import tqdm

    parsed = parse_name(name)
    check_installed(name)
    if split not in SPLITS:
        raise UserError(f"{name} has no split {split!r}; it has {' and '.join(SPLITS)}.")
    size = min(count for count in (parsed.size, limit, None if parsed.size or limit else DEFAULT_ROWS) if count)
    if size > MAX_ROWS:
        raise UserError(f"{name} would have {size} rows; it can have {MAX_ROWS}. Set size or dataset_limit.")
    request = {"task": parsed.task, "options": parsed.options, "size": size, "seed": first_seed(split, seed)}
    bar = tqdm(_replies(request, name), total=size, desc=parsed.task, unit="row", leave=False, delay=5)
    return list(bar)


def _replies(request: JsonObject, name: str) -> Iterator[JsonObject]:
    """Yield what the process writes.

    Raises:
        UserError: the process refused the request, or ended before all rows were there.
    """
    command = [sys.executable, "-P", "-m", GENERATOR, json.dumps(request)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env={**os.environ, "PYTHONHASHSEED": "0"}
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                reply = json.loads(line)
                if "error" in reply:
                    raise UserError(reply["error"])
                yield reply
            if process.wait():
                errors.seek(0)
                last = (errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1]
                raise UserError(f"reasoning-gym failed to generate the rows of {name}: {last}")
        finally:
            process.kill()
            process.stdout.close()
            process.wait()
