"""The stages of the quick start that run a policy: evaluate, fit a field, measure deviations, train."""

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from rlfr_vlm.checkpoint import checkpoints, newest_complete, remove
from rlfr_vlm.config_file import write_resolved
from rlfr_vlm.correctness_auc import correctness_auc
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.deviation import response_deviations
from rlfr_vlm.evaluate import Accuracy, Response, respond
from rlfr_vlm.files import write_json
from rlfr_vlm.flow import FlowSpec, VelocityField, load_field
from rlfr_vlm.flow_options import FlowOptions
from rlfr_vlm.options import HeldOutOptions, reward_names
from rlfr_vlm.quickstart.policies import LoadedPolicy, load_start
from rlfr_vlm.quickstart.resume import is_last, kept_responses
from rlfr_vlm.quickstart.run import QuickstartResult
from rlfr_vlm.quickstart.time_left import TimeLeft
from rlfr_vlm.report.read_run import is_finished
from rlfr_vlm.rewards import accuracy, build_rewards
from rlfr_vlm.sweep.definition import SweepRun
from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
from rlfr_vlm.trainer.flow_fit_trainer import FlowFitTrainer, spec_for
from rlfr_vlm.trainer.records.callbacks import AlertsFile, MetricsFile, ProgressLine, use_own_progress
from rlfr_vlm.trainer.records.run_record import mark_finished, program_arguments, write_run_record
from rlfr_vlm.trainer.rlfr_config import RLFRConfig
from rlfr_vlm.trainer.rlfr_trainer import RLFRTrainer
from rlfr_vlm.trainer.signals.flow import noise_plan

HELD_OUT_FILE = "held_out.json"  # of a fitted field


def evaluate(policy: str, folder: Path, result: QuickstartResult) -> dict[str, Accuracy]:
    """Measure greedy and sampled accuracy on the held-out rows.

    Args:
        policy: folder or hub id.
        folder: where responses are kept.
    """
    scores, load = {}, cache(partial(load_start, policy, result.recipe))  # once for both modes, if at all
    for mode in ("greedy", "sampled"):
        draw = partial(_respond, load, result, sampled=mode == "sampled")
        responses = kept_responses(folder / f"responses_{mode}.json", draw, result.recipe.resumes)
        scores[mode] = Accuracy.of(responses)
    return scores


def _respond(
    load: Callable[[], LoadedPolicy], result: QuickstartResult, sampled: bool, measured: bool = False
) -> list[Response]:
    """Draw responses to the held-out rows, or to those whose deviation is measured."""
    recipe = result.recipe
    return respond(
        *load(),
        result.measured if measured else result.rows,
        accuracy,
        sampled=sampled,
        seed=result.seed,
        batch_size=recipe.eval_batch,
        max_new_tokens=recipe.max_new_tokens,
        progress="" if recipe.policy == "tiny" else f"{'sampled' if sampled else 'greedy'} responses",
    )


def fit(out: Path, result: QuickstartResult) -> tuple[VelocityField, FlowSpec]:
    """Fit the flow field, or load the one that a former call finished.

    A call that was stopped goes on from the last checkpoint.
    """
    recipe, start = result.recipe, result.start
    if recipe.resumes and (out / HELD_OUT_FILE).exists():
        result.held_out = json.loads((out / HELD_OUT_FILE).read_text(encoding="utf-8"))
        field, spec = load_field(out)
        return field.to(recipe.device), spec
    policy, processor = load_start(start.name, recipe)
    args = FlowFitConfig(**recipe.fit_arguments(str(out), result.seed))
    spec = spec_for(policy, args, Path(start.name).name, f"{start.task} (train)")
    dataset = load_rows(start.task, limit=recipe.fit_rows, seed=recipe.warm_start.seed + 1)
    callbacks = [MetricsFile(str(out)), ProgressLine("fit flow")]
    trainer = FlowFitTrainer(policy, args, dataset, processing_class=processor, spec=spec, callbacks=callbacks)
    use_own_progress(trainer)
    checkpoint = newest_complete(out) if recipe.resumes else None
    if checkpoint is not None and is_last(checkpoint, recipe.fit_steps):
        trainer.remove_callback(ProgressLine)  # of training
        trainer.model.load_state_dict(load_field(checkpoint)[0].state_dict())
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    result.held_out = trainer.evaluate()
    trainer.save_model(str(out))
    write_resolved(out, args)
    write_json(out / HELD_OUT_FILE, result.held_out)
    print(f"flow: held-out loss {result.held_out['eval_ratio']:.3f} of the zero predictor's")
    return trainer.model, spec


def measure_deviations(folder: Path, flow: tuple[VelocityField, FlowSpec], result: QuickstartResult) -> None:
    """Sample several responses to each of the first held-out prompts, and measure their deviations."""
    recipe, seed = result.recipe, result.seed
    load = cache(partial(load_start, result.start.name, recipe))
    result.measured = [row for row in result.rows[: recipe.signal_prompts] for _ in range(recipe.signal_samples)]
    result.responses = kept_responses(
        folder / "responses_measured.json",
        partial(_respond, load, result, sampled=True, measured=True),
        recipe.resumes,
    )
    prompts = [row["row_number"] for row in result.measured]
    result.deviations = response_deviations(
        *load(),
        result.measured,
        result.responses,
        *flow,
        noise=noise_plan(FlowOptions()),
        groups=prompts,
        seed=seed,
    )
    result.auc = correctness_auc(result.deviations, result.responses, prompts)


def train(run: SweepRun, result: QuickstartResult, time_left: TimeLeft) -> None:
    """Train from the start policy and save the result in the folder of the run.

    A finished run is not trained again, and one that was stopped goes on from its last checkpoint.
    """
    recipe, start = result.recipe, result.start
    out, method, seed = run.folder, run.cell.method, run.seed
    if recipe.resumes and is_finished(out):
        return
    policy, processor = load_start(start.name, recipe)
    args = RLFRConfig(**recipe.rl_arguments(str(out), method, seed))
    rewards = recipe.reward_options(method)
    # RL updates the field, so each run loads the fitted one again.
    flow = load_field(result.sweep.out / "flow") if args.uses_flow else None
    callbacks = [MetricsFile(str(out)), AlertsFile(str(out)), ProgressLine(f"{method}, seed {seed}")]
    trainer = RLFRTrainer(
        policy,
        args=args,
        flow=flow,
        reward_funcs=build_rewards(reward_names(rewards, method), rewards, recipe.max_new_tokens),
        train_dataset=load_rows(start.task, limit=recipe.rl_rows, seed=seed),
        processing_class=processor,
        callbacks=[*callbacks, time_left] if recipe.resumes else callbacks,
    )
    use_own_progress(trainer)
    checkpoint = newest_complete(out) if recipe.resumes else None
    write_resolved(out, HeldOutOptions(), rewards, args)
    data = {"name": start.task, "split": "train", "rows": recipe.rl_rows}
    write_run_record(
        out, program_arguments(), args, data, resumed=checkpoint is not None, policy=Path(start.name).name
    )
    if checkpoint is not None and is_last(checkpoint, recipe.rl_steps):
        trainer.load_weights(str(checkpoint))
        trainer.state.global_step = recipe.rl_steps  # for the model card
        if trainer.flow is not None:
            trainer.flow.load(checkpoint)
    else:
        trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(out))
    mark_finished(out, recipe.rl_steps)
    if recipe.resumes:
        for folder in checkpoints(out):
            remove(folder)
