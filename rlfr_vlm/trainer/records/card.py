"""The model card (README.md) of a run folder and of its checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from rlfr_vlm.config_file import RESOLVED_FILE, Settings, resolved
from rlfr_vlm.files import write_text
from rlfr_vlm.model_card import CARD_FILE, licence_of, model_card, public_name

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, TrainingArguments


def write_card(
    folder: Path,
    args: "TrainingArguments",
    config: "PreTrainedConfig",
    *,
    steps: int,
    takes_images: bool,
    is_adapter: bool,
) -> None:
    """Write the card of the weights in a folder. Its settings are the run's `config.yaml`, or the trainer's arguments.

    Args:
        folder: a run folder or a checkpoint.
        args: the trainer's arguments.
        config: of the policy; it says where the policy was loaded from.
        steps: optimiser steps so far.
        takes_images: whether the policy takes images.
        is_adapter: whether the folder has an adapter instead of whole weights.
    """
    settings = _settings(args)
    base = str(settings.get("model_name_or_path") or config.name_or_path or "not recorded")
    card = model_card(
        settings,
        base=public_name(base),
        licence=licence_of(base),
        steps=steps,
        takes_images=takes_images,
        is_adapter=is_adapter,
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / CARD_FILE, card)


def _settings(args: "TrainingArguments") -> Settings:
    path = Path(str(args.output_dir)) / RESOLVED_FILE
    return (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or resolved(args)
