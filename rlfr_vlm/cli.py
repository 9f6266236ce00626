"""The `rlfr` command. torch is imported inside commands only, so `--help` stays fast."""

import sys

from rlfr_vlm.command_line import Program

# rlfr_vlm/command_line.py describes what a command module contains.
COMMANDS = {
    "quickstart": "rlfr_vlm.commands.quickstart",
    "init": "rlfr_vlm.commands.init",
    "get-policy": "rlfr_vlm.commands.get_policy",
    "fit-flow": "rlfr_vlm.commands.fit_flow",
    "train": "rlfr_vlm.commands.train",
    "sweep": "rlfr_vlm.commands.sweep",
    "grade": "rlfr_vlm.commands.grade",
    "check-data": "rlfr_vlm.commands.check_data",
    "check-overlap": "rlfr_vlm.commands.check_overlap",
    "preview": "rlfr_vlm.commands.preview",
    "plan": "rlfr_vlm.commands.plan",
    "report": "rlfr_vlm.commands.report",
    "inspect": "rlfr_vlm.commands.inspect",
    "sample": "rlfr_vlm.commands.sample",
    "export": "rlfr_vlm.commands.export",
    "doctor": "rlfr_vlm.commands.doctor",
    "completion": "rlfr_vlm.commands.completion",
}

main = Program(
    "rlfr",
    COMMANDS,
    stopped="stopped at once; `--resume auto` goes on from the last complete checkpoint, if one was saved",
    disk_full="Free some space and run the command again; with --resume it goes on from the last complete checkpoint.",
).main

if __name__ == "__main__":
    sys.exit(main())
