"""Rollout log of a run: `rollouts/rank<N>.jsonl`, one line per group of responses, limited in size.

A line has the prompt, of a mixture its source, the paths of its images, their thumbnails, the gold answer and, for
each response, text, token ids, finish reason, each reward, the outcome's advantage, and per token the flow reward, the
deviation in each layer, the shaped advantage, the entropy and vLLM's log-prob. Per-token values are packed as float16
in base64; `unpack` reads them. Entropies are computed in the update, so a group is written after the first update of
its responses. When a file exceeds its size limit, every second rollout in it is dropped and from then on only every
second (fourth, eighth ...) rollout is logged, so that the logged rollouts are spread evenly over the run.

Letters: L hooked layers, B responses of this process, T response tokens.
"""

import base64
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from rlfr_vlm.data.mixture import SOURCE_COLUMN
from rlfr_vlm.data.rows import Messages, Row
from rlfr_vlm.data.videos import pictures_of
from rlfr_vlm.files import JsonObject, write_text
from rlfr_vlm.page.thumbnails import save_thumbnail
from rlfr_vlm.rewards.completion import Completion, completion_text

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = "rollouts"
UNLOGGED = -1  # mark of a row that is not logged
FLOAT16_MAX = 65504
Group = JsonObject  # one line of the log


def pack(values: Sequence[float] | Tensor | np.ndarray) -> str:
    """Encode values as float16 in base64, clamped to the range of float16.

    >>> unpack(pack([0.5, -2.0]))
    [0.5, -2.0]
    """
    array = np.asarray(values, dtype=np.float32).clip(-FLOAT16_MAX, FLOAT16_MAX)
    return base64.b64encode(array.astype("<f2").tobytes()).decode("ascii")


def unpack(text: str) -> list[float]:
    """Decode the output of `pack`."""
    values: list[float] = unpack_array(text).tolist()
    return values


def unpack_array(text: str) -> np.ndarray:
    """Decode the output of `pack` into an array of float64."""
    return np.frombuffer(base64.b64decode(text), dtype="<f2").astype(np.float64)


@dataclass
class ScoredRows:
    """Responses after scoring: rows and texts of this rank, rewards (N, reward functions) of all ranks."""

    rows: Sequence[Row]
    texts: Sequence[Completion]
    rewards: Tensor


