"""What the `rlfr` and `rlfr-eval` commands share: dispatch, exit codes, one message for every mistake."""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlfr_vlm import __version__
from rlfr_vlm.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, is_disk_full, nearest, printable


@dataclass(frozen=True)
class Program:
    """A command line program.

    Attributes:
        name: as the user types it.
        commands: command -> module with SUMMARY, help_text() and run(arguments).
        stopped: said after Ctrl-C: how to go on.
        disk_full: said when a disk is full: how to go on.
    """

    name: str
    commands: Mapping[str, str]
    stopped: str
    disk_full: str

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run a command; return its exit code: 0 done, 2 something the user must mend, 130 interrupted."""
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        try:
            return self._dispatch(arguments)
        except UserError as error:
            # One raised in a DataLoader worker arrives with the worker's traceback before it.
            self._say(printable(str(error).rsplit("UserError: ", 1)[-1].strip()))
            return EXIT_USER_ERROR
        except BrokenPipeError:  # whoever read our output has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            self._say(self.stopped)
            return EXIT_INTERRUPTED
        except Exception as error:
            if isinstance(error, OSError) and error.filename is not None and not is_disk_full(error):
                self._say(f"{error.strerror}: {printable(str(error.filename))}. Mend that, or name another place.")
                return EXIT_USER_ERROR
            if not is_disk_full(error):
                raise
            self._say(f"the disk is full while writing ({error}). {self.disk_full}")
            return EXIT_USER_ERROR

    def _say(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr)

    def _dispatch(self, arguments: list[str]) -> int:
        if not arguments or arguments[0] in ("-h", "--help"):
            print(self._help())
            return 0
        if arguments[0] in ("-V", "--version"):
            print(f"{self.name} {__version__}")
            return 0
        name, rest = arguments[0], arguments[1:]
        if name not in self.commands:
            known = ", ".join(self.commands)
            raise UserError(f"Unknown command {name!r}.{nearest(name, self.commands)} Commands are {known}.")
        command = importlib.import_module(self.commands[name])
        if "-h" in rest or "--help" in rest:
            print(command.help_text())
            return 0
        return command.run(rest)

    def _help(self) -> str:
        lines = [f"usage: {self.name} COMMAND [options]", "", "commands:"]
        for name, module in self.commands.items():
            lines.append(f"  {name:<14} {importlib.import_module(module).SUMMARY}")
        lines += ["", f"`{self.name} COMMAND --help` lists the options of a command."]
        return "\n".join(lines)


def options_parser(command: str, summary: str, program: str = "rlfr") -> argparse.ArgumentParser:
    """A parser whose errors are `UserError`s, like every other mistake."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> None:  # type: ignore[override]
            raise UserError(f"{message[:1].upper()}{message[1:]}. See `{program} {command} --help`.")

    return Parser(prog=f"{program} {command}", description=summary, allow_abbrev=False)
