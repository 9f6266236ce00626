"""The policy that the quick start trains: the small one of its own, SmolLM2 without or with eyes, or any other."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from rlfr_vlm.options import DataOptions
from rlfr_vlm.quickstart.recipe import QuickstartRecipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

LoadedPolicy: TypeAlias = "tuple[PreTrainedModel, ProcessorMixin | PreTrainedTokenizerBase]"
TASKS = {True: "word_problems", False: "digits"}  # by whether the policy reads text alone


@dataclass(frozen=True)
class StartPolicy:
    """Where training starts.

    Attributes:
        name: folder or hub id.
        task: embedded task to train on.
        was_cached: whether it was made before.
    """

    name: str
    task: str
    was_cached: bool

    @property
    def source(self) -> str:
        """Say where the policy is from."""
        return f"from the cache ({self.name})" if self.was_cached else self.name


def start_policy(recipe: QuickstartRecipe, run_folder: Path) -> StartPolicy:
    """Find the policy of a recipe, or make it.

    Args:
        run_folder: folder for a policy that is made, where the cache cannot be written.

    Raises:
        UserError: it cannot be made, found or loaded.
    """
    from rlfr_vlm.pretrained.eyes import EyesRecipe, cached_smollm2_vl
    from rlfr_vlm.pretrained.smollm2 import cached_smollm2
    from rlfr_vlm.quickstart.warm_start import cached_policy

    makers = {
        "tiny": lambda: cached_policy(recipe.warm_start, run_folder),
        "smollm2": lambda: cached_smollm2(run_folder),
        "smollm2-vl": lambda: cached_smollm2_vl(EyesRecipe(), run_folder),
    }
    if recipe.policy in makers:
        folder, was_cached = makers[recipe.policy]()
        return StartPolicy(str(folder), TASKS[recipe.policy == "smollm2"], was_cached)
    from rlfr_vlm.data.encode import is_text_only
    from rlfr_vlm.policy import load_processor, refuse_missing_folder

    refuse_missing_folder(recipe.policy)
    processing_class = load_processor(recipe.policy, DataOptions())
    return StartPolicy(recipe.policy, TASKS[is_text_only(processing_class)], was_cached=True)


def load_start(name: str | Path, recipe: QuickstartRecipe) -> LoadedPolicy:
    """Load a policy in float32, on the device that the recipe uses."""
    from rlfr_vlm.policy import load_model_and_processor

    policy, processing_class = load_model_and_processor(str(name), DataOptions(), dtype="float32")
    return policy.to(recipe.device), processing_class
