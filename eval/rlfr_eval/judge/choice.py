"""Which judge is in force, who named it, and what to do when two are named."""

from dataclasses import dataclass, field

from rlfr_eval.settings import Settings
from rlfr_eval.urls import base_url
from rlfr_vlm.errors import UserError

URL_NAMES = ("JUDGE_BASE_URL", "API_URL", "OPENAI_API_BASE", "CLIENT_IP")  # the first one wins
OPENAI = "https://api.openai.com/v1"
RANK = ("command line", "environment", ".env", "default")


@dataclass(frozen=True)
class JudgeChoice:
    """A judge before it is reached.

    Attributes:
        local: path or id of a model to serve here; "" for a server that runs already.
        url: where it answers; "" for a local one.
        model: what to ask there; "" for the only one it serves.
        named_by: the setting that named it, and where that came from.
    """

    local: str = ""
    url: str = ""
    model: str = ""
    api_key: str = field(default="", repr=False)
    named_by: str = ""


def choose_judge(settings: Settings, none: bool = False) -> JudgeChoice | None:
    """The judge in force, or None.

    Args:
        none: the user asked for no judge.

    Raises:
        UserError: two judges are named, or one is named without a server.
    """
    if none:
        return None
    named = _named(settings)
    model_name = next((name for name in ("JUDGE_MODEL", "USED_MODEL") if settings[name]), "")
    key_name = next((name for name in ("JUDGE_API_KEY", "OPENAI_API_KEY") if settings[name]), "")
    if not named:
        if model_name and key_name:
            return JudgeChoice("", OPENAI, settings[model_name], settings[key_name], _source(settings, model_name))
        if settings["JUDGE_MODEL"]:
            raise UserError(
                f"{_source(settings, 'JUDGE_MODEL')} names a judge, but no server. Set JUDGE_BASE_URL (and "
                "JUDGE_API_KEY if it wants one), or LOCAL_LLM to serve a model here; --judge none uses rules alone."
            )
        return None
    winner = named[0]
    # a flag was typed for this very run; between what lies about in files and environment we do not choose
    rivals = [] if settings.origin(winner) == "command line" else named[1:]
    different = [name for name in rivals if _server(settings, name) != _server(settings, winner)]
    if different:
        raise UserError(
            f"Two judges are named: {_shown(settings, winner)} and {_shown(settings, different[0])}. "
            f"{winner} would win, because {_why(settings, winner, different[0])}; unset the one you do not mean, or"
            " say which with --judge-base-url or --judge-local."
        )
    source = _source(settings, winner)
    if winner == "LOCAL_LLM":
        return JudgeChoice(local=settings[winner], model=settings["JUDGE_MODEL"], named_by=source)
    model = settings[model_name] if model_name else ""
    return JudgeChoice("", base_url(settings[winner], winner), model, settings[key_name] if key_name else "", source)


def _named(settings: Settings) -> list[str]:
    """Settings that name a judge's server, the strongest first: by origin, then local before remote."""
    names = [name for name in ("LOCAL_LLM", *URL_NAMES) if settings[name]]
    return sorted(names, key=lambda name: RANK.index(settings.origin(name)))


def _server(settings: Settings, name: str) -> str:
    return settings[name] if name == "LOCAL_LLM" else base_url(settings[name], name)


def _source(settings: Settings, name: str) -> str:
    return f"{name} ({settings.origin(name)})"


def _shown(settings: Settings, name: str) -> str:
    return f"{name}={_server(settings, name)} ({settings.origin(name)})"


def _why(settings: Settings, winner: str, other: str) -> str:
    if settings.origin(winner) != settings.origin(other):
        return f"the {settings.origin(winner)} stands above the {settings.origin(other)}"
    if winner == "LOCAL_LLM":
        return "a local judge is preferred to a remote one, as in the released scripts"
    return f"{winner} is the more specific name"
