"""One documented row, and what turns other tools' rows into it.

A row has
    prompt       text, or messages; `<image>` marks where images go
    images       list of paths, bytes, base64 texts, `{"bytes", "path"}` records or images (optional)
    answer       the gold answer: text, a number, or a list of acceptable ones
    response     an expert's response, for fitting the field
    id, source, answer_type (`option`, `text`), options (texts of the options): optional

Training needs prompt and answer; fitting needs prompt and response.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlfr_vlm.errors import UserError, nearest

Row = dict[str, Any]
COLUMNS = ("id", "prompt", "images", "answer", "answer_type", "options", "source", "response")
# Other names of the same columns, looked for in this order.
ALIASES = {
    "prompt": ("problem", "question", "query", "instruction"),
    "images": ("image", "image_path", "image_paths", "decoded_image"),
    "answer": ("gold", "ground_truth", "final_answer", "label"),
    "response": ("output", "completion", "generation"),
    "options": ("choices",),
    "source": ("data_source", "dataset"),
    "id": ("uid", "index", "question_id"),
}
ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


class BadRow(Exception):
    """A row that cannot be used.

    Attributes:
        reason: short, to count by.
        detail: what exactly, for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def plain(raw: Row) -> Row:
    """Columns by their own names, or by usual other ones."""
    row = {name: raw[name] for name in COLUMNS if raw.get(name) is not None}
    for name, others in ALIASES.items():
        if name not in row:
            found = next((other for other in others if raw.get(other) is not None), None)
            if found is not None:
                row[name] = raw[found]
    return row


def messages_in_text(raw: Row) -> Row:
    """MM-Eureka, OpenRLHF: the prompt is a text that holds messages as JSON; images may stand inside them."""
    row = plain(raw)
    text = raw.get("message") or raw.get("prompt")
    try:
        messages = json.loads(text)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise BadRow("prompt", f"its messages are not JSON: {error}") from None
    inside = [block["image"] for message in messages for block in _blocks(message) if block.get("image")]
    row["prompt"] = messages
    if inside and not row.get("images"):
        row["images"] = inside
    return row


def rlpr(raw: Row) -> Row:
    """RLPR's parquet, verl style: prompt messages, reward_model.ground_truth."""
    row = plain(raw)
    row["answer"] = raw["reward_model"].get("ground_truth")
    extra = raw.get("extra_info") or {}
    if "index" in extra:
        row.setdefault("id", extra["index"])
    return row


def sharegpt(raw: Row) -> Row:
    """LLaMA-Factory's sharegpt (MMPR, OpenR1-Math): turns from human and gpt; the last gpt turn is the response."""
    row = {key: value for key, value in plain(raw).items() if key != "prompt"}
    turns = raw.get("conversations") or raw.get("messages") or []
    messages = []
    for turn in turns:
        role = ROLES.get(str(turn.get("from") or turn.get("role")))
        if role is None:
            raise BadRow(
                "prompt", f"a turn is from {turn.get('from') or turn.get('role')!r}; known are {', '.join(ROLES)}"
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
    if isinstance(text, str) and text.lstrip().startswith('[{"'):
        return "mm_eureka"
    turns = raw.get("conversations") or (raw.get("messages") if raw.get("prompt") is None else None)
    if isinstance(turns, Sequence) and not isinstance(turns, str) and turns and isinstance(turns[0], dict):
        return "sharegpt" if raw.get("problem") is None or raw.get("conversations") else "plain"
    return "plain"


def make_converter(preset: str, mapping: Mapping[str, str]) -> Callable[[Row], Row]:
    """A function from a raw row to a documented one.

    Args:
        preset: a name in `PRESETS`, or `auto`.
        mapping: documented column -> column of the data set; wins over everything else.

    Raises:
        UserError: no such preset or column.
    """
    if preset != "auto" and preset not in PRESETS:
        raise UserError(
            f"dataset_format is {preset!r}; choose auto or one of {', '.join(PRESETS)}.{nearest(preset, PRESETS)}"
        )
    for name in mapping:
        if name not in COLUMNS:
            raise UserError(f"dataset_columns names {name!r}; a row has {', '.join(COLUMNS)}.{nearest(name, COLUMNS)}")

    def convert(raw: Row) -> Row:
        if not isinstance(raw, dict):
            raise BadRow("json", f"it is a {type(raw).__name__}, not an object with columns")
        row = PRESETS[detect(raw) if preset == "auto" else preset](raw)
        for name, column in mapping.items():
            if raw.get(column) is None:
                raise BadRow(name, f"it has no column {column!r}")
            row[name] = raw[column]
        row["images"] = images_of(row.get("images"))
        if row.get("options") is not None:
            row["options"] = [str(option) for option in row["options"]]
        return row

    return convert


def parse_mapping(pairs: Sequence[str]) -> dict[str, str]:
    """`["prompt=question", "answer=gold"]` as a dict.

    Raises:
        UserError: a pair without `=`.
    """
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"dataset_columns has {pair!r}; write pairs such as prompt=question.")
    return dict(pair.split("=", 1) for pair in pairs)


def images_of(value: Any) -> list[Any]:
    """Images as a list: none, one, or several."""
    if value is None or value == "":
        return []
    return [image for image in value if image is not None] if isinstance(value, list | tuple) else [value]


def check_columns(row: Row, needed: Sequence[str]) -> None:
    """Raise `BadRow` for the first needed column that a row lacks, or has empty."""
    for name in needed:
        value = row.get(name)
        if value is None or (isinstance(value, str | list) and not value):
            raise BadRow(
                f"no {name}", f"its columns are {', '.join(key for key in row if row[key] not in (None, []))}"
            )


def _blocks(message: Any) -> list[dict[str, Any]]:
    content = message.get("content") if isinstance(message, dict) else None
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
