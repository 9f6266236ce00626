"""`rlfr-eval preview`: print the final prompt, images and gold of a multimodal benchmark's rows; send nothing."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.commands.arguments import eval_parser
from rlfr_vlm.errors import UserError, printable

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.vlm import VlmBenchmark
    from rlfr_eval.benchmarks.vlm_problems import VlmProblem

SUMMARY = "show the final prompts, images and answers of a multimodal benchmark"


def parser() -> argparse.ArgumentParser:
    given = eval_parser("preview", SUMMARY)
    given.add_argument("--data", nargs="+", required=True, metavar="NAME", help="benchmarks or TSV files")
    given.add_argument("--data-dir", help="folder with NAME.tsv files (default: LMUData, or ~/LMUData)")
    given.add_argument("--preset", default="official", choices=["official", "paper", "training"])
    given.add_argument("--model", default="", help="preset training: the checkpoint whose config.yaml says how to ask")
    given.add_argument("--system-prompt", help="preset training: this one instead")
    given.add_argument("-n", "--rows", type=int, default=3, help="rows to show (default: %(default)s)")
    given.add_argument("--id", help="the row of this index alone")
    given.add_argument("--json", action="store_true", help="a JSON line per row")
    return given


def run(options: argparse.Namespace) -> int:
    """Print rows as the model would receive them. Returns the exit code."""
    if options.rows < 1:
        raise UserError(f"--rows {options.rows}: at least one row is shown.")
    import dataclasses

    from rlfr_eval.benchmarks.vlm import resolve_vlm
    from rlfr_eval.benchmarks.vlm_presets import vlm_preset
    from rlfr_eval.commands.vlm import trained_prompt, vlm_data_folder
    from rlfr_eval.kinds.vlm import open_benchmark
    from rlfr_eval.vlmeval.worker_process import WorkerProcess, interpreter
    from rlfr_vlm.env_settings import load_settings
    from rlfr_vlm.files import cache_folder

    settings = load_settings({"LMUData": options.data_dir})
    data_dir = vlm_data_folder(settings)
    system_prompt = trained_prompt(options).system_prompt
    benchmarks = resolve_vlm(options.data, vlm_preset(options.preset), data_dir)
    with WorkerProcess(interpreter(settings), cache_folder("logs") / "vlmeval.log") as worker:
        for one in benchmarks:
            asked = dataclasses.replace(one, system_prompt=system_prompt)
            opened = open_benchmark(asked, data_dir, worker)
            problems = [row for row in opened.data.problems if options.id in (None, row.id)][: options.rows]
            if not problems:
                raise UserError(f"{one.name} has no row with the index {options.id!r}.")
            for problem in problems:
                show = _json if options.json else _text
                print(show(opened.benchmark, problem))
    return 0


def _json(benchmark: "VlmBenchmark", problem: "VlmProblem") -> str:
    return json.dumps(
        {
            "benchmark": benchmark.name,
            "id": problem.id,
            "prompt": benchmark.prompt_text(problem),
            "golds": problem.golds,
            "images": [{"file": path, **image_facts(path)} for path in problem.images],
            "fields": dict(problem.fields),
        }
    )


def _text(benchmark: "VlmBenchmark", problem: "VlmProblem") -> str:
    lines = [
        f"=== {benchmark.name} {problem.id}  ({benchmark.prompt}, scored as {_scored(benchmark)})",
        benchmark.prompt_text(problem),
    ]
    for path in problem.images:
        facts = image_facts(path)
        lines.append(f"--- image {path}: {facts['size']}, {facts['mode']}, {facts['bytes']} bytes")
    lines.append(f"--- gold\n{' | '.join(problem.golds)}")
    return printable("\n".join(lines))


def _scored(benchmark: "VlmBenchmark") -> str:
    """How a set is scored: its family, or else the place of the score, and whether a judge is asked."""
    from rlfr_eval.benchmarks.vlm import BY_ROW

    if benchmark.family != BY_ROW:
        return benchmark.family
    judged = "with a judge" if benchmark.reply else "by rules in the rows that were tried"
    judged = f"by rules; no judge can be asked: {benchmark.unjudged}" if benchmark.unjudged else judged
    return f"{benchmark.family}: {benchmark.score['column']} of {benchmark.score['row']}, {judged}"


def image_facts(path: str) -> dict[str, str | int]:
    """Return size, mode and bytes of an image, as text."""
    from PIL import Image

    with Image.open(path) as image:
        return {"size": f"{image.width} x {image.height}", "mode": image.mode, "bytes": Path(path).stat().st_size}
