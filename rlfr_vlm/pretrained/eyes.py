"""Warm start of smollm2-vl: its vision tower learns to see, and the whole policy to answer from what it sees.

1. Reading, with the language tower frozen: each image token of a handwritten digit learns the embedding of that digit
   in the language tower, so that a scan of a 5 reads like the text 5. Only the vision tower runs, which takes seconds.
2. Answering: supervised training of all weights on expert responses of embedded image tasks, by TRL's SFTTrainer.

The result is cached under the hash of its recipe. Answering saves checkpoints there, and goes on from the last one.
"""

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.files import cache_folder, replace_directory, write_json
from rlfr_vlm.provenance import short_hash

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL import Image
    from torch import Tensor
    from transformers import PreTrainedModel, ProcessorMixin

RECIPE_FILE = "recipe.json"
RECIPE_VERSION = 1  # raise when a change of the code below changes the policy of a recipe


@dataclass(frozen=True)
class EyesRecipe:
    """Everything that determines smollm2-vl beside SmolLM2's weights; its hash names the cache folder.

    Attributes:
        reading_steps, reading_batch, reading_learning_rate: of stage 1; a batch has that many pairs of scans.
        tasks: embedded image tasks of stage 2.
        answering_steps, answering_batch, answering_learning_rate: of stage 2.
        rows: rows of each task.
        save_steps: updates of stage 2 between checkpoints.
    """

    reading_steps: int = 400
    reading_batch: int = 64
    reading_learning_rate: float = 1e-3
    tasks: tuple[str, ...] = ("digits",)
    answering_steps: int = 10
    answering_batch: int = 16
    answering_learning_rate: float = 5e-5
    rows: int = 4096
    save_steps: int = 5
    seed: int = 0
    version: int = RECIPE_VERSION

    @property
    def digest(self) -> str:
        """Hash that names the cache folder."""
        return short_hash(asdict(self), 12)


def cached_smollm2_vl(recipe: EyesRecipe, run_folder: Path | None = None) -> tuple[Path, bool]:
    """Return the folder of the policy and whether it was in the cache; otherwise train it now.

    Args:
        run_folder: folder for the policy where the cache cannot be written.

    Raises:
        UserError: SmolLM2's weights cannot be had.
    """
    from rlfr_vlm.pretrained.smollm2 import cached_smollm2
    from rlfr_vlm.pretrained.smollm2_vl import with_vision_tower

    folder = cache_folder(fallback=run_folder) / f"smollm2-vl-{recipe.digest}"
    if (folder / RECIPE_FILE).exists():
        return folder, True
    processor, policy = with_vision_tower(cached_smollm2(run_folder)[0], recipe.seed)
    learn_to_read(processor, policy, recipe)
    read = share_read(processor, policy, "test")
    print(f"vision tower: reads {read:.1%} of the held-out scans of digits")
    checkpoints = folder.with_name(f"{folder.name}.checkpoints")
    learn_to_answer(processor, policy, recipe, checkpoints)
    with replace_directory(folder) as temporary:
        policy.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        write_json(temporary / RECIPE_FILE, {**asdict(recipe), "held_out_scans_read": read})
    shutil.rmtree(checkpoints, ignore_errors=True)
    return folder, False


def learn_to_read(processor: "ProcessorMixin", policy: "PreTrainedModel", recipe: EyesRecipe) -> None:
    """Train the vision tower so that its output for a scan is the embedding of the scan's digit.

    The loss is the squared error, as a share of the mean square of the embeddings.
    """
    import numpy as np
    import torch
    from tqdm import tqdm

    from rlfr_vlm.data.digits import label_of, pair_image, scan_indices

    targets = digit_embeddings(processor, policy)
    scale = targets.pow(2).mean()
    optimizer = torch.optim.AdamW(policy.model.visual.parameters(), lr=recipe.reading_learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.reading_steps)
    draw = np.random.default_rng(recipe.seed)
    progress = tqdm(range(recipe.reading_steps), desc="learn to read digits", unit="step")
    for _ in progress:
        pairs = draw.choice(scan_indices("train"), size=(recipe.reading_batch, 2)).tolist()
        seen = image_tokens(processor, policy, [pair_image(*pair) for pair in pairs])
        wanted = targets[[label_of(scan) for pair in pairs for scan in pair]]
        loss = (seen - wanted).pow(2).mean() / scale
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        progress.set_postfix(loss=f"{loss.item():.3f}")


