"""Read a configuration from a YAML file with command-line overrides, as TRL does.

Precedence: command line > YAML file > defaults. Unknown keys fail with the nearest name. `--name null` unsets a
setting that may be unset. The resolved configuration is written beside the results.
"""

import argparse
import dataclasses
import logging
import os
import types
import typing
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

import yaml

from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.files import write_text
from rlfr_vlm.options import FORMER_SETTINGS
from rlfr_vlm.redaction import PLACEHOLDER, is_secret

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

logger = logging.getLogger(__name__)

Settings: TypeAlias = dict[str, Any]  # setting -> plain value, as in YAML
Configs: TypeAlias = tuple[Any, ...]  # one object of each dataclass, in the order of the classes
RESOLVED_FILE = "config.yaml"
SCALARS = (int, float, bool, str, types.NoneType)
# Settings that may differ when a run is resumed.
NOT_COMPARED = ("output_dir", "logging_dir", "run_name", "resume_from_checkpoint", "report_to", "local_rank")


def parse_config(classes: Sequence[type], arguments: Sequence[str]) -> Configs:
    """Build one object of each dataclass from `--config FILE` and `--name value` arguments.

    Raises:
        UserError: no such file, bad YAML, an unknown key, a value of the wrong type, or an invalid combination.
    """
    return parse_config_subset(classes, (), arguments)


def parse_config_subset(classes: Sequence[type], ignored: Sequence[type], arguments: Sequence[str]) -> Configs:
    """Do as `parse_config`, for commands that need only a part of a training configuration.

    Keys of the YAML file that only the dataclasses `ignored` have are skipped; unknown keys still fail.
    """
    from trl import TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> NoReturn:
            raise UserError(f"{message[:1].upper()}{message[1:]}. `rlfr --help` lists the commands and their options.")

    path, rest = take_option(arguments, "--config")
    names = {f.name for cls in classes for f in dataclasses.fields(cls) if f.init}
    ignored_names = {f.name for cls in ignored for f in dataclasses.fields(cls)} - names
    values = _without_written_values(_without_former_settings(_read_yaml(path), path)) if path else {}
    for name in values:
        if name not in names | ignored_names:
            raise UserError(f"Unknown key {name!r} in {path}.{nearest(name, names | ignored_names)}")
    values = {name: _switched_off(name, value) for name, value in values.items() if name in names}
    for argument in rest:
        name = _option_name(argument)
        if argument.startswith("--") and name not in names and name.removeprefix("no_") not in names:
            raise UserError(f"Unknown option {argument.split('=')[0]}.{nearest(name, names)}")
    # The parser changes the types of a dataclass's fields; its annotations stay.
    annotations = {name: hint for cls in classes for name, hint in typing.get_type_hints(cls).items()}
    unset, rest = _without_nulls(rest, nullable(classes))
    values |= dict.fromkeys(unset)
    for name, value in values.items():
        _check_type(name, value, annotations[name], path)
    parser = Parser(list(classes), allow_abbrev=False)
    parser.set_defaults_with_config(**values)
    try:
        return parser.parse_args_into_dataclasses(args=list(rest))
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from None


def parser_of(classes: Sequence[type]) -> argparse.ArgumentParser:
    """Return the parser of dataclasses, with `--config`, for what lists options; it parses no configuration file."""
    from trl import TrlParser

    parser = TrlParser(list(classes), allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="configuration as YAML; the command line overrides it")
    return parser


def take_option(arguments: Sequence[str], name: str) -> tuple[str | None, list[str]]:
    """Split the value of `--name value` from the other arguments."""
    splitter = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    splitter.add_argument(name, dest="value")
    try:
        namespace, rest = splitter.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise UserError(f"{error}.") from None
    return namespace.value, rest


def nullable(classes: Sequence[type]) -> set[str]:
    """Return the names of the settings that may be null, which is how YAML and `--name null` unset one."""
    hints = {name: hint for cls in classes for name, hint in typing.get_type_hints(cls).items()}
    return {name for name, hint in hints.items() if types.NoneType in typing.get_args(hint)}


def _option_name(argument: str) -> str:
    return argument.split("=")[0].removeprefix("--").replace("-", "_")


def _without_nulls(arguments: Sequence[str], nullable: Collection[str]) -> tuple[set[str], list[str]]:
    """Split off the options `--name null`, which argparse cannot express, and earlier values of the same options.

    >>> _without_nulls(["--top_k", "3", "--top_k=null", "--beta", "0"], {"top_k"})
    ({'top_k'}, ['--beta', '0'])
    """
    options: list[list[str]] = []  # each with its values
    for argument in arguments:
        if argument.startswith("--") or not options:
            options.append([])
        options[-1].append(argument)
    unset, kept = set[str](), list[list[str]]()
    for option in options:
        name = _option_name(option[0])
        if name in nullable and (option[0].partition("=")[2] or " ".join(option[1:])) == "null":
            unset.add(name)
            kept = [other for other in kept if _option_name(other[0]) != name]
        else:
            kept.append(option)
    return unset, [argument for option in kept for argument in option]


