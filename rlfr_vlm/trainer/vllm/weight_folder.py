"""Weights of a policy in a folder that a vLLM server reads: safetensors files, and a file that counts them.

For machines where the server cannot be reached over NCCL: without CUDA, or with server and trainer on one GPU.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from rlfr_vlm.files import replace_directory

FILE_BYTES = 2 * 1024**3  # of one file; the writer holds so much in memory
COUNT = "weights.json"


def write_weights(folder: Path, weights: Iterable[tuple[str, Tensor]], dtype: torch.dtype | None = None) -> int:
    """Write weights, in their order, to a new folder.

    The folder gets its name when it is complete; one of the same name is replaced.

    Args:
        dtype: floating-point weights are converted to it; None keeps them as they are.

    Returns:
        Number of weights.
    """
    held: dict[str, Tensor] = {}
    size = total = files = 0
    with replace_directory(folder) as written:
        for name, weight in weights:
            converts = dtype is not None and weight.is_floating_point()
            held[name] = weight.detach().to("cpu", dtype if converts else weight.dtype, copy=True).contiguous()
            size += held[name].nbytes
            total += 1
            if size >= FILE_BYTES:
                _write_file(written, files, held)
                held, size, files = {}, 0, files + 1
        _write_file(written, files, held)
        (written / COUNT).write_text(json.dumps({"weights": total}))
    return total


def read_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield the names and weights of a folder, in the order in which they were written file by file.

    Raises:
        FileNotFoundError: the folder cannot be seen from here.
        ValueError: it has another number of weights than were written.
    """
    from safetensors import safe_open

    expected, seen = json.loads((folder / COUNT).read_text())["weights"], 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - no dictionary
                yield name, file.get_tensor(name)
                seen += 1
    if seen != expected:
        raise ValueError(f"{folder} has {seen} weights, and {expected} were written")


def _write_file(folder: Path, number: int, weights: dict[str, Tensor]) -> None:
    from safetensors.torch import save_file

    if weights:
        save_file(weights, folder / f"weights-{number:05d}.safetensors")
