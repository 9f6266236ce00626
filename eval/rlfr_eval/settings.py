"""Settings of the harness: flags over environment over `.env` over defaults, each with where it came from."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.redaction import redact_text

NOTHING = frozenset(["", "none", "no_api"])  # how the released scripts say that there is none
OWN_PREFIXES = ("JUDGE_", "RLFR_EVAL_")
SHORTEST_SECRET = 4  # shorter ones are placeholders, and replacing them would tear words


@dataclass(frozen=True)
class Setting:
    """One name, what it means, its default, and whether its value is a secret."""

    name: str
    help: str
    default: str = ""
    secret: bool = False


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("LOCAL_LLM", "path or id of a judge to serve locally with lmdeploy; none or empty: use the API"),
        Setting("JUDGE_BASE_URL", "server of the judge, with or without /v1 or /chat/completions"),
        Setting("JUDGE_MODEL", "model to ask there; empty: the only one it serves"),
        Setting("JUDGE_API_KEY", "its key", secret=True),
        Setting("JUDGE_CMD", "command that serves LOCAL_LLM: {model}, {name}, {host} and {port} are filled in"),
        Setting("JUDGE_PORT", "port of the judge that is started here; 0: a free one", "0"),
        Setting("JUDGE_CONCURRENCY", "requests to the judge at a time", "16"),
        Setting("JUDGE_MAX_TOKENS", "length of a judge's reply; reasoning judges need more", "1024"),
        Setting("JUDGE_EXTRA_BODY", "JSON added to each request to the judge, such as chat_template_kwargs"),
        Setting("JUDGE_PRICE_INPUT", "US dollars per million input tokens of the judge", "0"),
        Setting("JUDGE_PRICE_OUTPUT", "US dollars per million output tokens of the judge", "0"),
        Setting("API_URL", "the released scripts' name for JUDGE_BASE_URL"),
        Setting("OPENAI_API_BASE", "another name for JUDGE_BASE_URL"),
        Setting("CLIENT_IP", "RLPR's name for JUDGE_BASE_URL"),
        Setting("OPENAI_API_KEY", "another name for JUDGE_API_KEY", secret=True),
        Setting("USED_MODEL", "RLPR's name for JUDGE_MODEL; no_api: none"),
        Setting("RLFR_EVAL_DATA", "folder of benchmark files"),
        Setting("LMUData", "VLMEvalKit's folder of TSV files (default: ~/LMUData)"),
        Setting("VLMEVAL_PYTHON", "Python of an environment that has ms-vlmeval (default: .venv-vlmeval's)"),
        Setting("RLFR_EVAL_API_KEY", "key of the server under --base-url", secret=True),
        Setting("RLFR_EVAL_SERVER_CMD", "command that serves --model: {model}, {name}, {host}, {port} are filled in"),
    )
}


@dataclass(frozen=True)
class Value:
    """A setting in force. `text` of a secret does not show in `repr`."""

    name: str
    text: str = field(repr=False)
    origin: str

    @property
    def shown(self) -> str:
        """The value, masked when it is a secret."""
        if SETTINGS[self.name].secret and self.text:
            return "(set, not shown)"
        return without_secrets(self.text) or "(empty)"


def without_secrets(text: str) -> str:
    """Text that may be shown and stored: without passwords in addresses and keys in commands."""
    return redact_text(text, "(secret)")


class Settings:
    """Every setting with its value and origin; `below` has what a flag stands above."""

    def __init__(self, values: Mapping[str, Value], below: Mapping[str, Value], env_file: Path | None) -> None:
        self.values, self.below, self.env_file = dict(values), dict(below), env_file

    def __getitem__(self, name: str) -> str:
        """The value; "" when it is unset or says that there is none."""
        text = self.values[name].text.strip()
        return "" if text.lower() in NOTHING else text

    def origin(self, name: str) -> str:
        return self.values[name].origin

    def json_object(self, name: str) -> dict[str, Any]:
        """A setting that is a JSON object; {} when it is unset."""
        return json_object(self[name] or "{}", name)

    def number(self, name: str, lowest: float = 0.0) -> float:
        """A setting that is a number.

        Raises:
            UserError: it is not, or it is below `lowest`.
        """
        try:
            value = float(self[name] or SETTINGS[name].default)
        except ValueError:
            value = float("nan")
        if not lowest <= value < float("inf"):
            raise UserError(f"{name} is {self[name]!r} ({self.origin(name)}); it must be a number from {lowest:g} on.")
        return value


def load_settings(
    flags: Mapping[str, str | None] | None = None,
    environment: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> Settings:
    """Look every setting up.

    Args:
        flags: values given on the command line; None means not given.
        environment: os.environ by default.
        start: where the search for `.env` begins, upwards; the working directory by default.

    Raises:
        UserError: `.env` cannot be read, or has a name that looks like one of ours but is not.
    """
    flags = flags or {}
    environment = os.environ if environment is None else environment
    path = find_env_file(start or Path.cwd())
    file_values = _read_env_file(path) if path else {}
    values, below = {}, {}
    for name, setting in SETTINGS.items():
        if name in environment:
            values[name] = Value(name, environment[name], "environment")
        elif name in file_values:
            values[name] = Value(name, file_values[name], ".env")
        else:
            values[name] = Value(name, setting.default, "default")
        if (given := flags.get(name)) is not None:
            below[name], values[name] = values[name], Value(name, given, "command line")
    return Settings(values, below, path)


def find_env_file(start: Path) -> Path | None:
    """The nearest `.env`, from `start` upwards."""
    return next((folder / ".env" for folder in [start, *start.parents] if (folder / ".env").is_file()), None)


def _read_env_file(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    for name in values:
        if name.startswith(OWN_PREFIXES) and name not in SETTINGS:
            raise UserError(f"{path} has the unknown name {name}.{nearest(name, SETTINGS)} See `rlfr-eval settings`.")
    return {name: text for name, text in values.items() if text is not None}


def json_object(text: str, name: str) -> dict[str, Any]:
    """A JSON object that a user wrote.

    Raises:
        UserError: it is none.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{name} is {text!r}; it must be a JSON object.")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def redact(text: str, secrets: list[str]) -> str:
    """`text` without the secrets, whoever wrote them into it."""
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, "(secret)")
    return text
