"""Choose the judge from the settings, and refuse settings that name two judges."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from rlfr_vlm.env_settings import UNSET_WORDS, Settings, Value, http_headers
from rlfr_vlm.errors import UserError
from rlfr_vlm.servers.urls import base_url, same_server

MODEL_NAMES = ("JUDGE_MODEL", "USED_MODEL")
URL_NAMES = ("JUDGE_BASE_URL", "API_URL", "OPENAI_API_BASE", "OPENAI_BASE_URL", "CLIENT_IP")  # in order of precedence
OPENAI = "https://api.openai.com/v1"
KEY_NAMES, HEADER_NAMES = ("JUDGE_API_KEY", "OPENAI_API_KEY"), ("JUDGE_HEADERS",)
PRECEDENCE = ("command line", "environment", ".env", "default")  # of origins, highest first


@dataclass(frozen=True)
class JudgeChoice:
    """The judge that the settings name, before any connection.

    Attributes:
        local: path or id of a model to serve here; "" for a running server.
        url: address of the running server; "" for a local judge.
        model: model to request; "" for the only one that the server serves.
        named_by: the setting that names the judge, with its origin.
        headers: HTTP headers of each request to the running server.
        note: why no key or headers are sent, if the only ones belong to another server; "" otherwise.
    """

    local: str = ""
    url: str = ""
    model: str = ""
    api_key: str = field(default="", repr=False)
    named_by: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    note: str = ""


def choose_judge(settings: Settings, none: bool = False) -> JudgeChoice | None:
    """Return the judge that the settings name, or None.

    Args:
        none: the user asked for no judge.

    Raises:
        UserError: two judges are named, or one is named without a server.
    """
    if none or _judge_disabled(settings):
        return None
    model_setting = _model_setting(settings)
    server_settings = _server_settings(settings)
    if not server_settings:
        if model_setting and _secret(settings, KEY_NAMES, model_setting, OPENAI)[0]:
            return _remote(settings, OPENAI, model_setting, model_setting)
        if settings["JUDGE_MODEL"]:
            raise UserError(
                f"{_source(settings, 'JUDGE_MODEL')} names a judge, but no server. Set JUDGE_BASE_URL (and "
                "JUDGE_API_KEY if it needs one), or LOCAL_LLM to serve a model here; --judge none uses rules alone."
            )
        return None
    winner = server_settings[0]
    # A flag was typed for this run and decides. Between environment and file, the user has to.
    by_flag = settings.origin(winner) == PRECEDENCE[0]
    rivals = [name for name in server_settings[1:] if not by_flag or settings.origin(name) == PRECEDENCE[0]]
    different = [name for name in rivals if not _same(settings, name, winner)]
    if different:
        raise UserError(
            f"Two judges are named: {_server_source(settings, winner)} and {_server_source(settings, different[0])}. "
            f"{winner} would win, because {_why(settings, winner, different[0])}; unset the one you do not mean, or"
            " say which with --judge-base-url or --judge-local."
        )
    source = _source(settings, winner)
    if winner == "LOCAL_LLM":
        return JudgeChoice(local=settings[winner], model=settings["JUDGE_MODEL"], named_by=source)
    return _remote(settings, base_url(settings[winner], winner), winner, model_setting)


def _remote(settings: Settings, url: str, winner: str, model_setting: str) -> JudgeChoice:
    """Return the judge at `url`, which the setting `winner` names, with the key and headers that belong to it."""
    key, key_note = _secret(settings, KEY_NAMES, winner, url)
    headers, headers_note = _secret(settings, HEADER_NAMES, winner, url)
    return JudgeChoice(
        url=url,
        model=settings[model_setting] if model_setting else "",
        api_key=key,
        named_by=_source(settings, winner),
        headers=http_headers(headers, HEADER_NAMES[0]),
        note="; ".join(filter(None, [key_note, headers_note])),
    )


def _judge_disabled(settings: Settings) -> bool:
    """Return whether `USED_MODEL=no_api` is set, with which RLPR's scripts ask for rules alone despite an address."""
    judge = settings["LOCAL_LLM"] or settings["JUDGE_BASE_URL"] or settings["JUDGE_MODEL"]
    return settings.values["USED_MODEL"].text.strip().lower() == "no_api" and not judge


def _model_setting(settings: Settings) -> str:
    """Return the name of the setting that names the judge model; "" if none does.

    Raises:
        UserError: two settings name different models, and neither was given on the command line.
    """
    names = sorted(
        (name for name in MODEL_NAMES if settings[name]), key=lambda name: PRECEDENCE.index(settings.origin(name))
    )
    values = {settings[name] for name in names}
    if len(values) > 1 and settings.origin(names[0]) != PRECEDENCE[0]:
        both = " and ".join(f"{name}={settings[name]} ({settings.origin(name)})" for name in names)
        raise UserError(f"Two judge models are named: {both}. {names[0]} would win; unset the other one.")
    return names[0] if names else ""


