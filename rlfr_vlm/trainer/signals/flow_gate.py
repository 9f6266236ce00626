"""Gate of the flow reward: open only while low deviation goes with right responses to the same prompt."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlfr_vlm.files import JsonObject
from rlfr_vlm.group_auc import GroupedAuc, share_of_wins

Wins = list[tuple[float, int]]


@dataclass
class FlowGate:
    """Opens while the AUC within groups, over the last rollouts, is above 0.5 by its interval; else closes.

    Attributes:
        window: number of rollouts.
        open: whether the flow reward counts in the current rollout.
        rollouts: won pairs and number of pairs of each group, per rollout.
    """

    window: int
    open: bool = False
    rollouts: deque[Wins] = field(init=False)

    def __post_init__(self) -> None:
        self.rollouts = deque(maxlen=self.window)

    def record(self, wins: Wins) -> GroupedAuc:
        """Add a rollout (see `group_auc.Pairs.wins`), open or close, and return the AUC over the window."""
        self.rollouts.append(wins)
        measured = share_of_wins([pair for rollout in self.rollouts for pair in rollout])
        self.open = measured.above_chance
        return measured

    def state_dict(self) -> JsonObject:
        """State of a checkpoint."""
        return {"open": self.open, "rollouts": list(self.rollouts)}

    def load_state_dict(self, state: JsonObject) -> None:
        """Restore what `state_dict` gave."""
        self.open = bool(state["open"])
        rollouts: Sequence[Sequence[Sequence[float]]] = state["rollouts"]
        self.rollouts.clear()
        self.rollouts.extend([(won, int(pairs)) for won, pairs in rollout] for rollout in rollouts)
