"""Sample logs and prediction files as lm-eval, lmms-eval and VLMEvalKit write them."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DATE = "2026-08-21T19-56-54.123456"
GENERATION = {"until": ["\n\n"], "do_sample": False, "temperature": 0.0, "max_gen_toks": 256}


def lm_eval_line(
    doc_id: int, question: str, responses: Sequence[str], target: str = "", used_filter: str = "none"
) -> dict[str, Any]:
    """A line of lm-eval 0.4.13: `resps` are requests by repeats, everything in them is text."""
    return {
        "doc_id": doc_id,
        "doc": {"problem": question, "answer": target, "solution": "It is so.", "level": 3},
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": f"Problem: {question}\nAnswer:", "arg_1": GENERATION}},
        "resps": [list(responses)],
        "filtered_resps": [responses[0] if responses else ""],
        "filter": used_filter,
        "metrics": ["exact_match"],
        "doc_hash": f"doc-{doc_id}-{question}",
        "prompt_hash": f"prompt-{doc_id}",
        "target_hash": "t",
        "exact_match": 0.0,
    }


def lmms_eval_line(doc_id: int, prompt: str, response: str, target: str) -> dict[str, Any]:
    """A line of lmms-eval 0.7.2 whose filter changed nothing: no `doc`, no `arguments`, no `resps`."""
    return {
        "doc_id": doc_id,
        "target": target,
        "filtered_resps": response,
        "token_counts": [{"output_tokens": 7}],
        "doc_hash": f"doc-{doc_id}",
        "exact_match": 1.0,
        "input": prompt,
    }


def write_lines(path: Path, lines: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def write_tsv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """As `DataFrame.to_csv(sep="\\t", quoting=csv.QUOTE_ALL)` writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter="\t", quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path
