"""Read a request for a job: a JSON object of a command's options becomes the words of a command line.

The command's own parser says which options there are. A request sets no key, no judge and no program to start.
"""

import argparse
import dataclasses
import importlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import JsonObject
from rlfr_vlm.redaction import secret_values

COMMANDS = {"lm": "rlfr_eval.commands.lm", "vlm": "rlfr_eval.commands.vlm"}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
OWN_KEYS = ("command", "name", "hold_model")  # of a request, beside the command's options
OF_THE_SERVICE = "it is set where the service is started, by an option of `rlfr-eval serve` or in its .env"
# options of the commands that no request sets -> why
NOT_OF_REQUESTS = {
    "out": "the job's folder is that of its `name`",
    "dry_run": "a job is run",
    "json": "scores come with GET /jobs/NAME",
    "show_undecided": "scores come with GET /jobs/NAME",
    "server_cmd": f"it names a program to start; {OF_THE_SERVICE}",
    "server_args": f"it can make vLLM load code; {OF_THE_SERVICE}",
    "judge_base_url": OF_THE_SERVICE,
    "judge_model": OF_THE_SERVICE,
    "judge_local": OF_THE_SERVICE,
    "judge_force": OF_THE_SERVICE,
    "judge_budget_tokens": OF_THE_SERVICE,
    "judge_budget_usd": OF_THE_SERVICE,
    "no_judge_cache": OF_THE_SERVICE,
}
FREE_TEXT = ("system_prompt",)  # may begin with "-", as it is data for the model
LARGEST_NUMBER = 2**53  # up to which JSON's readers agree on whole numbers
PACE = ("concurrency", "time_limit", "max_tries")  # options that change no answer


class Refusal(UserError):
    """A request that is refused with another HTTP status than 400."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class JobRequest:
    """A request that was read and checked.

    Attributes:
        name: of the job and its folder; empty for a new one.
        options: options that differ from the command's defaults, by the names of its flags with `_`.
        fingerprint: of the weights of a model folder, else empty.
        base_url: address of a running server as it is asked, else empty.
        hold_model: whether the files of the model's folder are held until the job has ended.
    """

    command: str
    name: str = ""
    options: JsonObject = field(default_factory=dict)
    fingerprint: str = ""
    base_url: str = ""
    hold_model: bool = False

    def words(self) -> list[str]:
        """Return the options as words of a command line, of which none that was text becomes a flag."""
        known = _options_of(_module(self.command))
        return [word for name, value in self.options.items() for word in _words(known[name], value)]

    def settings(self) -> JsonObject:
        """Return what decides the answers; a job's name stands for one such object."""
        decisive = {name: value for name, value in self.options.items() if name not in PACE}
        weights = {"fingerprint of the model's folder": self.fingerprint} if self.fingerprint else {}
        return {"command": self.command, **decisive, **weights}

    def check_weights(self, folder: Path) -> None:
        """Check that a model's folder holds what it held when the job was submitted.

        Args:
            folder: the model's, or the one that holds its files.

        Raises:
            UserError: it has other weights, or is gone.
        """
        from rlfr_vlm.servers.fingerprint import fingerprint

        if not self.fingerprint:
            return
        try:
            changed = fingerprint(folder) != self.fingerprint
        except OSError as error:
            raise UserError(f"The model in {folder} is gone since the job was submitted: {error.strerror}.") from None
        if changed:
            raise UserError(f"{folder} holds another model than when the job was submitted.")


def read_request(content: object, more: Sequence[str] = ()) -> JobRequest:
    """Read and check a request.

    Args:
        content: the JSON value of its body.
        more: words that the service puts before the options on each job's command line.

    Raises:
        UserError: an unknown key, a value of another type, or options that the command refuses.
    """
    if not isinstance(content, dict):
        raise UserError('A job is a JSON object, such as {"command": "lm", "suite": ["math500"], "model": "..."}.')
    command, name, hold = content.get("command"), content.get("name", ""), content.get("hold_model", False)
    if not isinstance(command, str) or command not in COMMANDS:
        raise UserError(f"command is {command!r}; it is one of {', '.join(COMMANDS)}.")
    check_name(name, may_be_empty="name" not in content)
    _of_type("hold_model", hold, bool, "true or false")
    known = _options_of(_module(command))
    options: JsonObject = {}
    for key, value in content.items():
        option = key.replace("-", "_")
        if key in OWN_KEYS or value is None or (value == "" and option in known and known[option].default == ""):
            continue
        if option in NOT_OF_REQUESTS:
            raise UserError(f"{key} is no part of a request: {NOT_OF_REQUESTS[option]}.")
        if option not in known:
            allowed = [one for one in known if one not in NOT_OF_REQUESTS]
            hint = nearest(key, [*allowed, *OWN_KEYS]) or f" Known: {', '.join([*OWN_KEYS, *allowed])}."
            raise UserError(f"{command} has no option {key!r}.{hint}")
        if option in options:
            raise UserError(f"{key} is given twice.")
        options[option] = _checked(option, known[option], value)
    options = {key: value for key, value in options.items() if value != known[key].default}
    return _complete(JobRequest(command, name, options, hold_model=hold), more)


