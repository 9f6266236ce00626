"""Every rollout in the run folder, within a size: `rollouts/rank<N>.jsonl`, one line per group of responses.

A line has the prompt, where its images are, thumbnails of them, the gold answer and, for each response, text, token
ids, finish reason, each reward, the outcome's advantage, and per token the flow reward, the deviation in each layer,
the shaped advantage, the entropy and the engine's log-prob. Numbers per token are packed as float16 in base64;
`unpack` reads them. Entropies are known only in the update, so a group is written when its responses have had theirs.
When a file has reached its size, every second rollout of it is dropped and from then on only every second (fourth,
eighth ...) is kept: what is left is spread evenly over the run.

Letters: L hooked layers, B responses of this process, T response tokens.
"""

import base64
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlfr_vlm.files import write_text
from rlfr_vlm.page.thumbnails import save_thumbnail
from rlfr_vlm.rewards.completion import completion_text

FOLDER = "rollouts"
UNLOGGED = -1


def pack(values: Sequence[float] | Tensor | np.ndarray) -> str:
    """Numbers as float16 in base64; what float16 cannot hold becomes its largest.

    >>> unpack(pack([0.5, -2.0]))
    [0.5, -2.0]
    """
    array = np.asarray(values, dtype=np.float32)
    return base64.b64encode(np.clip(array, -65504, 65504).astype("<f2").tobytes()).decode("ascii")


def unpack(text: str) -> list[float]:
    """The numbers that `pack` took."""
    return unpack_array(text).tolist()


