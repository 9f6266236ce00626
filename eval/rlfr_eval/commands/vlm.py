"""`rlfr-eval vlm`: evaluate VLMEvalKit's multimodal benchmarks: ask the model, score by its rules, ask the judge."""

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from rlfr_eval.benchmarks.training_prompt import TrainingPrompt
    from rlfr_eval.benchmarks.vlm import VlmBenchmark
    from rlfr_eval.kinds.vlm import VlmKind
    from rlfr_eval.model.serving import ServingOptions
    from rlfr_eval.run.evaluation import Evaluation
    from rlfr_vlm.env_settings import Settings

SUMMARY = "measure a model on VLMEvalKit's multimodal benchmarks"
SAMPLING = ("samples", "temperature", "top_p", "top_k", "max_tokens", "seed")
PAPER_CONTEXT = "--max-model-len 8192"  # prompt and answer together, in the paper's evaluation


def parser() -> argparse.ArgumentParser:
    given = eval_parser("vlm", SUMMARY)
    add_model_options(given, "outputs/eval/MODEL--vlm-PRESET")
    given.add_argument(
        "--data", nargs="+", required=True, metavar="NAME", help="benchmarks (see `rlfr-eval list --vlm`) or TSV files"
    )
    given.add_argument("--data-dir", help="folder with NAME.tsv files (default: LMUData, or ~/LMUData)")
    given.add_argument(
        "--preset",
        default="official",
        choices=["official", "paper", "training"],
        help="VLMEvalKit's prompts, the RLFR paper's, or those of the policy's training (default: %(default)s)",
    )
    add_output_options(given)
    asking = given.add_argument_group("asking (defaults: the preset's own)")
    asking.add_argument("--samples", type=int, help="answers to each problem (official: set --temperature, too)")
    add_asking_options(asking)
    asking.add_argument("--min-pixels", type=int, help="of an image, for vLLM's processor")
    asking.add_argument("--max-pixels", type=int, help="of an image, for vLLM's processor")
    asking.add_argument("--jpeg", action="store_true", help="send the JPEG that VLMEvalKit makes of an image")
    add_serving_options(given)
    add_judge_options(given)
    given.add_argument(
        "--cross-check", action="store_true", help="have VLMEvalKit evaluate the answers itself, and compare"
    )
    given.add_argument(
        "--keep-servers", action="store_true", help="leave the model's server running while a local judge judges"
    )
    return given


def run(options: argparse.Namespace) -> int:
    """Evaluate. Returns 0 if everything is answered and judged, 3 if another call could complete the run."""
    with _evaluation(options) as (evaluation, kind):
        if options.dry_run:
            print(evaluation.plan())
            return 0
        scores, complete = evaluation.run()
        if options.cross_check:
            kind.cross_check(evaluation.folder, evaluation.selections, scores)
    deliver(options, evaluation.folder, evaluation.record, scores)
    return 0 if complete else EXIT_INCOMPLETE


def check(options: argparse.Namespace) -> "ServingOptions":
    """Check what can be checked without data, VLMEvalKit or a server; returns how the model is served.

    Raises:
        UserError: an option that `run` would refuse.
    """
    read_extra_body(options)
    settings = _settings(options)
    trained = trained_prompt(options)
    _pixels(options, trained)
    _benchmarks(options, trained, vlm_data_folder(settings))
    return _serving(options, settings)


def _settings(options: argparse.Namespace) -> "Settings":
    return read_settings(options, {"LMUData": options.data_dir, "RLFR_EVAL_SERVER_CMD": options.server_cmd})


def _serving(options: argparse.Namespace, settings: "Settings") -> "ServingOptions":
    return read_serving(options, settings, PAPER_CONTEXT if options.preset == "paper" else "")


@contextmanager
def _evaluation(options: argparse.Namespace) -> "Iterator[tuple[Evaluation, VlmKind]]":
    """Yield the evaluation and its kind; VLMEvalKit's process runs inside the context."""
    from rlfr_eval.kinds.vlm import VlmKind
    from rlfr_eval.run.evaluation import Evaluation
    from rlfr_eval.vlmeval.worker_process import WorkerProcess, interpreter
    from rlfr_vlm.files import cache_folder

    extra_body = read_extra_body(options)
    settings = _settings(options)
    serving = _serving(options, settings)
    if options.preset == "paper" and (serving.url or serving.command):
        print(
            "preset paper: the paper's context is 8192, prompt and answer together; this server is not told so, and "
            "answers may be longer unless it was started with it",
            file=sys.stderr,
        )
    trained = trained_prompt(options)
    folder = Path(options.out or Path("outputs/eval") / f"{serving.label}--vlm-{options.preset}")
    python = interpreter(settings)
    data_dir = vlm_data_folder(settings)
    benchmarks = _benchmarks(options, trained, data_dir)
    log = (cache_folder("logs") if options.dry_run else folder) / "vlmeval.log"
    with WorkerProcess(python, log) as worker:
        kind = VlmKind(worker)
        evaluation = Evaluation(
            kind=kind,
            benchmarks=benchmarks,
            serving=serving,
            settings=settings,
            judge=read_judge(options, settings),
            judge_options=judge_options(options),
            folder=folder,
            data_dir=data_dir,
            limit=options.limit,
            extra_body={**_pixels(options, trained), **benchmarks[0].preset.extra_body, **extra_body},
            omit=tuple(options.omit),
            concurrency=options.concurrency,
            time_limit=options.time_limit,
            max_tries=options.max_tries,
            keep_servers=options.keep_servers,
        )
        yield evaluation, kind


def vlm_data_folder(settings: "Settings") -> Path:
    """Return the folder of VLMEvalKit's TSV files."""
    return Path(settings["LMUData"] or "~/LMUData").expanduser()


def trained_prompt(options: argparse.Namespace) -> "TrainingPrompt":
    """Return the system prompt of the command line, or that of the policy's training for the preset `training`."""
    from rlfr_eval.benchmarks.training_prompt import TrainingPrompt, training_prompt

    if options.preset != "training" or options.system_prompt is not None:
        return TrainingPrompt(options.system_prompt or "")
    return training_prompt(options.model)


def _pixels(options: argparse.Namespace, trained: "TrainingPrompt") -> dict[str, Any]:
    least = trained.min_pixels if options.min_pixels is None else options.min_pixels
    most = trained.max_pixels if options.max_pixels is None else options.max_pixels
    limits = {name: value for name, value in (("min_pixels", least), ("max_pixels", most)) if value is not None}
    if any(value < 1 for value in limits.values()) or (least or 1) > (most or least or 1):
        raise UserError(
            f"--min-pixels {least} and --max-pixels {most}: they are counts of pixels, the first no larger."
        )
    return {"mm_processor_kwargs": limits} if limits else {}


def _benchmarks(options: argparse.Namespace, trained: "TrainingPrompt", data_dir: Path) -> "list[VlmBenchmark]":
    from rlfr_eval.benchmarks.text import with_overrides
    from rlfr_eval.benchmarks.vlm import resolve_vlm
    from rlfr_eval.benchmarks.vlm_presets import vlm_preset

    sampling = {name: getattr(options, name) for name in SAMPLING}
    return [
        dataclasses.replace(with_overrides(one, **sampling), system_prompt=trained.system_prompt, jpeg=options.jpeg)
        for one in resolve_vlm(options.data, vlm_preset(options.preset), data_dir)
    ]
