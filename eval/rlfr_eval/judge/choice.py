"""Which judge is in force, who named it, and what to do when two are named."""

from dataclasses import dataclass, field

from rlfr_eval.model.urls import base_url
from rlfr_eval.settings import Settings
from rlfr_vlm.errors import UserError

MODEL_NAMES = ("JUDGE_MODEL", "USED_MODEL")
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
    if none or _says_none(settings):
        return None
    model_name = _only(settings, MODEL_NAMES)
    named = _named(settings)
    if not named:
        key = settings["JUDGE_API_KEY"] or settings["OPENAI_API_KEY"]
        if model_name and key:
            return JudgeChoice("", OPENAI, settings[model_name], key, _source(settings, model_name))
        if settings["JUDGE_MODEL"]:
            raise UserError(
                f"{_source(settings, 'JUDGE_MODEL')} names a judge, but no server. Set JUDGE_BASE_URL (and "
                "JUDGE_API_KEY if it wants one), or LOCAL_LLM to serve a model here; --judge none uses rules alone."
            )
        return None
    winner = named[0]
    # a flag was typed for this very run; between what lies about in files and environment we do not choose
    typed = settings.origin(winner) == RANK[0]
    rivals = [name for name in named[1:] if not typed or settings.origin(name) == RANK[0]]
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
    url = base_url(settings[winner], winner)
    return JudgeChoice("", url, settings[model_name] if model_name else "", _key(settings, winner, url), source)


def _says_none(settings: Settings) -> bool:
    """RLPR's scripts say `USED_MODEL=no_api` for rules alone, whatever address is left in the environment."""
    ours = settings["LOCAL_LLM"] or settings["JUDGE_BASE_URL"] or settings["JUDGE_MODEL"]
    return settings.values["USED_MODEL"].text.strip().lower() == "no_api" and not ours


def _only(settings: Settings, names: tuple[str, ...]) -> str:
    """The name that is set, "" when none is.

    Raises:
        UserError: two are set to different things, and neither on the command line.
    """
    found = sorted((name for name in names if settings[name]), key=lambda name: RANK.index(settings.origin(name)))
    values = {settings[name] for name in found}
    if len(values) > 1 and settings.origin(found[0]) != RANK[0]:
        both = " and ".join(f"{name}={settings[name]} ({settings.origin(name)})" for name in found)
        raise UserError(f"Two judge models are named: {both}. {found[0]} would win; unset the other one.")
    return found[0] if found else ""


def _key(settings: Settings, name: str, url: str) -> str:
    """The key for a server: OPENAI_API_KEY does not go to one named JUDGE_BASE_URL, unless that is OpenAI's."""
    shared = name != "JUDGE_BASE_URL" or url == OPENAI
    key = "JUDGE_API_KEY" if settings["JUDGE_API_KEY"] else "OPENAI_API_KEY" if shared else ""
    if not key or not settings[key]:
        return ""
    if settings.origin(name) == RANK[0] != settings.origin(key):
        # a key that lies beside the address of another server was meant for that one
        known = [settings.below.get(other, settings.values[other]) for other in URL_NAMES]
        beside = [value for value in known if value.text and value.origin == settings.origin(key)]
        if beside and all(base_url(value.text, value.name) != url for value in beside):
            return ""
    return settings[key]


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
