"""Reach the judge in force: start it if it is ours, ask who it is, check it, hand it out, stop what was started."""

import dataclasses
import math
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rlfr_eval.judge.budget import Budget
from rlfr_eval.judge.cache import VerdictCache
from rlfr_eval.judge.choice import JudgeChoice
from rlfr_eval.judge.client import Judge
from rlfr_eval.judge.known_cases import Cases, check_judge
from rlfr_eval.model.endpoint import Endpoint
from rlfr_eval.model.fingerprint import fingerprint
from rlfr_eval.model.server import HOST, Server, fill, free_port
from rlfr_eval.progress import Clock
from rlfr_eval.settings import Settings
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import cache_root

LOCAL_NAME = "judge"
LMDEPLOY = "{lmdeploy} serve api_server {model} --model-name {name} --server-name {host} --server-port {port}"
ENVIRONMENT = Path(".venv-judge")
TIME_LIMIT = 120.0  # seconds for one verdict


@dataclass(frozen=True)
class JudgeOptions:
    """How a judge is used in one run.

    Attributes:
        force: use it although it fails the check.
        budget_tokens, budget_usd: hard limits.
        use_cache: take verdicts from, and keep them in, the user's cache.
    """

    force: bool = False
    budget_tokens: float = math.inf
    budget_usd: float = math.inf
    use_cache: bool = True
    time_limit: float = TIME_LIMIT


@asynccontextmanager
async def judge_session(
    choice: JudgeChoice,
    settings: Settings,
    folder: Path,
    options: JudgeOptions,
    *,
    check: bool = True,
    budget: Budget | None = None,
    cases: Cases | None = None,
) -> AsyncIterator[Judge]:
    """Yield a judge that answers.

    Args:
        folder: takes the log of a judge that is started here.
        check: put the known cases to it first.
        budget: one that something was taken from already; a new one by default.
        cases: the known cases, instead of the common ones.

    Raises:
        UserError: it cannot be started or reached, does not serve the model asked for, or fails the check.
    """
    fresh = prepare(choice, settings, options)
    async with AsyncExitStack() as stack:
        url = choice.url
        if choice.local:
            server = stack.enter_context(_local_server(choice, settings, folder / "judge-server.log"))
            server.wait_ready(Clock(f"starting the judge {choice.local} (log: {server.log})"))
            url = server.url
        endpoint = await stack.enter_async_context(
            Endpoint(url, choice.model, choice.api_key, time_limit=options.time_limit, name="the judge's server")
        )
        identity = await _identify(endpoint, choice)
        cache = VerdictCache(cache_root() / "judge.sqlite") if options.use_cache else None
        if cache is not None:
            stack.callback(cache.close)
        judge = Judge(
            endpoint,
            identity,
            budget or fresh,
            cache,
            int(settings.number("JUDGE_MAX_TOKENS", 1)),
            int(settings.number("JUDGE_CONCURRENCY", 1)),
            settings.json_object("JUDGE_EXTRA_BODY"),
        )
        if check:
            await _refuse_unfit(judge, options.force, cases)
        yield judge


def prepare(choice: JudgeChoice, settings: Settings, options: JudgeOptions) -> Budget:
    """Find everything that is wrong with the settings before anything is paid for. Returns the budget.

    Raises:
        UserError: a number that is none, a budget without prices, a local judge that cannot be served.
    """
    for name, lowest in (("JUDGE_MAX_TOKENS", 1), ("JUDGE_CONCURRENCY", 1), ("JUDGE_PORT", 0)):
        settings.number(name, lowest)
    settings.json_object("JUDGE_EXTRA_BODY")
    if choice.local:
        _command(choice, settings, 0)
    for flag, value in (("tokens", options.budget_tokens), ("usd", options.budget_usd)):
        if not value > 0:
            raise UserError(f"--judge-budget-{flag} is {value:g}; it must be above 0.")
    prices = settings.number("JUDGE_PRICE_INPUT"), settings.number("JUDGE_PRICE_OUTPUT")
    if math.isfinite(options.budget_usd) and not any(prices):
        raise UserError("--judge-budget-usd needs prices: set JUDGE_PRICE_INPUT and JUDGE_PRICE_OUTPUT.")
    return Budget(options.budget_tokens, options.budget_usd, *prices)


async def _refuse_unfit(judge: Judge, force: bool, cases: Cases | None) -> None:
    result = await check_judge(dataclasses.replace(judge, cache=None), cases)  # as it is now, not as it once was
    if result.over_budget:
        raise UserError(
            "The judge's budget is too small even to check it: a request per known case, each of up to "
            f"JUDGE_MAX_TOKENS ({judge.max_tokens}) and JUDGE_CONCURRENCY ({judge.concurrency}) of them at a time. "
            "Raise the budget, or lower those."
        )
    if not result.passed and not force:
        shown = "\n".join(f"  {line}" for line in result.lines())
        raise UserError(
            f"The judge {judge.identity} is not fit: {result.summary()}.\n{shown}\nTake another judge, or use it all "
            "the same with --judge-force."
        )
    print(f"judge {judge.identity}: {result.summary()}", file=sys.stderr)


def _local_server(choice: JudgeChoice, settings: Settings, log: Path) -> Server:
    port = int(settings.number("JUDGE_PORT")) or free_port()
    return Server(_command(choice, settings, port), f"http://{HOST}:{port}/v1", log, what="the judge's server")


def _command(choice: JudgeChoice, settings: Settings, port: int) -> list[str]:
    command = settings["JUDGE_CMD"] or LMDEPLOY
    lmdeploy = ENVIRONMENT / "bin" / "lmdeploy"
    if "{lmdeploy}" in command and not lmdeploy.exists():
        raise UserError(
            f"{choice.named_by} asks for a local judge, but there is no {lmdeploy}. Make it with "
            "`bash scripts/setup_judge.sh`, or say how to serve it with JUDGE_CMD."
        )
    values = {"model": choice.local, "name": choice.model or LOCAL_NAME, "host": HOST, "port": str(port)}
    return fill(command, lmdeploy=str(lmdeploy), **values)


def local_identity(choice: JudgeChoice) -> str:
    """Name of a judge that is served here, with the weights behind it."""
    folder = Path(choice.local).expanduser()
    return f"{choice.local} ({fingerprint(folder)})" if folder.is_dir() else choice.local


async def _identify(endpoint: Endpoint, choice: JudgeChoice) -> str:
    """A name for the model that is served, with its weights or its server, without which names mean little."""
    card = await endpoint.settle_model("JUDGE_MODEL")
    if choice.local:
        return local_identity(choice)
    root = card.get("root")  # vLLM: the weights behind the name
    return f"{endpoint.model} ({endpoint.url if root in (None, endpoint.model) else root})"
