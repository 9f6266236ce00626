"""Logged rollouts as a page shows them: packed, within a size, with the tokens that flow rewards chose.

Letters: L layers, T response tokens.
"""

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlfr_vlm.page.thumbnails import PageImages
from rlfr_vlm.report.read_run import Run, names_of
from rlfr_vlm.report.token_text import Pieces, token_class, token_classes
from rlfr_vlm.trainer.records.rollout_log import unpack_array

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Numbers per token of a response that a page can colour by.
MODES = ("flow_reward", "deviation", "entropy", "token_advantage")


@dataclass
class RolloutPage:
    """What the page's script reads, filled run by run.

    Attributes:
        layers: by run, the decoder blocks of its field.
        counts: (run, step, piece) -> [rewarded, penalised, seen].
        values: numbers of all tokens, by mode, of which the colour scales are made.
        by_class: deviations by outcome and token class.
    """

    groups: list[dict[str, Any]] = field(default_factory=list)
    vocabulary: dict[str, int] = field(default_factory=dict)
    images: PageImages = field(default_factory=PageImages)
    layers: dict[int, list[int]] = field(default_factory=dict)
    reward_names: list[str] = field(default_factory=list)
    counts: dict[tuple[int, int, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    values: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    by_class: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))

    def add_run(self, number: int, run: Run, groups: Iterable[dict[str, Any]], pieces: Pieces) -> None:
        """Add a run's chosen groups, in the order of their steps, as the rollout log has them."""
        for group in groups:
            self.groups.append(self._group(number, run, group, pieces))
        mark_changes([one for one in self.groups if one["run"] == number])

    def data(self) -> dict[str, Any]:
        """For the page's script."""
        chosen = {piece for (_, _, piece), found in self.counts.items() if found[0] or found[1]}
        return {
            "groups": self.groups, "vocabulary": list(self.vocabulary), "images": self.images.uris,
            "layers": sorted({layer for own in self.layers.values() for layer in own}),
            "classes": [token_class(piece) for piece in self.vocabulary], "reward_names": self.reward_names,
            "scales": self.scales(), "steps": any(group["step"] is not None for group in self.groups),
            "token_counts": [[run, step, piece, *found] for (run, step, piece), found in sorted(self.counts.items())
                             if piece in chosen],
        }  # fmt: skip

    def scales(self) -> dict[str, list[float]]:
        """Low, middle and high end of each mode's colours.

        Symmetric around 0 for rewards and advantages, else the 5th, 50th and 95th percentile.
        """
        scales = {}
        for mode, parts in self.values.items():
            values = np.concatenate(parts)
            if not len(values):
                continue
            if mode in ("flow_reward", "token_advantage"):
                largest = float(np.abs(values).max() if mode == "flow_reward" else np.quantile(np.abs(values), 0.98))
                scales[mode] = [-largest, 0.0, largest]
            else:
                scales[mode] = [float(np.quantile(values, share)) for share in (0.05, 0.5, 0.95)]
        return scales

    def deviations_by_class(self) -> list[dict[str, Any]]:
        """Quantiles of tokens' deviations by outcome and class of token."""
        rows = []
        for (outcome, kind), parts in sorted(self.by_class.items()):
            values = np.concatenate(parts)
            if len(values):
                quantiles = [float(np.quantile(values, share)) for share in QUANTILES]
                rows.append({"outcome": outcome, "class": kind, "n": len(values), "quantiles": quantiles})
        return rows

    def _group(self, number: int, run: Run, group: dict[str, Any], pieces: Pieces) -> dict[str, Any]:
        system, question = split_prompt(group["prompt"])
        images = [self._image(run, group, place) for place in range(image_count(group))]
        responses = [self._response(number, run, group, one, pieces) for one in group["responses"]]
        outcomes = Counter(one["outcome"] for one in responses)
        return {
            "run": number, "step": group["step"], "row": group.get("row_number"), "system": system,
            "question": question, "gold": None if group.get("gold") is None else str(group["gold"]), "change": "",
            "images": [one for one in images if one is not None], "images_missing": images.count(None),
            "right": outcomes["right"], "wrong": outcomes["wrong"], "undecided": outcomes["undecided"],
            "responses": responses,
        }  # fmt: skip

    def _response(
        self, number: int, run: Run, group: dict[str, Any], response: dict[str, Any], pieces: Pieces
    ) -> dict[str, Any]:
        right = run.is_right(response["rewards"])
        outcome = {True: "right", False: "wrong", None: "undecided"}[right]
        self.reward_names += [name for name in response["rewards"] if name not in self.reward_names]
        texts = pieces.of(response["token_ids"])
        indices = [self.vocabulary.setdefault(text, len(self.vocabulary)) for text in texts]
        deviations = packed_deviations(response)
        self._note_layers(number, group.get("layers") or [], [unpack_array(layer) for layer in deviations])
        if deviations:
            deviation = np.mean([unpack_array(layer) for layer in deviations], axis=0)
            known = np.isfinite(deviation) & (deviation != 0)  # 0: tokens without a partner
            self.values["deviation"].append(deviation[known])
            self._note_classes(outcome, token_classes(texts), deviation, known)
        for mode in ("flow_reward", "entropy", "token_advantage"):
            if mode in response:
                self.values[mode].append(_finite(unpack_array(response[mode])))
        if "token_advantage" not in response and response.get("advantage") is not None:
            self.values["token_advantage"].append(np.array([response["advantage"]]))
        if "flow_reward" in response:  # responses that no step made count for step 0
            self._count(number, group["step"] or 0, indices, unpack_array(response["flow_reward"]))
        return {
            "pieces": base64.b64encode(np.array(indices, dtype="<u4").tobytes()).decode("ascii"),
            "outcome": outcome, "layers": deviations,
            **{name: response.get(name) for name in ("finish", "rewards", "kept", "advantage", "flow_reward",
                                                     "entropy", "token_advantage")},
        }  # fmt: skip

    def _note_layers(self, number: int, labels: Sequence[int], layers: Sequence[np.ndarray]) -> None:
        """Keep the values of labelled layers; a log without labels has its mean only."""
        self.layers.setdefault(number, list(labels) if len(labels) == len(layers) else [])
        for layer, values in zip(self.layers[number], layers, strict=False):
            self.values[f"layer_{layer}"].append(_finite(values[values != 0]))

    def _note_classes(self, outcome: str, classes: Sequence[str], deviation: np.ndarray, known: np.ndarray) -> None:
        names = np.array(classes)
        for kind in set(classes):
            self.by_class[outcome, kind].append(deviation[known & (names == kind)])

    def _count(self, run: int, step: int, indices: Sequence[int], rewards: np.ndarray) -> None:
        for index, reward in zip(indices, rewards, strict=False):  # a log may have been cut
            found = self.counts[run, step, index]
            found[0] += int(reward > 0)
            found[1] += int(reward < 0)
            found[2] += 1

    def _image(self, run: Run, group: dict[str, Any], place: int) -> int | None:
        """Number of an image in the page; None when it cannot be read or the page holds enough."""
        if group.get("pictures"):
            return self.images.add((group["row_number"], place), group["pictures"][place])
        thumbnails = group.get("thumbnails") or []
        if place < len(thumbnails):
            path = run.folder / "rollouts" / thumbnails[place]
            return self.images.add(path, path)
        originals = group.get("images") or []
        original = originals[place] if place < len(originals) else None
        return self.images.add(original, original) if original else None


