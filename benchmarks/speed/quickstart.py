"""Seconds of `bash scripts/quickstart.sh`: with an empty cache, then with what the first run left there.

    .venv/bin/python benchmarks/speed/quickstart.py [--json FILE]

The environment is there already; building it takes as long as downloads do. Runs this checkout, in temporary folders.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

from measuring import Patience, table, write_results

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "quickstart.sh"


def run(cache: str) -> None:
    """One run.

    Raises:
        CalledProcessError: it failed; what it said is on the screen.
    """
    with tempfile.TemporaryDirectory() as out:
        environment = {**os.environ, "RLFR_CACHE": cache}
        subprocess.run(["bash", str(SCRIPT), "--out", out], check=True, env=environment, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    patience = Patience(0)  # a run that is repeated would find the cache filled
    with tempfile.TemporaryDirectory() as cache:
        result = {name: patience.run(lambda: run(cache))[1] for name in ("empty cache", "cached")}
    print(table(("quick start", "seconds"), [(name, f"{seconds:.0f}") for name, seconds in result.items()]))
    write_results(options.json, "quickstart", result, patience)


if __name__ == "__main__":
    main()
