"""GRPO with flow rewards, entropy-advantage shaping and reference-probability rewards. What changes relative to GRPO:

1. After a rollout, each response token gets a deviation from the flow field, computed on the policy's latents of the
   forward pass that computes the old log-probs (or of one shortened pass where TRL runs none).
2. The deviation becomes a token reward and its return-to-go is added to the outcome advantage: (B,) becomes (B, T).
3. During the update, the field goes on being fitted to the latents of accepted responses, on detached tensors.
4. With `entropy` in the method, each token's advantage grows with the entropy of the current policy, at every update.
5. Rewards may be per token (a user's own), ask the policy itself (RLPR), or leave an answer undecided, which is then
   masked from the advantage. Groups that teach nothing are dropped and refilled.
6. The policy cannot sample vision tokens, and its vision tower is frozen, unless asked otherwise.
"""

import logging
import math
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate.utils import gather_object
from torch import Tensor

from rlfr_vlm.checkpoint import SaveBetweenRollouts
from rlfr_vlm.flow import FlowSpec, VelocityField
from rlfr_vlm.models.dummy_image import without_missing_images
from rlfr_vlm.models.latents import capture_latents
from rlfr_vlm.models.shared_images import images_processed_once
from rlfr_vlm.models.vision import ban_tokens, freeze_vision_tower, vision_token_ids
from rlfr_vlm.rewards import ReferenceProbability
from rlfr_vlm.rewards.completion import completion_text
from rlfr_vlm.rewards.repetition import is_repetitive
from rlfr_vlm.shaping import entropy_bonus, flow_rewards, shape_advantages
from rlfr_vlm.trainer.groups import GroupSelector, UndecidedGuard
from rlfr_vlm.trainer.held_out import evaluate_held_out
from rlfr_vlm.trainer.latent_pass import run_latent_pass
from rlfr_vlm.trainer.packing import pack_by_length, padding_share
from rlfr_vlm.trainer.passes import ScoreCapture, UpdateCapture
from rlfr_vlm.trainer.records.callbacks import FlowStep, MarkBan
from rlfr_vlm.trainer.records.metrics import RowStatistics, flow_metrics, outcome_metrics
from rlfr_vlm.trainer.records.rollout_log import RolloutLog, ScoredRows, describe_groups
from rlfr_vlm.trainer.records.timing import PartTimes, largest
from rlfr_vlm.trainer.refill import refill_groups
from rlfr_vlm.trainer.resume import ResumableGRPO, is_sharded
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from rlfr_vlm.trainer.signals.flow import OnlineFlow, check_flow
from rlfr_vlm.trainer.signals.reference_probability import PolicyProbabilities
from rlfr_vlm.trainer.signals.token_rewards import own_token_rewards, rows_for_rewards
from rlfr_vlm.trainer.vllm.parity_checks import check_image_tokens, gap_metrics, gap_rows, refuse_gap
from rlfr_vlm.trainer.vllm.patches import guard_engine, prepare_engine

IMAGES = 6  # their place in what TRL's `_generate` returns


# TRL prints the whole row, images and all, for each rollout with an undecided answer; we count them instead.
logging.getLogger("trl.trainer.grpo_trainer").addFilter(
    lambda record: "All reward functions returned None" not in record.getMessage()
)


