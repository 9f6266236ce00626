"""Fit a flow field and train a vision-language policy with flow rewards. Runs on a CPU in a minute.

python scripts/examples/train_rlfr.py [OUTPUT_FOLDER]
"""

import sys

from rlfr_vlm import FlowFitConfig, FlowFitTrainer, RLFRConfig, RLFRTrainer
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.quickstart.warm_start import WarmStartRecipe, cached_policy

out = sys.argv[1] if len(sys.argv) > 1 else "outputs/examples"
folder, _ = cached_policy(WarmStartRecipe(steps=30, rows=1024))
policy = str(folder)  # a small real Qwen2.5-VL; or a hub id such as "Qwen/Qwen2.5-VL-3B-Instruct"

# 1. Fit the field on expert responses: rows with prompt, images and response.
experts = load_rows("digits", columns=("prompt", "response"), limit=256)
fit_args = FlowFitConfig(f"{out}/flow", max_steps=20, per_device_train_batch_size=32, report_to="none")
fit = FlowFitTrainer(policy, fit_args, train_dataset=experts)
fit.train()
fit.save_model()

# 2. Train: rows with prompt, images and answer. A Hugging Face dataset with these columns works as well.
args = RLFRConfig(
    f"{out}/rlfr",
    flow_path=f"{out}/flow",
    max_steps=4,
    num_generations=8,
    per_device_train_batch_size=64,
    max_completion_length=24,
    learning_rate=1e-4,
    report_to="none",
)
trainer = RLFRTrainer(policy, "accuracy", args, train_dataset=load_rows("digits", limit=256))
trainer.train()
trainer.save_model()  # the policy, and the field beside it
