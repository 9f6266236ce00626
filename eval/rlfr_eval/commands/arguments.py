"""Options that several commands share, and the objects that are built from them."""

import argparse
import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.env_settings import Settings, load_settings
from rlfr_vlm.errors import UserError
from rlfr_vlm.judging.choice import JudgeChoice, choose_judge

if TYPE_CHECKING:
    from rlfr_eval.model.serving import ServingOptions
    from rlfr_vlm.judging.session import JudgeOptions

EXIT_INCOMPLETE = 3
OMITTABLE = ("temperature", "top_p", "max_tokens", "seed", "stop")
# fields of a request that --extra-body must not change, since run.json records them from other options
OWN_FIELDS = {"model", "messages", "prompt", "temperature", "top_p", "top_k", "max_tokens", "seed", "stream", "n"}


def eval_parser(command: str, summary: str) -> argparse.ArgumentParser:
    """Return the parser of a command of `rlfr-eval`."""
    return options_parser(command, summary, "rlfr-eval")


def add_judge_options(given: argparse.ArgumentParser) -> None:
    group = given.add_argument_group("judge (keys come from JUDGE_API_KEY or .env, never from the command line)")
    group.add_argument("--judge", choices=["none"], help="none: rules alone, whatever the settings say")
    group.add_argument("--judge-base-url", help="its server, instead of the one in the settings")
    group.add_argument("--judge-model", help="the model to ask there")
    group.add_argument("--judge-local", metavar="PATH_OR_ID", help="a judge to serve here for this run")
    group.add_argument("--judge-force", action="store_true", help="use a judge that fails the check")
    group.add_argument("--judge-budget-tokens", type=float, default=math.inf, help="stop judging at so many tokens")
    group.add_argument("--judge-budget-usd", type=float, default=math.inf, help="stop judging at so many dollars")
    group.add_argument("--no-judge-cache", action="store_true", help="ask anew, and keep nothing for other runs")


def add_model_options(given: argparse.ArgumentParser, default_out: str = "outputs/eval/MODEL") -> None:
    given.add_argument(
        "--model", default="", metavar="PATH_OR_HUB_ID", help="a model, or a LoRA adapter, to serve here"
    )
    given.add_argument("--base-url", default="", help="a server that runs; --model then names what to ask there")
    given.add_argument(
        "--moved-from", default="", metavar="URL", help="where the server at --base-url was when the run began"
    )
    given.add_argument("--out", help=f"run folder (default: {default_out}); the same command again goes on")
    given.add_argument("--limit", type=int, help="only the first N problems of each; marks results as partial")
    given.add_argument("--dry-run", action="store_true", help="say what would be done and what it costs; do nothing")


def add_asking_options(asking: Any) -> None:
    """Add the options of a request to `asking`, a group of a parser."""
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


def add_serving_options(given: argparse.ArgumentParser) -> None:
    serving = given.add_argument_group("serving --model")
    serving.add_argument("--server-cmd", help="command instead of vLLM: {model}, {name}, {host}, {port} are filled in")
    serving.add_argument("--server-args", default="", help="more options for vLLM, as one text")
    serving.add_argument("--server-port", type=int, default=0, help="default: a free one")
    serving.add_argument("--adapter", choices=["native", "merged"], default="native", help="how LoRA is served")
    serving.add_argument("--base-model", default="", help="of an adapter, instead of the one it names")


def read_extra_body(options: argparse.Namespace) -> dict[str, Any]:
    """Return the object of --extra-body, after checking the numbers of the other options.

    Raises:
        UserError: a number out of range, no JSON object, or a field that has an option of its own.
    """
    from rlfr_vlm.env_settings import json_object

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
    return extra_body


def read_serving(options: argparse.Namespace, settings: Settings, more: str = "") -> "ServingOptions":
    """Return how the model is served. `more` are arguments for vLLM that precede the user's."""
    from rlfr_eval.model.serving import ServingOptions
    from rlfr_vlm.servers.server import fill_command

    command = "" if options.base_url else settings["RLFR_EVAL_SERVER_CMD"]
    arguments = fill_command(options.server_args)
    given = any(word.startswith(more.split()[0]) for word in arguments) if more else True
    if not (given or options.base_url or command):
        arguments = [*fill_command(more), *arguments]
    return ServingOptions(
        options.model,
        options.base_url,
        command,
        tuple(arguments),
        options.server_port,
        options.adapter,
        options.base_model,
        options.moved_from,
    )


def add_output_options(given: argparse.ArgumentParser) -> None:
    given.add_argument("--json", action="store_true", help="print scores.json instead of a table")
    given.add_argument("--show-undecided", action="store_true", help="print numbers above 1 %% undecided all the same")


def deliver(
    options: argparse.Namespace,
    folder: Path,
    run: Mapping[str, Any],
    scores: Mapping[str, Any],
    report: Path | None = None,
    page_hint: bool = True,
) -> None:
    """Write the report, `report.md` of the run folder by default, and print the scores, as the options say."""
    from rlfr_eval.report.markdown import REPORT_FILE, write_report
    from rlfr_eval.report.table import summary

    report = write_report(report or folder / REPORT_FILE, run, scores)
    if options.json:
        print(json.dumps(scores))
    else:
        print(summary(run, scores, options.show_undecided))
        print(f"report: {report}")
        if page_hint:
            print(f"page with every answer: rlfr-eval report {folder}")


def read_settings(options: argparse.Namespace, more: Mapping[str, str | None] | None = None) -> Settings:
    """Return the settings, overridden by the command line."""
    flags = {
        "JUDGE_BASE_URL": options.judge_base_url,
        "JUDGE_MODEL": options.judge_model,
        "LOCAL_LLM": options.judge_local,
    }
    return load_settings({**flags, **(more or {})})


def judge_options(options: argparse.Namespace) -> "JudgeOptions":
    """Return how the judge is used in this run."""
    from rlfr_vlm.judging.session import JudgeOptions

    return JudgeOptions(
        options.judge_force, options.judge_budget_tokens, options.judge_budget_usd, not options.no_judge_cache
    )


def read_judge(options: argparse.Namespace, settings: Settings) -> JudgeChoice | None:
    """Return the judge that the settings name, or None; print its note."""
    choice = choose_judge(settings, none=options.judge == "none")
    if choice is not None and choice.note:
        print(f"note: {choice.note}", file=sys.stderr)
    return choice
