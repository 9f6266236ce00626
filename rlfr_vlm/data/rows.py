"""The row format of this package, and converters from the formats of other tools.

A row has these columns:
    prompt       text or messages; `<image>` and `<video>` mark the positions of images and videos
    images       list of paths, bytes, base64 texts, `{"bytes", "path"}` records or PIL images (optional)
    videos       a video or a list of them, each a path, bytes or a list of frames (optional)
    answer       gold answer: text, a number, or a list of acceptable ones
    response     expert response, for fitting the flow field
    id, source, answer_type (`option`, `text`), options (texts of the options, or letter -> text): optional
All other columns are kept and passed to reward functions. Training needs prompt and answer; fitting needs prompt and
response.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, TypeAlias

from rlfr_vlm.errors import UserError, nearest, printable

Row: TypeAlias = dict[str, Any]
Block: TypeAlias = dict[str, Any]  # part of a message's content: type, and text or image
Message: TypeAlias = dict[str, Any]  # role and content; the content is a text or a list of blocks
Messages: TypeAlias = list[Message]
COLUMNS = ("id", "prompt", "images", "videos", "answer", "answer_type", "options", "source", "response")
# Alternative names of the columns, in order of precedence.
ALIASES = {
    "prompt": ("problem", "question", "query", "instruction"),
    "images": ("image", "image_path", "image_paths", "image_url", "image_urls", "file_name", "decoded_image"),
    "videos": ("video", "video_path", "video_paths", "video_url", "video_urls"),
    "answer": ("gold", "ground_truth", "final_answer", "label"),
    "response": ("output", "completion", "generation"),
    "options": ("choices",),
    "source": ("data_source", "dataset"),
    "id": ("uid", "index", "question_id"),
}
# Columns that are not passed to rewards: they are converted, or they have the name of an argument of TRL.
CONSUMED = frozenset(
    [
        *COLUMNS,
        *(alias for aliases in ALIASES.values() for alias in aliases),
        *("conversations", "messages", "message", "system", "reward_model"),
        *("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments"),
    ]
)
ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}
JSON_MESSAGES = re.compile(r"\s*\[\s*\{[^{}]*\"(?:role|content)\"")
IMAGE_KEYS = ("image", "path", "url", "image_path")  # keys of an image block that hold its image
VIDEO_KEYS = ("video", "path", "url", "video_path")
MEDIA_KEYS = {"image": IMAGE_KEYS, "video": VIDEO_KEYS}
FRAME_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
MALFORMED = (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError)


class BadRow(Exception):
    """A row that cannot be used.

    Attributes:
        reason: short category, used as a key of counts.
        detail: message for the user; characters that could control a terminal are escaped.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = printable(detail)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def short(value: object) -> str:
    """Return what a value is, for messages.

    >>> short(None), short([1]), short({"type": "video"}), short(7)
    ('null', 'a list', "an object of type 'video'", '7 (int)')
    """
    if isinstance(value, Mapping):
        return f"an object of type {value['type']!r:.60}" if "type" in value else "an object"
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    kind = {list: "a list", tuple: "a list", type(None): "null", bool: str(value).lower()}.get(type(value))
    return kind or f"{value!r:.60} ({type(value).__name__})"


def plain(raw: Row) -> Row:
    """Convert a row whose columns have their documented names or aliases."""
    row = {name: raw[name] for name in COLUMNS if raw.get(name) is not None}
    for name, aliases in ALIASES.items():
        if name not in row:
            alias = next((alias for alias in aliases if raw.get(alias) is not None), None)
            if alias is not None:
                row[name] = raw[alias]
    return _media_of_messages(row)


def messages_in_text(raw: Row) -> Row:
    """Convert a row of MM-Eureka or OpenRLHF, whose prompt is a JSON text of messages, which may contain images."""
    text = raw.get("message") or raw.get("prompt")
    try:
        messages = json.loads(text)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise BadRow("prompt", f"the messages are not JSON: {error}") from None
    return plain({**raw, "prompt": messages})