def names_given(arguments: Sequence[str]) -> set[str]:
    """Return the names of the settings that the YAML file or the command line sets; they need not exist.

    >>> sorted(names_given(["--max_steps=2", "--no_watch", "--rewards", "accuracy"]))
    ['max_steps', 'no_watch', 'rewards', 'watch']
    """
    path, rest = take_option(arguments, "--config")
    names = {_option_name(argument) for argument in rest if argument[:2] == "--"}
    return {*(_read_yaml(path) if path else ()), *names, *(name.removeprefix("no_") for name in names)}


class _UniqueKeys(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: str) -> Settings:
    try:
        values = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise UserError(f"No configuration file at {path}. Shipped ones are in scripts/configs/.") from None
    except OSError as error:
        raise UserError(f"Cannot read the configuration {path}: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: bytes or dates that there are not
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold `key: value` lines.")
    return values


def _without_former_settings(values: Settings, path: str) -> Settings:
    """Drop settings that earlier versions had, so that their `config.yaml` still opens; other values are reported."""
    for name, constant in FORMER_SETTINGS.items():
        if name in values and values[name] != constant:
            logger.warning("%s: %s in %s is ignored; it is always %g now.", name, values[name], path, constant)
    return {str(name): value for name, value in values.items() if name not in FORMER_SETTINGS}


def _without_written_values(values: Settings) -> Settings:
    """Drop what only a run's own `config.yaml` has: masked secrets, and a batch size that TRL derived from another."""
    derived = values.get("steps_per_generation") is not None and values.get("generation_batch_size") is not None
    size = (values.get("per_device_train_batch_size") or 1) * (values.get("steps_per_generation") or 1)
    if derived and values["generation_batch_size"] % size == 0:
        values = {name: value for name, value in values.items() if name != "generation_batch_size"}
    return {name: value for name, value in values.items() if value != PLACEHOLDER}


def _switched_off(name: str, value: object) -> object:
    """Return "no" for a strategy that YAML read as false: `no` and `off` are its spellings of false."""
    return "no" if name.endswith("_strategy") and value is False else value


def _check_type(name: str, value: object, annotation: Any, path: str | None) -> None:
    """Check the type of a YAML value, which argparse does not: YAML values become its defaults.

    Strings are left to argparse and mappings to transformers.
    """
    union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    options = typing.get_args(annotation) if union else (annotation,)
    lists = [typing.get_origin(option) is list for option in options if option is not types.NoneType]
    if all(lists) and not (isinstance(value, list) or (value is None and types.NoneType in options)):
        raise UserError(f"{name} in {path} is {value!r}, but must be a list: {name}: [{value}].")
    if isinstance(value, str | dict) or not all(option in SCALARS for option in options):
        return
    accepted = {*options, int} if float in options else set(options)
    if type(value) not in accepted:
        expected = " or ".join(option.__name__ for option in options if option is not types.NoneType)
        raise UserError(f"{name} in {path} is {value!r}, but must be {expected}.")


def resolved(*configs: "DataclassInstance") -> Settings:
    """Return every resolved setting as a plain value; secrets are masked."""
    merged: Settings = {}
    for config in configs:
        values = config.to_dict() if hasattr(config, "to_dict") else dataclasses.asdict(config)
        merged.update({name: _plain(name, value) for name, value in values.items()})
    return merged


def differences(directory: str | Path, *configs: "DataclassInstance") -> list[str]:
    """Describe how the resolved settings differ from those written in `directory`; empty if none are written."""
    path = Path(directory) / RESOLVED_FILE
    return changed_settings(read_settings(path), resolved(*configs), NOT_COMPARED) if path.is_file() else []


def changed_settings(written: Settings, current: Settings, ignored: Collection[str]) -> list[str]:
    """Describe the settings that both have, with different values.

    >>> changed_settings({"seed": 1, "out": "a", "old": 2}, {"seed": 3, "out": "b"}, ("out",))
    ['seed: 1 -> 3']
    """
    names = sorted(name for name in written.keys() & current.keys() if written[name] != current[name])
    return [f"{name}: {written[name]} -> {current[name]}" for name in names if name not in ignored]


def read_settings(path: Path) -> Settings:
    """Return the settings that `write_settings` wrote.

    Raises:
        UserError: the file cannot be read.
    """
    return _read_yaml(str(path))


def write_resolved(directory: str | Path, *configs: "DataclassInstance") -> None:
    """Write every resolved setting to `config.yaml` in `directory`; secrets are masked."""
    write_settings(directory, resolved(*configs))


def write_settings(directory: str | Path, settings: Settings) -> None:
    """Write settings that `resolved` returned to `config.yaml` in `directory`."""
    write_settings_file(Path(directory) / RESOLVED_FILE, settings)


def write_settings_file(path: Path, settings: Settings) -> None:
    """Write settings that `resolved` returned to a YAML file."""
    write_text(path, yaml.safe_dump(settings, sort_keys=True, allow_unicode=True))


def _plain(name: str, value: object) -> object:
    if is_secret(name) and isinstance(value, str):
        return PLACEHOLDER
    if isinstance(value, dict):
        return {str(key): _plain(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, inner) for inner in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
