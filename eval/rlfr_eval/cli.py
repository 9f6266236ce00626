"""The `rlfr-eval` command. Subcommands are imported on demand, so that `--help` is fast."""

import sys

from rlfr_vlm.command_line import Program

COMMANDS = {
    "lm": "rlfr_eval.commands.lm",
    "vlm": "rlfr_eval.commands.vlm",
    "import": "rlfr_eval.commands.import_answers",
    "serve": "rlfr_eval.commands.serve",
    "preview": "rlfr_eval.commands.preview",
    "list": "rlfr_eval.commands.list_benchmarks",
    "fetch": "rlfr_eval.commands.fetch",
    "judge": "rlfr_eval.commands.judge",
    "regrade": "rlfr_eval.commands.regrade",
    "compare": "rlfr_eval.commands.compare",
    "report": "rlfr_eval.commands.report",
    "table": "rlfr_eval.commands.table",
    "show": "rlfr_eval.commands.show",
    "settings": "rlfr_eval.commands.settings",
    "completion": "rlfr_eval.commands.completion",
}

main = Program(
    "rlfr-eval",
    COMMANDS,
    stopped="stopped; every answer so far is kept: run the same command again to go on",
    disk_full="Free some space and run the same command again; every answer so far is kept.",
).main

if __name__ == "__main__":
    sys.exit(main())
