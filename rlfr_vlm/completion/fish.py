"""Completion for fish: one `complete` line for each command and flag."""

from rlfr_vlm import __version__
from rlfr_vlm.completion.words import CommandWords, Flag, ProgramWords

LONGEST_HELP = 60  # characters of a description


def fish_script(program: ProgramWords) -> str:
    """Return the completion of a program for fish."""
    name = program.name
    first = "-n __fish_use_subcommand"
    lines = [
        f"# fish completion of {name} {__version__}, written by `{name} completion fish`",
        f"complete -c {name} -f",
        f"complete -c {name} {first} -l help -d 'commands'",
        f"complete -c {name} {first} -l version -d 'versions'",
    ]
    for command in program.commands:
        lines.append(f"complete -c {name} {first} -a {command.name} -d {_described(command.summary)}")
        lines += _lines(name, command)
    return "\n".join(lines) + "\n"


def _lines(program: str, command: CommandWords) -> list[str]:
    start = f"complete -c {program} -n '__fish_seen_subcommand_from {command.name}'"
    free = command.positional
    lines = []
    if free.words:
        lines.append(f"{start} -a {_quoted(' '.join(free.words))}")
    if free.files:
        lines.append(f"{start} -F")
    return lines + [f"{start}{_flag(flag)}" for flag in command.flags]


def _flag(flag: Flag) -> str:
    """Return the arguments of `complete` for a flag: its name, what follows it, and a description."""
    long = flag.names[0].removeprefix("--")
    parts = [f" -l {long}"]
    parts += [f" -s {name[1:]}" for name in flag.names[1:] if len(name) == 2]
    if flag.values.most:
        parts.append(" -r -F" if flag.values.files else " -x")
        if flag.values.words:
            parts.append(f" -a {_quoted(' '.join(flag.values.words))}")
    if flag.help:
        parts.append(f" -d {_described(flag.help)}")
    return "".join(parts)


def _described(text: str) -> str:
    """Return a description: the start of a help text, in quotes."""
    return _quoted(text if len(text) <= LONGEST_HELP else f"{text[:LONGEST_HELP].rsplit(' ', 1)[0]} ...")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