class RolloutLog:
    """Collects the groups of one rank and writes them.

    Args:
        folder: the run folder.
        rank: rank of this process.
        groups: groups logged of each rollout.
        megabytes: size limit of this rank's file.
    """

    def __init__(self, folder: Path, rank: int, groups: int, megabytes: float) -> None:
        self.path = folder / FOLDER / f"rank{rank}.jsonl"
        self.thumbnails = folder / FOLDER / f"rank{rank}-thumbnails"
        self.groups, self.limit = groups, megabytes * 1e6
        self.stride, self.rollouts = 1, 0
        self._pending: dict[int, Row] = {}  # mark -> response without entropies so far
        self._open: list[Group] = []  # groups not written yet
        self._next_mark = 0

    def begin(self, step: int) -> None:
        """On start or resume after `step` updates, drop the lines that a killed run wrote later."""
        if not self.path.exists():
            return
        lines = [line for line in self._lines() if line["step"] < step]
        self.stride = max([line.get("stride", 1) for line in lines], default=1)
        self.rollouts = max([line["rollout"] for line in lines], default=-1) + 1
        self._rewrite(lines)

    def take(self, groups: Sequence[Group], step: int, rows: int) -> Tensor:
        """Add the groups of a rollout.

        Args:
            groups: output of `describe_groups`; only the first ones are logged.
            step: optimiser steps so far.
            rows: B.

        Returns:
            (B,) marks for `add_entropies`, `UNLOGGED` for rows that are not logged.
        """
        if self._open and self._open[-1]["step"] != step:
            self.flush()
        marks = torch.full((rows,), UNLOGGED, dtype=torch.long)
        rollout, self.rollouts = self.rollouts, self.rollouts + 1
        if rollout % self.stride:
            return marks
        for group in groups[: self.groups]:
            group |= {"step": step, "rollout": rollout, "stride": self.stride}
            group["thumbnails"] = self._save_thumbnails(group.pop("pictures", []))
            for response in group["responses"]:
                self._pending[self._next_mark] = response
                marks[response.pop("row")] = self._next_mark
                self._next_mark += 1
            self._open.append(group)
        return marks

    def add_entropies(self, marks: Tensor, entropies: Tensor, mask: Tensor) -> None:
        """Add the entropies of marked rows in an update. Only the first entropies of a row are logged.

        Args:
            marks: (B,) from `take`.
            entropies: (B, T).
            mask: (B, T) of response tokens.
        """
        for row in (marks != UNLOGGED).nonzero().flatten().tolist():
            response = self._pending.pop(int(marks[row]), None)
            if response is not None:
                response["entropy"] = pack(entropies[row][mask[row].bool()].float().cpu())
        if self._open and not self._pending:
            self.flush()

    def flush(self) -> None:
        """Write all open groups; responses that never reached an update have no entropies."""
        groups, self._open, self._pending = self._open, [], {}
        try:
            self._append(groups)
        except OSError as error:
            self._disable(error)

    def _disable(self, error: OSError) -> None:
        """Stop logging, since a full disk must not end the run because of its log."""
        if self.groups:
            # above the progress bar
            tqdm.write(f"rollouts are not written any more: {error.strerror}: {self.path}", file=sys.stderr)
        self.groups = 0

    def _save_thumbnails(self, images: Sequence["Image"]) -> list[str]:
        """Return paths relative to the log's folder, one per image; equal images share a file."""
        try:
            return [f"{self.thumbnails.name}/{save_thumbnail(self.thumbnails, image).name}" for image in images]
        except OSError as error:
            self._disable(error)
            return []

    def _append(self, groups: Sequence[Group]) -> None:
        if groups:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write("".join(json.dumps(group, allow_nan=False) + "\n" for group in groups))
        while self.path.exists() and self.path.stat().st_size > self.limit and self.rollouts > self.stride:
            self.stride *= 2
            lines = [line | {"stride": self.stride} for line in self._lines() if not line["rollout"] % self.stride]
            self._rewrite(lines)
            used = {name for line in lines for name in line.get("thumbnails", ())}
            for path in self.thumbnails.glob("*"):
                if f"{self.thumbnails.name}/{path.name}" not in used:
                    path.unlink(missing_ok=True)

    def _lines(self) -> list[Group]:
        lines = []
        for text in self.path.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:  # cut off by a kill
                continue
        return lines

    def _rewrite(self, lines: Sequence[Group]) -> None:
        write_text(self.path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def describe_groups(
    inputs: Sequence[Row],
    output: Mapping[str, Tensor],
    texts: Sequence[Completion],
    rewards: Mapping[str, Sequence[float | None]],
    size: int,
    tokens: dict[str, Tensor],
    layers: Sequence[int] = (),
) -> list[Group]:
    """Describe the groups of one rank's rollout as lines of the log.

    Args:
        inputs: data set rows, one per response.
        output: the batch: completion_ids, completion_mask and `keep`.
        texts: responses in the form that reward functions receive.
        rewards: reward name -> one value per response; None means undecided.
        size: responses per group.
        tokens: name -> values (B,) of responses, (B, T) of tokens, or (L, B, T) of tokens in each layer.
        layers: (L,) decoder blocks, counted from 1.
    """
    # Copy each tensor from the device once, not once per response.
    arrays = {name: values.float().cpu().numpy() for name, values in tokens.items()}
    lengths = output["completion_mask"].sum(dim=1).tolist()
    token_ids, keep = output["completion_ids"].tolist(), output["keep"].tolist()
    groups = []
    for first, last in _group_bounds(inputs, size):
        row = inputs[first]
        group: Group = {
            "prompt": row["prompt"] if isinstance(row["prompt"], str) else flat_messages(row["prompt"]),
            "row_number": row.get("row_number"),
            "images": row.get("image_paths") or [None] * len(row.get("images") or []),
            "pictures": pictures_of(row),
            "gold": row.get("answer"),
            "layers": list(layers),
            "responses": [],
        }
        if row.get(SOURCE_COLUMN):
            group["source"] = row[SOURCE_COLUMN]
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
                response[name] = _pack_values(values[..., number, :length] if values.ndim > 1 else values[number])
            group["responses"].append(response)
        groups.append(group)
    return groups


def _pack_values(values: np.ndarray) -> float | str | list[str] | None:
    """Return a scalar unchanged, values of tokens (T,) packed, values (L, T) packed layer by layer."""
    if values.ndim == 0:
        return _number(values.item())
    return pack(values) if values.ndim == 1 else [pack(layer) for layer in values]


def _group_bounds(inputs: Sequence[Row], size: int) -> list[tuple[int, int]]:
    """Return (first, last + 1) rows of each group; the first and last group of a rank may be parts of larger ones.

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


def flat_messages(prompt: Messages) -> list[dict[str, str]]:
    """Flatten message contents to text, with `<image>` and `<video>` in place of the media."""
    flat = []
    for message in prompt:
        content = message["content"]
        if not isinstance(content, str):
            content = "".join(
                f"<{part['type']}>" if part["type"] in ("image", "video") else part.get("text", "") for part in content
            )
        flat.append({"role": message["role"], "content": content})
    return flat


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