def _secret(settings: Settings, names: tuple[str, ...], name: str, url: str) -> tuple[str, str]:
    """Return the key or the headers for a server, and why there are none although some are set.

    A key belongs to the servers that its own origin names: JUDGE_API_KEY and JUDGE_HEADERS to any of them,
    OPENAI_API_KEY to those of `URL_NAMES` but JUDGE_BASE_URL. An origin with a model and a key but no address
    means OpenAI's server; one with a key alone leaves the server to the others.

    Args:
        names: settings that hold the key or the headers.
        name: setting that names the server or, for OpenAI's, the model.
        url: the server in use.

    Raises:
        UserError: the only key stands beside another server, and the server was not named on the command line.
    """
    keys = [
        value
        for key_name in names
        if settings[key_name]  # an unset word overrides the values below it
        for value in settings.by_origin[key_name]
        if value.text.strip().lower() not in UNSET_WORDS
    ]
    pairs = [(key, _servers_beside(settings, key)) for key in keys]
    beside = [key for key, servers in pairs if any(same_server(server, url) for server in servers.values())]
    alone = [key for key, servers in pairs if not servers and _may_get(key, name, url)]
    if fitting := [*beside, *alone]:
        return fitting[0].text.strip(), ""
    others = [(key, next(iter(servers))) for key, servers in pairs if servers and _may_get(key, name, url)]
    if not others:
        return "", ""
    key, other_server = others[0]
    message = (
        f"{key.name} ({key.origin}) stands beside {other_server} ({key.origin}), which names another "
        f"server than {_source(settings, name)}; keys and headers are sent only to the server they stand beside"
    )
    if settings.origin(name) == PRECEDENCE[0]:
        return "", f"{message}, so none is sent to {url}"
    raise UserError(
        f"{message}. Set the key where {name} is set ({key.name}=none if that server needs none), or unset the one of "
        "the two servers that you do not mean."
    )


def _may_get(key: Value, name: str, url: str) -> bool:
    """Return whether a server may get a key that stands beside no server: OPENAI_API_KEY is not for every judge."""
    return key.name.startswith("JUDGE_") or name != "JUDGE_BASE_URL" or same_server(url, OPENAI)


def _servers_beside(settings: Settings, key: Value) -> dict[str, str]:
    """Return the servers that a key's origin names for it: setting -> address."""
    names = URL_NAMES if key.name.startswith("JUDGE_") else URL_NAMES[1:]
    servers = {}
    for value in (value for name in names for value in settings.by_origin[name] if value.origin == key.origin):
        if value.text.strip().lower() not in UNSET_WORDS:
            try:
                servers[value.name] = base_url(value.text, value.name)
            except UserError:  # an address that is not in use may be broken
                servers[value.name] = value.text
    models = [value for name in MODEL_NAMES for value in settings.by_origin[name] if value.origin == key.origin]
    models = [value for value in models if value.text.strip().lower() not in UNSET_WORDS]
    return {models[0].name: OPENAI} if models and not servers else servers


def _server_settings(settings: Settings) -> list[str]:
    """Return the settings that name a judge's server, sorted by precedence of origin, local before remote."""
    names = [name for name in ("LOCAL_LLM", *URL_NAMES) if settings[name]]
    return sorted(names, key=lambda name: PRECEDENCE.index(settings.origin(name)))


def _same(settings: Settings, first: str, second: str) -> bool:
    """Return whether two settings name one judge."""
    if "LOCAL_LLM" in (first, second):
        return _server(settings, first) == _server(settings, second)
    return same_server(_server(settings, first), _server(settings, second))


def _server(settings: Settings, name: str) -> str:
    return settings[name] if name == "LOCAL_LLM" else base_url(settings[name], name)


def _source(settings: Settings, name: str) -> str:
    return f"{name} ({settings.origin(name)})"


def _server_source(settings: Settings, name: str) -> str:
    return f"{name}={_server(settings, name)} ({settings.origin(name)})"


def _why(settings: Settings, winner: str, loser: str) -> str:
    if settings.origin(winner) != settings.origin(loser):
        return f"the {settings.origin(winner)} stands above the {settings.origin(loser)}"
    if winner == "LOCAL_LLM":
        return "a local judge is preferred to a remote one, as in the released scripts"
    return f"{winner} is the more specific name"
