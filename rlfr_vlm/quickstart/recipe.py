"""Settings of the quick start. Importing this module does not import torch."""

from dataclasses import dataclass, field, replace

from rlfr_vlm.config_file import Settings
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.quickstart.warm_start import WarmStartRecipe

POLICIES = ("tiny", "smollm2", "smollm2-vl")  # those that the quick start makes; others are folders or hub ids
RLPR_MODE = "boxed"  # where the responses to the built-in tasks have their answers


@dataclass(frozen=True)
class QuickstartRecipe:
    """Sizes and learning rates of every stage.

    Attributes:
        policy: one of `POLICIES`, a folder or a hub id.
        fit_depth: residual blocks of the field.
        save_steps: updates between checkpoints; 0 saves none, and the quick start begins anew each time.
    """

    policy: str = "tiny"
    save_steps: int = 0
    warm_start: WarmStartRecipe = field(default_factory=lambda: WarmStartRecipe(steps=200))
    fit_steps: int = 220
    fit_rows: int = 2048
    fit_batch: int = 32
    fit_learning_rate: float = 1e-3  # larger than the paper's, whose field has width 2048 instead of 128
    fit_noise_repeats: int = 2
    fit_depth: int = 4
    rl_steps: int = 60
    rl_rows: int = 4096
    rl_prompts: int = 32
    rl_generations: int = 8
    rl_updates_per_rollout: int = 2
    rl_learning_rate: float = 1e-4
    max_new_tokens: int = 24
    eval_rows: int = 1000
    eval_batch: int = 256
    signal_prompts: int = 250  # held-out prompts whose responses tell whether deviation separates wrong from right
    signal_samples: int = 4
    coloured_responses: int = 6

    @property
    def resumes(self) -> bool:
        """Whether the same command goes on where it stopped."""
        return self.save_steps > 0

    @property
    def device(self) -> str:
        """The device of all stages. The small policy stays on the CPU, where its results are the same everywhere."""
        if self.policy == "tiny":
            return "cpu"
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    def fit_arguments(self, output_dir: str, seed: int) -> Settings:
        """Arguments of `FlowFitConfig`."""
        return {
            "output_dir": output_dir,
            "seed": seed,
            "max_steps": self.fit_steps,
            "per_device_train_batch_size": self.fit_batch,
            "per_device_eval_batch_size": 2 * self.fit_batch,
            "learning_rate": self.fit_learning_rate,
            "flow_noise_repeats": self.fit_noise_repeats,
            "flow_depth": self.fit_depth,
            "eval_fraction": 0.1,
            "logging_steps": 10,
            **self._saving(),
        }

    def rl_arguments(self, output_dir: str, method: str, seed: int) -> Settings:
        """Keyword arguments for `RLFRConfig`, equal for all methods except for settings of the method itself."""
        own: Settings = {"output_dir": output_dir, "method": method, "seed": seed}
        return {**self.rl_settings(), **own, **({"reward_weights": [1.0, 0.0]} if "rlpr" in method else {})}

    def rl_settings(self) -> Settings:
        """Settings of `RLFRConfig` that are the same for all runs; of the gate, methods with rlfr read it alone."""
        samples = self.rl_prompts * self.rl_generations
        return {
            "flow_gate": "auto",
            "max_steps": self.rl_steps,
            "num_generations": self.rl_generations,
            "per_device_train_batch_size": samples // self.rl_updates_per_rollout,
            "steps_per_generation": self.rl_updates_per_rollout,
            "learning_rate": self.rl_learning_rate,
            "lr_scheduler_type": "constant",
            "max_completion_length": self.max_new_tokens,
            "gradient_checkpointing": False,
            "bf16": self.device == "cuda",
            **self._saving(),
        }

    def _saving(self) -> Settings:
        """Arguments of both trainers about checkpoints and the device."""
        saving: Settings = {"save_strategy": "no"}
        if self.resumes:
            saving = {"save_strategy": "steps", "save_steps": self.save_steps, "save_total_limit": 1}
        return {**saving, "use_cpu": self.device == "cpu"}

    def reward_options(self, method: str) -> RewardOptions:
        """Rewards of a method. With rlpr, accuracy is measured beside the reward, without weight."""
        if "rlpr" not in method:
            return RewardOptions()
        return RewardOptions(rewards=["reference_probability", "accuracy"], rlpr_mode=RLPR_MODE)


def recipe_for(policy: str, fast: bool = False) -> QuickstartRecipe:
    """Return the recipe for a policy.

    Args:
        policy: one of `POLICIES`, a folder or a hub id.
        fast: a smoke test: every stage runs, but is too short to learn much.
    """
    if policy != "tiny":
        recipe = replace(PRETRAINED, policy=policy)
        return replace(recipe, **FAST_PRETRAINED) if fast else recipe
    return replace(QuickstartRecipe(), **FAST) if fast else QuickstartRecipe()


PRETRAINED = QuickstartRecipe(  # fewer and smaller updates, with checkpoints
    save_steps=4,
    fit_steps=45,
    fit_rows=720,
    fit_batch=16,
    fit_depth=2,
    rl_steps=16,
    rl_rows=400,
    rl_prompts=4,
    rl_updates_per_rollout=1,
    rl_learning_rate=1e-5,
    max_new_tokens=32,
    eval_rows=160,
    eval_batch=32,
    signal_prompts=40,
)
FAST: Settings = {
    "warm_start": WarmStartRecipe(steps=30, rows=1024),
    "fit_steps": 20,
    "fit_rows": 256,
    "rl_steps": 4,
    "rl_rows": 256,
    "rl_prompts": 8,
    "eval_rows": 128,
    "signal_prompts": 32,
}
FAST_PRETRAINED: Settings = {
    "fit_steps": 2,
    "fit_rows": 32,
    "fit_batch": 4,
    "rl_steps": 2,
    "rl_rows": 32,
    "rl_prompts": 2,
    "rl_generations": 4,
    "save_steps": 1,
    "eval_rows": 8,
    "signal_prompts": 4,
}
