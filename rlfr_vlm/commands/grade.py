"""`rlfr grade`: grade one answer or a file of answers, and compare with plain math-verify."""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject
from rlfr_vlm.grading import Grade, Item, Verdict, extract, gold_list, grade_many, shared_pool
from rlfr_vlm.grading.gym import ENTRY_COLUMN
from rlfr_vlm.grading.verdict import Pair

SUMMARY = "grade an answer, or a file of answers: right, wrong or undecided, and why"
RESPONSE_KEYS, GOLD_KEYS = ("response", "prediction", "completion"), ("gold", "answer")


def parser() -> argparse.ArgumentParser:
    parser = options_parser("grade", SUMMARY)
    parser.add_argument("file", nargs="?", help="JSONL rows with `gold` and `response` (or `answer`, if extracted)")
    parser.add_argument("--gold", action="append", help="the gold answer; repeat it for several acceptable ones")
    parser.add_argument("--answer", help="an answer, or a whole response")
    parser.add_argument("--options", nargs="*", default=[], help="texts of the options of a multiple-choice question")
    parser.add_argument("--tolerance", type=float, default=0.0, help="relative, for numbers (default: %(default)s)")
    parser.add_argument("--compare", action="store_true", help="also ask plain math-verify, and show disagreements")
    parser.add_argument("--show", type=int, default=20, help="rows to show at most (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object per row instead of text")
    return parser


def run(options: argparse.Namespace) -> int:
    """Grade and print the verdicts. Returns the exit code."""
    if options.show < 0:
        raise UserError(f"--show is {options.show}; it is a number of rows, 0 or more.")
    pair = [options.gold, options.answer]
    if (options.file is None) == (None in pair) or (options.file is not None and any(pair)):
        raise UserError("Give either a JSONL file, or --gold and --answer. See `rlfr grade --help`.")
    if options.file is None:
        items = [_item(options.gold, options.answer, options.options)]
    else:
        items = list(read_items(Path(options.file)))
    grades = grade_many(items, tolerance=options.tolerance)
    plain = _plain_verdicts(items, grades) if options.compare else [None] * len(items)
    rows = [_row(item, grade, verdict) for item, grade, verdict in zip(items, grades, plain, strict=True)]
    if options.json:
        print("\n".join(json.dumps(row) for row in rows))
    elif options.file is None:
        print(_text(rows[0]))
    else:
        _print_summary(rows, options.show)
    return 0


def read_items(path: Path) -> list[Item]:
    """Read items from a JSONL file.

    Raises:
        UserError: no such file, a line that is not JSON, or a row without gold or response.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")  # splitlines also splits inside texts
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}") from None
    items = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise UserError(f"Line {number} of {path} is not JSON: {error}.") from None
        items.append(_item_of_row(row, number, path))
    if not items:
        raise UserError(f"{path} has no rows.")
    return items


def _item_of_row(row: object, number: int, path: Path) -> Item:
    row = row if isinstance(row, dict) else {}
    response = next((key for key in RESPONSE_KEYS if key in row), None)
    if "gold" in row and response is None and "answer" in row:  # already extracted
        return Item(row["gold"], "", _text_of(row["answer"]), *_rules_of(row))
    gold = next((key for key in GOLD_KEYS if key in row), None)
    if gold is None or response is None:
        raise UserError(
            f"Line {number} of {path} has {', '.join(row) or 'no columns'}; it needs `gold` and `response` (or "
            "`gold` and `answer`, or `answer` and `response`)."
        )
    return Item(row[gold], _text_of(row[response]), None, *_rules_of(row))


def _rules_of(row: JsonObject) -> tuple[Sequence[str], str | None, str]:
    """Return the columns that say how a row's answer is compared: options, answer_type and the entry of a task."""
    return row.get("options") or (), row.get("answer_type"), row.get(ENTRY_COLUMN) or ""


def _text_of(value: object) -> str:
    """Return the text of an answer; a missing answer is empty instead of the word None."""
    return "" if value is None else str(value)


def _item(gold: list[str], answer: str, options: list[str]) -> Item:
    """Treat `--answer` as a response if an answer can be extracted from it, else as the answer itself."""
    is_response = extract(answer).answer is not None or extract(answer).reasoning != "none"
    return Item(gold, answer if is_response else "", None if is_response else answer, options)


def _plain_verdicts(items: Sequence[Item], grades: Sequence[Grade]) -> list[str]:
    pairs: list[Pair] = [
        {"gold": gold_list(item.gold)[0], "answer": grade.extracted or "", "plain": True}
        for item, grade in zip(items, grades, strict=True)
    ]
    return [decision.verdict.value for decision in shared_pool().compare(pairs)]


def _row(item: Item, grade: Grade, plain: str | None) -> JsonObject:
    row = {
        "verdict": grade.verdict.value,
        "gold": item.gold,
        "extracted": grade.extracted,
        "how": grade.extraction.how,
        "reasoning": grade.extraction.reasoning,
        "path": grade.path,
        "reason": grade.reason,
    }
    return row if plain is None else row | {"math_verify": plain}


def _text(row: JsonObject) -> str:
    """Render one row as text; `repr` escapes control characters of a response."""
    reason = f" ({row['reason']})" if row["reason"] else ""
    lines = [
        f"verdict    {row['verdict']}{reason}",
        f"gold       {row['gold']!r}",
        f"extracted  {row['extracted']!r} ({row['how']}; reasoning {row['reasoning']})",
        f"path       {row['path']}",
    ]
    if "math_verify" in row:
        lines.append(f"math-verify alone: {row['math_verify']}")
    return "\n".join(lines)


def _print_summary(rows: list[JsonObject], show: int) -> None:
    counts = Counter(row["verdict"] for row in rows)
    reasons = Counter(row["reason"] for row in rows if row["reason"])
    print(f"{len(rows)} rows: " + ", ".join(f"{counts[verdict.value]} {verdict.value}" for verdict in Verdict))
    for reason, count in reasons.most_common():
        print(f"  undecided, {reason}: {count}")
    print("decided by: " + ", ".join(f"{path} {n}" for path, n in Counter(row["path"] for row in rows).most_common()))
    selected = [row for row in rows if row["verdict"] != "right"]
    if rows and "math_verify" in rows[0]:
        selected = [row for row in rows if row["math_verify"] != row["verdict"]]
        print(f"math-verify alone disagrees on {len(selected)}:")
    for row in selected[:show]:
        other = f", math-verify {row['math_verify']}" if "math_verify" in row else ""
        print(f"  {row['verdict']}{other}: gold {row['gold']!r}, extracted {row['extracted']!r} [{row['path']}]")
    if len(selected) > show:
        print(f"  ... and {len(selected) - show} more (--show)")
