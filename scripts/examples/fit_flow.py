"""Fit a flow field to the latents of a frozen policy, and compare its held-out loss with the zero predictor's.

python scripts/examples/fit_flow.py [OUTPUT_FOLDER]
"""

import sys

from rlfr_vlm import FlowFitConfig, FlowFitTrainer, load_field
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.quickstart.warm_start import WarmStartRecipe, cached_policy

out = sys.argv[1] if len(sys.argv) > 1 else "outputs/examples/flow"
policy, _ = cached_policy(WarmStartRecipe(steps=30, rows=1024))
args = FlowFitConfig(
    out,
    max_steps=40,
    per_device_train_batch_size=32,
    learning_rate=1e-3,
    flow_layers=[0.25, 0.5, 0.75],  # shares of the depth where latents are taken
    eval_fraction=0.1,
    report_to="none",
)
experts = load_rows("digits", columns=("prompt", "response"), limit=512)
trainer = FlowFitTrainer(str(policy), args, train_dataset=experts)
trainer.train()
metrics = trainer.evaluate()
print(f"held-out loss {metrics['eval_loss']:.3f}, {metrics['eval_ratio']:.2f} of the zero predictor's")
trainer.save_model()

field, spec = load_field(out)
print(f"{sum(p.numel() for p in field.parameters()):,} parameters, blocks {spec.layer_indices}, {spec.context_mode}")
