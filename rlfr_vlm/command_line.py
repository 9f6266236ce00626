"""Shared entry point of the `rlfr` and `rlfr-eval` commands: dispatch, exit codes, error messages.

A command is a module with `SUMMARY` and one of two sets of functions:

- `parser() -> ArgumentParser` and `run(options: Namespace) -> int`. `Program` prints the help and parses.
- `help_text() -> str` and `run(arguments: Sequence[str]) -> int`, for commands whose options are dataclasses
  (`config_file.parse_config`): parsing those imports transformers, which `--help` must not wait for. They also have
  `parsers() -> list[ArgumentParser]`, which completion reads.
"""

import argparse
import errno
import importlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import NoReturn

from rlfr_vlm import __version__
from rlfr_vlm.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, is_disk_full, nearest, printable
from rlfr_vlm.redaction import redact_text

VERSIONS_SHOWN = ("torch", "transformers", "trl")  # what a report of a fault needs first; `rlfr doctor` checks all


@dataclass(frozen=True)
class Program:
    """A command-line program.

    Attributes:
        name: as the user types it.
        commands: command -> name of its module.
        stopped: message after Ctrl-C, with the way to resume.
        disk_full: advice after "the disk is full", with the way to resume.
    """

    name: str
    commands: Mapping[str, str]
    stopped: str
    disk_full: str

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run a command and return its exit code: 0 success, 2 an error that the user must fix, 130 interrupted."""
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        try:
            return self._dispatch(arguments)
        except UserError as error:
            # An error raised in a DataLoader worker arrives with the worker's traceback before it.
            self._print_error(printable(str(error).rsplit("UserError: ", 1)[-1].strip()))
            return EXIT_USER_ERROR
        except BrokenPipeError:  # the reader of standard output has closed it, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            self._print_error(self.stopped)
            return EXIT_INTERRUPTED
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                self._print_error(f"{error.strerror}: this shell's limit is too low. Raise it with `ulimit -n 4096`.")
                return EXIT_USER_ERROR
            if isinstance(error, OSError) and error.filename is not None and not is_disk_full(error):
                path = printable(str(error.filename))
                self._print_error(f"{error.strerror}: {path}. Fix that, or give another path.")
                return EXIT_USER_ERROR
            if not is_disk_full(error):
                raise
            reason = f"the disk is full, or a limit on file sizes is reached, while writing ({error})"
            self._print_error(f"{reason}. {self.disk_full}")
            return EXIT_USER_ERROR

    def _print_error(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr)

    def _dispatch(self, arguments: list[str]) -> int:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(self._help())
            return 0
        if arguments[0] in ("-V", "--version"):
            print(self._version())
            return 0
        name, rest = arguments[0], arguments[1:]
        if name not in self.commands:
            names = ", ".join(self.commands)
            raise UserError(f"Unknown command {name!r}.{nearest(name, self.commands)} Commands are {names}.")
        command = importlib.import_module(self.commands[name])
        if "-h" in rest or "--help" in rest:
            print(help_of(command))
            return 0
        try:
            return command.run(command.parser().parse_args(rest) if hasattr(command, "parser") else rest)
        finally:
            end_progress_bars()

    def _version(self) -> str:
        """Version of the program, then a line for Python and each of `VERSIONS_SHOWN`, read without importing them."""
        from rlfr_vlm.provenance import installed_version

        packages = [f"{name} {installed_version(name) or 'not installed'}" for name in VERSIONS_SHOWN]
        return "\n".join([f"{self.name} {__version__}", f"python {platform.python_version()}", *packages])

    def _help(self) -> str:
        lines = [f"usage: {self.name} COMMAND [options]", "", "commands:"]
        for name, module in self.commands.items():
            lines.append(f"  {name:<14} {importlib.import_module(module).SUMMARY}")
        lines += ["", f"`{self.name} COMMAND --help` lists the options of a command; `--version` shows versions."]
        return "\n".join(lines)


def end_progress_bars() -> None:
    """Close the progress bars that an error left open, so that its message starts on a line of its own."""
    tqdm = sys.modules.get("tqdm")  # a bar is open only if it was imported; importing it takes time
    for bar in list(tqdm.tqdm._instances) if tqdm else ():
        bar.close()


def help_of(command: ModuleType) -> str:
    """Help text of a command module."""
    if hasattr(command, "parser"):
        return command.parser().format_help().rstrip()
    return command.help_text()


def options_parser(command: str, summary: str, program: str = "rlfr") -> argparse.ArgumentParser:
    """Parser of a command that raises `UserError` instead of exiting, so that all errors are printed alike."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            # argparse repeats what was typed, such as an option for a key that does not exist
            message = redact_text(message)
            raise UserError(f"{message[:1].upper()}{message[1:]}. See `{program} {command} --help`.")

    return Parser(prog=f"{program} {command}", description=summary, allow_abbrev=False)
