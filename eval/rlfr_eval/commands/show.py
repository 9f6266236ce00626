"""`rlfr-eval show`: one answer, whole: prompt, raw text, what was extracted, every verdict."""

import argparse
import json
from pathlib import Path
from typing import Any

from rlfr_eval.commands.arguments import eval_parser
from rlfr_vlm.errors import UserError, nearest, printable

SUMMARY = "show an answer: prompt, raw text, extraction, verdicts, judge's reply"


def parser() -> argparse.ArgumentParser:
    given = eval_parser("show", SUMMARY)
    given.add_argument("run_dir", type=Path)
    given.add_argument("--id", required=True, help="of a sample (aime24/aime24-3/0), or of a problem (aime24-3)")
    given.add_argument("--data-dir", type=Path, help="where the benchmark's file is now (default: where it was)")
    given.add_argument("--json", action="store_true", help="as JSON")
    return given


def run(options: argparse.Namespace) -> int:
    """Show every sample that the id names."""
    from rlfr_eval.run.folder import RunStore
    from rlfr_eval.run.reopened import reopen
    from rlfr_eval.score.verdicts import standings, with_extraction
    from rlfr_eval.settings import load_settings

    with (
        RunStore(options.run_dir, read_only=True) as store,
        reopen(store, load_settings(), options.data_dir, whole=True) as run,
    ):
        chosen = run.chosen
        standing = standings(store, chosen, {})
        rows = [
            with_extraction(row, standing.get(row["id"]))
            for row in store.answers()
            if options.id in (row["id"], row["problem"])
        ]
        if not rows:
            known = [row["id"] for row in store.answers()]
            raise UserError(f"No answer has the id {options.id!r}.{nearest(options.id, known)}")
        wanted = {row["id"] for row in rows}
        verdicts = [verdict for verdict in store.verdicts if verdict.get("id") in wanted]
    for row in rows:
        benchmark, problems = chosen[row["benchmark"]]
        problem = next(problem for problem in problems if problem.id == row["problem"])
        own = [verdict for verdict in verdicts if verdict["id"] == row["id"]]
        if options.json:
            print(
                json.dumps(
                    {**row, "golds": problem.golds, "question": benchmark.prompt_text(problem), "verdicts": own}
                )
            )
        else:
            print(_text(row, problem, benchmark, own))
    return 0


def _text(row: dict[str, Any], problem: Any, benchmark: Any, verdicts: list[dict[str, Any]]) -> str:
    parts = [
        f"=== {row['id']}  finish: {row['finish_reason']}, {row['completion_tokens']} tokens, {row['seconds']} s",
        f"--- prompt ({benchmark.prompt})\n{benchmark.prompt_text(problem)}",
        f"--- gold\n{' | '.join(problem.golds)}",
        f"--- raw answer\n{row['raw']}",
        f"--- extracted ({row['how']})\n{row['extracted']}",
    ]
    for verdict in verdicts:
        who = verdict.get("judge") or f"rules {verdict['grader']}: {verdict['path']}"
        parts.append(f"--- {verdict['verdict']} {verdict['reason']} ({who})".replace("  ", " "))
        if verdict.get("reply"):
            parts.append(verdict["reply"])
    return printable("\n".join(parts))
