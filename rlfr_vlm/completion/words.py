"""The words that a command line may have, read from argument parsers."""

import argparse
import importlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

MANY = 999  # values of a flag that takes any number
# Flags whose values are paths, or names that may be paths, where the parser does not say so.
PATH_FLAGS = re.compile(
    r".*_(?:dir|path|file|root|dataset_name|from_checkpoint)|model_name_or_path|dataset_name"
    r"|dir|path|file|out|to|config|data|model|policy|flow|base|deepspeed|html|against|tokenizer"
)
PATH_METAVAR = re.compile(r"DIR|FILE|PATH")
SAFE = re.compile(r"[\w.:/@,+][\w.:/@,+-]*")  # words that no shell reads as anything else


@dataclass(frozen=True)
class Values:
    """What may follow a flag, or stand without one.

    Attributes:
        most: number of values.
        words: known values.
        files: whether names of files may stand there.
    """

    most: int = 0
    words: tuple[str, ...] = ()
    files: bool = False


@dataclass(frozen=True)
class Flag:
    """An option.

    Attributes:
        names: as typed; the first one is offered.
        help: its help text.
        values: what follows it.
    """

    names: tuple[str, ...]
    help: str
    values: Values


@dataclass(frozen=True)
class CommandWords:
    """A command with its flags, and what may stand without a flag."""

    name: str
    summary: str
    flags: tuple[Flag, ...]
    positional: Values


@dataclass(frozen=True)
class ProgramWords:
    """A program with its commands."""

    name: str
    commands: tuple[CommandWords, ...]


def words_of(program: str, commands: Mapping[str, str], known: Mapping[str, Sequence[str]]) -> ProgramWords:
    """Import all commands, and read their parsers.

    Args:
        program: as the user types it.
        commands: command -> name of its module.
        known: values that the parsers do not check, by name of the setting; `COMMAND:NAME` takes precedence.
    """
    modules = {name: importlib.import_module(module) for name, module in commands.items()}
    return ProgramWords(program, tuple(_command(name, module, known) for name, module in modules.items()))


def parsers_of(module: ModuleType) -> list[argparse.ArgumentParser]:
    """Return the parsers of a command module, which together take its arguments."""
    return [module.parser()] if hasattr(module, "parser") else module.parsers()


def _command(name: str, module: ModuleType, known: Mapping[str, Sequence[str]]) -> CommandWords:
    actions = [action for parser in parsers_of(module) for action in parser._actions]
    flags: dict[str, Flag] = {}
    positional: list[Values] = []
    for action in actions:
        values = _values(action, known.get(f"{name}:{action.dest}") or known.get(action.dest, ()))
        if not action.option_strings:
            positional.append(values)
        elif action.help != argparse.SUPPRESS:
            names = sorted(action.option_strings, key=lambda text: not text.startswith("--"))
            help_text = " ".join((action.help or "").replace("(default: %(default)s)", "").split())
            flags.setdefault(names[0], Flag(tuple(names), help_text, values))
    return CommandWords(name, module.SUMMARY, tuple(flags.values()), _joined(positional))


def _values(action: argparse.Action, known: Iterable[str]) -> Values:
    if action.nargs == 0:
        return Values()
    if action.nargs == "?" and action.const is True:  # transformers' parser: a switch that also takes a value
        return Values(1, ("true", "false"))
    most = 1 if action.nargs in (None, "?") else action.nargs if isinstance(action.nargs, int) else MANY
    words = tuple(word for word in map(str, [*(action.choices or ()), *known]) if SAFE.fullmatch(word))
    return Values(most, tuple(dict.fromkeys(words)), action.choices is None and _takes_path(action))


def _takes_path(action: argparse.Action) -> bool:
    shown = action.metavar if isinstance(action.metavar, str) else ""
    if action.type is Path or PATH_METAVAR.search(shown):
        return True
    return action.type in (None, str) and PATH_FLAGS.fullmatch(action.dest) is not None


def _joined(positional: Sequence[Values]) -> Values:
    """What may stand without a flag, whichever argument it is for."""
    words = dict.fromkeys(word for values in positional for word in values.words)
    return Values(sum(values.most for values in positional), tuple(words), any(values.files for values in positional))
