"""A factory for trainers on the digits task with tiny policies."""

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from rlfr_vlm.config_file import Settings
    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.rewards import RewardFunction
    from rlfr_vlm.rewards.completion import Completion
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer
    from rlfr_vlm.trainer.signals.flow import Flow


@pytest.fixture
def digits() -> "Dataset":
    from rlfr_vlm.data.load import load_rows

    return load_rows("digits", limit=32)


@pytest.fixture
def text_digits(tmp_path) -> "Dataset":
    """The questions without images, for text-only policies, from a file as a user's would be."""
    import json

    from rlfr_vlm.data.digits import digit_rows
    from rlfr_vlm.data.load import load_rows

    rows = [{k: row[k] for k in ("prompt", "answer")} for row in digit_rows("train", 32, 0)]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_rows(str(tmp_path / "text.jsonl"), columns=("prompt", "answer"))


@pytest.fixture
def arguments(tmp_path) -> Callable[..., "Settings"]:
    """GRPO arguments for a few quick steps: 2 prompts x 4 responses a rollout, two updates a rollout."""

    def build(**changes: object) -> "Settings":
        defaults = {
            "output_dir": str(tmp_path / "run"),
            "per_device_train_batch_size": 4,
            "steps_per_generation": 2,
            "num_generations": 4,
            "max_steps": 2,
            "max_completion_length": 8,
            "learning_rate": 1e-3,
            "lr_scheduler_type": "constant",
            "gradient_checkpointing": False,
            "bf16": False,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "logging_steps": 1,
            "use_cpu": True,
            "loss_type": "grpo",
        }
        return defaults | changes

    return build


def last_digit_reward(completions: "list[Completion]", **kwargs: object) -> list[float]:
    """A reward that a random policy earns now and then: is the number of characters even?"""
    return [float(len(completion[0]["content"]) % 2 == 0) for completion in completions]


@pytest.fixture
def trainer_kwargs() -> dict[str, object]:
    """Further arguments of the trainers that `make_trainer` builds; a test adds to it."""
    return {}


@pytest.fixture
def make_trainer(processor, digits, arguments, trainer_kwargs) -> Callable[..., "RLFRTrainer"]:
    """Builds an `RLFRTrainer`; give `flow="new"` for an untrained field, or a (field, spec) pair."""

    def build(
        policy: "PreTrainedModel",
        flow: "Flow | str | None" = None,
        processing_class: "ProcessingClass | None" = None,
        dataset: "Dataset | None" = None,
        reward: "RewardFunction | list[RewardFunction] | None" = last_digit_reward,
        spec_changes: "Settings | None" = None,
        eval_dataset: "Dataset | None" = None,
        **changes: object,
    ) -> "RLFRTrainer":
        import torch

        from rlfr_vlm.flow import FlowSpec, build_field
        from rlfr_vlm.options import RewardOptions, reward_names
        from rlfr_vlm.rewards import build_rewards
        from rlfr_vlm.trainer.records.default_records import drop_records
        from rlfr_vlm.trainer.rlfr_config import RLFRConfig
        from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

        if flow == "new":
            spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25, 0.5), **(spec_changes or {}))
            torch.manual_seed(5)
            flow = (build_field(spec), spec)
        changes.setdefault("method", "rlvr" if flow is None and "flow_coef" not in changes else "rlfr")
        names = {option.name for option in fields(RewardOptions)}
        options = RewardOptions(**{name: changes.pop(name) for name in names & changes.keys()})
        args = RLFRConfig(**arguments(**changes))
        if reward is None:  # those of the method
            reward = build_rewards(reward_names(options, args.method), options, args.max_completion_length)
        trainer = RLFRTrainer(
            policy,
            args=args,
            flow=flow,
            reward_funcs=reward if isinstance(reward, list) else [reward],
            train_dataset=digits if dataset is None else dataset,
            processing_class=processing_class or processor,
            eval_dataset=eval_dataset,
            **trainer_kwargs,
        )
        drop_records(trainer)
        return trainer

    return build
