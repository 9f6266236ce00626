"""TRL's trainer with an evaluation of this package: greedy and sampled accuracy on held-out rows, and nothing else."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlfr_vlm.data.rows import Row
from rlfr_vlm.rewards import ReferenceProbability, build_rewards
from rlfr_vlm.rewards.completion import Prompt
from rlfr_vlm.trainer.held_out import evaluate_held_out
from rlfr_vlm.trainer.log_prob_passes import LogProbPasses

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import TrainerControl


class HeldOutEvaluation(LogProbPasses):
    """`GRPOTrainer` whose `evaluate` measures accuracy alone.

    Subclasses put the outcomes of a graded rollout into `_outcome`.
    """

    _outcome: Tensor | None = None  # (N,) first rewards of the last graded rollout

    def evaluate(
        self,
        eval_dataset: "Dataset | None" = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Greedy and sampled accuracy on held-out rows (see held_out.py), logged and given to the callbacks."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        training = self.model.training
        self.model.eval()
        try:
            with self._times.paused(), self.one_response_per_prompt(), self._uncounted_images():
                metrics = evaluate_held_out(
                    dataset,
                    self.grade_rows,
                    self.decoding,
                    accelerator=self.accelerator,
                    batch_size=self.args.per_device_eval_batch_size,
                    threshold=self.args.flow_accept_threshold,
                    prefix=metric_key_prefix,
                )
                self.discard_eval_metrics()
                self.log(dict(metrics))  # in evaluation mode: training metrics wait for the log of their own step
        finally:
            self.model.train(training)
            if self.image_features is not None:
                self.image_features.clear()
        self.control: TrainerControl = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def grade_rows(self, rows: Sequence[Row]) -> Tensor:
        """Generate one response to each row, and grade it.

        The grade is the run's first reward; for the reference probability, which grades nothing, it is `accuracy`.

        Returns:
            (N,) outcomes of all ranks in their order, NaN where undecided.
        """
        if self.calls_tools:
            return self._grade_rollout(rows)
        prompts = self._messages_of(rows)
        completion_ids, completions = self.generate(prompts)
        outcome = self.reward_funcs[0]
        if isinstance(outcome, ReferenceProbability):
            [accuracy] = build_rewards(["accuracy"], outcome.options, self.args.max_completion_length or 0)
            columns = {name: [row.get(name) for row in rows] for name in rows[0]}
            scores = accuracy(completions=completions, completion_ids=completion_ids, **columns)
            local = [math.nan if score is None else score for score in scores]
            return self.accelerator.gather(torch.tensor(local, device=self.accelerator.device))
        return self._calculate_rewards(list(rows), prompts, completions, completion_ids)[:, 0]

    def _messages_of(self, rows: Sequence[Row]) -> list[Prompt]:
        """Prompts of rows with their images, as TRL's rollout makes them."""
        from trl.data_utils import prepare_multimodal_messages

        if not self.takes_images:
            return [row["prompt"] for row in rows]
        return [prepare_multimodal_messages(row["prompt"], images=row.get("images") or []) for row in rows]

    def _grade_rollout(self, rows: Sequence[Row]) -> Tensor:
        """(N,) outcomes as of `grade_rows`, of a rollout of TRL's own, which sets up tools and environments."""
        self._outcome = None
        super()._generate_and_score_completions(list(rows))
        assert self._outcome is not None
        return self._outcome

    def log_apart(self, numbers: dict[str, float]) -> None:
        """Log numbers that are of no step's training; metrics of training wait for the log of their own step."""
        training = self.model.training
        self.model.eval()
        try:
            self.log(numbers)
        finally:
            self.model.train(training)
