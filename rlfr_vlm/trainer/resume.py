"""Save and restore what TRL's checkpoints lack: weights, flow field, groups, prompts, curriculum, log, model card."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate.utils import is_peft_model
from torch import nn
from transformers import PreTrainedModel

from rlfr_vlm.checkpoint import CompleteCheckpoints
from rlfr_vlm.data.draws import draws_of
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import write_json
from rlfr_vlm.models.towers import unwrap
from rlfr_vlm.trainer.curriculum_prompts import Curriculum, FirstRowSampler
from rlfr_vlm.trainer.finite import FiniteUpdates
from rlfr_vlm.trainer.groups import GroupSelector, UndecidedGuard
from rlfr_vlm.trainer.mixture_sampler import MixtureSampler
from rlfr_vlm.trainer.records.card import write_card
from rlfr_vlm.trainer.records.rollout_log import RolloutLog
from rlfr_vlm.trainer.signals.flow import OnlineFlow
from rlfr_vlm.trainer.signals.flow_reward import FlowReward
from rlfr_vlm.trainer.trl_seams import GRPOSeams

if TYPE_CHECKING:
    from accelerate import Accelerator
    from datasets import Dataset
    from trl.trainer.utils import RepeatSampler

GROUPS_FILE = "groups.json"
CURRICULUM_FILE = "curriculum.json"


class ResumableGRPO(FiniteUpdates, CompleteCheckpoints, GRPOSeams):
    """`GRPOTrainer` that resumes from a checkpoint exactly where the run was.

    Attributes:
        flow, flow_reward: the field and how it rewards, or None.
        curriculum: chooses the prompts of each rollout, or None.
        selector: selects the groups that train the policy.
        undecided_guard: stops the run if too many answers are undecided.
        rollout_log: writes rollouts, or None.
        rollouts: number of rollouts with flow rewards so far, without refills.
    """

    flow: OnlineFlow | None = None
    flow_reward: FlowReward | None = None
    rollout_log: RolloutLog | None = None
    rollouts: int = 0
    curriculum: Curriculum | None = None
    selector: GroupSelector
    undecided_guard: UndecidedGuard

    def save_extra_state(self, folder: Path) -> None:
        """Write flow field and group state into a checkpoint."""
        if self.flow is not None:
            self.flow.save(folder)
        if self.accelerator.is_main_process:
            state = self.selector.state_dict() | {"undecided": self.undecided_guard.state_dict()}
            state["rollouts"] = self.rollouts
            if self.flow_reward is not None and self.flow_reward.gate is not None:
                state["flow_gate"] = self.flow_reward.gate.state_dict()
            write_json(folder / GROUPS_FILE, state)
            if self.curriculum is not None:
                write_json(folder / CURRICULUM_FILE, self.curriculum.state_dict())

    def create_model_card(self, *args: object, **kwargs: object) -> None:
        """Write our model card to the run folder. TRL's names no base model that was loaded from a folder."""
        self._write_card(str(self.args.output_dir))

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the policy with our model card; PEFT writes one with an adapter, without training settings."""
        super().save_model(output_dir, _internal_call)
        self._write_card(output_dir or str(self.args.output_dir))

    def _write_card(self, folder: str) -> None:
        if self.accelerator.is_main_process:
            write_card(
                Path(folder),
                self.args,
                unwrap(self.model).config,
                steps=self.state.global_step,
                takes_images=self.takes_images,
                is_adapter=is_peft_model(self.model),
            )

    def _get_train_sampler(self, dataset: "Dataset | None" = None) -> "RepeatSampler":
        self._sampler = super()._get_train_sampler(dataset)
        rows = self.train_dataset if dataset is None else dataset
        if self.curriculum is not None:
            self._sampler = FirstRowSampler(self._sampler, rows)
        elif (draws := draws_of(rows, self.args.seed, self.shuffle_dataset)) is not None:
            self._sampler = MixtureSampler(self._sampler, rows, draws)
        return self._sampler

    def _init_training_state(self, *args: object, **kwargs: object) -> tuple[int, int]:
        """Bring the order of prompts to the epoch of the resumed run."""
        epochs, steps = super()._init_training_state(*args, **kwargs)
        if self.rollout_log is not None:
            self.rollout_log.begin(self.state.global_step)
        skip_epochs(self._sampler, epochs)
        return epochs, steps

    def load_weights(self, checkpoint: str) -> None:
        """Load the policy of a checkpoint, without optimiser and state."""
        self._load_from_checkpoint(checkpoint)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if is_plain(self.model, self.accelerator):
            load_policy_weights(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        if self.flow is not None:
            self.flow.load(Path(checkpoint))
        if self.curriculum is not None and (path := Path(checkpoint) / CURRICULUM_FILE).exists():
            self.curriculum.load_state_dict(json.loads(path.read_text()))
        if (Path(checkpoint) / GROUPS_FILE).exists():
            state = json.loads((Path(checkpoint) / GROUPS_FILE).read_text())
            self.selector.load_state_dict(state)
            self.undecided_guard.load_state_dict(state.get("undecided", []))  # absent in older checkpoints
            self.rollouts = state.get("rollouts", 0)
            if "flow_gate" in state and self.flow_reward is not None and self.flow_reward.gate is not None:
                self.flow_reward.gate.load_state_dict(state["flow_gate"])


def load_policy_weights(policy: PreTrainedModel, checkpoint: str | Path) -> None:
    """Load the weights that `save_pretrained` wrote.

    transformers saves Qwen2.5-VL under its published names (`visual.*`, `model.layers.*`), while the module has others
    (`model.visual.*`, `model.language_model.layers.*`). `Trainer` loads a checkpoint by raw names and not strictly, so
    it would resume from the initial weights with a mere warning (seen in transformers 5.17.0). `from_pretrained`
    translates the names; loading its state strictly leaves no weight out.

    Raises:
        UserError: the checkpoint does not hold this policy.
    """
    try:
        saved = type(policy).from_pretrained(checkpoint, dtype=policy.dtype)
        policy.load_state_dict(saved.state_dict(), strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{checkpoint} does not hold this policy's weights: {reason}") from None


def is_zero3(accelerator: "Accelerator") -> bool:
    """Whether DeepSpeed keeps only a shard of each weight on a rank."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return plugin is not None and plugin.zero_stage == 3


def is_sharded(accelerator: "Accelerator") -> bool:
    """Whether a rank holds only a shard of each weight: under ZeRO-3 or FSDP."""
    return is_zero3(accelerator) or getattr(accelerator.state, "fsdp_plugin", None) is not None


def is_plain(model: nn.Module, accelerator: "Accelerator") -> bool:
    """Whether `model` is a transformers model without adapter, and neither DeepSpeed nor FSDP manages it."""
    managed = getattr(accelerator.state, "deepspeed_plugin", None) is not None or is_sharded(accelerator)
    return isinstance(model, PreTrainedModel) and not managed


def skip_epochs(sampler: "RepeatSampler", epochs: int) -> None:
    """Let TRL's `RepeatSampler` draw the orders of the finished epochs; a mixture's goes to its place.

    The sampler draws an order from its own generator at each epoch, and restarts with the first order when a run is
    resumed: a run resumed in its second epoch would get the prompts in the first epoch's order (seen in TRL 1.16.0).
    """
    if isinstance(sampler, MixtureSampler):
        sampler.skip_epochs(epochs)
        return
    generator = getattr(sampler, "generator", None)
    for _ in range(epochs if generator is not None else 0):
        torch.randperm(sampler.num_samples, generator=generator)