def packed_deviations(response: Mapping[str, Any]) -> list[str]:
    """Deviations of a response, packed layer by layer; logs of before kept their mean only."""
    if response.get("deviations"):
        return list(response["deviations"])
    return [response["deviation"]] if response.get("deviation") else []


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def image_count(group: dict[str, Any]) -> int:
    return max(len(group.get(name) or []) for name in ("images", "thumbnails", "pictures"))


def split_prompt(prompt: str | list[dict[str, str]]) -> tuple[str, str]:
    """The system prompt, and the rest as one text; turns other than the first say whose they are.

    >>> split_prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>2+3?"}])
    ('Be brief.', '<image>2+3?')
    """
    if isinstance(prompt, str):
        return "", prompt
    system = "\n".join(one["content"] for one in prompt if one["role"] == "system")
    turns = [one for one in prompt if one["role"] != "system"]
    if len(turns) == 1:
        return system, turns[0]["content"]
    return system, "\n\n".join(f"{one['role']}: {one['content']}" for one in turns)


def mark_changes(groups: Sequence[dict[str, Any]]) -> None:
    """Mark prompts that were seen before: `up` when mostly wrong became mostly right, `down` the other way round.

    The earlier sight is the last one, at an earlier step, that was not a tie.
    """
    sights: dict[Any, list[dict[str, Any]]] = {}
    for group in groups:
        if group["row"] is None:
            continue
        own = sights.setdefault(group["row"], [])
        earlier = [one for one in own if one["step"] is not None and one["step"] < group["step"] and _lead(one)]
        if earlier:
            then, now = _lead(earlier[-1]), _lead(group)
            group["change"] = "up" if then < 0 < now else "down" if now < 0 < then else ""
        own.append(group)


def _lead(group: dict[str, Any]) -> int:
    return int(group["right"]) - int(group["wrong"])


def describe_runs(runs: Sequence[Run], page: RolloutPage) -> list[dict[str, Any]]:
    """What the script must know of each run."""
    return [
        {
            "name": name, "threshold": run.config.get("flow_threshold"), "layers": page.layers.get(number, []),
            "two_sided": bool(run.config.get("flow_two_sided", True)),
        }
        for number, (name, run) in enumerate(zip(names_of(list(runs)), runs, strict=True))
    ]  # fmt: skip
