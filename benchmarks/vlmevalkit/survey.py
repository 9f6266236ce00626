"""Survey which of VLMEvalKit's data set classes `rlfr-eval vlm` can score, on hand-made rows.

    .venv/bin/python benchmarks/vlmevalkit/survey.py --out benchmarks/vlmevalkit/survey.json

Each class is opened under its first name with one row of a white picture. Columns that it asks for are filled in, and
rows of several kinds are tried until one can be scored. A class that fails here may work on its own data, whose cells
have forms that these rows lack; one that works here was tried with these rows alone.
"""

import argparse
import base64
import csv
import io
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlfr_eval.benchmarks.vlm import BY_ROW
from rlfr_eval.vlmeval.row_scoring import row_scoring
from rlfr_eval.vlmeval.worker_process import WorkerProcess, interpreter
from rlfr_vlm.env_settings import load_settings
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import write_json

FAMILY, RULES, JUDGE, REFUSED, OTHER_MEDIA = "family", "rules", "judge", "refused", "no still images"
MOST_COLUMNS = 20  # that are filled in because a class asks for them
ENOUGH = 60.0  # seconds after which no further kind of row is tried
ROW = {
    "question": "What is shown in the picture?",
    "answer": "cat",
    "category": "x",
    "l2-category": "y",
    "split": "test",
}
OPTIONS = {"A": "cat", "B": "dog", "C": "cow", "D": "hen"}
ROWS: Mapping[str, Mapping[str, str]] = {
    "options": {**ROW, **OPTIONS, "answer": "A"},
    "words": ROW,
    "yes or no": {**ROW, "question": "Is there a cat?", "answer": "Yes"},
    "number": {**ROW, "question": "How many cats are there?", "answer": "7"},
    "list": {**ROW, "answer": "['cat']"},
    "box": {**ROW, "answer": "[1, 2, 30, 40]", "bbox": "[1, 2, 30, 40]"},
}
CELLS: Mapping[str, Mapping[str, str]] = {  # class -> cells of the forms that it reads
    "OCRBench": {"answer": "['cat']", "category": "Regular Text Recognition"},
    "MMEReasoning": {
        **{"question_type": "choice", "prompt_id": "choice_prompt", "function_id": "choice_function"},
        **{"answer": "A", "capability": "x", "reasoning_type": "x", "difficulty_level": "x"},
    },
}
MACHINE = (
    (re.compile(r"^VLMEvalKit \([^)]*\): | See vlmeval\.log\."), ""),
    (re.compile(r"\S*/site-packages/"), ""),
    (re.compile(r"\S*(?=/LMUData)"), "~"),
    (re.compile(r"\S*https?:/\S*"), "an address"),
    (re.compile(r"[A-Za-z0-9+/=]{60,}"), "..."),
    (re.compile(r" at 0x[0-9a-f]+"), ""),
)
MISSING = (  # how a class says which column it lacks
    re.compile(r"KeyError: ['\"]+\[?'?([\w -]+?)'?\]?(?: not in index)?['\"]+"),
    re.compile(r"has no column ([\w-]+)"),
    re.compile(r"required_colume: (\w+) NOT found"),
)


def main() -> None:
    """Survey, print the counts and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="CLASS", help="these classes anew, others as in --out"
    )
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="survey-") as scratch,
        WorkerProcess(interpreter(load_settings({}, {})), Path(scratch) / "vlmeval.log") as worker,
    ):
        version = worker.hello()["ms-vlmeval"]
        found: dict[str, Any] = {}
        if options.only and options.out and options.out.exists():
            found = json.loads(options.out.read_text())["classes"]
        for one in worker.sets():
            if one["names"] and (not options.only or one["class"] in options.only):
                started = time.monotonic()
                found[one["class"]] = {
                    "names": one["names"],
                    "build_judge": one["build_judge"],
                    **survey(one, worker, Path(scratch)),
                }
                seconds = time.monotonic() - started
                if options.out:
                    write_json(options.out, {"ms-vlmeval": version, "classes": found})
                print(f"{one['class']}: {found[one['class']]['how']} ({seconds:.1f} s)", file=sys.stderr)
    print(counts(found))


def survey(one: Mapping[str, Any], worker: WorkerProcess, scratch: Path) -> dict[str, str]:
    """How a class can be scored: `how`, and `why` it is refused or which row it was tried with."""
    if not one["images"]:
        return {"how": OTHER_MEDIA}
    refusals: list[dict[str, str]] = []
    started = time.monotonic()
    for kind, cells in ROWS.items():
        if refusals and time.monotonic() - started > ENOUGH:
            break
        found = _with_columns(one["names"][0], {**cells, **CELLS.get(one["class"], {})}, worker, scratch)
        if found["how"] in (JUDGE, FAMILY):
            return {**found, "row": kind}
        refusals.append({**found, "row": kind})
    by_rules = [found for found in refusals if found["how"] == RULES]
    return (by_rules or sorted(refusals, key=lambda found: "no place" not in found["why"]))[0]


def _with_columns(name: str, cells: Mapping[str, str], worker: WorkerProcess, scratch: Path) -> dict[str, str]:
    """How a set can be scored with a row, to which the columns are added that its class asks for."""
    row = dict(cells)
    for _ in range(MOST_COLUMNS):
        found, said = _open(name, row, worker, scratch)
        lacking = [match[1] for text in said for pattern in MISSING if (match := pattern.search(text))]
        new = next((column for column in lacking if column not in row), None)
        if new is None or found["how"] in (FAMILY, JUDGE):
            return found
        row[new] = "x"
    return found


def _open(name: str, row: Mapping[str, str], worker: WorkerProcess, scratch: Path) -> tuple[dict[str, str], list[str]]:
    """How a set can be scored with this row alone, and all that VLMEvalKit said against it."""
    path = scratch / f"{name}.tsv"
    cells = {"index": "0", "image": _picture(), **row}
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(cells), delimiter="\t")
        writer.writeheader()
        writer.writerow(cells)
    try:
        first, *_, last = worker.open(name, path, scratch / "images", [])
    except UserError as error:
        return {"how": REFUSED, "why": _short(error, scratch)}, [str(error)]
    if last["ok"]["family"] != BY_ROW:
        return {"how": FAMILY, "family": last["ok"]["family"]}, []
    said: list[str] = []
    try:
        trials = worker.probe(name, first["row"]["id"])
        said = [trial["failed"] for trial in trials]
        scoring = row_scoring(name, trials, {})
    except UserError as error:
        return {"how": REFUSED, "why": _short(error, scratch)}, said
    place = f"{scoring.score['column']} of {scoring.score['row']}, {scoring.score['unit']}"
    more = {"unjudged": scoring.unjudged} if scoring.unjudged else {}
    return {"how": JUDGE if scoring.judged else RULES, "score": place, **more}, said


def _short(error: UserError, scratch: Path) -> str:
    """A refusal without what differs between machines: folders, addresses, long cells."""
    text = str(error).splitlines()[0].replace(f"{scratch}/", "").replace(str(scratch), "its folder")
    for pattern, instead in MACHINE:
        text = pattern.sub(instead, text)
    return text[:300]


def _picture() -> str:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def counts(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A line for each way of scoring: classes, names of data sets, and classes that call `build_judge`."""
    lines = []
    for how, count in Counter(one["how"] for one in found.values()).most_common():
        same = [one for one in found.values() if one["how"] == how]
        sets, judges = sum(len(one["names"]) for one in same), sum(one["build_judge"] for one in same)
        lines.append(f"{how}: {count} classes, {sets} sets; {judges} of the classes call build_judge")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
