"""Read the sample logs of lm-eval and lmms-eval: JSON lines, one for each question and filter.

Read in EleutherAI/lm-evaluation-harness 4e7e0d4 (0.4.13.dev0), `loggers/evaluation_tracker.py` and `evaluator.py`,
and in EvolvingLMMs-Lab/lmms-eval 75571cf (0.7.2), the same files. Both log what the model said as `resps` and what a
filter made of it as `filtered_resps`; only the first is an answer to grade. lmms-eval leaves `resps` out where a
filter changed nothing, unpacks lists of one, and writes no `doc` and no `arguments` but the prompt as `input`.
"""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlfr_eval.importing.entries import LM_EVAL, LMMS_EVAL, AnswerFile, Entry
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject

# names that the tools give their files, from which the date leads to the results beside them
LOG_NAME = {
    LM_EVAL: re.compile(r"samples_(?P<task>.+)_(?P<date>[^_]+)"),
    LMMS_EVAL: re.compile(r"(?P<date>\d+_\d+)_samples_(?P<task>.+)"),
}
RESULTS_NAME = {LM_EVAL: "results_{date}.json", LMMS_EVAL: "{date}_results.json"}
VERSION_KEY = {LM_EVAL: "lm_eval_version", LMMS_EVAL: "lmms_eval_version"}
SAMPLING_KEYS = (
    "do_sample",
    "temperature",
    "top_p",
    "top_k",
    "max_gen_toks",
    "max_new_tokens",
    "max_tokens",
    "seed",
)
BOM = b"\xef\xbb\xbf"
NO_RESPONSE = "the log has no response"


def is_log_line(row: object) -> bool:
    """Return whether a parsed line is one of a sample log."""
    return isinstance(row, dict) and "doc_id" in row and bool({"resps", "filtered_resps"} & row.keys())


def format_of(row: JsonObject) -> str:
    """Return which of the two tools wrote a line."""
    return LM_EVAL if "arguments" in row else LMMS_EVAL


def read_log(path: Path, tool: str, content: bytes, sha256: str) -> AnswerFile:
    """Read a sample log.

    Args:
        tool: `lm-eval` or `lmms-eval`.

    Raises:
        UserError: a line is no JSON, or has no answer in text.
    """
    rows = list(_rows(path, content))
    entries, repeated = [], 0
    seen: dict[tuple[str, str], str] = {}
    for where, row in rows:
        if not is_log_line(row):
            raise UserError(
                f"{path}, {where}, has no doc_id with resps or filtered_resps: it is no line of a sample log of "
                f"{tool}, which writes them with --log_samples."
            )
        entry = _entry(path, where, row)
        # lm-eval logs a question once for each filter, with the same responses
        key, used_filter = (json.dumps(row["doc_id"]), _text(row.get("doc_hash"))), _text(row.get("filter"))
        if seen.setdefault(key, used_filter) != used_filter:
            repeated += 1
        else:
            entries.append(entry)
    name = LOG_NAME[tool].fullmatch(path.stem)
    results = _results(path, tool, name["date"]) if name else {}
    notes = (f"{repeated} lines have the same responses under another filter, and count once",) if repeated else ()
    return AnswerFile(
        path,
        tool,
        sha256,
        tuple(entries),
        task=name["task"] if name else "",
        model=_text(results.get("model_name")),
        version=_text(results.get(VERSION_KEY[tool])) or _text(results.get("git_hash")),
        sampling=_sampling([row for _, row in rows]),
        notes=notes,
    )


def _rows(path: Path, content: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the parsed lines, each with its place.

    Raises:
        UserError: a line is no JSON.
    """
    for number, line in enumerate(content.removeprefix(BOM).split(b"\n"), 1):
        if line.strip():
            try:
                yield f"line {number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{path}, line {number}, is not JSON: {error}. A sample log has one JSON object a line; results "
                    "in one object of many lines have no answers."
                ) from None


def _entry(path: Path, where: str, row: JsonObject) -> Entry:
    responses = row["resps"] if "resps" in row else row["filtered_resps"]
    answers = tuple(_leaves(responses))
    if not _generation_settings(row) and _has_likelihoods(responses):
        raise UserError(
            f"{path}, {where}, has log-likelihoods of options and no answer in text; there is nothing to extract and "
            "grade. Import a task that generates text."
        )
    return Entry(
        where,
        answers,
        texts=tuple(_strings(row.get("doc"))),
        prompt=_prompt(row),
        target=_text(row.get("target")),
        failure="" if answers else NO_RESPONSE,
    )


def _leaves(value: object) -> Iterator[str]:
    """Yield the texts of nested lists in order: requests, their repeats."""
    if isinstance(value, list):
        for element in value:
            yield from _leaves(element)
    elif value is not None:
        yield _text(value)


def _has_likelihoods(value: object) -> bool:
    """Return whether nested lists hold pairs of a log-likelihood and whether its text is the likeliest."""
    if not isinstance(value, list):
        return False
    if len(value) == 2 and str(value[1]) in ("True", "False"):
        try:
            float(value[0])
        except (TypeError, ValueError):
            return False
        return True
    return any(map(_has_likelihoods, value))


def _strings(value: object) -> Iterator[str]:
    """Yield the texts in a document, one of which is the question."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for element in value.values() if isinstance(value, dict) else value:
            yield from _strings(element)


def _prompt(row: JsonObject) -> str:
    """Return the prompt of the first request: `input` of lmms-eval, the first argument of lm-eval."""
    first = row.get("input", row.get("arguments"))
    for key in ("gen_args_0", "arg_0"):
        if isinstance(first, dict):
            first = first.get(key)
        elif isinstance(first, list):  # versions before 0.4.3 logged lists; a chat is a list of one JSON text
            first = first[0] if first else None
    if isinstance(first, list) and len(first) == 1:
        first = first[0]
    return first if isinstance(first, str) else "" if first is None else json.dumps(first, ensure_ascii=False)


def _sampling(rows: list[JsonObject]) -> JsonObject:
    """Return the settings of the requests; a setting that differs between lines is left out."""
    settings = [_generation_settings(row) for row in rows]
    return {
        key: settings[0][key]
        for key in SAMPLING_KEYS
        if settings and key in settings[0] and all(other.get(key) == settings[0][key] for other in settings)
    }


def _generation_settings(row: JsonObject) -> JsonObject:
    arguments = row.get("arguments")
    first = arguments.get("gen_args_0") if isinstance(arguments, dict) else None
    settings = first.get("arg_1") if isinstance(first, dict) else None
    if not isinstance(settings, dict):
        return {}
    # Python's JSON has NaN and infinity, which run.json must not have
    return {key: value for key, value in settings.items() if not isinstance(value, float) or math.isfinite(value)}


def _results(path: Path, tool: str, date: str) -> JsonObject:
    """Return the results that the tool wrote beside a log; empty if they are missing or broken."""
    try:
        results = json.loads((path.parent / RESULTS_NAME[tool].format(date=date)).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return results if isinstance(results, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
