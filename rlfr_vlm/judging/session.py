"""Connect to the chosen judge: start its server if it is local, identify it, check it, stop the server afterwards."""

import dataclasses
import math
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rlfr_vlm.env_settings import Settings
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import cache_folder
from rlfr_vlm.judging.budget import Budget
from rlfr_vlm.judging.cache import VerdictCache
from rlfr_vlm.judging.choice import JudgeChoice
from rlfr_vlm.judging.client import Judge
from rlfr_vlm.judging.known_cases import KnownCases, check_judge
from rlfr_vlm.redaction import secret_values
from rlfr_vlm.servers.endpoint import Endpoint
from rlfr_vlm.servers.fingerprint import fingerprint
from rlfr_vlm.servers.server import HOST, Server, check_program, fill_command, free_port
from rlfr_vlm.servers.urls import same_server, split_query
from rlfr_vlm.servers.wait_notice import WaitNotice

LOCAL_NAME = "judge"
# The last flag: else settings that the model ships, such as a repetition penalty, change greedy replies.
LMDEPLOY = (
    "{lmdeploy} serve api_server {model} --model-name {name} --server-name {host} --server-port {port} "
    "--generation-config lmdeploy"
)
ENVIRONMENT = Path(".venv-judge")


@dataclass(frozen=True)
class JudgeOptions:
    """How a judge is used in one run.

    Attributes:
        force: use the judge even if it fails the check.
        budget_tokens, budget_usd: hard limits.
        use_cache: read and write the user's cache of judge replies.
    """

    force: bool = False
    budget_tokens: float = math.inf
    budget_usd: float = math.inf
    use_cache: bool = True


@asynccontextmanager
async def judge_session(
    choice: JudgeChoice,
    settings: Settings,
    folder: Path,
    options: JudgeOptions,
    *,
    check: bool = True,
    budget: Budget | None = None,
    cases: KnownCases | None = None,
) -> AsyncIterator[Judge]:
    """Yield a judge that is ready for requests.

    Args:
        folder: folder for the log of a judge that is started here.
        check: run the known cases first.
        budget: a partly spent budget; a new one by default.
        cases: known cases to use instead of those for text.

    Raises:
        UserError: the judge cannot be started or reached, does not serve the model, or fails the check.
    """
    new_budget = check_judge_settings(choice, settings, options)
    async with AsyncExitStack() as stack:
        url = choice.url
        if choice.local:
            server = stack.enter_context(_local_server(choice, settings, folder / "judge-server.log"))
            server.wait_ready(WaitNotice(f"starting the judge {choice.local} (log: {server.log})"))
            url = server.url
        endpoint = await stack.enter_async_context(
            Endpoint(
                url,
                choice.model,
                choice.api_key,
                time_limit=settings.number("JUDGE_TIME_LIMIT", 1),
                name="the judge's server",
                secrets=tuple(secret_values(settings.json_object("JUDGE_EXTRA_BODY"))),
                headers=choice.headers,
            )
        )
        identity = await _identify(endpoint, choice)
        cache = VerdictCache(cache_folder(fallback=folder) / "judge.sqlite") if options.use_cache else None
        if cache is not None:
            stack.callback(cache.close)
        judge = Judge(
            endpoint,
            identity,
            budget or new_budget,
            cache,
            int(settings.number("JUDGE_MAX_TOKENS", 1)),
            int(settings.number("JUDGE_CONCURRENCY", 1)),
            settings.json_object("JUDGE_EXTRA_BODY"),
        )
        if check:
            await _refuse_unfit(judge, options.force, cases)
        yield judge


