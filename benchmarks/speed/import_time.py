"""Seconds of `--help` of the commands and of importing the trainer.

.venv/bin/python benchmarks/speed/import_time.py [--rounds 5] [--json FILE]
"""

import argparse
import subprocess
import sys

from measuring import Patience, add_options, alternate, spread, table, write_results

COMMANDS = {
    "rlfr --help": ["-m", "rlfr_vlm.cli", "--help"],
    "rlfr train --help": ["-m", "rlfr_vlm.cli", "train", "--help"],
    "rlfr-eval --help": ["-m", "rlfr_eval.cli", "--help"],
    "rlfr-eval lm --help": ["-m", "rlfr_eval.cli", "lm", "--help"],
    "import rlfr_vlm.grading": ["-c", "import rlfr_vlm.grading"],
    "import the trainer": ["-c", "import rlfr_vlm.trainer.rlfr_trainer"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    add_options(parser)
    options = parser.parse_args()

    def run_python(arguments: list[str]) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    works = {name: lambda arguments=arguments: run_python(arguments) for name, arguments in COMMANDS.items()}
    patience = Patience(options.patience)
    seconds = alternate(works, options.rounds, patience)
    rows = [(name, *(f"{value:.2f}" for value in spread(values).values())) for name, values in seconds.items()]
    print(table(("command", "min, s", "median, s", "max, s"), rows))
    write_results(options.json, "import_time", {name: spread(values) for name, values in seconds.items()}, patience)


if __name__ == "__main__":
    main()
