"""Seconds of `bash scripts/quickstart.sh` with an empty cache and with a cached policy.

    .venv/bin/python benchmarks/speed/quickstart.py [--json FILE]

The environment must exist already. Runs this checkout with temporary output and cache folders.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from measuring import Patience, table, write_results

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "quickstart.sh"


def run(cache: str) -> None:
    """Run the quick start with the cache folder `cache`.

    Raises:
        CalledProcessError: the run failed; its messages are on the terminal.
    """
    with tempfile.TemporaryDirectory() as out:
        environment = {**os.environ, "RLFR_CACHE": cache}
        subprocess.run(["bash", str(SCRIPT), "--out", out], check=True, env=environment, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    patience = Patience(0)  # no repetitions: the first run fills the cache
    with tempfile.TemporaryDirectory() as cache:
        result = {name: patience.run(lambda: run(cache))[1] for name in ("empty cache", "cached")}
    print(table(("quick start", "seconds"), [(name, f"{seconds:.0f}") for name, seconds in result.items()]))
    write_results(options.json, "quickstart", result, patience)


if __name__ == "__main__":
    main()
