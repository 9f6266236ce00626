"""Warm-start the small policy by supervised training on expert answers, cached in the user's cache folder.

The result takes the place of a pretrained checkpoint: after some hundred steps the policy sometimes answers correctly,
so that reinforcement learning can improve it.
"""

import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.files import cache_folder, replace_directory, write_json
from rlfr_vlm.provenance import short_hash
from rlfr_vlm.quickstart.small_policy import PolicySize, build_policy, build_processor

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

    from rlfr_vlm.data.encode import Encoded

logger = logging.getLogger(__name__)
RECIPE_FILE = "recipe.json"
RECIPE_VERSION = 2  # raise when a change of the code below changes the policy of a recipe


@dataclass(frozen=True)
class WarmStartRecipe:
    """Everything that determines the warm-started policy; its hash names the cache folder."""

    size: PolicySize = field(default_factory=PolicySize)
    steps: int = 300
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup_steps: int = 20
    rows: int = 8192
    seed: int = 0
    version: int = RECIPE_VERSION

    @property
    def digest(self) -> str:
        """Hash that names the cache folder."""
        return short_hash(asdict(self), 12)


def cached_policy(recipe: WarmStartRecipe, run_folder: Path | None = None) -> tuple[Path, bool]:
    """Return the folder of the warm-started policy and whether it was in the cache; otherwise train it now.

    Args:
        run_folder: folder for the policy where the cache cannot be written.
    """
    folder = cache_folder(fallback=run_folder) / f"small-policy-{recipe.digest}"
    if (folder / RECIPE_FILE).exists():
        return folder, True
    processor, policy = train_policy(recipe)
    with replace_directory(folder) as temporary:
        policy.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        write_json(temporary / RECIPE_FILE, asdict(recipe))
    return folder, False


def train_policy(recipe: WarmStartRecipe) -> "tuple[ProcessorMixin, PreTrainedModel]":
    """Train the small policy from random weights on expert answers of the training split."""
    import torch
    from tqdm import tqdm

    from rlfr_vlm.data.digits import OPERATIONS
    from rlfr_vlm.data.encode import encode_examples
    from rlfr_vlm.data.load import as_dataset, read_rows
    from rlfr_vlm.options import DataOptions

    rows = read_rows(DataOptions(dataset_name="digits", dataset_limit=recipe.rows), seed=recipe.seed)
    dataset = as_dataset(rows)
    questions = [f"<|im_start|>user\n{name}?<|im_end|>\n<|im_start|>assistant\n" for name in OPERATIONS]
    processor = build_processor(questions * 100 + list(rows.raw.dataset["response"]), recipe.size.vocab_size)
    policy = build_policy(processor, recipe.size, recipe.seed)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / recipe.warmup_steps))
    order = torch.Generator().manual_seed(recipe.seed)
    progress = tqdm(range(recipe.steps), desc="warm start", unit="step")
    for _ in progress:
        picks = torch.randint(len(dataset), (recipe.batch_size,), generator=order).tolist()
        loss = response_loss(policy, encode_examples(processor, [dataset[i] for i in picks]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")
    return processor, policy.eval()


def response_loss(policy: "PreTrainedModel", batch: "Encoded") -> "Tensor":
    """Mean negative log-likelihood of the response tokens, a scalar."""
    labels = batch.input_ids.clone()
    prompt_length = labels.shape[1] - batch.completion_mask.shape[1]
    labels[:, :prompt_length] = -100
    labels[:, prompt_length:][~batch.completion_mask] = -100
    loss: Tensor = policy(**batch.model_inputs(), labels=labels).loss
    return loss
