"""Train the digits policy with RLVR and with a flow reward from the same start, and compare the pairs of seeds.

    python benchmarks/signal/rl.py --policy DIR --flow DIR --out FILE.json [--seeds 5] [--set key=value ...]

Everything but the flow reward is the quick start's recipe. A finished seed is kept: the same command goes on.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import yaml
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from rlfr_vlm import RLFRConfig, RLFRTrainer, load_field
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.evaluate import Accuracy, respond
from rlfr_vlm.files import write_json
from rlfr_vlm.quickstart.recipe import QuickstartRecipe
from rlfr_vlm.rewards import accuracy
from rlfr_vlm.stats import paired_difference

MODES = ("sampled", "greedy")


def train(policy_path: str, flow_path: str | None, seed: int, changes: dict[str, object]) -> dict[str, object]:
    """Train one run; returns its accuracy on the held-out rows, and the share of rollouts with an open gate."""
    recipe = QuickstartRecipe()
    policy = Qwen2_5_VLForConditionalGeneration.from_pretrained(policy_path)
    processor = AutoProcessor.from_pretrained(policy_path)
    method = "rlvr" if flow_path is None else "rlfr"
    with tempfile.TemporaryDirectory() as folder:
        settings = recipe.rl_arguments(folder, method, seed) | {"report_to": "none", "disable_tqdm": True}
        trainer = RLFRTrainer(
            policy,
            args=RLFRConfig(**(settings | (changes if flow_path else {}))),
            train_dataset=load_rows("digits", limit=recipe.rl_rows, seed=seed),
            processing_class=processor,
            flow=None if flow_path is None else load_field(flow_path),
        )
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    test = load_rows("digits", split="test", limit=recipe.eval_rows, seed=1)
    rows = [test[index] for index in range(len(test))]
    result: dict[str, object] = {"seconds": round(seconds, 1)}
    for mode in MODES:
        responses = respond(
            trainer.model, processor, rows, accuracy, sampled=mode == "sampled", seed=1,
            max_new_tokens=recipe.max_new_tokens,
        )  # fmt: skip
        result[mode] = Accuracy.of(responses).value
    gates = [step["flow/gate"] for step in trainer.state.log_history if "flow/gate" in step]
    result["gate_open"] = sum(gates) / len(gates) if gates else None
    return result


def compare(runs: dict[str, dict[str, dict[str, float]]]) -> dict[str, object]:
    """Paired differences, flow reward minus RLVR, with 95 % t-intervals over the seeds."""

    def values(method: str, mode: str) -> dict[int, float | None]:
        return {int(seed): pair[method][mode] for seed, pair in runs.items() if method in pair}

    return {mode: paired_difference(values("rlfr", mode), values("rlvr", mode)) for mode in MODES}


def main() -> None:
    """Run all seeds."""
    parser = argparse.ArgumentParser(description="Compare a flow reward with RLVR on the digits task.")
    parser.add_argument("--policy", required=True, help="folder of the warm-started policy")
    parser.add_argument("--flow", required=True, help="folder of the field")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of the results")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, from 1 on (default: 5)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the flow reward")
    options = parser.parse_args()
    changes = {key: yaml.safe_load(value) for key, value in (pair.split("=", 1) for pair in options.set)}
    known = json.loads(options.out.read_text()) if options.out.exists() else {"settings": changes, "runs": {}}
    if known["settings"] != changes:
        raise SystemExit(f"{options.out} has results of other settings: {known['settings']}. Name another file.")
    for seed in range(1, options.seeds + 1):
        runs = known["runs"].setdefault(str(seed), {})
        for method, flow in (("rlvr", None), ("rlfr", options.flow)):
            if method not in runs:
                runs[method] = train(options.policy, flow, seed, changes)
                print(f"seed {seed} {method}: {runs[method]}", flush=True)
                write_json(options.out, known)
    known["differences"] = compare(known["runs"])
    write_json(options.out, known)
    print(json.dumps(known["differences"], indent=1))


if __name__ == "__main__":
    main()
