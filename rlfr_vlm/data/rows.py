"""One documented row, and what turns other tools' rows into it.

A row has
    prompt       text, or messages; `<image>` marks where images go
    images       list of paths, bytes, base64 texts, `{"bytes", "path"}` records or images (optional)
    answer       the gold answer: text, a number, or a list of acceptable ones
    response     an expert's response, for fitting the field
    id, source, answer_type (`option`, `text`), options (texts of the options): optional
and every other column of its own, for users' rewards. Training needs prompt and answer; fitting, prompt and response.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlfr_vlm.errors import UserError, nearest, printable

Row = dict[str, Any]
COLUMNS = ("id", "prompt", "images", "answer", "answer_type", "options", "source", "response")
# Other names of the same columns, looked for in this order.
ALIASES = {
    "prompt": ("problem", "question", "query", "instruction"),
    "images": ("image", "image_path", "image_paths", "image_url", "image_urls", "file_name", "decoded_image"),
    "answer": ("gold", "ground_truth", "final_answer", "label"),
    "response": ("output", "completion", "generation"),
    "options": ("choices",),
    "source": ("data_source", "dataset"),
    "id": ("uid", "index", "question_id"),
}
# Columns that are turned into others, and names that TRL gives to its own arguments: not passed on to rewards.
CONSUMED = frozenset(
    [
        *COLUMNS,
        *(other for others in ALIASES.values() for other in others),
        *("conversations", "messages", "message", "system", "reward_model"),
        *("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments"),
    ]
)
ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
JSON_MESSAGES = re.compile(r"\s*\[\s*\{[^{}]*\"(?:role|content)\"")
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)


class BadRow(Exception):
    """A row that cannot be used.

    Attributes:
        reason: short, to count by.
        detail: what exactly, for people; characters that could steer a terminal are escaped.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = printable(detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def plain(raw: Row) -> Row:
    """Columns by their own names, or by usual other ones."""
    row = {name: raw[name] for name in COLUMNS if raw.get(name) is not None}
    for name, others in ALIASES.items():
        if name not in row:
            found = next((other for other in others if raw.get(other) is not None), None)
            if found is not None:
                row[name] = raw[found]
    if not row.get("images") and isinstance(row.get("prompt"), list):
        row["images"] = [
            block["image"] for message in row["prompt"] for block in _blocks(message) if block.get("image")
        ]
    return row


def messages_in_text(raw: Row) -> Row:
    """MM-Eureka, OpenRLHF: the prompt is a text that holds messages as JSON; images may stand inside them."""
    text = raw.get("message") or raw.get("prompt")
    try:
        messages = json.loads(text)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise BadRow("prompt", f"its messages are not JSON: {error}") from None
    return plain({**raw, "prompt": messages})


def rlpr(raw: Row) -> Row:
    """RLPR's parquet, verl style: prompt messages, reward_model.ground_truth."""
    row = plain(raw)
    row["answer"] = raw["reward_model"].get("ground_truth")
    extra = raw.get("extra_info")
    if isinstance(extra, dict) and "index" in extra:
        row.setdefault("id", extra["index"])
    return row


def sharegpt(raw: Row) -> Row:
    """LLaMA-Factory's sharegpt (MMPR, OpenR1-Math): turns from human and gpt; the last gpt turn is the response."""
    row = {key: value for key, value in plain(raw).items() if key != "prompt"}
    messages = []
    for turn in raw.get("conversations") or raw.get("messages") or []:
        role = ROLES.get(str(turn.get("from") or turn.get("role")))
        if role is None:
            raise BadRow(
                "prompt", f"a turn is from {turn.get('from') or turn.get('role')!r}; known: {', '.join(ROLES)}"
            )
        messages.append({"role": role, "content": turn.get("value") or turn.get("content") or ""})
    if raw.get("system"):
        messages.insert(0, {"role": "system", "content": raw["system"]})
    if messages and messages[-1]["role"] == "assistant":
        row["response"] = messages.pop()["content"]
    row["prompt"] = messages
    return row


PRESETS: dict[str, Callable[[Row], Row]] = {
    "plain": plain, "mm_eureka": messages_in_text, "rlpr": rlpr, "sharegpt": sharegpt,
    "geometry3k": plain, "math_suites": plain,
}  # fmt: skip


def detect(raw: Row) -> str:
    """The preset that fits a row, told from its columns."""
    if isinstance(raw.get("reward_model"), dict) and "ground_truth" in raw["reward_model"]:
        return "rlpr"
    text = raw.get("message") or raw.get("prompt")
    if isinstance(text, str) and JSON_MESSAGES.match(text):
        return "mm_eureka"
    turns = raw.get("conversations") or (raw.get("messages") if raw.get("prompt") is None else None)
    if isinstance(turns, Sequence) and not isinstance(turns, str) and turns and isinstance(turns[0], dict):
        return "sharegpt" if raw.get("problem") is None or raw.get("conversations") else "plain"
    return "plain"


@dataclass(frozen=True)
class Converter:
    """Turns a raw row into a documented one.

    Args:
        preset: a name in `PRESETS`, or `auto`.
        mapping: documented column -> column of the data set; wins over everything else.

    Raises:
        UserError: no such preset or column.
    """

    preset: str = "auto"
    mapping: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.preset != "auto" and self.preset not in PRESETS:
            raise UserError(
                f"dataset_format is {self.preset!r}; choose auto or one of {', '.join(PRESETS)}."
                f"{nearest(self.preset, PRESETS)}"
            )
        for name in self.mapping:
            if name not in COLUMNS:
                raise UserError(
                    f"dataset_columns names {name!r}; a row has {', '.join(COLUMNS)}.{nearest(name, COLUMNS)}"
                )

    def __call__(self, raw: Row) -> Row:
        """The documented row.

        Raises:
            BadRow: it is not what its columns promise.
        """
        if not isinstance(raw, dict):
            raise BadRow("json", f"it is a {type(raw).__name__}, not an object with columns")
        try:
            mapped = {name: raw.get(column) for name, column in self.mapping.items()}
            row = PRESETS[detect({**raw, **mapped}) if self.preset == "auto" else self.preset]({**raw, **mapped})
            row["images"] = images_of(row.get("images"))
            if row.get("options") is not None:
                row["options"] = options_of(row["options"])
        except MALFORMED as error:
            raise BadRow("malformed", f"{type(error).__name__}: {error}") from None
        skipped = CONSUMED | set(self.mapping.values())
        return {key: value for key, value in raw.items() if key not in skipped} | row


def parse_mapping(pairs: Sequence[str]) -> dict[str, str]:
    """`["prompt=question", "answer=gold"]` as a dict.

    Raises:
        UserError: a pair without `=`.
    """
    for pair in pairs:
        if not isinstance(pair, str) or "=" not in pair:
            raise UserError(f"dataset_columns has {pair!r}; write pairs such as prompt=question.")
    return dict(pair.split("=", 1) for pair in pairs)


def images_of(value: Any) -> list[Any]:
    """Images as a list: none, one, or several."""
    if value is None or value == "":
        return []
    return [image for image in value if image is not None] if isinstance(value, list | tuple) else [value]


def options_of(value: Any) -> list[str]:
    """Texts of the options, in the order of their letters."""
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value)]
    if not isinstance(value, list | tuple):
        raise BadRow("options", f"they are a {type(value).__name__}, not a list of texts")
    return [str(option) for option in value]


def check_columns(row: Row, needed: Sequence[str]) -> None:
    """Raise `BadRow` for the first needed column that a row lacks, or has empty, or has no text in."""
    for name in needed:
        value = row.get(name)
        if value is None or (isinstance(value, str | list) and not value):
            raise BadRow(
                f"no {name}", f"its columns are {', '.join(key for key in row if row[key] not in (None, []))}"
            )
    if "response" in needed and not isinstance(row["response"], str):
        raise BadRow("response", f"it is a {type(row['response']).__name__}, not a text")


def _blocks(message: Any) -> list[dict[str, Any]]:
    content = message.get("content") if isinstance(message, dict) else None
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