def unpack_array(text: str) -> np.ndarray:
    """The same as an array of float64."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float64)


@dataclass
class ScoredRows:
    """The last responses that were scored: this process's rows and texts, all processes' rewards (N, functions)."""

    rows: Sequence[dict[str, Any]]
    texts: Sequence[Any]
    rewards: Tensor


class RolloutLog:
    """Collects groups of one process and writes them.

    Args:
        folder: of the run.
        rank: of this process.
        groups: how many groups of each rollout are kept.
        megabytes: size of this process's file.
    """

    def __init__(self, folder: Path, rank: int, groups: int, megabytes: float) -> None:
        self.path = folder / FOLDER / f"rank{rank}.jsonl"
        self.thumbnails = folder / FOLDER / f"rank{rank}-thumbnails"
        self.groups, self.limit = groups, megabytes * 1e6
        self.stride, self.rollouts = 1, 0
        self._waiting: dict[int, dict[str, Any]] = {}  # by row number: the response that waits for its entropies
        self._open: list[dict[str, Any]] = []
        self._next = 0

    def begin(self, step: int) -> None:
        """Of a run that starts or resumes after `step` updates: what a killed run wrote beyond is dropped."""
        if not self.path.exists():
            return
        kept = [line for line in self._lines() if line["step"] < step]
        self.stride = max([line.get("stride", 1) for line in kept], default=1)
        self.rollouts = max([line["rollout"] for line in kept], default=-1) + 1
        self._rewrite(kept)

    def take(self, groups: Sequence[dict[str, Any]], step: int, rows: int) -> Tensor:
        """Note a rollout's groups; returns (B,) numbers that mark the rows whose entropies are awaited.

        Args:
            groups: as `describe_groups` makes them; only the first ones are kept.
            rows: B.
        """
        if self._open and self._open[-1]["step"] != step:
            self.flush()
        numbers = torch.full((rows,), UNLOGGED, dtype=torch.long)
        rollout, self.rollouts = self.rollouts, self.rollouts + 1
        if rollout % self.stride:
            return numbers
        for group in groups[: self.groups]:
            group |= {"step": step, "rollout": rollout, "stride": self.stride}
            group["thumbnails"] = self._save_thumbnails(group.pop("pictures", []))
            for response in group["responses"]:
                self._waiting[self._next] = response
                numbers[response.pop("row")] = self._next
                self._next += 1
            self._open.append(group)
        return numbers

    def add_entropies(self, numbers: Tensor, entropies: Tensor, mask: Tensor) -> None:
        """Entropies (B, T) of marked rows in an update; the first ones of a row count.

        Args:
            numbers: (B,) from `take`.
            mask: (B, T) of response tokens.
        """
        for row in (numbers != UNLOGGED).nonzero().flatten().tolist():
            response = self._waiting.pop(int(numbers[row]), None)
            if response is not None:
                response["entropy"] = pack(entropies[row][mask[row].bool()].float().cpu())
        if self._open and not self._waiting:
            self.flush()

    def flush(self) -> None:
        """Write what was noted; responses that never came to an update stay without entropies."""
        groups, self._open, self._waiting = self._open, [], {}
        try:
            self._append(groups)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        """A full disk must not end the run for the sake of its log."""
        if self.groups:
            print(f"rollouts are not written any more: {error.strerror}: {self.path}", file=sys.stderr)
        self.groups = 0

    def _save_thumbnails(self, pictures: Sequence[Any]) -> list[str]:
        """Files under the log's folder, one per picture; the same picture is written once."""
        try:
            return [f"{self.thumbnails.name}/{save_thumbnail(self.thumbnails, one).name}" for one in pictures]
        except OSError as error:
            self._give_up(error)
            return []

    def _append(self, groups: Sequence[dict[str, Any]]) -> None:
        if groups:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(json.dumps(group, allow_nan=False) + "\n" for group in groups))
        while self.path.exists() and self.path.stat().st_size > self.limit and self.rollouts > self.stride:
            self.stride *= 2
            kept = [line | {"stride": self.stride} for line in self._lines() if not line["rollout"] % self.stride]
            self._rewrite(kept)
            wanted = {name for line in kept for name in line.get("thumbnails", ())}
            for path in self.thumbnails.glob("*"):
                if f"{self.thumbnails.name}/{path.name}" not in wanted:
                    path.unlink(missing_ok=True)

    def _lines(self) -> list[dict[str, Any]]:
        lines = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:  # cut off by a kill
                continue
        return lines

    def _rewrite(self, lines: Sequence[dict[str, Any]]) -> None:
        write_text(self.path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def describe_groups(
    inputs: Sequence[dict[str, Any]],
    output: dict[str, Any],
    texts: Sequence[Any],
    rewards: Mapping[str, Sequence[float | None]],
    size: int,
    tokens: dict[str, Tensor],
    layers: Sequence[int] = (),
) -> list[dict[str, Any]]:
    """The groups of one process's rollout.

    Args:
        inputs: the rows of the data set, one per response.
        output: the batch: completion_ids, completion_mask and `keep`.
        texts: responses, as rewards see them.
        rewards: by name, one value per response; None is undecided.
        size: responses of a group.
        tokens: by name, numbers (B,) of responses, (B, T) of tokens, or (L, B, T) of tokens in each layer.
        layers: (L,) the decoder blocks, counted from 1.
    """
    # One copy each from the device, not one per response.
    arrays = {name: values.float().cpu().numpy() for name, values in tokens.items()}
    lengths = output["completion_mask"].sum(dim=1).tolist()
    token_ids, keep = output["completion_ids"].tolist(), output["keep"].tolist()
    groups = []
    for first, last in _group_bounds(inputs, size):
        row = inputs[first]
        group: dict[str, Any] = {
            "prompt": row["prompt"] if isinstance(row["prompt"], str) else flat_messages(row["prompt"]),
            "row_number": row.get("row_number"),
            "images": row.get("image_paths") or [None] * len(row.get("images") or []),
            "pictures": list(row.get("images") or []),
            "gold": row.get("answer"),
            "layers": list(layers),
            "responses": [],
        }
        for number in range(first, last):
            length = lengths[number]
            response = {
                "row": number,
                "text": completion_text(texts[number]),
                "token_ids": token_ids[number][:length],
                "finish": "length" if inputs[number].get("truncated") else "stop",
                "rewards": {name: _number(values[number]) for name, values in rewards.items()},
                "kept": bool(keep[number]),
            }
            for name, values in arrays.items():
                response[name] = _packed(values[..., number, :length] if values.ndim > 1 else values[number])
            group["responses"].append(response)
        groups.append(group)
    return groups


def _packed(values: np.ndarray) -> float | str | list[str] | None:
    """A number as it is, numbers of tokens (T,) packed, those of layers (L, T) packed layer by layer."""
    if values.ndim == 0:
        return _number(values)
    return pack(values) if values.ndim == 1 else [pack(layer) for layer in values]


def _group_bounds(inputs: Sequence[dict[str, Any]], size: int) -> list[tuple[int, int]]:
    """(first, last + 1) rows of each group; the first and last group of a process may be parts of larger ones.

    >>> _group_bounds([{"row_number": n} for n in (7, 7, 8, 8, 8, 8)], 4)
    [(0, 2), (2, 6)]
    """
    bounds: list[tuple[int, int]] = []
    start = 0
    for number in range(1, len(inputs) + 1):
        ends = number == len(inputs) or number - start == size
        if ends or inputs[number].get("row_number") != inputs[start].get("row_number"):
            bounds.append((start, number))
            start = number
    return bounds


def flat_messages(prompt: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Messages with `<image>` where their images are."""
    flat = []
    for message in prompt:
        content = message["content"]
        if not isinstance(content, str):
            content = "".join("<image>" if part["type"] == "image" else part.get("text", "") for part in content)
        flat.append({"role": message["role"], "content": content})
    return flat


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
