"""Seconds of `bash scripts/quickstart.sh`: with an empty cache, then with what the first run left there.

    .venv/bin/python benchmarks/speed/quickstart.py [--json FILE]

The environment is there already; building it takes as long as downloads do. Runs this checkout, in temporary folders.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

from measuring import table, write_results

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "quickstart.sh"


def run(cache: str) -> float:
    """Seconds of one run.

    Raises:
        CalledProcessError: it failed; what it said is on the screen.
    """
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        environment = {**os.environ, "RLFR_CACHE": cache}
        subprocess.run(["bash", str(SCRIPT), "--out", out], check=True, env=environment, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        result = {name: run(cache) for name in ("empty cache", "cached")}
    print(table(("quick start", "seconds"), [(name, f"{seconds:.0f}") for name, seconds in result.items()]))
    write_results(options.json, "quickstart", result)


if __name__ == "__main__":
    main()
