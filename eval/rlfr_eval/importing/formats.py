"""Read a file of another tool, whose format is detected by its contents."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from rlfr_eval.importing.entries import FORMATS, VLMEVAL, AnswerFile
from rlfr_eval.importing.sample_logs import format_of, is_log_line, read_log
from rlfr_eval.importing.vlmeval_predictions import is_table, is_workbook, read_predictions
from rlfr_vlm.errors import UserError

SHOWN = 60  # characters of an unknown file's beginning in the message


def read_file(path: Path, chosen: str | None, datasets: Sequence[str]) -> AnswerFile:
    """Read the answers in a file.

    Args:
        chosen: one of `FORMATS`, or None: detect it.
        datasets: names of VLMEvalKit's sets, by one of which a file's name may end.

    Raises:
        UserError: it is no file, is empty, or has another format.
    """
    if not path.is_file():
        what = "is a folder; name its files" if path.is_dir() else "is no file"
        raise UserError(f"{path} {what}.")
    content = path.read_bytes()
    if not content.strip():
        raise UserError(f"{path} is empty; there are no answers to import.")
    sha256 = hashlib.sha256(content).hexdigest()
    tool = chosen or _detect(path, content)
    if tool == VLMEVAL:
        return read_predictions(path, content, sha256, datasets)
    return read_log(path, tool, content, sha256)


def _detect(path: Path, content: bytes) -> str:
    """Return the format of a file.

    Raises:
        UserError: it has none of the known ones.
    """
    if is_workbook(content) or is_table(content):
        return VLMEVAL
    text = content.lstrip().removeprefix(b"\xef\xbb\xbf")
    if text[:1] == b"[":
        return VLMEVAL
    try:
        row = json.loads(text.split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        row = None
    if isinstance(row, dict) and is_log_line(row):
        return format_of(row)
    raise UserError(
        f"{path} has no known format; it begins with {text[:SHOWN].decode('utf-8', 'replace')!r}. Known are "
        "prediction files of VLMEvalKit (xlsx, tsv or json with the columns index and prediction) and sample logs of "
        f"lm-eval and lmms-eval (--log_samples). --format {'|'.join(FORMATS)} says which it is."
    )