class RLFRTrainer(ResumableGRPO):
    """TRL's `GRPOTrainer` with flow rewards.

    Overrides `train` (initial probabilities), `_generate` and `_calculate_rewards` (timing, outcome),
    `_get_per_token_logps_and_entropies` (captures latents, adds the entropy bonus), `_generate_and_score_completions`
    (scores, shapes, selects groups), `_compute_loss` (updates the field), `evaluate` (accuracy alone), `training_step`
    and `log` (seconds of each part); resume.py adds what a resume needs. Everything else is inherited. With method
    rlvr the losses are TRL's, bit for bit, but for groups flatter than `group_min_spread`; for a vision-language
    policy that is so when TRL's is given the same frozen tower and ban, or ours is told `freeze_vision` and
    `ban_vision_tokens` false.

    Args:
        flow: the field and its spec; needed when `args.flow_coef` is not 0.
        others: as for `GRPOTrainer`; `args` must be an `RLFRConfig`. The first reward function is the outcome.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "grpo", "rlfr"]

    def __init__(
        self, model: Any, *, args: RLFRConfig, flow: tuple[VelocityField, FlowSpec] | None = None, **others: Any
    ) -> None:
        if args.uses_flow:
            check_flow(flow, args, model)
        if args.use_vllm:
            prepare_engine(args.vllm_mode, args.freeze_vision)
        self._capture: ScoreCapture | UpdateCapture | None = None
        self._entropies: Tensor | None = None
        self._times = PartTimes(args.device)
        self._micro_batches = 0
        super().__init__(model, args=args, **others)
        if flow is not None and args.uses_flow:
            self.flow = OnlineFlow(*flow, args, self.accelerator, args.seed)
            self.add_callback(FlowStep(self))
        self._guard_vision(args)
        self._first_rollout = args.rollout_check
        if args.use_vllm:
            guard_engine(self.vllm_generation, self.model, self.processing_class, ban=args.ban_vision_tokens,
                         check=args.rollout_check)  # fmt: skip
        self.selector = GroupSelector(
            args, self.num_generations, args.flow_accept_threshold, len(self.train_dataset), args.seed
        )
        self._guard = UndecidedGuard(args.undecided_limit, args.undecided_window)
        self._loss_inputs: dict[str, Any] | None = None
        self._rollout_logps: Tensor | None = None
        self._wants_rollout_logps = False
        self.probabilities = self._bind_probabilities()
        if args.rollout_log_groups:
            self.rollout_log = RolloutLog(Path(args.output_dir), self.accelerator.process_index,
                                          args.rollout_log_groups, args.rollout_log_mb)  # fmt: skip

    def _bind_probabilities(self) -> PolicyProbabilities | None:
        asking = [reward for reward in self.reward_funcs if isinstance(reward, ReferenceProbability)]
        if not asking:
            return None
        probabilities = PolicyProbabilities(self)
        for reward in asking:
            reward.probabilities = probabilities
        return probabilities

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; before, while the policy still is the initial one, compute its reference probabilities."""
        if self.probabilities is not None and self.args.rlpr_debias:
            self.probabilities.prepare(self.train_dataset, 4 * self.args.per_device_train_batch_size)
        # the last callback, so that it has the last word on saving and stopping
        between = self.args.steps_per_generation * self.args.num_iterations
        self.remove_callback(SaveBetweenRollouts)
        self.add_callback(SaveBetweenRollouts(between // math.gcd(between, self.args.gradient_accumulation_steps)))
        try:
            return super().train(*args, **kwargs)
        finally:
            if self.rollout_log is not None:
                self.rollout_log.flush()

    def evaluate(self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval") -> Any:
        """Greedy and sampled accuracy on held-out rows (see held_out.py), logged and given to the callbacks."""
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        with self._times.paused():
            metrics = evaluate_held_out(self, dataset, metric_key_prefix)
        self.control: Any = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _guard_vision(self, args: RLFRConfig) -> None:
        if args.freeze_vision and (frozen := freeze_vision_tower(self.model)) and self.accelerator.is_main_process:
            print(f"vision tower frozen ({frozen / 1e6:.2f}M parameters); set freeze_vision: false to train it")
        if args.ban_vision_tokens:
            banned = vision_token_ids(self.model, self.processing_class)
            for model in (self.model, self.ref_model):
                if model is not None:
                    ban_tokens(model, banned)
            if self.is_deepspeed_enabled or self.is_fsdp_enabled:
                self.add_callback(MarkBan())

    def _seeing(self) -> AbstractContextManager[None]:
        """Where one process without images would stop the others, each runs the vision tower in every pass."""
        waits = is_sharded(self.accelerator) or not self.args.freeze_vision
        return without_missing_images(self.model, dummy=self.accelerator.num_processes > 1 and waits)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Time what is neither rollout nor field update: the policy's loss and its backward pass."""
        seconds = self._times.seconds
        before = seconds["rollout"] + seconds["flow_update"]
        with self._times.timed("loss"):
            loss = super().training_step(*args, **kwargs)
        seconds["loss"] -= seconds["rollout"] + seconds["flow_update"] - before
        self._micro_batches += 1
        return loss

    def _generate(self, prompts: list[Any]) -> Any:
        # Under ZeRO-3 the weights are whole in generation; under FSDP they are gathered block by block there too.
        seeing = self._seeing() if self.is_fsdp_enabled and not self.use_vllm else nullcontext()
        with self._times.timed("generate"), seeing:
            result = super()._generate(prompts)
        # TRL 1.16.0 gives rows without images None here, of which the processor dies when other rows have some.
        images = None if result[IMAGES] is None else [own or [] for own in result[IMAGES]]
        return *result[:IMAGES], images, *result[IMAGES + 1 :]

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> Tensor:
        ends = {*self.eos_token_ids, self._tokenizer.pad_token_id}
        rows = rows_for_rewards(inputs, completion_ids_list, ends, self._rollout_logps)
        with self._times.timed("reward"):
            rewards = super()._calculate_rewards(rows, prompts, completions, completion_ids_list)
        self._outcome = rewards[:, 0]  # of all processes
        self._scored = ScoredRows(rows, completions, rewards.clone())
        repetitive = torch.tensor([is_repetitive(completion_text(own)) for own in completions], device=rewards.device)
        self._log_values({"completions/repetitive": self.accelerator.gather(repetitive).float().mean().item()})
        # An undecided answer is masked whole: no format point may make it a good or a bad answer of its group.
        rewards[self._outcome.isnan()] = torch.nan
        weights = self.reward_weights.to(rewards.device)
        self._totals = (rewards * weights).nansum(dim=1).masked_fill(self._outcome.isnan(), torch.nan)
        self._log_values(outcome_metrics(self._outcome, self.args.flow_accept_threshold))
        if self.model.training:
            self._guard.check(self._outcome)
        return rewards

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> Any:
        # A request is for one pass: the reference pass under PEFT runs through the same module and must not be taken.
        capture, self._capture = self._capture, None
        forward = super()._get_per_token_logps_and_entropies
        if capture is None or self.flow is None:
            with self._seeing():
                return self._note(forward(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs))
        spec = self.flow.spec
        image_mask = input_ids == self._image_pad_token_id if spec.image_context else None
        capture.begin(attention_mask, logits_to_keep)
        last = logits_to_keep + self.flow.lead
        with (
            self._seeing(),
            capture_latents(
                self.model, spec.layer_indices, last, rows=capture.rows, image_mask=image_mask, consume=capture
            ),
        ):
            result = forward(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)
        return self._note(result)

    def _note(self, result: Any) -> Any:
        """Keep a pass's old log-probs for the rewards; in the loss, its entropies and their bonus.

        TRL's loss reads the advantages after this pass (read in 1.16.0, under a contract test).
        """
        if self._wants_rollout_logps:
            self._rollout_logps, self._wants_rollout_logps = result[0], False
        inputs, self._loss_inputs = self._loss_inputs, None
        if inputs is not None and result[1] is not None:
            self._entropies = result[1].detach()
            if self.rollout_log is not None and self.model.training:
                self.rollout_log.add_entropies(inputs["log_row"], self._entropies, _response_mask(inputs))
            if self.args.uses_entropy and self.model.training:
                inputs["advantages"] = entropy_bonus(
                    inputs["advantages"], result[1], alpha=self.args.entropy_alpha, kappa=self.args.entropy_kappa
                )
        return result

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        """After a rollout, put rows of like length together."""
        inputs = super()._prepare_inputs(generation_batch)
        every = self.args.steps_per_generation
        if self._step % (every * self.num_iterations) == 0 and self.model.training:
            if self.args.pack_by_length:
                together = min(self.args.gradient_accumulation_steps, every)
                self._buffered_inputs: Any = pack_by_length(
                    self._buffered_inputs, together, self._tokenizer.pad_token_id
                )
                inputs = self._buffered_inputs[self._step % every]
            self._log_values({"padding": self._mean(padding_share(self._buffered_inputs))})
        return inputs

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        with self._times.timed("rollout"), images_processed_once(self.processing_class):
            batch = self._rollout(inputs)
            if self.args.refill_rounds:
                return refill_groups(self, batch, partial(self._rollout, record=False))
            return batch

    def _rollout(self, inputs: list[dict[str, Any]], record: bool = True) -> dict[str, Any]:
        """Generate, score and shape; `keep` (B,) marks the rows of groups that may teach."""
        capture = None if self.flow is None else ScoreCapture(self.flow, self._times)
        replaced = [bool(row.get("replaced_row")) for row in inputs]
        self._log_values({"data/replaced_rows": self._mean(sum(replaced) / len(replaced))})
        self._rollout_logps, self._wants_rollout_logps = None, self._old_logps_pass_runs()
        if self._old_logps_pass_runs():
            self._capture = capture
        output = super()._generate_and_score_completions(inputs)
        self._check_rollout(output)
        if capture is not None and not self._old_logps_pass_runs():
            with self._times.timed("flow_forward"):
                self._capture = capture
                run_latent_pass(self, output, max(capture.flow.spec.layer_indices))
        keep, flat, metrics = self.selector.judge(self._outcome, self._totals, record)
        self._log_values(metrics)
        output["keep"] = self._local(keep, output)
        advantages = output["advantages"] * ~self._local(flat, output)
        mask = _response_mask(output)
        tokens = {"advantage": output["advantages"]}
        rewards = own_token_rewards(self.reward_funcs, self.reward_weights, mask)
        if rewards is not None:
            rewards = rewards * mask * ~self._local(self._outcome, output).isnan().unsqueeze(1)
        if capture is not None:
            deviations, flow_mask = capture.result()
            flow = self._flow_rewards(output, deviations.mean(dim=0), flow_mask)
            tokens |= {"flow_reward": flow, "deviations": deviations * flow_mask}
            rewards = flow if rewards is None else flow + rewards
        if rewards is not None:
            advantages = shape_advantages(advantages, rewards, output["completion_mask"], self.args.flow_gamma)
        output["advantages"] = advantages * output["keep"].view(-1, *[1] * (advantages.dim() - 1))
        if advantages.dim() == 2:
            tokens["token_advantage"] = output["advantages"]
        if self.rollout_log is not None:
            output["log_row"] = self._log_rollout(output, tokens)
        return output

    def _log_rollout(self, output: dict[str, Any], tokens: dict[str, Tensor]) -> Tensor:
        """Note the rollout; returns (B,) marks of the rows that are noted."""
        assert self.rollout_log is not None
        if "sampling_per_token_logps" in output:
            tokens["engine_logp"] = output["sampling_per_token_logps"].nan_to_num()
        local = self._local(self._scored.rewards, output)
        rewards = {name: local[:, column].tolist() for column, name in enumerate(self.reward_func_names)}
        layers = () if self.flow is None else self.flow.spec.layer_indices
        groups = describe_groups(
            self._scored.rows, output, self._scored.texts, rewards, self.num_generations, tokens, layers
        )
        return self.rollout_log.take(groups, self.state.global_step, len(local)).to(local.device)

    def _check_rollout(self, output: dict[str, Any]) -> None:
        """Image tokens of the first rollout; with vLLM, its log-probs against the trainer's in every rollout."""
        if self._first_rollout and "image_grid_thw" in output:
            check_image_tokens(output, self._image_pad_token_id, self.processing_class.image_processor.merge_size)
        self._first_rollout = False
        if self.use_vllm and "sampling_per_token_logps" in output and "old_per_token_logps" in output:
            rows = gap_rows(output["sampling_per_token_logps"], output["old_per_token_logps"], _response_mask(output))
            metrics = gap_metrics(self.accelerator.gather(rows))
            self._log_values(metrics)
            if self.args.rollout_check:
                refuse_gap(metrics, self.args.rollout_gap_limit)

    def _local(self, values: Tensor, output: dict[str, Any]) -> Tensor:
        """This process's part of values of all processes."""
        rows = len(output["advantages"])
        start = self.accelerator.process_index * rows
        return values[start : start + rows]

    def _old_logps_pass_runs(self) -> bool:
        """TRL's own condition for computing old log-probs (read in 1.16.0, under a contract test)."""
        every = self.args.steps_per_generation * self.num_iterations
        corrects_vllm = self.use_vllm and self.vllm_importance_sampling_correction
        return self.args.gradient_accumulation_steps % every != 0 or corrects_vllm

    def _flow_rewards(self, output: dict[str, Any], deviation: Tensor, mask: Tensor) -> Tensor:
        """(B, T) flow rewards of a rollout; also marks the rows that the field is updated on."""
        args = self.args
        outcome = self._local(self._outcome, output)
        mask = mask & _response_mask(output).bool()
        # An undecided response teaches nothing: TRL gives it no outcome advantage, and it gets no flow reward.
        rewards = flow_rewards(deviation, mask & ~outcome.isnan().unsqueeze(1), **args.shaping())
        accepted = outcome > args.flow_accept_threshold  # False for undecided
        rejected_weight = torch.where(outcome.isnan(), 0.0, args.flow_soft_weight)
        output["flow_weight"] = torch.where(accepted, 1.0, rejected_weight)
        statistics = RowStatistics.of(deviation, mask, rewards).values
        gathered = RowStatistics(self.accelerator.gather(statistics))
        self._log_values(flow_metrics(gathered, self._outcome, args.flow_accept_threshold))
        return rewards

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        inputs = dict(inputs)  # the entropy bonus is this update's; the rollout's own advantages stay as they are
        self._loss_inputs = inputs
        if self.flow is None or not self.args.flow_update or not self.model.training:
            return super()._compute_loss(model, inputs)
        by_entropy = self.args.flow_accept == "entropy"
        weight = inputs["flow_weight"]
        rows = torch.ones_like(weight, dtype=torch.bool) if by_entropy else weight > 0
        capture = UpdateCapture(rows)
        self._capture = capture if rows.any() else None
        loss = super()._compute_loss(model, inputs)
        weights = self._entropy_weights(inputs) if by_entropy else weight.unsqueeze(1) * _response_mask(inputs)
        if rows.any():
            with self._times.timed("flow_update"):
                self.flow.accumulate(*capture.result(), weights[rows])
        return loss

    def _entropy_weights(self, inputs: dict[str, Any]) -> Tensor:
        """(B, T) weights: 1 at tokens of high entropy over all processes, `flow_soft_weight` at the others."""
        assert self._entropies is not None
        mask = _response_mask(inputs)
        high = self.get_high_entropy_mask(self._entropies, mask, self.args.flow_entropy_quantile)
        return torch.where(high, 1.0, self.args.flow_soft_weight) * mask

    def step_flow(self) -> None:
        """Step the field; called when the policy's optimiser has stepped."""
        if self.flow is None or not self.args.flow_update:
            return
        with self._times.timed("flow_update"):
            loss = self.flow.step()
        if loss is not None:
            self._log_values({"flow/loss": loss})

    def _mean(self, value: float) -> float:
        """Mean of a number over the processes."""
        return self.accelerator.gather(torch.tensor([value], device=self.accelerator.device)).mean().item()

    def _log_values(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._metrics["train" if self.model.training else "eval"][name].append(value)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the seconds each part took per update since the last log."""
        if self.model.training and self._micro_batches:
            updates = self._micro_batches / self.args.gradient_accumulation_steps
            self._log_values(largest(gather_object([self._times.take(updates)])))
            self._micro_batches = 0
        super().log(logs, start_time)


def _response_mask(batch: dict[str, Any]) -> Tensor:
    """(B, T) mask of the tokens the policy wrote: no padding, no tool output."""
    mask = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask
