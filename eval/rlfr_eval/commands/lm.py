"""`rlfr-eval lm`: text benchmarks: answer, grade by rules, ask the judge about the rest, score."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_eval.commands.arguments import (
    EXIT_INCOMPLETE,
    add_judge_options,
    add_output_options,
    deliver,
    judge_options,
    parser,
    read_judge,
    read_settings,
)
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from rlfr_eval.benchmarks import Benchmark
    from rlfr_eval.evaluation import Evaluation

SUMMARY = "measure a model on text benchmarks"
OMITTABLE = ("temperature", "top_p", "max_tokens", "seed", "stop")
# of a request, that --extra-body must not change behind the record's back
OWN_FIELDS = {"model", "messages", "prompt", "temperature", "top_p", "top_k", "max_tokens", "seed", "stream", "n"}
OVERRIDES = ("prompt", "samples", "temperature", "top_p", "top_k", "max_tokens", "seed", "system_prompt")


def _parser() -> argparse.ArgumentParser:
    given = parser("lm", SUMMARY)
    given.add_argument(
        "--model", default="", metavar="PATH_OR_HUB_ID", help="a model, or a LoRA adapter, to serve here"
    )
    given.add_argument("--base-url", default="", help="a server that runs; --model then names what to ask there")
    given.add_argument(
        "--suite",
        nargs="+",
        required=True,
        metavar="NAME",
        help="suites (math, rlpr), benchmarks (see `rlfr-eval list`), or TOML files",
    )
    given.add_argument("--out", help="run folder (default: outputs/eval/MODEL); the same command again goes on")
    given.add_argument(
        "--data-dir", help="folder with NAME.jsonl files (default: RLFR_EVAL_DATA, or the user's cache)"
    )
    given.add_argument("--limit", type=int, help="only the first N problems of each; marks results as partial")
    given.add_argument("--dry-run", action="store_true", help="say what would be done and what it costs; do nothing")
    add_output_options(given)
    asking = given.add_argument_group("asking (defaults: the benchmark's own)")
    asking.add_argument("--prompt", help="preset: qwen-box, qwen-tag, llama3-box, r1, r1-nothink, chat, none")
    asking.add_argument("--samples", type=int, help="answers to each problem")
    asking.add_argument("--temperature", type=float)
    asking.add_argument("--top-p", type=float)
    asking.add_argument("--top-k", type=int)
    asking.add_argument("--max-tokens", type=int, help="length of an answer")
    asking.add_argument("--seed", type=int, help="of the first sample; sample k has seed + k")
    asking.add_argument("--system-prompt", help="of a chat preset, instead of its own")
    asking.add_argument("--extra-body", default="{}", metavar="JSON", help="added to each request")
    asking.add_argument(
        "--omit",
        nargs="+",
        default=[],
        choices=OMITTABLE,
        help="left out of each request, for servers that refuse it, such as seed or top_p",
    )
    asking.add_argument("--concurrency", type=int, default=64, help="requests at a time (default: %(default)s)")
    asking.add_argument(
        "--time-limit", type=float, default=1800.0, help="seconds for a request (default: %(default)s)"
    )
    asking.add_argument("--max-tries", type=int, default=6, help="of a request (default: %(default)s)")
    serving = given.add_argument_group("serving --model")
    serving.add_argument("--server-cmd", help="command instead of vLLM: {model}, {name}, {host}, {port} are filled in")
    serving.add_argument("--server-args", default="", help="more options for vLLM, as one text")
    serving.add_argument("--server-port", type=int, default=0, help="default: a free one")
    serving.add_argument("--adapter", choices=["native", "merged"], default="native", help="how LoRA is served")
    serving.add_argument("--base-model", default="", help="of an adapter, instead of the one it names")
    add_judge_options(given)
    return given


def help_text() -> str:
    return _parser().format_help().rstrip()


def run(arguments: Sequence[str]) -> int:
    """Evaluate. Returns 0 when everything is answered and judged, 3 when another call could do more."""
    options = _parser().parse_args(list(arguments))
    evaluation = _evaluation(options)
    if options.dry_run:
        print(evaluation.plan())
        return 0
    scores, complete = evaluation.run()
    deliver(options, evaluation.folder, evaluation.record, scores)
    return 0 if complete else EXIT_INCOMPLETE


def _evaluation(options: argparse.Namespace) -> "Evaluation":
    from rlfr_eval.evaluation import Evaluation
    from rlfr_eval.runs import data_folder
    from rlfr_eval.server import fill
    from rlfr_eval.serving import ServingOptions
    from rlfr_eval.settings import json_object

    for name in ("concurrency", "max_tries", "limit"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
    if not 0 < options.time_limit < float("inf"):
        raise UserError(f"--time-limit is {options.time_limit:g}; it must be above 0 seconds.")
    extra_body = json_object(options.extra_body, "--extra-body")
    if own := sorted(OWN_FIELDS & set(extra_body)):
        raise UserError(
            f"--extra-body holds {', '.join(own)}, which has an option of its own or is not to be changed."
        )
    settings = read_settings(options, {"RLFR_EVAL_DATA": options.data_dir, "RLFR_EVAL_SERVER_CMD": options.server_cmd})
    serving = ServingOptions(
        options.model, options.base_url, "" if options.base_url else settings["RLFR_EVAL_SERVER_CMD"],
        tuple(fill(options.server_args)), options.server_port, options.adapter, options.base_model,
    )  # fmt: skip
    return Evaluation(
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
    from rlfr_eval.benchmarks import changed, resolve

    overrides = {name: getattr(options, name) for name in OVERRIDES}
    return [changed(benchmark, **overrides) for benchmark in resolve(options.suite)]
