"""Size of a run's page and seconds to build, open and filter it: 2,000 responses of 500 tokens, three layers.

    .venv/bin/python benchmarks/speed/report.py [--responses 2000] [--tokens 500] [--json FILE]

Per-token values are random, the worst case for compression. Opening is timed from the request until the page is
usable, filtering from the input until the list is updated, both in Chromium if it is installed; medians of five.
"""

import argparse
import json
import resource
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml
from measuring import write_results

from rlfr_vlm.quickstart.small_policy import build_tokenizer
from rlfr_vlm.report.read_run import read_run
from rlfr_vlm.report.run_report import PageOptions, write_training_page
from rlfr_vlm.trainer.records.rollout_log import pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GROUP, LAYERS, ROUNDS = 8, (9, 18, 27), 5
TEXT = "the area of a triangle is half its base times height so we get 12 + 7 = 19 and therefore \\boxed{19}"
WORDS = TEXT.split()
# Upper limits at the default sizes.
TARGETS = {"page_mb": 25.0, "build_seconds": 60.0, "peak_mb": 1000.0, "open_seconds": 3.0, "filter_seconds": 0.2}

# Sets a filter and returns the seconds until the list is updated.
FILTER_SCRIPT = """([name, value]) => {
    const field = document.getElementById("filters").elements[name], start = performance.now();
    field.value = value;
    field.dispatchEvent(new Event("input", {bubbles: true}));
    document.body.getBoundingClientRect();
    return (performance.now() - start) / 1000;
}"""


def write_run(folder: Path, responses: int, tokens: int) -> None:
    """Write a run folder whose tokens have random deviations, entropies and rewards."""
    random = np.random.default_rng(0)
    tokenizer = build_tokenizer([TEXT] * 50, 400)
    tokenizer.save_pretrained(folder)
    (folder / "rollouts").mkdir()
    steps = range(1, responses // GROUP + 1)
    with (folder / "rollouts" / "rank0.jsonl").open("w", encoding="utf-8") as stream:
        for step in steps:
            stream.write(json.dumps(_group(step, tokens, random, tokenizer)) + "\n")
    lines = [{"step": step, "outcome/accuracy": random.random(), "step_time": 1.0} for step in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "config.yaml").write_text(yaml.safe_dump({"method": "rlfr", "flow_threshold": 0.6}))


def _group(
    step: int, tokens: int, random: np.random.Generator, tokenizer: "PreTrainedTokenizerBase"
) -> dict[str, object]:
    """One line of the rollout log."""
    responses = []
    for _ in range(GROUP):
        text = " ".join(random.choice(WORDS, tokens))
        reward = np.zeros(tokens)
        reward[random.choice(tokens, 14, replace=False)] = random.choice([-0.01, 0.01], 14)
        right = bool(random.random() < 0.5)
        responses.append(
            {
                "token_ids": tokenizer(text)["input_ids"][:tokens],
                "text": text,
                "finish": "stop",
                "kept": True,
                "rewards": {"accuracy": float(right)},
                "advantage": 1.0 if right else -1.0,
                "flow_reward": pack(reward),
                "deviations": [pack(3 + random.random(tokens)) for _ in LAYERS],
                "entropy": pack(random.random(tokens)),
                "token_advantage": pack(np.flip(np.cumsum(reward))),
            }
        )
    return {
        "step": step,
        "rollout": step,
        "row_number": step,
        "prompt": f"What is the area of number {step}?",
        "gold": "19",
        "images": [],
        "layers": LAYERS,
        "responses": responses,
    }


def in_browser(path: Path) -> dict[str, float]:
    """Seconds to open and to filter the page; empty without a browser."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    if binary is None:
        print("Chromium is not installed: opening and filtering are not measured")
        return {}
    from playwright.sync_api import sync_playwright

    opened, filtered = [], []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=binary, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(ROUNDS):
            page = browser.new_page()
            start = time.perf_counter()
            page.goto(f"file://{path}")
            page.wait_for_selector("body[data-ready]", timeout=60_000)
            opened.append(time.perf_counter() - start)
            page.wait_for_timeout(2000)  # let the page finish its idle tasks
            for name, value in (("text", "number 77"), ("text", "no such words"), ("from", "100")):
                filtered.append(page.evaluate(FILTER_SCRIPT, [name, value]))
            page.close()
        browser.close()
    return {"open_seconds": statistics.median(opened), "filter_seconds": max(filtered)}


def measure(responses: int, tokens: int) -> dict[str, float]:
    """Measure a page of `responses` responses with `tokens` tokens each."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_run(folder, responses, tokens)
        start = time.perf_counter()
        page = write_training_page([read_run(folder)], folder, PageOptions({}, responses))
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"page_mb": page.stat().st_size / 1e6, "build_seconds": seconds, "peak_mb": peak, **in_browser(page)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--responses", type=int, default=2000)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    result = measure(options.responses, options.tokens)
    for key, value in result.items():
        print(f"{key:<16} {value:8.2f}   target {TARGETS[key]:g}")
    write_results(options.json, "report", {"responses": options.responses, "tokens": options.tokens, **result})


if __name__ == "__main__":
    main()