def check_judge_settings(choice: JudgeChoice, settings: Settings, options: JudgeOptions) -> Budget:
    """Validate the judge's settings before any request is paid for. Returns the budget.

    Raises:
        UserError: an invalid number, a budget without prices, or a local judge that cannot be served.
    """
    minima = {"JUDGE_MAX_TOKENS": 1, "JUDGE_CONCURRENCY": 1, "JUDGE_TIME_LIMIT": 1, "JUDGE_PORT": 0}
    for name, minimum in minima.items():
        settings.number(name, minimum)
    settings.json_object("JUDGE_EXTRA_BODY")
    if choice.local:
        check_program(_command(choice, settings, 0), "the judge's server")
    for flag, value in (("tokens", options.budget_tokens), ("usd", options.budget_usd)):
        if not value > 0:
            raise UserError(f"--judge-budget-{flag} is {value:g}; it must be above 0.")
    prices = settings.number("JUDGE_PRICE_INPUT"), settings.number("JUDGE_PRICE_OUTPUT")
    if math.isfinite(options.budget_usd) and not any(prices):
        raise UserError("--judge-budget-usd needs prices: set JUDGE_PRICE_INPUT and JUDGE_PRICE_OUTPUT.")
    return Budget(options.budget_tokens, options.budget_usd, *prices)


async def _refuse_unfit(judge: Judge, force: bool, cases: KnownCases | None) -> None:
    # Without the cache: test the model that is served now.
    result = await check_judge(dataclasses.replace(judge, cache=None), cases)
    if result.over_budget:
        raise UserError(
            "The judge's budget is too small even to check it: the check sends a request per known case, each of up "
            f"to JUDGE_MAX_TOKENS ({judge.max_tokens}) tokens, JUDGE_CONCURRENCY ({judge.concurrency}) at a time. "
            "Raise the budget, or lower those settings."
        )
    if not result.passed and not force:
        lines = "\n".join(f"  {line}" for line in result.lines())
        raise UserError(
            f"The judge {judge.identity} is not fit: {result.summary()}.\n{lines}\nTake another judge, or use it "
            "anyway with --judge-force."
        )
    print(f"judge {judge.identity}: {result.summary()}", file=sys.stderr)


def _local_server(choice: JudgeChoice, settings: Settings, log: Path) -> Server:
    port = int(settings.number("JUDGE_PORT")) or free_port()
    return Server(_command(choice, settings, port), f"http://{HOST}:{port}/v1", log, label="the judge's server")


def _command(choice: JudgeChoice, settings: Settings, port: int) -> list[str]:
    command = settings["JUDGE_CMD"] or LMDEPLOY
    lmdeploy = ENVIRONMENT / "bin" / "lmdeploy"
    if "{lmdeploy}" in command and not lmdeploy.exists():
        raise UserError(
            f"{choice.named_by} asks for a local judge, but there is no {lmdeploy}. Install it with "
            "`bash scripts/setup_judge.sh`, or give the command that serves the judge with JUDGE_CMD."
        )
    values = {"model": choice.local, "name": choice.model or LOCAL_NAME, "host": HOST, "port": str(port)}
    return fill_command(command, lmdeploy=str(lmdeploy), **values)


def local_identity(choice: JudgeChoice) -> str:
    """Return the identity of a judge that is served here: its path and the fingerprint of its weights."""
    folder = Path(choice.local).expanduser()
    return f"{choice.local} ({fingerprint(folder)})" if folder.is_dir() else choice.local


def named_identity(choice: JudgeChoice) -> str:
    """Return the identity of a judge without asking its server, which may know its model by another name."""
    return (
        local_identity(choice)
        if choice.local
        else f"{choice.model or 'its only model'} ({split_query(choice.url)[0]})"
    )


def may_be(choice: JudgeChoice, identity: str) -> bool:
    """Return whether an identity, as a run records it, can be the chosen judge's; no server is asked.

    vLLM's identity names the weights and not the address, so a remote judge is compared by its model's name.
    """
    if choice.local:
        return identity == local_identity(choice)
    name, _, where = identity.removesuffix(")").rpartition(" (")
    return (not choice.model or name == choice.model) and (
        "://" not in where or same_server(where, split_query(choice.url)[0])
    )


async def _identify(endpoint: Endpoint, choice: JudgeChoice) -> str:
    """Return the served model's name together with its weights or its server, since names alone are ambiguous."""
    card = await endpoint.resolve_model("JUDGE_MODEL")
    if choice.local:
        return local_identity(choice)
    root = card.get("root")  # vLLM reports the path of the weights here
    return f"{endpoint.model} ({endpoint.url if root in (None, endpoint.model) else root})"
