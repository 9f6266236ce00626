"""`rlfr-eval show`: print an answer with its prompt, raw text, extraction and verdicts."""

import argparse
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_eval.commands.arguments import eval_parser
from rlfr_vlm.errors import UserError, nearest, printable

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.text import AnyBenchmark
    from rlfr_eval.schema import AnyProblem, AnyVerdict, Sample
    from rlfr_eval.score.verdicts import Standing

SUMMARY = "show an answer: prompt, raw text, extraction, verdicts, judge's reply"


def parser() -> argparse.ArgumentParser:
    given = eval_parser("show", SUMMARY)
    given.add_argument("run_dir", type=Path)
    given.add_argument(
        "--id", required=True, help="of a sample (aime24/aime24-3/0), or of a problem or question (aime24-3)"
    )
    given.add_argument("--data-dir", type=Path, help="where the benchmark's file is now (default: where it was)")
    given.add_argument("--json", action="store_true", help="as JSON")
    return given


def run(options: argparse.Namespace) -> int:
    """Print every sample that the id names. Returns the exit code."""
    from rlfr_eval.kinds.kind import open_kind
    from rlfr_eval.run.folder import RunStore
    from rlfr_eval.run.restore import restore
    from rlfr_eval.schema import asked_by, problems_by_id
    from rlfr_eval.score.verdicts import standings
    from rlfr_vlm.env_settings import load_settings

    with (
        RunStore(options.run_dir, read_only=True) as store,
        open_kind(store.run, load_settings()) as kind,
    ):
        selections = restore(store, kind, options.data_dir, all_problems=True)
        problems = problems_by_id(selections)
        questions = {key: problem.question_id for key, problem in problems.items()}
        samples = [
            sample
            for sample in store.answers()
            if options.id in (sample.id, sample.problem, questions.get((sample.benchmark, sample.problem)))
        ]
        if not samples:
            ids = [sample.id for sample in store.answers()]
            raise UserError(f"No answer has the id {options.id!r}.{nearest(options.id, ids)}")
        standing = standings(store, selections, store.run.get("judges", {}))
        wanted = {sample.id for sample in samples}
        all_verdicts = [verdict for verdict in store.all_verdicts() if verdict.id in wanted]
        tools = {name: asked_by(store.run, name) for name in selections}
    for sample in samples:
        benchmark, problem = selections[sample.benchmark].benchmark, problems[sample.benchmark, sample.problem]
        if place := standing.get(sample.id):
            sample = place.apply(sample)
        verdicts = [verdict for verdict in all_verdicts if verdict.id == sample.id]
        if options.json:
            rows = [verdict.write() for verdict in verdicts]
            question = prompt_of(sample, problem, benchmark, tools[sample.benchmark])[1]
            print(json.dumps({**sample.write(), "golds": problem.golds, "question": question, "verdicts": rows}))
        else:
            print(_text(sample, problem, prompt_of(sample, problem, benchmark, tools[sample.benchmark]), verdicts))
    for line in [] if options.json else _question_lines(samples, problems, standing):
        print(line)
    return 0


def _question_lines(
    samples: "Sequence[Sample]",
    problems: "Mapping[tuple[str, str], AnyProblem]",
    standing: "Mapping[str, Standing]",
) -> list[str]:
    """Return a line for each question of several rows all of which are shown: its verdict, and those of its rows."""
    from rlfr_eval.score.questions import all_right
    from rlfr_vlm.grading import Verdict

    rows = Counter((name, problem.question_id) for (name, _), problem in problems.items())
    places = {key: place for place, key in enumerate(problems)}
    shown: dict[tuple[str, str, int], list[Verdict]] = {}
    for sample in sorted(samples, key=lambda sample: places[sample.benchmark, sample.problem]):
        key = (sample.benchmark, problems[sample.benchmark, sample.problem].question_id, sample.sample)
        place = standing.get(sample.id)
        shown.setdefault(key, []).append(place.final if place else Verdict.UNDECIDED)
    return [
        f"=== question {name}/{question}/{number}: {all_right(verdicts).value} ({len(verdicts)} rows: "
        f"{', '.join(verdict.value for verdict in verdicts)})"
        for (name, question, number), verdicts in shown.items()
        if len(verdicts) == rows[name, question] > 1
    ]


def prompt_of(sample: "Sample", problem: "AnyProblem", benchmark: "AnyBenchmark[Any]", tool: str) -> tuple[str, str]:
    """Return the name and the text of the prompt that an answer was given to.

    Args:
        tool: the tool that asked; empty if the model was asked here.
    """
    if not tool:
        return benchmark.prompt, benchmark.prompt_text(problem)
    if sample.prompt:
        return tool, sample.prompt
    return f"{tool}, not known; this is the question", problem.text


def _text(sample: "Sample", problem: "AnyProblem", prompt: tuple[str, str], verdicts: "Sequence[AnyVerdict]") -> str:
    from rlfr_eval.schema import JudgeVerdict

    tokens = f"{sample.completion_tokens} tokens, {sample.seconds} s"
    parts = [
        f"=== {sample.id}  finish: {sample.finish_reason}, {tokens}" if sample.finish_reason else f"=== {sample.id}",
        f"--- prompt ({prompt[0]})\n{prompt[1]}",
        f"--- gold\n{' | '.join(problem.golds)}",
        f"--- raw answer\n{sample.raw or '(empty)'}",
        f"--- extracted ({sample.how})\n{sample.extracted}",
    ]
    if sample.only_reasoning:
        parts.insert(4, f"--- the server's reasoning, which is all it returned\n{sample.server_reasoning}")
    for verdict in verdicts:
        who = verdict.judge if isinstance(verdict, JudgeVerdict) else f"rules {verdict.grader}: {verdict.path}"
        parts.append(f"--- {verdict.verdict.value} {verdict.reason} ({who})".replace("  ", " "))
        if isinstance(verdict, JudgeVerdict) and verdict.reply:
            parts.append(verdict.reply)
    return printable("\n".join(parts))
