"""Estimate how long the runs of a quick start take, once the first updates were measured."""

import time

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

WARM_UP = 1  # updates of a run that are not measured: the first one also checks and compiles
MEASURED = 2  # updates whose mean time is taken
TOLD_ABOVE = 300.0  # seconds


class TimeLeft(TrainerCallback):
    """Say once how long all runs will take, after the first updates of the first run that trains here.

    Args:
        runs: number of runs.
        updates: of each run.
        evaluation_seconds: of each run's evaluation.
    """

    def __init__(self, runs: int, updates: int, evaluation_seconds: float) -> None:
        self.runs, self.updates, self.evaluation_seconds = runs, updates, evaluation_seconds
        self._times: list[float] = []  # at the ends of updates
        self._told = False

    def finish_run(self) -> None:
        """Count a run as done."""
        self.runs -= 1

    def seconds(self, seconds_per_update: float, step: int) -> float:
        """Seconds that are left after update `step` of the current run.

        >>> TimeLeft(runs=2, updates=10, evaluation_seconds=5).seconds(3.0, step=4)
        58.0
        """
        updates = self.updates - step + (self.runs - 1) * self.updates
        return updates * seconds_per_update + self.runs * self.evaluation_seconds

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Measure the update; say the estimate when enough were measured."""
        if self._told:
            return
        self._times.append(time.perf_counter())
        if len(self._times) < WARM_UP + MEASURED:
            return
        self._told = True
        left = self.seconds((self._times[-1] - self._times[WARM_UP - 1]) / MEASURED, state.global_step)
        if left > TOLD_ABOVE:
            tqdm.write(  # above the progress line
                f"about {left / 60:.0f} minutes for the {self.runs} runs that are left; Ctrl-C stops, and the same "
                "command goes on from the last checkpoint"
            )
