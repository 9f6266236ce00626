"""What the completion commands of both programs share: their argument, their help, and printing the script."""

import argparse
from collections.abc import Callable, Mapping, Sequence

from rlfr_vlm.completion.bash import bash_script, zsh_script
from rlfr_vlm.completion.fish import fish_script
from rlfr_vlm.completion.words import ProgramWords, words_of

SUMMARY = "print a script for bash, zsh or fish that completes commands, flags and values"
SCRIPTS: Mapping[str, Callable[[ProgramWords], str]] = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
WHERE = """\
Write the script to a file, again after each update; completing starts no Python:
  {program} completion bash > ~/.local/share/bash-completion/completions/{program}
  {program} completion zsh > ~/.{program}-completion.zsh
  {program} completion fish > ~/.config/fish/completions/{program}.fish
`source` the file at the end of ~/.zshrc for zsh, and in ~/.bashrc where bash-completion is not installed."""


def add_shell(parser: argparse.ArgumentParser, program: str) -> argparse.ArgumentParser:
    """Add the argument `shell` to a parser, and where the scripts belong to its help."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, WHERE.format(program=program)
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="the shell that reads the script")
    return parser


def print_script(shell: str, program: str, commands: Mapping[str, str], known: Mapping[str, Sequence[str]]) -> None:
    """Print the script of a program for a shell; `words_of` describes the other arguments."""
    print(SCRIPTS[shell](words_of(program, commands, known)), end="")
