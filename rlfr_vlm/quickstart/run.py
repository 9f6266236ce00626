"""Stages of the quick start: warm-start a policy, fit a flow field, train with each method, measure accuracy."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.config_file import write_resolved
from rlfr_vlm.correctness_auc import AucRow, correctness_auc
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.data.rows import Row
from rlfr_vlm.deviation import ResponseDeviation, response_deviations
from rlfr_vlm.evaluate import Accuracy, Response, respond
from rlfr_vlm.flow import FlowSpec, VelocityField
from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.options import HeldOutOptions, reward_names
from rlfr_vlm.quickstart.recipe import QuickstartRecipe
from rlfr_vlm.quickstart.warm_start import cached_policy
from rlfr_vlm.rewards import accuracy, build_rewards
from rlfr_vlm.trainer.signals.flow import noise_plan

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

LoggedStep = dict[str, float]
DEFAULT_METHODS = ("rlvr", "rlfr")


@dataclass
class QuickstartResult:
    """Results of all stages.

    Attributes:
        base: decoding mode (`greedy`, `sampled`) -> accuracy of the warm-started policy.
        trained: seed -> method -> decoding mode -> accuracy.
        history: seed -> method -> logged steps.
        held_out: evaluation metrics of the flow field.
        auc: statistic -> AUC of deviation against correctness, with its interval.
        rows: held-out rows.
        measured: the first held-out rows, each repeated for the responses to it.
        responses: sampled responses of the warm-started policy to `measured`.
        deviations: their deviations from the flow.
        seconds: stage -> wall time.
    """

    recipe: QuickstartRecipe
    seeds: list[int]
    methods: tuple[str, ...] = DEFAULT_METHODS
    base: dict[str, Accuracy] = field(default_factory=dict)
    trained: dict[int, dict[str, dict[str, Accuracy]]] = field(default_factory=dict)
    history: dict[int, dict[str, list[LoggedStep]]] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    auc: dict[str, AucRow] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    measured: list[Row] = field(default_factory=list)
    responses: list[Response] = field(default_factory=list)
    deviations: list[ResponseDeviation] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    policy_was_cached: bool = False

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of the block to `stage`."""
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def pairs(self) -> list[tuple[str, str]]:
        """(method, reference) for each comparison; the reference is RLVR, or the first method."""
        reference = "rlvr" if "rlvr" in self.methods else self.methods[0]
        return [(method, reference) for method in self.methods if method != reference]

    @property
    def peak_rss_mb(self) -> float:
        """Peak resident size of this process, in MB."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)  # bytes on macOS, kB on Linux


def run_quickstart(
    out: Path, recipe: QuickstartRecipe, seeds: list[int], methods: tuple[str, ...] = DEFAULT_METHODS
) -> QuickstartResult:
    """Run every stage. Configurations, metrics and weights are written to `out`."""
    result = QuickstartResult(recipe, seeds, methods)
    with result.timed("warm_start"):
        folder, result.policy_was_cached = cached_policy(recipe.warm_start, out)
    print(f"policy: {'from the cache' if result.policy_was_cached else 'warm-started'} ({folder})")
    with result.timed("evaluate"):
        test = load_rows("digits", split="test", limit=recipe.eval_rows, seed=seeds[0])
        result.rows = [test[i] for i in range(len(test))]
        result.base = _evaluate(folder, result)
    with result.timed("fit_flow"):
        flow = _fit(folder, out / "flow", result)
    with result.timed("evaluate"):
        _measure_deviations(folder, flow, result)
    for seed in seeds:
        for method in methods:
            run_folder = out / f"seed{seed}" / method
            with result.timed(method):
                history = _train(folder, run_folder, method, seed, recipe)
            with result.timed("evaluate"):
                scores = _evaluate(run_folder, result)
            result.trained.setdefault(seed, {})[method] = scores
            result.history.setdefault(seed, {})[method] = history
            print(f"seed {seed} {method}: sampled {scores['sampled'].value:.3f}, greedy {scores['greedy'].value:.3f}")
    return result


def _load(folder: Path) -> "tuple[PreTrainedModel, ProcessorMixin]":
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    return Qwen2_5_VLForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)


def _evaluate(folder: Path, result: QuickstartResult) -> dict[str, Accuracy]:
    """Measure greedy and sampled accuracy on the held-out rows."""
    policy, processor = _load(folder)
    responses = {
        mode: respond(
            policy,
            processor,
            result.rows,
            accuracy,
            sampled=mode == "sampled",
            seed=result.seeds[0],
            max_new_tokens=result.recipe.max_new_tokens,
        )
        for mode in ("greedy", "sampled")
    }
    return {mode: Accuracy.of(answers) for mode, answers in responses.items()}


def _fit(folder: Path, out: Path, result: QuickstartResult) -> tuple[VelocityField, FlowSpec]:
    from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
    from rlfr_vlm.trainer.flow_fit_trainer import FlowFitTrainer, spec_for
    from rlfr_vlm.trainer.records.callbacks import MetricsFile, ProgressLine, use_own_progress

    policy, processor = _load(folder)
    recipe = result.recipe
    args = FlowFitConfig(**recipe.fit_arguments(str(out), result.seeds[0]))
    spec = spec_for(policy, args, folder.name, "digits (train)")
    dataset = load_rows("digits", limit=recipe.fit_rows, seed=recipe.warm_start.seed + 1)
    callbacks = [MetricsFile(str(out)), ProgressLine("fit flow")]
    trainer = FlowFitTrainer(policy, args, dataset, processing_class=processor, spec=spec, callbacks=callbacks)
    use_own_progress(trainer)
    trainer.train()
    result.held_out = trainer.evaluate()
    trainer.save_model(str(out))
    write_resolved(out, args)
    print(f"flow: held-out loss {result.held_out['eval_ratio']:.3f} of the zero predictor's")
    return trainer.model, spec


def _measure_deviations(folder: Path, flow: tuple[VelocityField, FlowSpec], result: QuickstartResult) -> None:
    """Sample several responses to each of the first held-out prompts, and measure their deviations."""
    policy, processor = _load(folder)
    recipe, seed = result.recipe, result.seeds[0]
    result.measured = [row for row in result.rows[: recipe.signal_prompts] for _ in range(recipe.signal_samples)]
    result.responses = respond(
        policy, processor, result.measured, accuracy, sampled=True, seed=seed, max_new_tokens=recipe.max_new_tokens
    )
    prompts = [row["row_number"] for row in result.measured]
    result.deviations = response_deviations(
        policy,
        processor,
        result.measured,
        result.responses,
        *flow,
        noise=noise_plan(FlowOptions()),
        groups=prompts,
        seed=seed,
    )
    result.auc = correctness_auc(result.deviations, result.responses, prompts)


def _train(folder: Path, out: Path, method: str, seed: int, recipe: QuickstartRecipe) -> list[LoggedStep]:
    """Train from the warm-started policy and save the result in `out`; returns the logged steps."""
    from rlfr_vlm.flow import load_field
    from rlfr_vlm.trainer.records.callbacks import AlertsFile, MetricsFile, ProgressLine, use_own_progress
    from rlfr_vlm.trainer.records.run_record import program_arguments, write_run_record
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig
    from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer

    policy, processor = _load(folder)
    args = RLFRConfig(**recipe.rl_arguments(str(out), method, seed))
    rewards = recipe.reward_options(method)
    # RL updates the field, so each run loads the fitted one again.
    flow = load_field(out.parent.parent / "flow") if args.uses_flow else None
    trainer = RLFRTrainer(
        policy,
        args=args,
        flow=flow,
        reward_funcs=build_rewards(reward_names(rewards, method), rewards, recipe.max_new_tokens),
        train_dataset=load_rows("digits", limit=recipe.rl_rows, seed=seed),
        processing_class=processor,
        callbacks=[MetricsFile(str(out)), AlertsFile(str(out)), ProgressLine(f"{method}, seed {seed}")],
    )
    use_own_progress(trainer)
    write_resolved(out, HeldOutOptions(), rewards, args)
    data = {"name": "digits", "split": "train", "rows": recipe.rl_rows}
    write_run_record(out, program_arguments(), args, data, policy=folder.name)
    trainer.train()
    trainer.save_model(str(out))
    history: list[LoggedStep] = trainer.state.log_history
    return history
