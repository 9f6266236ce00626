"""Names of reasoning-gym tasks as data sets: `reasoning_gym:TASK?option=value&size=2000`."""

import importlib.util
import re
from dataclasses import dataclass, field

from rlfr_vlm.errors import UserError

LIBRARY = "reasoning_gym"
PREFIX = f"{LIBRARY}:"
INSTALL = "pip install 'rlfr-vlm[reasoning-gym]'"
SIZE = "size"
SEPARATOR = re.compile(r"&(?=\w+=)")  # a value may have `&`, which is an operator of some tasks


@dataclass(frozen=True)
class GymName:
    """A task with its options.

    Attributes:
        task: as reasoning-gym names it.
        options: texts of the task's options as they stand in the name.
        size: largest number of rows; None where the name has none.
    """

    task: str
    options: dict[str, str] = field(default_factory=dict)
    size: int | None = None


def is_gym_name(name: str) -> bool:
    """Whether the name of a data set is one of a reasoning-gym task.

    >>> is_gym_name("reasoning_gym:chain_sum"), is_gym_name("charts")
    (True, False)
    """
    return name.startswith(PREFIX)


def parse_name(name: str) -> GymName:
    """Return the parts of a name. Whether there is such a task is not checked.

    Raises:
        UserError: the name has no task, a part that is no `option=value`, an option twice, or a size below 1.

    >>> parse_name("reasoning_gym:chain_sum?min_terms=2&size=10")
    GymName(task='chain_sum', options={'min_terms': '2'}, size=10)
    """
    task, _, query = name.removeprefix(PREFIX).partition("?")
    if not task:
        raise UserError(f"{name} names no task. Write {PREFIX}TASK, such as {PREFIX}chain_sum.")
    options: dict[str, str] = {}
    for part in SEPARATOR.split(query) if query else []:
        option, found, value = part.partition("=")
        if not found or not option:
            raise UserError(f"{name} has {part!r}; options are written {PREFIX}{task}?min_terms=2&{SIZE}=2000.")
        if option in options:
            raise UserError(f"{name} has the option {option} twice. Leave one of them out.")
        options[option] = value
    size = options.pop(SIZE, None)
    if size is not None and not (size.isascii() and size.isdigit() and int(size)):
        raise UserError(f"{name}: {SIZE} is {size!r}; it is a number of rows, at least 1.")
    return GymName(task, options, None if size is None else int(size))


def check_installed(name: str) -> None:
    """Check that reasoning-gym is there.

    Args:
        name: what needs it, for the message.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec(LIBRARY) is None:
        raise UserError(f"{name} needs the package reasoning-gym, which is not installed. Run: {INSTALL}")