def rlpr(raw: Row) -> Row:
    """Convert a row of RLPR in verl's format: prompt messages and reward_model.ground_truth."""
    row = plain(raw)
    model = raw.get("reward_model")
    if not isinstance(model, Mapping):
        raise BadRow("answer", f"the column reward_model is {short(model)}; it must be an object with ground_truth")
    row["answer"] = model.get("ground_truth")
    extra = raw.get("extra_info")
    if isinstance(extra, dict) and "index" in extra:
        row.setdefault("id", extra["index"])
    return row


def sharegpt(raw: Row) -> Row:
    """Convert a row in LLaMA-Factory's sharegpt format (MMPR, OpenR1-Math). The last turn of gpt is the response."""
    row = {key: value for key, value in plain(raw).items() if key != "prompt"}
    messages = []
    turns = raw.get("conversations") or raw.get("messages") or []
    if not isinstance(turns, list | tuple):
        raise BadRow("prompt", f"the conversation is {short(turns)}; it must be a list of turns")
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise BadRow("prompt", f"a turn is {short(turn)}; it must have from and value, or role and content")
        name = turn.get("from") or turn.get("role")
        role = ROLES.get(str(name))
        if role is None:
            raise BadRow("prompt", f"a turn is from {name!r:.60}; known: {', '.join(ROLES)}")
        content = turn.get("content") if turn.get("value") is None else turn["value"]
        messages.append({"role": role, "content": content})
    if raw.get("system"):
        messages.insert(0, {"role": "system", "content": raw["system"]})
    if messages and messages[-1]["role"] == "assistant":
        row["response"] = messages.pop()["content"]
    row["prompt"] = messages
    return _media_of_messages(row)


CONVERTERS: dict[str, Callable[[Row], Row]] = {
    "plain": plain,
    "mm_eureka": messages_in_text,
    "rlpr": rlpr,
    "sharegpt": sharegpt,
    "geometry3k": plain,
    "math_suites": plain,
}


def detect(raw: Row) -> str:
    """Return the format of a row, inferred from its columns."""
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
    """Converts a raw row into the documented format.

    Args:
        row_format: a key of `CONVERTERS`, or `auto`.
        mapping: documented column -> column of the data set; takes precedence over aliases.

    Raises:
        UserError: the format or a column is unknown.
    """

    row_format: str = "auto"
    mapping: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.row_format != "auto" and self.row_format not in CONVERTERS:
            raise UserError(
                f"dataset_format is {self.row_format!r}; choose auto or one of {', '.join(CONVERTERS)}."
                f"{nearest(self.row_format, CONVERTERS)}"
            )
        for name in self.mapping:
            if name not in COLUMNS:
                raise UserError(
                    f"dataset_columns names {name!r}; a row has {', '.join(COLUMNS)}.{nearest(name, COLUMNS)}"
                )

    def __call__(self, raw: Row) -> Row:
        """Return the row in the documented format.

        Raises:
            BadRow: a column has an unexpected type or content.
        """
        if not isinstance(raw, dict):
            raise BadRow("json", f"the row is {short(raw)}, not an object with columns")
        try:
            mapped = {**raw, **{name: raw.get(column) for name, column in self.mapping.items()}}
            row = CONVERTERS[detect(mapped) if self.row_format == "auto" else self.row_format](mapped)
            row["images"] = media_of_column(row.get("images"), "image")
            if videos := videos_of(row.pop("videos", None)):
                row["videos"] = videos
            if row.get("options") is not None:
                row["options"] = options_of(row["options"])
        except MALFORMED as error:
            raise BadRow("malformed", f"{type(error).__name__}: {error}") from None
        skipped = CONSUMED | set(self.mapping.values())
        return {key: value for key, value in raw.items() if key not in skipped} | row


def parse_mapping(pairs: Sequence[str]) -> dict[str, str]:
    """Parse pairs such as `["prompt=question", "answer=gold"]` into a dict.

    Raises:
        UserError: a pair has no `=`.
    """
    for pair in pairs:
        if not isinstance(pair, str) or "=" not in pair:
            raise UserError(f"dataset_columns has {pair!r}; write pairs such as prompt=question.")
    return dict(pair.split("=", 1) for pair in pairs)


