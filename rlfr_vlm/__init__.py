"""Post-training of vision-language models with GRPO and flow rewards.

The names in `__all__` are the public API. Each is imported when it is first used, so that `import rlfr_vlm` is fast
and imports no torch.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlfr_vlm.deviation import response_deviations
    from rlfr_vlm.flow import FlowSpec, VelocityField, load_field, save_field
    from rlfr_vlm.grading import grade
    from rlfr_vlm.rewards import build_rewards
    from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
    from rlfr_vlm.trainer.flow_fit_trainer import FlowFitTrainer
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

__version__ = "0.1.0"
__all__ = [
    "FlowFitConfig",
    "FlowFitTrainer",
    "FlowSpec",
    "RLFRConfig",
    "RLFRTrainer",
    "VelocityField",
    "build_rewards",
    "grade",
    "load_field",
    "response_deviations",
    "save_field",
]

_MODULES = {
    "FlowFitConfig": "trainer.flow_fit_config",
    "FlowFitTrainer": "trainer.flow_fit_trainer",
    "FlowSpec": "flow",
    "RLFRConfig": "trainer.rlfr_config",
    "RLFRTrainer": "trainer.rlfr_trainer",
    "VelocityField": "flow",
    "build_rewards": "rewards",
    "grade": "grading",
    "load_field": "flow",
    "response_deviations": "deviation",
    "save_field": "flow",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
