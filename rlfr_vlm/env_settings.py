"""Settings of the harness with their origins. Precedence: flag > environment > `.env` > default."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import JsonObject
from rlfr_vlm.redaction import redact_text

UNSET_WORDS = frozenset(["", "none", "no_api"])  # values that mean "unset" in the released scripts
PREFIXES = ("JUDGE_", "RLFR_EVAL_")  # unknown names with these prefixes are errors
MASK = "(secret)"
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.1
SHORTEST_SECRET = 4  # characters; shorter keys are placeholders, and replacing them would damage words


@dataclass(frozen=True)
class Setting:
    """The definition of a setting."""

    name: str
    help: str
    default: str = ""
    secret: bool = False


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("LOCAL_LLM", "path or id of a judge to serve locally with lmdeploy; none or empty: use the API"),
        Setting("JUDGE_BASE_URL", "server of the judge, with or without /v1 or /chat/completions"),
        Setting("JUDGE_MODEL", "model to request from that server; empty: the only one it serves"),
        Setting("JUDGE_API_KEY", "API key of the judge's server", secret=True),
        Setting("JUDGE_CMD", "command that serves LOCAL_LLM: {model}, {name}, {host} and {port} are filled in"),
        Setting("JUDGE_PORT", "port of a judge that is served here; 0: a free port", "0"),
        Setting("JUDGE_CONCURRENCY", "concurrent requests to the judge", "16"),
        Setting("JUDGE_MAX_TOKENS", "maximum tokens of a judge's reply; reasoning judges need more", "1024"),
        Setting("JUDGE_EXTRA_BODY", "JSON object added to each request to the judge, such as chat_template_kwargs"),
        Setting("JUDGE_HEADERS", "JSON object of HTTP headers for the judge's server", secret=True),
        Setting("JUDGE_TIME_LIMIT", "seconds for one request to the judge", "120"),
        Setting("JUDGE_PRICE_INPUT", "US dollars per million input tokens of the judge", "0"),
        Setting("JUDGE_PRICE_OUTPUT", "US dollars per million output tokens of the judge", "0"),
        Setting("API_URL", "the released scripts' name for JUDGE_BASE_URL"),
        Setting("OPENAI_API_BASE", "another name for JUDGE_BASE_URL"),
        Setting("OPENAI_BASE_URL", "the openai package's name for JUDGE_BASE_URL"),
        Setting("CLIENT_IP", "RLPR's name for JUDGE_BASE_URL"),
        Setting("OPENAI_API_KEY", "another name for JUDGE_API_KEY", secret=True),
        Setting("USED_MODEL", "RLPR's name for JUDGE_MODEL; no_api: no judge"),
        Setting("RLFR_EVAL_DATA", "folder of benchmark files"),
        Setting("LMUData", "VLMEvalKit's folder of TSV files (default: ~/LMUData)"),
        Setting("VLMEVAL_PYTHON", "Python of an environment that has ms-vlmeval (default: .venv-vlmeval's)"),
        Setting("RLFR_EVAL_API_KEY", "API key of the server at --base-url", secret=True),
        Setting("RLFR_EVAL_HEADERS", "JSON object of HTTP headers for the server at --base-url", secret=True),
        Setting("RLFR_EVAL_SERVER_CMD", "command that serves --model: {model}, {name}, {host}, {port} are filled in"),
        Setting("RLFR_EVAL_TOKEN", "token that requests to `rlfr-eval serve` must carry", secret=True),
    )
}


@dataclass(frozen=True)
class Value:
    """The value of a setting with its origin. `repr` omits `text`, which may be a secret."""

    name: str
    text: str = field(repr=False)
    origin: str

    @property
    def display_text(self) -> str:
        """The value for display, masked if it is a secret."""
        if SETTINGS[self.name].secret and self.text:
            return "(set, not shown)"
        return without_secrets(self.text) or "(empty)"


def without_secrets(text: str) -> str:
    """Return a command, an address or JSON with its secrets masked, for display and storage."""
    return redact_text(text, MASK)


class Settings:
    """All settings with their values and origins.

    Attributes:
        values: the values in force.
        by_origin: every value of a setting, the one in force first.
        env_file: the `.env` file that was read, if any.
    """

    def __init__(self, by_origin: Mapping[str, Sequence[Value]], env_file: Path | None) -> None:
        self.by_origin, self.env_file = dict(by_origin), env_file
        self.values = {name: values[0] for name, values in by_origin.items()}

    def __getitem__(self, name: str) -> str:
        """Return the value; "" if it is unset or one of `UNSET_WORDS`."""
        text = self.values[name].text.strip()
        return "" if text.lower() in UNSET_WORDS else text

    def origin(self, name: str) -> str:
        return self.values[name].origin

    def json_object(self, name: str) -> JsonObject:
        """Return a setting that is a JSON object; {} if it is unset."""
        return json_object(self[name] or "{}", name)

    def number(self, name: str, minimum: float = 0.0) -> float:
        """Return a setting that is a number.

        Raises:
            UserError: the value is no number, or is below `minimum`.
        """
        try:
            value = float(self[name] or SETTINGS[name].default)
        except ValueError:
            value = float("nan")
        if not minimum <= value < float("inf"):
            raise UserError(
                f"{name} is {self[name]!r} ({self.origin(name)}); it must be a number from {minimum:g} on."
            )
        return value


def load_settings(
    flags: Mapping[str, str | None] | None = None,
    environment: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> Settings:
    """Load all settings.

    Args:
        flags: setting -> value from the command line; None if the flag was not given.
        environment: os.environ by default.
        start: folder where the upward search for `.env` begins; the working directory by default.

    Raises:
        UserError: `.env` cannot be read, or has an unknown name with one of `PREFIXES`.
    """
    flags = flags or {}
    environment = os.environ if environment is None else environment
    path = find_env_file(start or Path.cwd())
    file_values = _read_env_file(path) if path else {}
    sources = (("command line", flags), ("environment", environment), (".env", file_values))
    by_origin = {}
    for name, setting in SETTINGS.items():
        texts = ((origin, source.get(name)) for origin, source in sources)
        values = [Value(name, text, origin) for origin, text in texts if text is not None]
        by_origin[name] = [*values, Value(name, setting.default, "default")]
    return Settings(by_origin, path)


def find_env_file(start: Path) -> Path | None:
    """Return the nearest `.env` file in `start` or its parent folders."""
    return next((folder / ".env" for folder in [start, *start.parents] if (folder / ".env").is_file()), None)


def _read_env_file(path: Path) -> dict[str, str]:
    from dotenv import dotenv_values

    try:
        values = dotenv_values(path, interpolate=False)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    for name in values:
        if name.startswith(PREFIXES) and name not in SETTINGS:
            raise UserError(f"{path} has the unknown name {name}.{nearest(name, SETTINGS)} See `rlfr-eval settings`.")
    return {name: text for name, text in values.items() if text is not None}


def json_object(text: str, name: str) -> JsonObject:
    """Parse a JSON object that a user wrote.

    Args:
        name: the setting or file, for the message.

    Raises:
        UserError: the text is no JSON object.
    """
    try:
        value = json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f"{name} is {without_secrets(text)!r}; it must be a JSON object.")
    return value


def http_headers(text: str, name: str) -> dict[str, str]:
    """Parse HTTP headers, a JSON object of texts; {} for an empty text.

    Args:
        name: the setting, for messages, which do not show the values.

    Raises:
        UserError: not a JSON object of texts, or a text that no header can hold.
    """
    try:
        headers = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        headers = None
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise UserError(f'{name} must be a JSON object of texts, such as {{"api-key": "..."}}.')
    for key, value in headers.items():
        if not HEADER_NAME.fullmatch(key) or not value.isascii() or not value.isprintable():
            raise UserError(f"{name} has the header {key!r}, whose name or value holds characters that no header has.")
    return headers


def _reject_constant(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are not JSON


def redact(text: str, secrets: list[str]) -> str:
    """Return `text` with all occurrences of the secrets masked."""
    for secret in secrets:
        if len(secret) >= SHORTEST_SECRET:
            text = text.replace(secret, MASK)
    return text
