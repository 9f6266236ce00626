"""Prepare logged rollouts for the page's script: packed arrays, thumbnails, colour scales and token counts.

Letters: L layers, T response tokens.
"""

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlfr_vlm.files import JsonObject
from rlfr_vlm.page.thumbnails import PageImages
from rlfr_vlm.report.read_run import Run, names_of
from rlfr_vlm.report.token_text import TokenDecoder, token_class, token_classes
from rlfr_vlm.trainer.records.rollout_log import unpack_array

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Packed arrays (T,) of a logged response, beside its deviations, by which the page can colour tokens.
TOKEN_ARRAYS = ("flow_reward", "entropy", "token_advantage", "visual_dependency")
COPIED_KEYS = ("finish", "rewards", "kept", "advantage", *TOKEN_ARRAYS)


@dataclass
class RolloutPage:
    """Data of the page's script, filled run by run.

    Attributes:
        groups: groups of responses, in the order in which they were added.
        vocabulary: token text -> index.
        images: thumbnails of the prompts' images.
        layers: run index -> decoder blocks of its field.
        reward_names: names of all rewards, in the order of the runs.
        counts: (run index, step, vocabulary index) -> [rewarded, penalised, total] tokens.
        values: colour mode -> arrays of token values, from which the colour scales are computed.
        by_class: (outcome, token class) -> arrays of deviations.
    """

    groups: list[JsonObject] = field(default_factory=list)
    vocabulary: dict[str, int] = field(default_factory=dict)
    images: PageImages = field(default_factory=PageImages)
    layers: dict[int, list[int]] = field(default_factory=dict)
    reward_names: list[str] = field(default_factory=list)
    counts: dict[tuple[int, int, int], list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    values: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    by_class: dict[tuple[str, str], list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))

    def add_run(self, index: int, run: Run, groups: Iterable[JsonObject], decoder: TokenDecoder) -> None:
        """Add groups of a run, sorted by step, in the format of the rollout log."""
        for group in groups:
            self.groups.append(self._group(index, run, group, decoder))
        mark_changes([group for group in self.groups if group["run"] == index])

    def data(self) -> JsonObject:
        """JSON object that the page's script reads."""
        ranked = {token for (_, _, token), counts in self.counts.items() if counts[0] or counts[1]}
        return {
            "groups": self.groups,
            "vocabulary": list(self.vocabulary),
            "images": self.images.uris,
            "layers": sorted({layer for layers in self.layers.values() for layer in layers}),
            "classes": [token_class(text) for text in self.vocabulary],
            "reward_names": self.reward_names,
            "scales": self.scales(),
            "steps": any(group["step"] is not None for group in self.groups),
            "token_counts": [
                [run, step, token, *counts]
                for (run, step, token), counts in sorted(self.counts.items())
                if token in ranked
            ],
        }

    def scales(self) -> dict[str, list[float]]:
        """Low end, middle and high end of the colour scale of each mode.

        Symmetric around 0 for rewards and advantages; otherwise the 5th, 50th and 95th percentile.
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

    def deviations_by_class(self) -> list[JsonObject]:
        """Quantiles of token deviations by outcome and token class."""
        rows = []
        for (outcome, token_kind), parts in sorted(self.by_class.items()):
            values = np.concatenate(parts)
            if len(values):
                quantiles = [float(np.quantile(values, share)) for share in QUANTILES]
                rows.append({"outcome": outcome, "class": token_kind, "n": len(values), "quantiles": quantiles})
        return rows

    def _group(self, run_index: int, run: Run, group: JsonObject, decoder: TokenDecoder) -> JsonObject:
        system, question = split_prompt(group["prompt"])
        images = [self._image(run, group, index) for index in range(image_count(group))]
        responses = [self._response(run_index, run, group, response, decoder) for response in group["responses"]]
        outcomes = Counter(response["outcome"] for response in responses)
        return {
            "run": run_index,
            "step": group["step"],
            "row": group.get("row_number"),
            "system": system,
            "question": question,
            "gold": None if group.get("gold") is None else str(group["gold"]),
            "change": "",
            "images": [number for number in images if number is not None],
            "images_missing": images.count(None),
            "right": outcomes["right"],
            "wrong": outcomes["wrong"],
            "undecided": outcomes["undecided"],
            "responses": responses,
        }

    def _response(
        self, run_index: int, run: Run, group: JsonObject, response: JsonObject, decoder: TokenDecoder
    ) -> JsonObject:
        right = run.is_right(response["rewards"])
        outcome = {True: "right", False: "wrong", None: "undecided"}[right]
        self.reward_names += [name for name in response["rewards"] if name not in self.reward_names]
        texts = decoder.texts(response["token_ids"])
        indices = [self.vocabulary.setdefault(text, len(self.vocabulary)) for text in texts]
        deviations = packed_deviations(response)
        self._add_layer_values(run_index, group.get("layers") or [], [unpack_array(layer) for layer in deviations])
        if deviations:
            deviation = np.mean([unpack_array(layer) for layer in deviations], axis=0)
            valid = np.isfinite(deviation) & (deviation != 0)  # 0: the token has no partner
            self.values["deviation"].append(deviation[valid])
            self._add_class_values(outcome, token_classes(texts), deviation, valid)
        for mode in TOKEN_ARRAYS:
            if mode in response:
                self.values[mode].append(_finite(unpack_array(response[mode])))
        if "token_advantage" not in response and response.get("advantage") is not None:
            self.values["token_advantage"].append(np.array([response["advantage"]]))
        if "flow_reward" in response:  # responses of `rlfr inspect` have no step and are counted at step 0
            self._count_tokens(run_index, group["step"] or 0, indices, unpack_array(response["flow_reward"]))
        return {
            "pieces": base64.b64encode(np.array(indices, dtype="<u4").tobytes()).decode("ascii"),
            "outcome": outcome,
            "layers": deviations,
            **{name: response.get(name) for name in COPIED_KEYS},
        }

    def _add_layer_values(self, run_index: int, labels: Sequence[int], layers: Sequence[np.ndarray]) -> None:
        """Add the values of each layer to its colour mode; skip logs whose layers have no labels."""
        self.layers.setdefault(run_index, list(labels) if len(labels) == len(layers) else [])
        for layer, values in zip(self.layers[run_index], layers, strict=False):
            self.values[f"layer_{layer}"].append(_finite(values[values != 0]))

    def _add_class_values(
        self, outcome: str, classes: Sequence[str], deviation: np.ndarray, valid: np.ndarray
    ) -> None:
        class_array = np.array(classes)
        for token_kind in set(classes):
            self.by_class[outcome, token_kind].append(deviation[valid & (class_array == token_kind)])

    def _count_tokens(self, run_index: int, step: int, indices: Sequence[int], rewards: np.ndarray) -> None:
        for index, reward in zip(indices, rewards, strict=False):  # a truncated log has fewer rewards than tokens
            counts = self.counts[run_index, step, index]
            counts[0] += int(reward > 0)
            counts[1] += int(reward < 0)
            counts[2] += 1

    def _image(self, run: Run, group: JsonObject, index: int) -> int | None:
        """Number of a prompt's image in the page; None if it cannot be read or the page's limit is reached."""
        if group.get("pictures"):
            return self.images.add((group["row_number"], index), group["pictures"][index])
        thumbnails = group.get("thumbnails") or []
        if index < len(thumbnails):
            path = run.folder / "rollouts" / thumbnails[index]
            return self.images.add(path, path)
        originals = group.get("images") or []
        original = originals[index] if index < len(originals) else None
        return self.images.add(original, original) if original else None


def packed_deviations(response: JsonObject) -> list[str]:
    """Packed deviations of a response, one text per layer; logs of older versions have only the mean over layers."""
    if response.get("deviations"):
        return list(response["deviations"])
    return [response["deviation"]] if response.get("deviation") else []


def _finite(values: np.ndarray) -> np.ndarray:
    return values[np.isfinite(values)]


def image_count(group: JsonObject) -> int:
    return max(len(group.get(name) or []) for name in ("images", "thumbnails", "pictures"))


def split_prompt(prompt: str | list[dict[str, str]]) -> tuple[str, str]:
    """Split a prompt into the system prompt and the text of the other turns; several turns are labelled by role.

    >>> split_prompt([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "<image>2+3?"}])
    ('Be brief.', '<image>2+3?')
    """
    if isinstance(prompt, str):
        return "", prompt
    system = "\n".join(turn["content"] for turn in prompt if turn["role"] == "system")
    turns = [turn for turn in prompt if turn["role"] != "system"]
    if len(turns) == 1:
        return system, turns[0]["content"]
    return system, "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def mark_changes(groups: Sequence[JsonObject]) -> None:
    """Set `change` of repeated prompts: `up` if mostly wrong became mostly right, `down` for the opposite.

    A group is compared with the last group of the same prompt, at an earlier step, that was not a tie.
    """
    by_row: dict[int, list[JsonObject]] = {}
    for group in groups:
        if group["row"] is None:
            continue
        history = by_row.setdefault(group["row"], [])
        earlier = [
            previous
            for previous in history
            if previous["step"] is not None and previous["step"] < group["step"] and _margin(previous)
        ]
        if earlier:
            before, after = _margin(earlier[-1]), _margin(group)
            group["change"] = "up" if before < 0 < after else "down" if after < 0 < before else ""
        history.append(group)


def _margin(group: JsonObject) -> int:
    """Number of right minus number of wrong responses."""
    return int(group["right"]) - int(group["wrong"])


def describe_runs(runs: Sequence[Run], page: RolloutPage) -> list[JsonObject]:
    """Name, layers and flow settings of each run, for the page's script."""
    return [
        {
            "name": name,
            "threshold": run.config.get("flow_threshold"),
            "layers": page.layers.get(index, []),
            "two_sided": bool(run.config.get("flow_two_sided", True)),
        }
        for index, (name, run) in enumerate(zip(names_of(list(runs)), runs, strict=True))
    ]
