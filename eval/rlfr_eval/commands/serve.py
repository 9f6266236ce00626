"""`rlfr-eval serve`: measure checkpoints for trainers of any framework, which ask for it over HTTP."""

import argparse
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rlfr_eval.commands.arguments import add_judge_options, eval_parser, read_judge, read_settings
from rlfr_vlm.errors import UserError

if TYPE_CHECKING:
    from rlfr_eval.service.options import ServiceOptions
    from rlfr_vlm.env_settings import Settings

SUMMARY = "measure checkpoints for trainers that ask over HTTP"
SHORTEST_TOKEN = 16  # characters
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# options of `lm` and `vlm` that are given here and hold for every job
PASSED_ON = (
    *("data_dir", "server_cmd", "server_args", "judge", "judge_base_url", "judge_model", "judge_local"),
    *("judge_force", "judge_budget_tokens", "judge_budget_usd", "no_judge_cache"),
)


def parser() -> argparse.ArgumentParser:
    given = eval_parser("serve", SUMMARY)
    given.add_argument(
        "--out", required=True, metavar="DIR", help="a run folder for each job; the queue is kept there"
    )
    given.add_argument(
        "--host",
        default="127.0.0.1",
        help="address; others than this machine's need RLFR_EVAL_TOKEN (default: %(default)s)",
    )
    given.add_argument("--port", type=int, default=8765, help="0: a free one (default: %(default)s)")
    given.add_argument("--parallel", type=int, default=1, help="jobs at a time (default: %(default)s)")
    given.add_argument(
        "--devices", nargs="+", default=[], metavar="GPUS", help="of each parallel job, such as: --devices 6 7, or 4,5"
    )
    given.add_argument("--data-dir", help="folder of benchmark files, for every job")
    given.add_argument(
        "--keys-for",
        nargs="+",
        default=[],
        metavar="URL",
        help="servers that get RLFR_EVAL_API_KEY and RLFR_EVAL_HEADERS if a job names them (default: none)",
    )
    serving = given.add_argument_group("serving a job's model")
    serving.add_argument("--server-cmd", help="command instead of vLLM: {model}, {name}, {host}, {port} are filled in")
    serving.add_argument("--server-args", help="more options for vLLM, as one text")
    add_judge_options(given)
    return given


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM. Returns the exit code."""
    from rlfr_eval.service.http_server import EvaluationServer
    from rlfr_eval.service.jobs import Jobs
    from rlfr_eval.service.state import QUEUED, locked

    settings = read_settings(options, {"RLFR_EVAL_SERVER_CMD": options.server_cmd})
    token = _token(settings, options.host)
    service = _service_options(options, settings)
    with locked(service.folder):
        jobs = Jobs(service)
        with EvaluationServer(options.host, options.port, jobs, token) as server:
            waiting = jobs.count().get(QUEUED, 0)
            print(f"serving at {server.url}; jobs in {service.folder}, {waiting} waiting", flush=True)
            heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # not under nohup
            handlers = {number: signal.signal(number, _interrupt) for number in heeded}
            try:
                jobs.start()
                server.serve_forever()
            except KeyboardInterrupt:
                pass
            finally:
                for number in heeded:  # the end takes seconds at most, and a second Ctrl-C must not cut it short
                    signal.signal(number, signal.SIG_IGN)
                jobs.stop()
                for number, handler in handlers.items():
                    signal.signal(number, handler)
    waiting = jobs.count().get(QUEUED, 0)
    print(f"stopped; {waiting} jobs wait in {service.folder}, and the same command goes on with them", file=sys.stderr)
    return 0


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _token(settings: "Settings", host: str) -> str:
    """Return the token that requests must carry; empty if none is set and only this machine can ask.

    Raises:
        UserError: there must be one, or it is too short, or no header can hold it.
    """
    from rlfr_eval.service.http_server import is_loopback
    from rlfr_eval.service.options import TOKEN

    token = settings[TOKEN]
    make = "`python -c 'import secrets; print(secrets.token_urlsafe())'` makes one"
    if not token and not is_loopback(host):
        raise UserError(
            f"--host {host} lets other machines ask, so {TOKEN} must be set in the environment or .env; {make}."
        )
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise UserError(
            f"{TOKEN} must have at least {SHORTEST_TOKEN} characters, without spaces and only ASCII; {make}."
        )
    return token


def _service_options(options: argparse.Namespace, settings: "Settings") -> "ServiceOptions":
    """Check the options, and what every job would stumble over.

    Raises:
        UserError: an option or a setting is wrong.
    """
    from rlfr_eval.model.serving import headers_of
    from rlfr_eval.service.options import ServiceOptions
    from rlfr_vlm.servers.urls import base_url

    if options.parallel < 1:
        raise UserError(f"--parallel is {options.parallel}; it must be at least 1.")
    if options.devices and len(options.devices) != options.parallel:
        raise UserError(
            f"--devices names {len(options.devices)} groups of GPUs for --parallel {options.parallel}: give one for "
            "each parallel job."
        )
    if options.server_cmd and options.server_args:
        raise UserError("--server-args are for vLLM; put the arguments of your own command into --server-cmd.")
    headers_of(settings)
    read_judge(options, settings)
    return ServiceOptions(
        Path(options.out),
        settings,
        options.parallel,
        tuple(_words(options)),
        tuple(options.devices),
        tuple(base_url(url, "--keys-for") for url in options.keys_for),
    )


def _words(options: argparse.Namespace) -> list[str]:
    """Return the options that are passed on, as words of a job's command line."""
    defaults = parser()
    words = []
    for name in PASSED_ON:
        value, flag = getattr(options, name), f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value != defaults.get_default(name):
            words.append(f"{flag}={value}")
    return words
