"""Prepare the arguments of a trainer: default settings, loaded model, rows with opened images, reward functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.load import Rows, as_dataset
from rlfr_vlm.data.read import RawDataset, keep_encoded
from rlfr_vlm.options import DataOptions, RewardOptions, reward_names
from rlfr_vlm.policy import load_model_and_processor
from rlfr_vlm.rewards import RewardFunction, build_rewards, wrap
from rlfr_vlm.rewards.custom import is_custom
from rlfr_vlm.trainer.rlfr_config import RLFRConfig

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass

Rewards = str | RewardFunction | Sequence[str | RewardFunction]


def arguments_for(model: "PreTrainedModel | str") -> RLFRConfig:
    """Default settings for a model, named after it as TRL does."""
    name = model if isinstance(model, str) else getattr(model, "name_or_path", "") or type(model).__name__
    return RLFRConfig(f"{Path(name).name}-RLFR")


def load_model(
    name: str, processing_class: "ProcessingClass | None", **kwargs: Any
) -> "tuple[PreTrainedModel, ProcessingClass]":
    """Load a policy by its hub id or folder; returns it and its processor.

    Args:
        name: hub id or folder.
        processing_class: kept if it is not None.
        kwargs: of `from_pretrained`.

    Raises:
        UserError: it cannot be loaded.
    """
    model, processor = load_model_and_processor(name, DataOptions(), **kwargs)
    return model, processor if processing_class is None else processing_class


def prepare_dataset(dataset: "Dataset | None", processing_class: "ProcessingClass | None") -> "Dataset | None":
    """Rows of a Hugging Face dataset as messages with images opened.

    Datasets of `load_rows`, streaming datasets and dictionaries of datasets are returned unchanged.
    """
    import datasets

    if not isinstance(dataset, datasets.Dataset) or is_prepared(dataset):
        return dataset
    rows = Rows(RawDataset(keep_encoded(dataset), None), DataOptions(), ("prompt",))
    if processing_class is not None:
        rows.suit(processing_class)
    return as_dataset(rows)


def is_prepared(dataset: "Dataset") -> bool:
    """Whether the rows of a dataset are made by `Rows` when they are read."""
    return isinstance((dataset.format.get("format_kwargs") or {}).get("transform"), Rows)


def reward_functions(rewards: Rewards | None, args: RLFRConfig) -> list[RewardFunction]:
    """Reward functions for the argument `reward_funcs` of `RLFRTrainer`; names use the defaults of `RewardOptions`.

    Args:
        rewards: functions or names, one or several; None is the reward of the method. A function of the user's may
            return numbers, named numbers or values per token (see `rlfr_vlm.rewards.custom`).

    Raises:
        UserError: no reward, or an unknown name.
    """
    options = RewardOptions()
    given: Sequence[str | RewardFunction] = (
        reward_names(options, args.method)
        if rewards is None
        else [rewards]
        if isinstance(rewards, str) or callable(rewards)
        else rewards
    )
    length = args.max_completion_length or 0
    return [
        build_rewards([reward], options, length)[0]
        if isinstance(reward, str)
        else wrap(reward)
        if is_custom(reward)
        else reward
        for reward in given
    ]
