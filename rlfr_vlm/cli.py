"""The `rlfr` command. Only the command that runs imports torch, so `--help` is instant."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from rlfr_vlm import __version__
from rlfr_vlm.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, is_disk_full, nearest, printable

# Each command is a module in rlfr_vlm/commands with SUMMARY, help_text() and run(arguments).
COMMANDS = {
    "quickstart": "rlfr_vlm.commands.quickstart",
    "fit-flow": "rlfr_vlm.commands.fit_flow",
    "train": "rlfr_vlm.commands.train",
    "grade": "rlfr_vlm.commands.grade",
    "check-data": "rlfr_vlm.commands.check_data",
    "check-overlap": "rlfr_vlm.commands.check_overlap",
    "preview": "rlfr_vlm.commands.preview",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 done, 2 something the user must mend, 130 interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return _dispatch(arguments)
    except UserError as error:
        # One raised in a DataLoader worker arrives with the worker's traceback before it.
        print(f"rlfr: {printable(str(error).rsplit('UserError: ', 1)[-1].strip())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(
            "rlfr: stopped at once; `--resume auto` goes on from the last complete checkpoint, if one was saved",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    except Exception as error:
        if not is_disk_full(error):
            raise
        print(f"rlfr: the disk is full while writing ({error}). Free some space and run the command again; with "
              "--resume it goes on from the last complete checkpoint.", file=sys.stderr)  # fmt: skip
        return EXIT_USER_ERROR


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"rlfr {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        raise UserError(f"Unknown command {name!r}.{nearest(name, COMMANDS)} Commands are {', '.join(COMMANDS)}.")
    command = importlib.import_module(COMMANDS[name])
    if "-h" in rest or "--help" in rest:
        print(command.help_text())
        return 0
    return command.run(rest)


def _help() -> str:
    lines = ["usage: rlfr COMMAND [options]", "", "commands:"]
    for name, module in COMMANDS.items():
        lines.append(f"  {name:<14} {importlib.import_module(module).SUMMARY}")
    lines += ["", "`rlfr COMMAND --help` lists the options of a command."]
    return "\n".join(lines)


def options_parser(command: str, summary: str) -> argparse.ArgumentParser:
    """A parser whose errors are `UserError`s, like every other mistake."""

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> None:  # type: ignore[override]
            raise UserError(f"{message[:1].upper()}{message[1:]}. See `rlfr {command} --help`.")

    return Parser(prog=f"rlfr {command}", description=summary, allow_abbrev=False)


if __name__ == "__main__":
    sys.exit(main())