def share_read(processor: "ProcessorMixin", policy: "PreTrainedModel", split: str) -> float:
    """Share of the scans of a split whose image token is nearest to the embedding of their digit."""
    import torch

    from rlfr_vlm.data.digits import label_of, pair_image, scan_indices

    scans = scan_indices(split).tolist()
    scans += scans[: len(scans) % 2]  # an image shows two scans
    with torch.no_grad():
        images = [pair_image(*pair) for pair in zip(scans[::2], scans[1::2], strict=True)]
        seen = image_tokens(processor, policy, images)
        nearest = torch.cdist(seen, digit_embeddings(processor, policy)).argmin(dim=1)
    return (nearest == torch.tensor([label_of(scan) for scan in scans])).float().mean().item()


def image_tokens(processor: "ProcessorMixin", policy: "PreTrainedModel", images: "list[Image.Image]") -> "Tensor":
    """(N, width) outputs of the vision tower: N image tokens of all images, one after another."""
    inputs = processor.image_processor(images, return_tensors="pt").to(policy.device)
    seen: Tensor = policy.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
    return seen


def digit_embeddings(processor: "ProcessorMixin", policy: "PreTrainedModel") -> "Tensor":
    """(10, width) embeddings of the digits, without gradient. Each digit is one token of SmolLM2's."""
    ids = processor.tokenizer.convert_tokens_to_ids([str(digit) for digit in range(10)])
    embeddings: Tensor = policy.get_input_embeddings().weight[ids].detach()
    return embeddings


def learn_to_answer(
    processor: "ProcessorMixin", policy: "PreTrainedModel", recipe: EyesRecipe, checkpoints: Path
) -> None:
    """Train all weights on expert responses; checkpoints are saved, and training goes on from the last one."""
    import torch
    from transformers.trainer_utils import get_last_checkpoint
    from trl import SFTConfig, SFTTrainer

    args = SFTConfig(
        str(checkpoints),
        max_steps=recipe.answering_steps,
        per_device_train_batch_size=recipe.answering_batch,
        learning_rate=recipe.answering_learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=min(5, recipe.answering_steps),
        seed=recipe.seed,
        save_steps=recipe.save_steps,
        save_total_limit=1,
        logging_steps=5,
        max_length=None,  # never cut image tokens
        gradient_checkpointing=False,
        bf16=torch.cuda.is_available(),
        report_to="none",
    )
    checkpoint = get_last_checkpoint(checkpoints) if checkpoints.exists() else None
    if checkpoint is not None and int(checkpoint.rpartition("-")[2]) >= recipe.answering_steps:
        # resumed from its last update, transformers would make one more
        policy.load_state_dict(type(policy).from_pretrained(checkpoint, dtype=torch.float32).state_dict())
    else:
        trainer = SFTTrainer(policy, args, train_dataset=expert_dialogues(recipe), processing_class=processor)
        trainer.train(resume_from_checkpoint=checkpoint)
    policy.eval()


def expert_dialogues(recipe: EyesRecipe) -> "Dataset":
    """Expert responses of the tasks, in the columns that TRL's SFTTrainer takes: prompt, completion and images."""
    from datasets import Dataset

    from rlfr_vlm.data.load import as_dataset, read_rows
    from rlfr_vlm.options import DataOptions

    rows = []
    for task in recipe.tasks:
        options = DataOptions(dataset_name=task, dataset_limit=recipe.rows)
        rows += list(as_dataset(read_rows(options, ("prompt", "response"), recipe.seed)))
    return Dataset.from_list(
        [
            {
                "prompt": row["prompt"],
                "completion": [{"role": "assistant", "content": row["response"]}],
                "images": row["images"],
            }
            for row in rows
        ]
    )
