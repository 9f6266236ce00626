"""`rlfr-eval lm`: evaluate text benchmarks: ask the model, grade by rules, ask the judge, score."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.commands.arguments import (
    EXIT_INCOMPLETE,
    add_asking_options,
    add_judge_options,
    add_model_options,
    add_output_options,
    add_serving_options,
    deliver,
    eval_parser,
    judge_options,
    read_extra_body,
    read_judge,
    read_serving,
    read_settings,
)

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.text import Benchmark
    from rlfr_eval.model.serving import ServingOptions
    from rlfr_eval.run.evaluation import Evaluation
    from rlfr_vlm.env_settings import Settings

SUMMARY = "measure a model on text benchmarks"
OVERRIDES = ("prompt", "samples", "temperature", "top_p", "top_k", "max_tokens", "seed", "system_prompt")


def parser() -> argparse.ArgumentParser:
    given = eval_parser("lm", SUMMARY)
    add_model_options(given)
    given.add_argument(
        "--suite",
        nargs="+",
        required=True,
        metavar="NAME",
        help="suites (math, rlpr), benchmarks (see `rlfr-eval list`), TOML files, or reasoning_gym:TASK?size=200",
    )
    given.add_argument(
        "--data-dir", help="folder with NAME.jsonl files (default: RLFR_EVAL_DATA, or the user's cache)"
    )
    add_output_options(given)
    asking = given.add_argument_group("asking (defaults: the benchmark's own)")
    asking.add_argument(
        "--prompt", help="preset: qwen-box, qwen-tag, llama3-box, r1, r1-nothink, chat, bare-chat, none"
    )
    asking.add_argument("--samples", type=int, help="answers to each problem")
    add_asking_options(asking)
    add_serving_options(given)
    add_judge_options(given)
    return given


def run(options: argparse.Namespace) -> int:
    """Evaluate. Returns 0 if everything is answered and judged, 3 if another call could complete the run."""
    evaluation = _evaluation(options)
    if options.dry_run:
        print(evaluation.plan())
        return 0
    scores, complete = evaluation.run()
    deliver(options, evaluation.folder, evaluation.record, scores)
    return 0 if complete else EXIT_INCOMPLETE


def check(options: argparse.Namespace) -> "ServingOptions":
    """Check what can be checked without data and without a server; returns how the model is served.

    Raises:
        UserError: an option that `run` would refuse.
    """
    read_extra_body(options)
    _benchmarks(options)
    return read_serving(options, _settings(options))


def _settings(options: argparse.Namespace) -> "Settings":
    return read_settings(options, {"RLFR_EVAL_DATA": options.data_dir, "RLFR_EVAL_SERVER_CMD": options.server_cmd})


def _evaluation(options: argparse.Namespace) -> "Evaluation":
    from rlfr_eval.kinds.text import TextKind
    from rlfr_eval.run.evaluation import Evaluation
    from rlfr_eval.run.restore import data_folder

    extra_body = read_extra_body(options)
    settings = _settings(options)
    serving = read_serving(options, settings)
    return Evaluation(
        kind=TextKind(),
        benchmarks=_benchmarks(options),
        serving=serving,
        settings=settings,
        judge=read_judge(options, settings),
        judge_options=judge_options(options),
        folder=Path(options.out or Path("outputs/eval") / serving.label),
        data_dir=data_folder(settings["RLFR_EVAL_DATA"]),
        limit=options.limit,
        extra_body=extra_body,
        omit=tuple(options.omit),
        concurrency=options.concurrency,
        time_limit=options.time_limit,
        max_tries=options.max_tries,
    )


def _benchmarks(options: argparse.Namespace) -> "list[Benchmark]":
    from rlfr_eval.benchmarks.text import resolve, with_overrides

    overrides = {name: getattr(options, name) for name in OVERRIDES}
    return [with_overrides(benchmark, **overrides) for benchmark in resolve(options.suite)]