def check_name(name: object, may_be_empty: bool = False) -> None:
    """Check the name of a job, which is a folder.

    Raises:
        UserError: no plain name.
    """
    if name == "" and may_be_empty:
        return
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(
            f"name is {str(name)[:120]!r}; it is a folder's: letters, digits, '.', '_' and '-', not the first of "
            "the last three, at most 100."
        )


def _parse(command: str, words: Sequence[str]) -> argparse.Namespace:
    options: argparse.Namespace = _module(command).parser().parse_args(list(words))
    return options


def _complete(request: JobRequest, more: Sequence[str]) -> JobRequest:
    """Check the options together, without data and without asking a server, and add what ties answers to a model."""
    from rlfr_vlm.servers.fingerprint import fingerprint
    from rlfr_vlm.servers.urls import base_url

    serving = _module(request.command).check(_parse(request.command, [*more, *request.words()]))
    if request.hold_model and serving.folder is None:
        raise UserError("hold_model goes with a model's folder, whose files it holds.")
    if serving.url:
        return dataclasses.replace(request, base_url=base_url(serving.url))
    if serving.folder is None:
        return request
    folder = serving.folder.resolve()  # the service may be restarted from another folder
    options = {**request.options, "model": str(folder)}
    try:
        return dataclasses.replace(request, options=options, fingerprint=fingerprint(folder))
    except OSError as error:
        raise UserError(f"Cannot read the model in {folder}: {error.strerror}.") from None


def _module(command: str) -> ModuleType:
    return importlib.import_module(COMMANDS[command])


def _options_of(module: ModuleType) -> Mapping[str, argparse.Action]:
    """Return the options of a command by name."""
    actions = module.parser()._actions
    return {action.dest: action for action in actions if action.option_strings and action.dest != "help"}


def _checked(name: str, action: argparse.Action, value: object) -> object:
    """Return the value as it is stored.

    Raises:
        UserError: a value of another type, or a text that could not be a command line's word.
    """
    if action.nargs == 0:
        return _of_type(name, value, bool, "true or false")
    if action.nargs == "+":
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not values:
            raise UserError(f"{name} is {_shown(value)}; it is a list of texts.")
        return [_text(name, one) for one in values]
    if action.type is int:
        return _of_type(name, value, int, "a whole number")
    if action.type is float:
        return _of_type(name, value, (int, float), "a number")
    return _extra_body(value) if name == "extra_body" else _text(name, value)


def _of_type(name: str, value: object, kind: type | tuple[type, ...], what: str) -> object:
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    if isinstance(value, int | float) and not abs(value) < LARGEST_NUMBER:  # nor is NaN
        right = False
    if not right:
        raise UserError(f"{name} is {_shown(value)}; it is {what}.")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise UserError(f"{name} is {_shown(value)}; it is a text.")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(f"{name} holds half a character (a lone surrogate).") from None
    if "\0" in value or (not value.strip() and name not in FREE_TEXT):
        raise UserError(f"{name} is {_shown(value)}; it is a text, neither empty nor with a NUL character.")
    if value.startswith("-") and name not in FREE_TEXT:
        raise UserError(f"{name} is {_shown(value)}; no value begins with '-', which begins a flag. Put ./ before it.")
    return value


def _extra_body(value: object) -> str:
    """Return --extra-body, which may be given as an object or as its text."""
    from rlfr_vlm.env_settings import json_object

    body = value if isinstance(value, dict) else json_object(_text("extra_body", value), "extra_body")
    if list(secret_values(body)):
        raise UserError("extra_body holds a key; keys stand in the service's .env, never in a request.")
    return json.dumps(body, sort_keys=True)


def _words(action: argparse.Action, value: object) -> list[str]:
    flag = action.option_strings[0]
    if action.nargs == 0:
        return [flag] if value else []
    if isinstance(value, list):
        return [flag, *value]
    return [f"{flag}={value}"]


def _shown(value: object) -> str:
    from rlfr_vlm.env_settings import without_secrets

    return without_secrets(repr(value)[:120])
