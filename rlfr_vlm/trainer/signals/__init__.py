"""Training signals beside the outcome reward, one method per file.

`SIGNALS` names the class behind each part of `method`; part rlvr is the outcome reward alone. A user's own token
rewards (token_rewards.py) go with every method.
"""

from rlfr_vlm.trainer.signals.entropy import EntropyBonus
from rlfr_vlm.trainer.signals.flow import OnlineFlow
from rlfr_vlm.trainer.signals.reference_probability import PolicyProbabilities
from rlfr_vlm.trainer.signals.visual import VisualDependency

SIGNALS: dict[str, type] = {
    "rlfr": OnlineFlow,
    "entropy": EntropyBonus,
    "rlpr": PolicyProbabilities,
    "visual": VisualDependency,
}