def media_of_column(value: object, kind: str) -> list[object]:
    """Return the value of an images or videos column (`kind` is image or video) as a list.

    Raises:
        BadRow: null beside another value, which would leave the row with fewer than it says.
    """
    if value is None or value == "":
        return []
    values = list(value) if isinstance(value, list | tuple) else [value]
    present = [item for item in values if item is not None]
    if present and len(present) < len(values):
        raise BadRow(f"{kind} missing", f"{kind} {values.index(None) + 1} of {len(values)} is null")
    return present


def videos_of(value: object) -> list[object]:
    """Return the value of a videos column as a list of videos. A list of image files is one video.

    >>> videos_of("a.mp4"), videos_of(["1.png", "2.png"]), videos_of(["a.mp4", "b.mp4"])
    (['a.mp4'], [['1.png', '2.png']], ['a.mp4', 'b.mp4'])
    """
    videos = media_of_column(value, "video")
    is_one = isinstance(value, list | tuple) and all(
        isinstance(video, str) and video.lower().endswith(FRAME_SUFFIXES) for video in videos
    )
    return [videos] if videos and is_one else videos


def options_of(value: object) -> list[str]:
    """Return the texts of the options, in the order of their letters.

    Raises:
        BadRow: not a list of texts, nor an object of letter -> text.
    """
    if isinstance(value, dict):
        value = _options_by_letter(value)
    if not isinstance(value, list | tuple):
        raise BadRow("options", f"the options are {short(value)}; give a list of texts, or letter -> text")
    for option in value:
        if option is None or isinstance(option, list | dict | bytes) or option != option:
            raise BadRow("options", f"an option is {short(option)}; it must be a text or a number")
    return [str(option) for option in value]


def _options_by_letter(options: Mapping[Any, object]) -> list[object]:
    by_letter = {str(key).strip().upper(): option for key, option in options.items()}
    letters = list(ascii_uppercase[: len(options)])
    if sorted(by_letter) != letters:
        names = ", ".join(map(str, options))
        raise BadRow("options", f"the options are named {names:.80}; name them A, B, ... in turn, or give a list")
    return [by_letter[letter] for letter in letters]


def check_columns(row: Row, needed: Sequence[str]) -> None:
    """Check that the needed columns are present and not empty.

    Raises:
        BadRow: a column is missing or empty, or the response is not a text.
    """
    for name in needed:
        value = row.get(name)
        if value is None or (isinstance(value, str | list) and not value):
            filled = ", ".join(key for key in row if row[key] not in (None, []))
            raise BadRow(f"no {name}", f"the row has {filled or 'no columns that are read'}")
    if "response" in needed and not isinstance(row["response"], str):
        raise BadRow("response", f"the response is {short(row['response'])}, not a text")


def _media_of_messages(row: Row) -> Row:
    """Convert blocks of other tools to image and video blocks, and take their media out of the prompt's messages."""
    if not isinstance(row.get("prompt"), list):
        return row
    messages = []
    for message in row["prompt"]:
        if isinstance(message, dict) and isinstance(message.get("content"), list):
            message = {**message, "content": [_media_block(block) for block in message["content"]]}
        messages.append(message)
    row["prompt"] = messages
    if not row.get("images"):
        row["images"] = [block["image"] for message in messages for block in _blocks(message) if block.get("image")]
    videos = [block["video"] for message in messages for block in _blocks(message) if block.get("video")]
    if videos and not row.get("videos"):
        row["videos"] = videos
    return row


def _media_block(block: object) -> object:
    """Return a block of any tool as `{"type": "image", "image": ...}` or the same of a video; others as they are."""
    kind = str(block.get("type")).removesuffix("_url") if isinstance(block, dict) else ""
    if not isinstance(block, dict) or kind not in MEDIA_KEYS:
        return block
    if block["type"] != kind:  # OpenAI's image_url, and video_url of its followers
        url = block.get(f"{kind}_url")
        return {"type": kind, kind: url.get("url") if isinstance(url, dict) else url}
    name = next((name for name in MEDIA_KEYS[kind] if block.get(name) is not None), None)
    return {**block, kind: block[name]} if name else block


def _blocks(message: object) -> list[Block]:
    """Return the content blocks of a message; [] if its content is a text."""
    content = message.get("content") if isinstance(message, dict) else None
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []
