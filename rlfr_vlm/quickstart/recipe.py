"""Settings of the quick start. Importing this module does not import torch."""

from dataclasses import dataclass, field

from rlfr_vlm.config_file import Settings
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.quickstart.warm_start import WarmStartRecipe


@dataclass(frozen=True)
class QuickstartRecipe:
    """Sizes and learning rates of every stage."""

    warm_start: WarmStartRecipe = field(default_factory=lambda: WarmStartRecipe(steps=200))
    fit_steps: int = 220
    fit_rows: int = 2048
    fit_batch: int = 32
    fit_learning_rate: float = 1e-3  # larger than the paper's, whose field has width 2048 instead of 128
    fit_noise_repeats: int = 2
    rl_steps: int = 60
    rl_rows: int = 4096
    rl_prompts: int = 32
    rl_generations: int = 8
    rl_updates_per_rollout: int = 2
    rl_learning_rate: float = 1e-4
    max_new_tokens: int = 24
    eval_rows: int = 1000
    signal_prompts: int = 250  # held-out prompts whose responses tell whether deviation separates wrong from right
    signal_samples: int = 4
    coloured_responses: int = 6

    @classmethod
    def fast(cls) -> "QuickstartRecipe":
        """Recipe of a smoke test: every stage runs, but is too short to learn much."""
        return cls(
            warm_start=WarmStartRecipe(steps=30, rows=1024),
            fit_steps=20,
            fit_rows=256,
            rl_steps=4,
            rl_rows=256,
            rl_prompts=8,
            eval_rows=128,
            signal_prompts=32,
        )

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
            "eval_fraction": 0.1,
            "logging_steps": 10,
            "save_strategy": "no",
            "use_cpu": True,
        }

    def rl_arguments(self, output_dir: str, method: str, seed: int) -> Settings:
        """Keyword arguments for `RLFRConfig`, equal for all methods except for settings of the method itself."""
        samples = self.rl_prompts * self.rl_generations
        return {
            **({"reward_weights": [1.0, 0.0]} if "rlpr" in method else {}),
            **({"flow_gate": "auto"} if "rlfr" in method else {}),
            "output_dir": output_dir,
            "method": method,
            "seed": seed,
            "max_steps": self.rl_steps,
            "num_generations": self.rl_generations,
            "per_device_train_batch_size": samples // self.rl_updates_per_rollout,
            "steps_per_generation": self.rl_updates_per_rollout,
            "learning_rate": self.rl_learning_rate,
            "lr_scheduler_type": "constant",
            "max_completion_length": self.max_new_tokens,
            "gradient_checkpointing": False,
            "bf16": False,
            "save_strategy": "no",
            "use_cpu": True,
        }

    def reward_options(self, method: str) -> RewardOptions:
        """Rewards of a method. With rlpr, accuracy is measured beside the reward, without weight."""
        if "rlpr" not in method:
            return RewardOptions()
        return RewardOptions(rewards=["reference_probability", "accuracy"], rlpr_mode="boxed")
