"""GRPO with flow rewards, entropy-advantage shaping and reference-probability rewards. What changes relative to GRPO:

1. After a rollout, each response token gets a deviation from the flow field, computed on the policy's latents of the
   forward pass that computes the old log-probs (or of one shortened pass where TRL runs none).
2. The deviation becomes a token reward and its return-to-go is added to the outcome advantage: (B,) becomes (B, T).
3. During the update, the field is fitted further to the latents of accepted responses, on detached tensors.
4. With `entropy` in the method, each token's advantage grows with the entropy of the current policy, at every update.
5. Rewards may be per token (a user's function), use the policy's probabilities (RLPR), or leave an answer undecided,
   which is then masked from the advantage. Groups without a training signal are dropped and refilled, and with a
   curriculum their prompts are drawn less often (curriculum_prompts.py).
6. The policy cannot sample vision tokens, and its vision tower is frozen, unless `freeze_vision` and
   `ban_vision_tokens` are false.
7. A prompt runs once for the responses of its group, and an image once for the passes of a rollout, where this is
   tested to give the same log-probs (shared_prefix.py).

One rollout is `_generate_and_score_completions` -> rollout.py: `shape`; one update is `_compute_loss` -> passes.py:
`LossPass`.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from rlfr_vlm.checkpoint import SaveBetweenRollouts
from rlfr_vlm.config_file import resolved
from rlfr_vlm.data.draws import draws_of
from rlfr_vlm.data.encode import tokenizer_of
from rlfr_vlm.data.mixture import mixture_of
from rlfr_vlm.data.rows import Row
from rlfr_vlm.flow.storage import FIELD_FOLDER, save_field
from rlfr_vlm.models import family_of
from rlfr_vlm.models.pass_images import count_rows_of_images
from rlfr_vlm.models.shared_images import images_processed_once
from rlfr_vlm.models.shared_prefix.prefill import prompts_prefilled_once
from rlfr_vlm.models.unpadded_prompts import unpadded_prompts
from rlfr_vlm.models.vision import ban_tokens, freeze_vision_tower, vision_token_ids
from rlfr_vlm.rewards import ReferenceProbability
from rlfr_vlm.rewards.completion import Completion, Prompt, completion_text
from rlfr_vlm.rewards.judge import JudgeReward
from rlfr_vlm.rewards.judge_pairs import JudgePairs
from rlfr_vlm.rewards.repetition import is_repetitive
from rlfr_vlm.steps import refuse_too_few_rows
from rlfr_vlm.tools import owns_reward
from rlfr_vlm.trainer.curriculum_prompts import Curriculum
from rlfr_vlm.trainer.finite import refuse_large_rewards
from rlfr_vlm.trainer.groups import GroupSelector, Stream, UndecidedGuard
from rlfr_vlm.trainer.held_out_evaluation import HeldOutEvaluation
from rlfr_vlm.trainer.micro_batch_pieces import loss_of_pieces, pieces_of, share_of_loss
from rlfr_vlm.trainer.mixture_sampler import source_metrics, source_numbers
from rlfr_vlm.trainer.packing import pack_by_length, pack_by_prompt, padding_share
from rlfr_vlm.trainer.passes import LossPass, ScorePass, UnwatchedPass
from rlfr_vlm.trainer.records.callbacks import FlowStep, MarkBan
from rlfr_vlm.trainer.records.default_records import keep_records
from rlfr_vlm.trainer.records.metrics import outcome_metrics
from rlfr_vlm.trainer.records.rollout_log import RolloutLog, describe_groups
from rlfr_vlm.trainer.records.timing import PartTimes, largest
from rlfr_vlm.trainer.refill import refill_groups
from rlfr_vlm.trainer.resume import is_sharded
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from rlfr_vlm.trainer.rollout import Rollout, field_weights, mask_undecided, shape
from rlfr_vlm.trainer.setup import Rewards, arguments_for, load_model, prepare_dataset, reward_functions
from rlfr_vlm.trainer.shared_prefix import PrefixSharing
from rlfr_vlm.trainer.signals.entropy import EntropyBonus
from rlfr_vlm.trainer.signals.flow import Flow, OnlineFlow, check_flow, find_flow
from rlfr_vlm.trainer.signals.flow_reward import FlowReward, FlowTerms
from rlfr_vlm.trainer.signals.reference_probability import PolicyProbabilities
from rlfr_vlm.trainer.signals.token_rewards import add_reward_columns, sum_token_rewards
from rlfr_vlm.trainer.signals.visual import VisualDependency, rows_with_images
from rlfr_vlm.trainer.tool_calls import prepare_template, refuse_with_tools, whole_images
from rlfr_vlm.trainer.trl_seams import (
    Batch,
    Generated,
    TokenizedPrompts,
    drop_undecided_notices,
    response_mask,
    responses_of,
    with_empty_image_lists,
)
from rlfr_vlm.trainer.video_prompts import conversations_with_videos, keep_media_by_row, refuse_videos, tokenize
from rlfr_vlm.trainer.vllm.parity_checks import check_image_tokens, gap_metrics, gap_rows, refuse_gap
from rlfr_vlm.trainer.vllm.patches import engine_for_run, patch_engine
from rlfr_vlm.trainer.vllm.plain_prompts import PlainPrompts
from rlfr_vlm.trainer.vllm.rollout_ahead import RolloutAhead

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image
    from transformers import PreTrainedModel
    from transformers.trainer_utils import TrainOutput

    from rlfr_vlm.data.encode import ProcessingClass


class RLFRTrainer(HeldOutEvaluation):
    """TRL's `GRPOTrainer` with flow rewards.

    Overrides, in the order of a step: `train` (initial probabilities), `get_batch_samples` (rows of the next rollout),
    `_prepare_inputs` (packing), `_generate_and_score_completions` (scores, shapes, selects groups), `_generate` and
    `_calculate_rewards` (timing, undecided rows), `training_step` (timing), `compute_loss` (pieces) and
    `_compute_loss` (entropy bonus, update of the field), `log` (seconds of each part) and `save_model` (the field
    beside the policy). held_out_evaluation.py has `evaluate`, log_prob_passes.py the log-prob pass, and resume.py what
    a resumed run needs. Everything else is inherited.

    Writes what the command `rlfr train` writes into the output folder, shows its progress line, and saves a checkpoint
    on Ctrl-C (see records/default_records.py).

    With method rlvr, `share_prefix` false and `image_feature_cache_gb` 0, the losses are TRL's, bit for bit, except
    for groups flatter than `groups.FLAT_SPREAD`. For a vision-language policy this holds if TRL's policy gets the same
    frozen tower and ban, or if `freeze_vision` and `ban_vision_tokens` are false here.

    Args:
        model: policy, or a hub id or folder to load it from (with `args.model_init_kwargs`, as in TRL).
        reward_funcs: reward functions or names (see `rlfr_vlm.rewards.REWARDS`), one or several. The first one is the
            outcome. None is the `get_reward` of the environment, if it has one, else the reward of the method:
            `accuracy`, or `reference_probability` with rlpr.
        args: settings; None is `RLFRConfig` with its defaults.
        train_dataset, eval_dataset: Hugging Face datasets with the columns prompt, answer and, for vision-language
            policies, images; further columns reach the reward functions.
        processing_class: processor or tokenizer; None loads the one of the model.
        flow: the field and its spec; None loads them from `args.flow_path`.
        kwargs: further arguments of `GRPOTrainer`, such as `callbacks`, `peft_config`, `tools`, `environment_factory`
            and `rollout_func`.

    Raises:
        UserError: a setting, the model, the rewards or the field cannot be used; the message says what to do.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "grpo", "rlfr"]

    def __init__(
        self,
        model: "PreTrainedModel | str",
        reward_funcs: Rewards | None = None,
        args: RLFRConfig | None = None,
        train_dataset: "Dataset | None" = None,
        eval_dataset: "Dataset | None" = None,
        processing_class: "ProcessingClass | None" = None,
        *,
        flow: Flow | None = None,
        **kwargs: object,
    ) -> None:
        drop_undecided_notices()
        args = arguments_for(model) if args is None else args
        if args.uses_flow:
            flow = find_flow(flow, args)
        settings = resolved(args)  # before TRL fills in defaults
        if isinstance(model, str):
            init_kwargs = {"trust_remote_code": args.trust_remote_code} | dict(args.model_init_kwargs or {})
            model, processing_class = load_model(model, processing_class, **init_kwargs)
        family_of(model)
        environment = kwargs.get("environment_factory")
        if reward_funcs is None and owns_reward(environment) and "rlpr" not in args.method:
            reward_funcs = []  # TRL adds the environment's own, which becomes the outcome
        reward_list = reward_functions(reward_funcs, args)
        if args.uses_flow and flow is not None:
            check_flow(flow, args, model)
        if kwargs.get("tools") or environment:
            refuse_with_tools(args, family_of(model), reward_list, environment)
            if processing_class is not None:
                prepare_template(processing_class)
        RolloutAhead.refuse_turns(args, kwargs)
        engine = engine_for_run(args)
        self._times = PartTimes(args.device)
        self._rollout: Rollout | None = None  # between the start and the return of a rollout
        self._pass, self._media = UnwatchedPass(), None
        self._micro_batches = 0  # since the last log
        with engine:
            super().__init__(
                model,
                reward_list,
                args=args,
                train_dataset=prepare_dataset(train_dataset, processing_class),
                eval_dataset=prepare_dataset(eval_dataset, processing_class),
                processing_class=processing_class,
                **kwargs,
            )
        self.sharing = PrefixSharing.for_run(args, self.model, self.ref_model, self.num_generations, self.accelerator)
        self.bonus = EntropyBonus.from_options(args)
        self.visual = VisualDependency.for_run(args, args.uses_visual, self.model, is_sharded(self.accelerator))
        if flow is not None and args.uses_flow:
            self.flow = OnlineFlow(*flow, args, self.accelerator, args.seed)
            self.flow_reward = FlowReward(args, self.num_generations, tokenizer_of(self.processing_class))
            self.add_callback(FlowStep(lambda: self.step_flow()))  # looked up at each step, so that it can be wrapped
        self._guard_vision(args)
        self.image_features = self._cache_image_features(args)
        self._checks_next_rollout = args.rollout_check
        if args.use_vllm:
            token = self._image_token_id
            self._plain_prompts = PlainPrompts(self.family, self.processing_class, token, self.chat_template_kwargs)
            patch_engine(
                self.vllm_generation,
                self.model,
                self.processing_class,
                ban=args.ban_vision_tokens,
                check=args.rollout_check,
                plain=self._plain_prompts,
            )
        self.ahead = RolloutAhead.for_run(args, self.micro_batches_per_rollout)
        self.mixture = mixture_of(self.train_dataset)
        self.curriculum = Curriculum.for_run(args, self.train_dataset, self.num_generations)
        self.selector = GroupSelector(
            args,
            self.num_generations,
            args.flow_accept_threshold,
            len(self.train_dataset),
            args.seed,
            self._refill_stream(),
        )
        self.undecided_guard = UndecidedGuard(args.undecided_limit, args.undecided_window)
        self.probabilities = self._bind_probabilities()
        self.rollout_log = self._open_rollout_log(args)
        keep_records(self, args.method, settings)

    # --- set-up -----------------------------------------------------------------------------------------------------

    def _refill_stream(self) -> Stream | None:
        """The curriculum's or a mixture's new prompts for dropped groups."""
        if self.curriculum is not None:
            return self.curriculum.refills
        return None if self.mixture is None else draws_of(self.train_dataset, self.args.seed + 1)

    def _open_rollout_log(self, args: RLFRConfig) -> RolloutLog | None:
        if not args.rollout_log_groups:
            return None
        rank, folder = self.accelerator.process_index, Path(args.output_dir)
        return RolloutLog(folder, rank, args.rollout_log_groups, args.rollout_log_mb)

    def _bind_probabilities(self) -> PolicyProbabilities | None:
        """Give each reference-probability reward access to the policy."""
        rewards = [reward for reward in self.reward_funcs if isinstance(reward, ReferenceProbability)]
        if not rewards:
            return None
        probabilities = PolicyProbabilities(
            lambda: self.model,
            self.response_logps,
            self.processing_class,
            self.args,
            self.accelerator,
            self.chat_template_kwargs,
            rewards[0].options.rlpr_mode,
        )
        for reward in rewards:
            reward.probabilities = probabilities
        return probabilities

    def _guard_vision(self, args: RLFRConfig) -> None:
        """Freeze the vision tower and ban vision tokens, as the settings say."""
        if args.freeze_vision and (frozen := freeze_vision_tower(self.model)) and self.accelerator.is_main_process:
            print(f"vision tower frozen ({frozen / 1e6:.2f}M parameters); set freeze_vision: false to train it")
        if args.ban_vision_tokens:
            banned = vision_token_ids(self.model, self.processing_class)
            for model in (self.model, self.ref_model):
                if model is not None:
                    ban_tokens(model, banned)
            if self.is_deepspeed_enabled or self.is_fsdp_enabled:
                self.add_callback(MarkBan())

    def train(self, *args: object, **kwargs: object) -> "TrainOutput":
        """Train; before that, while the policy is the initial one, compute its reference probabilities.

        Raises:
            UserError: the data set does not fill one rollout.
        """
        refuse_too_few_rows(self.args, len(self.train_dataset))
        rewards = [reward for reward in self.reward_funcs if isinstance(reward, ReferenceProbability)]
        if self.probabilities is not None and any(reward.options.rlpr_debias for reward in rewards):
            self.probabilities.prepare(self.train_dataset, 4 * self.args.per_device_train_batch_size)
        # the last callback, so that it decides about saving and stopping after all others
        between = self.args.steps_per_generation * self.args.num_iterations
        self.remove_callback(SaveBetweenRollouts)
        self.add_callback(SaveBetweenRollouts(between // math.gcd(between, self.args.gradient_accumulation_steps)))
        images = nullcontext() if self.image_features is None else self.image_features.answering(self.model)
        try:
            with images:
                return super().train(*args, **kwargs)
        finally:
            if self.rollout_log is not None:
                self.rollout_log.flush()

    # --- rollout ----------------------------------------------------------------------------------------------------

    def get_batch_samples(
        self, epoch_iterator: Iterator[list[Row]], num_batches: int, device: torch.device
    ) -> tuple[list[list[Row]], Tensor | int | None]:
        """With `rollout_ahead`, read the rows of the next rollout, too."""
        batches = epoch_iterator if self.ahead is None else self.ahead.reading(epoch_iterator)
        return super().get_batch_samples(batches, num_batches, device)

    def _prepare_inputs(self, generation_batch: list[Row]) -> Batch:
        """After a rollout, put rows with the same prompt, or of like length, into the same micro-batch."""
        inputs = super()._prepare_inputs(generation_batch)
        if self.starts_rollout and self.model.training:
            per_update = min(self.args.gradient_accumulation_steps, self.args.steps_per_generation)
            arguments = self.buffered_batches, per_update, self.pad_token_id
            if self.sharing is not None and self.sharing.is_on:
                by_prompt = pack_by_prompt(*arguments, by_length=self.args.pack_by_length)
                inputs = self.replace_buffered_batches(by_prompt)
            elif self.args.pack_by_length:
                inputs = self.replace_buffered_batches(pack_by_length(*arguments))
            self.log_values({"padding": self.mean_over_ranks(padding_share(self.buffered_batches))})
        return inputs

    def _generate_and_score_completions(self, inputs: list[Row]) -> Batch:
        if self.image_features is not None:
            self.image_features.clear()  # those of the last rollout
        if self.curriculum is not None:
            inputs = self.curriculum.rows_of_rollout(len(inputs), self.accelerator)
        with self._times.timed("rollout"), images_processed_once(self.processing_class):
            batch = self.roll_out(inputs)
            if not self.args.refill_rounds:
                return batch
            batch, metrics = refill_groups(
                batch,
                partial(self.roll_out, record=False),
                rounds=self.args.refill_rounds,
                selector=self.selector,
                dataset=self.train_dataset,
                accelerator=self.accelerator,
                pad_token_id=self.pad_token_id,
            )
            metrics["groups/not_refilled"] = self.mean_over_ranks(metrics["groups/not_refilled"])
            self.log_values(metrics)
            return batch

    def roll_out(self, inputs: list[Row], record: bool = True) -> Batch:
        """Generate, score and shape one rollout.

        Args:
            inputs: rows of the data set, one per response.
            record: count this as a rollout of the spread filter; a refill is none.

        Returns:
            TRL's batch with `keep` (B,), rows of groups that may teach, and with flow rewards `flow_weight` (B,).
        """
        replaced = [bool(row.get("replaced_row")) for row in inputs]
        self.log_values({"data/replaced_rows": self.mean_over_ranks(sum(replaced) / len(replaced))})
        score, rank = self._score_pass(len(inputs), record), self.accelerator.process_index
        rollout = Rollout(score, rank, inputs, is_refill=not record)
        self._rollout, self._media = rollout, None
        try:
            if self.computes_old_logps:
                self._pass = rollout.score if self.visual is None else self.visual.beside(rollout.score)
            batch = super()._generate_and_score_completions(inputs)
            self._check_rollout(batch, rollout)
            count_rows_of_images(self.family, batch)
            if self.family.takes_videos:
                batch["media"] = self._media or [None] * len(inputs)
            if self.flow is not None and not self.computes_old_logps:
                self._run_latent_pass(batch, rollout.score, max(self.flow.spec.layer_indices))
            if self.visual is not None:
                self._run_blank_pass(self.visual, batch)
            if self._media is not None:
                keep_media_by_row(batch)
        finally:
            self._rollout, self._pass = None, UnwatchedPass()
        return self._shape(rollout, batch, record)

    def _score_pass(self, num_rows: int, record: bool) -> ScorePass:
        """The log-prob pass of a rollout of `num_rows` rows on this rank, with its noise.

        Args:
            record: count this as a rollout; every `flow_retest_every` ones are scored a second time.
        """
        if self.flow is None:
            return ScorePass(None, self._times)
        noise = self.flow.draw_noise(num_rows, self.num_generations)
        every, retest = self.args.flow_retest_every, None
        if record and every and self.rollouts % every == 0:
            retest = self.flow.draw_noise(num_rows, self.num_generations, independent=True)
        self.rollouts += record
        return ScorePass(self.flow, self._times, noise, retest)

    def _weigh_by_dependency(
        self, visual: VisualDependency, rollout: Rollout, batch: Batch, mask: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Weights (B, T) of the outcome advantage, None if all are 1, and the dependency (B, T) of each token."""
        rows = len(mask)
        with self._times.timed("visual"), torch.no_grad():
            dependency = visual.dependency(self.model, self.temperature) * mask
        weights, metrics = visual.of_rollout(
            dependency,
            mask,
            rows_with_images(batch, rows).to(mask.device),
            rollout.outcome,
            threshold=self.args.flow_accept_threshold,
            group_size=self.num_generations,
            gather=self.accelerator.gather,
            local=lambda values: rollout.local(values, rows),
        )
        self.log_values(metrics)
        return weights, dependency

    def _shape(self, rollout: Rollout, batch: Batch, record: bool) -> Batch:
        """Turn the rewards of a rollout into advantages, and log the rollout."""
        rows, args = len(batch["advantages"]), self.args
        keep, flat, metrics = self.selector.judge(rollout.outcome, rollout.totals, record)
        self.log_values(metrics)
        if self.curriculum is not None:
            self.log_values(self.curriculum.record(rollout.outcome))
        batch["keep"] = rollout.local(keep, rows)
        outcome, mask = rollout.local(rollout.outcome, rows), response_mask(batch)
        numbers = {"advantage": batch["advantages"]}
        weights = None
        if self.visual is not None:
            weights, dependency = self._weigh_by_dependency(self.visual, rollout, batch, mask)
            numbers["visual_dependency"] = dependency
        terms = None
        if self.flow is not None and self.flow_reward is not None:
            terms = self._flow_terms(self.flow, self.flow_reward, rollout, batch, outcome, mask, numbers)
        batch["advantages"] = shape(
            batch["advantages"],
            outcome,
            batch["keep"],
            rollout.local(flat, rows),
            batch["completion_mask"],
            mask,
            token_rewards=sum_token_rewards(self.reward_funcs, self.reward_weights, mask),
            flow=terms,
            weights=weights,
            gamma=args.flow_gamma,
        )
        if batch["advantages"].dim() == 2:
            numbers["token_advantage"] = batch["advantages"]
        if "sampling_per_token_logps" in batch:
            numbers["engine_logp"] = batch["sampling_per_token_logps"].nan_to_num()
        if self.rollout_log is not None:
            batch["log_row"] = self._log_rollout(self.rollout_log, rollout, batch, numbers)
        return batch

    def _flow_terms(
        self,
        flow: OnlineFlow,
        reward: FlowReward,
        rollout: Rollout,
        batch: Batch,
        outcome: Tensor,
        mask: Tensor,
        numbers: dict[str, Tensor],
    ) -> FlowTerms:
        """Flow rewards of this rank's responses; logs their metrics, and adds to the batch what the field learns from.

        Args:
            outcome: (B,).
            mask: (B, T), 0 at padding and at tool output.
            numbers: of the rollout log; rewards and deviations are added.
        """
        rows = len(outcome)
        deviations, scored = rollout.score.deviations()
        measured = reward.of_rollout(
            deviations[flow.scored_layers].mean(dim=0),
            scored & mask.bool(),
            batch["completion_ids"],
            outcome,
            rollout.outcome,
            share=reward.share(self.state.global_step, self.state.max_steps),
            gather=self.accelerator.gather,
            local=lambda values: rollout.local(values, rows),
        )
        self.log_values(measured.metrics)
        if (again := rollout.score.retest_deviations()) is not None:
            agreement = reward.retest(measured, again[flow.scored_layers].mean(dim=0))
            self.log_values({name: self.mean_over_ranks(value) for name, value in agreement.items()})
        threshold = self.args.flow_accept_threshold
        batch["flow_weight"] = field_weights(
            outcome,
            batch["keep"],
            accept=self.args.flow_accept,
            threshold=threshold,
            soft_weight=self.args.flow_soft_weight,
            contrast=flow.spec.is_contrast,
        )
        batch["is_right"] = outcome > threshold
        numbers |= {"flow_reward": measured.token_rewards, "deviations": deviations * scored}
        return measured.terms

    def _log_rollout(self, log: RolloutLog, rollout: Rollout, batch: Batch, numbers: dict[str, Tensor]) -> Tensor:
        """Log the rollout; returns (B,) marks of the logged rows."""
        local = rollout.local(rollout.rewards, len(batch["advantages"]))
        rewards = {name: local[:, column].tolist() for column, name in enumerate(self.reward_func_names)}
        layers = () if self.flow is None else self.flow.spec.layer_indices
        groups = describe_groups(
            rollout.rows, batch, rollout.responses, rewards, self.num_generations, numbers, layers
        )
        return log.take(groups, self.state.global_step, len(local)).to(local.device)

    def _check_rollout(self, batch: Batch, rollout: Rollout) -> None:
        """Check the image tokens of the first rollout and, with vLLM, its log-probs against the trainer's."""
        if self._checks_next_rollout:
            check_image_tokens(batch, self.family, self._image_token_id, self.processing_class)
        self._checks_next_rollout = False
        if self.ahead is not None and not rollout.is_refill:
            self.log_values({"rollout/age": rollout.age})
        if self.use_vllm and (rows := gap_rows(batch)) is not None:
            metrics = gap_metrics(self.accelerator.gather(rows))
            self.log_values(metrics)
            if self.args.rollout_check and not rollout.age:  # an older policy's log-probs differ
                refuse_gap(metrics, self.args.rollout_gap_limit)

    def _tokenize_prompts(self, prompts: list[Prompt]) -> TokenizedPrompts:
        if (conversations := conversations_with_videos(prompts)) is None:
            return super()._tokenize_prompts(prompts)
        sharded = is_sharded(self.accelerator) and self.accelerator.num_processes > 1
        refuse_videos(self.family, uses_vllm=self.use_vllm, is_sharded=sharded)
        tokenized = tokenize(conversations, self.processing_class, self.chat_template_kwargs)
        self._media = tokenized.media
        return tokenized.ids, None, tokenized.fields()

    def _generate(self, prompts: list[Prompt]) -> Generated:
        # Under ZeRO-3 TRL gathers the weights for generation; under FSDP they stay sharded block by block.
        guard = self._image_guard(self.model) if self.is_fsdp_enabled and not self.use_vllm else nullcontext()
        if self.use_vllm:
            self._plain_prompts.remember(prompts)
        lists = unpadded_prompts(self.processing_class, self.family.pads_prompts)
        once: AbstractContextManager[None] = nullcontext()
        if self.sharing is not None and self.sharing.is_on and not self.use_vllm and not is_sharded(self.accelerator):
            once = prompts_prefilled_once(self.model)
        with self._times.timed("generate"), guard, lists, once:
            generated = with_empty_image_lists(super()._generate(prompts))
        if self.calls_tools:
            generated, cut = whole_images(generated, self._image_token_id, self._tokens_of)
            self.log_values({"tools/cut_at_images": self.mean_over_ranks(cut / len(prompts))})
        if self._rollout is not None:
            if self.ahead is not None and not self._rollout.is_refill:
                self._rollout.age = self.ahead.take_age(self.state.global_step)
                if self.accelerator.is_main_process and not self.vllm_generation.vllm_client.is_idle:
                    raise RuntimeError("The rollout that was sent ahead has other prompts than the one that is due.")
                self._send_ahead(self.ahead)
            self._begin_judging(self._rollout.inputs, responses_of(generated))
        return generated

    def _send_ahead(self, ahead: RolloutAhead) -> None:
        """Let the server generate the next rollout, by the policy as it is, while this one trains."""
        per_update = self.args.gradient_accumulation_steps
        remaining = (self.state.max_steps - self.state.global_step) * per_update - self.micro_batch % per_update
        if (rows := ahead.next_rows(self.micro_batch, remaining)) is None:
            return
        is_main = self.accelerator.is_main_process
        sending = self.vllm_generation.vllm_client.sending_ahead() if is_main else nullcontext()
        with unpadded_prompts(self.processing_class, self.family.pads_prompts), sending:
            self.request_responses(self._messages_of(rows))
        ahead.sent_at = self.state.global_step

    def _tokens_of(self, image: "Image") -> int:
        """Number of tokens of an image of a tool."""
        grid = self.family.image_grid(self.processing_class)
        return 0 if grid is None else grid.tokens(*image.size)

    def _begin_judging(self, rows: Sequence[Row], responses: Sequence[Completion]) -> None:
        """Ask judges about the responses of a rollout while its log-probs are computed."""
        for reward in self.reward_funcs:
            if isinstance(reward, JudgeReward | JudgePairs):
                columns = {name: [row.get(name) for row in rows] for name in rows[0] if name != "prompt"}
                reward.begin([row["prompt"] for row in rows], responses, **columns)

    def _calculate_rewards(
        self,
        inputs: list[Row],
        prompts: list[Prompt],
        completions: list[Completion],
        completion_ids_list: list[list[int]],
    ) -> Tensor:
        rollout = self._rollout  # None in an evaluation
        logps = None if rollout is None else rollout.score.logps
        rows = add_reward_columns(inputs, completion_ids_list, self.end_token_ids, logps)
        with self._times.timed("reward"):
            rewards = super()._calculate_rewards(rows, prompts, completions, completion_ids_list)
        refuse_large_rewards(rewards, self.reward_func_names)
        self._outcome = rewards[:, 0]
        if rollout is not None:
            rollout.record(rows, completions, rewards, self.reward_weights.to(rewards.device))
        repetitive = torch.tensor([is_repetitive(completion_text(c)) for c in completions], device=rewards.device)
        self.log_values({"completions/repetitive": self.accelerator.gather(repetitive).float().mean().item()})
        self.log_values(outcome_metrics(rewards[:, 0], self.args.flow_accept_threshold))
        if self.model.training:
            self._log_sources(inputs, rewards[:, 0])
            self.undecided_guard.check(rewards[:, 0])
        return mask_undecided(rewards)

    def _log_sources(self, inputs: Sequence[Row], outcome: Tensor) -> None:
        """Log the outcomes (N,) of all ranks by the sources of a mixture; `inputs` are the rows of this rank."""
        if self.mixture is None:
            return
        own = source_numbers(inputs, self.mixture.labels).to(self.accelerator.device)
        self.log_values(source_metrics(outcome, self.accelerator.gather(own).to(outcome.device), self.mixture.labels))

    # --- update -----------------------------------------------------------------------------------------------------

    def training_step(self, *args: object, **kwargs: object) -> Tensor:
        """Run TRL's step, and time the policy's loss and backward pass, without rollout and update of the field."""
        seconds = self._times.seconds
        before = seconds["rollout"] + seconds["flow_update"]
        with self._times.timed("loss"):
            loss = super().training_step(*args, **kwargs)
        seconds["loss"] -= seconds["rollout"] + seconds["flow_update"] - before
        self._micro_batches += 1
        return loss

    def compute_loss(self, model: nn.Module, inputs: Batch, *args: object, **kwargs: object) -> Tensor:
        """TRL's loss; of a micro-batch above `micro_batch_tokens`, with the gradient of its last piece alone.

        The other pieces have run backward passes of their own.
        """
        budget = self.args.micro_batch_tokens
        if not budget or not self.model.training:
            return super().compute_loss(model, inputs, *args, **kwargs)
        shares = self.sharing is not None and self.sharing.is_on
        pieces = pieces_of(inputs, budget, shares_prompts=shares, accelerator=self.accelerator)
        self.log_values({"micro_batch_pieces": len(pieces)})
        loss_of = super().compute_loss

        def weighted(piece: Batch) -> Tensor:
            return loss_of(model, piece, *args, **kwargs) * share_of_loss(piece, inputs, self.args.loss_type)

        return loss_of_pieces(pieces, weighted, self.accelerator, model)

    def _compute_loss(self, model: nn.Module, inputs: Batch) -> Tensor:
        batch = dict(inputs)  # the bonus belongs to this update; the advantages of the rollout stay
        training = self.model.training
        flow = self.flow if self.flow is not None and self.args.flow_update and training else None
        rows = None if flow is None else batch["flow_weight"] > 0
        loss_pass = LossPass(
            batch,
            flow,
            rows,
            bonus=self.bonus if training else None,
            log=self.rollout_log if training else None,
        )
        self._pass, self._media = loss_pass, batch.pop("media", None)
        loss = super()._compute_loss(model, batch)
        if flow is not None and rows is not None:
            weights = self._field_token_weights(loss_pass)  # on every rank: it may gather
            if rows.any():
                with self._times.timed("flow_update"):
                    flow.accumulate(*loss_pass.latents(), weights[rows], batch["is_right"][rows])
        return loss

    def _field_token_weights(self, loss_pass: LossPass) -> Tensor:
        """(B, T) weights of tokens in the update of the field."""
        batch, mask = loss_pass.batch, response_mask(loss_pass.batch)
        weights = batch["flow_weight"].unsqueeze(1) * mask
        if self.args.flow_accept != "entropy":
            return weights
        assert loss_pass.entropies is not None
        high = self.get_high_entropy_mask(loss_pass.entropies, mask, self.args.flow_entropy_quantile)
        return weights * torch.where(high, 1.0, self.args.flow_soft_weight)

    def step_flow(self) -> None:
        """Step the field; called when the policy's optimiser has stepped."""
        if self.flow is None or not self.args.flow_update:
            return
        with self._times.timed("flow_update"):
            loss = self.flow.step()
        if loss is not None:
            self.log_values({"flow/loss": loss})

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the seconds each part took per update since the last log."""
        for counted in (self.sharing, self.image_features):
            if counted is not None and self.model.training:
                self.log_values(counted.take_metrics())
        if self.model.training and self._micro_batches:
            updates = self._micro_batches / self.args.gradient_accumulation_steps
            self.log_values(largest(gather_object([self._times.take(updates)])))
            self._micro_batches = 0
        super().log(logs, start_time)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the policy and, with flow rewards, the field beside it.

        A checkpoint's field is written with its optimiser by `save_extra_state`.
        """
        super().save_model(output_dir, _internal_call)
        if self.flow is not None and not _internal_call and self.accelerator.is_main_process:
            save_field(Path(output_dir or self.args.output_dir) / FIELD_FOLDER, self.flow.field, self.flow.spec)
