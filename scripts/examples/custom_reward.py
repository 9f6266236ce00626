"""Train with two reward functions of your own beside the verifiable reward: one per response, one per token.

python scripts/examples/custom_reward.py [OUTPUT_FOLDER]
"""

import sys
from typing import Any

from rlfr_vlm import RLFRConfig, RLFRTrainer
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.quickstart.warm_start import WarmStartRecipe, cached_policy


def is_short(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """1.0 for responses of at most 16 tokens. `kwargs` has every column of the rows."""
    return [float(len(ids) <= 16) for ids in completion_ids]


def early_tokens(completion_ids: list[list[int]], **kwargs: Any) -> list[list[float]]:
    """One value per token, added to the advantages as a return-to-go: 0.01 for each of the first four tokens."""
    return [[0.01 if position < 4 else 0.0 for position in range(len(ids))] for ids in completion_ids]


out = sys.argv[1] if len(sys.argv) > 1 else "outputs/examples/custom_reward"
policy, _ = cached_policy(WarmStartRecipe(steps=30, rows=1024))
args = RLFRConfig(
    out, method="rlvr", reward_weights=[1.0, 0.1, 1.0], max_steps=2, num_generations=8, per_device_train_batch_size=32,
    max_completion_length=24, learning_rate=1e-4, report_to="none",
)  # fmt: skip
rewards = ["accuracy", is_short, early_tokens]  # the first one is the outcome
trainer = RLFRTrainer(str(policy), rewards, args, train_dataset=load_rows("digits", limit=256))
trainer.train()
