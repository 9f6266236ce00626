"""Rows per second and peak memory of `rlfr check-data` on many rows with images.

    .venv/bin/python benchmarks/speed/check_data.py [--rows 50000] [--json FILE]

Writes different JPEG files of 256 x 192 pixels to a temporary folder and checks them with one process per core.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import write_results
from PIL import Image

from rlfr_vlm.data.check import check_rows
from rlfr_vlm.options import DataOptions

SIZE = (256, 192)  # pixels


def write_rows(folder: Path, count: int) -> Path:
    """Write `count` rows, each with a different image."""
    base = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as stream:
        for number in range(count):
            base[0, 0] = number % 256, number // 256 % 256, number // 65536
            image = Image.fromarray(base).resize(SIZE, Image.Resampling.NEAREST)
            image.save(folder / f"{number}.jpg", quality=95)
            row = {
                "prompt": f"<image> What is {number} + {number}?",
                "images": [f"{number}.jpg"],
                "answer": 2 * number,
            }
            stream.write(json.dumps(row) + "\n")
    return folder / "rows.jsonl"


def peak_mb(who: int) -> float:
    """Peak resident size of this process or of its largest child, in MB."""
    return resource.getrusage(who).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        name = write_rows(Path(folder), options.rows)
        start = time.perf_counter()
        report = check_rows(DataOptions(dataset_name=str(name)), ("prompt", "answer"))
        seconds = time.perf_counter() - start
    workers = multiprocessing.cpu_count()
    # Peak of the largest child times the number of children: an upper bound of the total.
    total = peak_mb(resource.RUSAGE_SELF) + workers * peak_mb(resource.RUSAGE_CHILDREN)
    result = {
        "rows": options.rows,
        "kept": len(report.kept),
        "seconds": seconds,
        "rows_per_second": options.rows / seconds,
        "own_peak_mb": peak_mb(resource.RUSAGE_SELF),
        "worker_peak_mb": peak_mb(resource.RUSAGE_CHILDREN),
        "workers": workers,
        "bound_mb": total,
    }
    print(f"{options.rows} rows, {len(report.kept)} kept, in {seconds:.1f} s: {options.rows / seconds:.0f} rows/s")
    print(
        f"peak memory: main process {result['own_peak_mb']:.0f} MB, {workers} workers of at most "
        f"{result['worker_peak_mb']:.0f} MB: at most {total:.0f} MB in total"
    )
    write_results(options.json, "check_data", result)


if __name__ == "__main__":
    main()
