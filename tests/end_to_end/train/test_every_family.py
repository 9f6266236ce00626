"""Whole runs of every family with a tiny random policy: fit, train, evaluate, export, inspect, preview and plan."""

import json
import math

import pytest
import torch
from PIL import Image

from rlfr_vlm.cli import main
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.deviation import response_deviations
from rlfr_vlm.evaluate import Response
from rlfr_vlm.export import export
from rlfr_vlm.models.towers import find_language_tower
from rlfr_vlm.models.vision import vision_token_ids
from rlfr_vlm.plan import MemorySettings, estimate_memory
from tests.models.small_families import EVERY_RUN, TEXTS, VISION, build_policy, build_processor, prefer

SIZES = [[(100, 75)], [], [(56, 28), (64, 64)], [(40, 90)], [], [(64, 64)], [(28, 56)], []]


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in VISION | TEXTS if name not in EVERY_RUN]


@pytest.fixture(params=[*EVERY_RUN, *SLOW])
def family(request):
    return (VISION | TEXTS)[request.param]


def write_rows(folder, with_images):
    """Eight rows: four of them have one image, one has two, three have none."""
    folder.mkdir()
    rows = []
    for number, sizes in enumerate(SIZES):
        names = []
        for size in sizes if with_images else []:
            names.append(f"{number}-{len(names)}.png")
            Image.effect_noise(size, 90).convert("RGB").save(folder / names[-1])
        question = f"What is {number} + {number}?" + " Think." * number
        rows.append(
            {"prompt": question, "answer": str(2 * number), "response": f"It is {2 * number}.", "images": names}
        )
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder / "rows.jsonl"


def test_a_whole_run(family, make_trainer, tmp_path, capsys):
    from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
    from rlfr_vlm.trainer.flow_fit_trainer import FlowFitTrainer

    processor = build_processor(family)
    policy = build_policy(family, processor)
    path = write_rows(tmp_path / "data", bool(family.processor))
    rows = load_rows(str(path), columns=("prompt", "answer", "response"))

    fit = FlowFitConfig(
        str(tmp_path / "fit"), max_steps=1, per_device_train_batch_size=4, use_cpu=True, report_to=[], flow_depth=1,
        logging_steps=1, disable_tqdm=True, save_strategy="no", eval_fraction=0.25,
    )  # fmt: skip
    fitted = FlowFitTrainer(policy, fit, rows, processing_class=processor)
    fitted.train()
    assert math.isfinite(fitted.state.log_history[0]["loss"])
    flow = fitted.model, fitted.spec

    policy = build_policy(family, processor)  # fitting froze the first one
    banned = vision_token_ids(policy, processor)
    if banned:
        prefer(policy, banned)
    two = {"max_steps": 2, "eval_strategy": "no", "per_device_eval_batch_size": 3}
    trainer = make_trainer(policy, flow=flow, processing_class=processor, dataset=rows, eval_dataset=rows, **two,
                           num_generations=2, per_device_train_batch_size=4, steps_per_generation=2,
                           pack_by_length=True)  # fmt: skip
    rollouts = recorded_rollouts(trainer)
    trainer.train()
    assert trainer.computes_old_logps and len(rollouts) == 1  # one rollout of eight responses for two updates
    check_rollout(rollouts[0], rows, processor, banned)
    assert all(math.isfinite(log["loss"]) and math.isfinite(log["grad_norm"]) for log in losses(trainer))
    assert max(log["grad_norm"] for log in losses(trainer)) > 0
    accuracy = trainer.evaluate()
    assert accuracy["eval_rows"] == 8 and 0 <= accuracy["eval_greedy"] <= 1
    assert accuracy["eval_greedy_undecided"] == 0

    one = make_trainer(
        policy, flow=flow, processing_class=processor, dataset=rows, max_steps=1, num_generations=2,
        per_device_train_batch_size=4, steps_per_generation=2, gradient_accumulation_steps=2,
    )  # fmt: skip
    rollouts = recorded_rollouts(one)
    one.train()
    assert not one.computes_old_logps  # the latents come from a shortened pass of their own
    check_rollout(rollouts[0], rows, processor, banned)
    assert math.isfinite(losses(one)[0]["loss"])

    rlpr = make_trainer(
        policy, method="rlpr", reward=None, processing_class=processor, dataset=rows, max_steps=1, num_generations=2,
        per_device_train_batch_size=8, steps_per_generation=1,
    )  # fmt: skip
    rlpr.train()
    assert math.isfinite(losses(rlpr)[0]["loss"])
    references = rlpr.probabilities._baseline.values()  # of the initial policy, in rows with and without images
    assert len(references) == 8 and all(0 < probability < 0.5 for probability in references)

    one.save_model(str(tmp_path / "saved"))
    processor.save_pretrained(tmp_path / "saved")
    export(tmp_path / "saved", tmp_path / "exported", "# card")
    check_exported(tmp_path / "exported", policy, processor, rows, banned)
    check_deviations(policy, processor, rows, flow)
    check_preview(tmp_path / "exported", path, processor, rows, capsys)
    check_plan(policy, flow[1])


def check_exported(folder, policy, processor, rows, banned):
    """The reloaded policy and processor give the logits of the trained ones, vision tokens aside."""
    from rlfr_vlm.data.encode import encode_prompts
    from rlfr_vlm.options import RunOptions
    from rlfr_vlm.policy import load_policy

    reloaded, reloaded_processor = load_policy(RunOptions(model_name_or_path=str(folder), dtype="float32"))
    four = [rows[number] for number in range(4)]
    batch, again = encode_prompts(processor, four), encode_prompts(reloaded_processor, four)
    assert batch.extra.keys() == again.extra.keys()
    for key, value in batch.model_inputs().items():
        assert torch.equal(value, again.model_inputs()[key]), key
    tower = find_language_tower(policy).module  # without the direction that prefers vision tokens
    tower._forward_hooks.clear()
    with torch.no_grad():
        logits = policy.eval()(**batch.model_inputs()).logits
        found = reloaded.eval()(**again.model_inputs()).logits
    others = [index for index in range(logits.shape[-1]) if index not in banned]
    torch.testing.assert_close(found[..., others], logits[..., others])


def check_deviations(policy, processor, rows, flow):
    """The measurement of `rlfr inspect`, by the shortened pass and by the full one that also gives entropies."""
    four = [rows[number] for number in range(4)]
    responses = [Response([200, 201, 202 + number], "", 1.0) for number in range(4)]
    field, spec = flow
    options = {"field": field.eval(), "spec": spec, "batch_size": 4}
    short = response_deviations(policy, processor, four, responses, **options)
    full = response_deviations(policy, processor, four, responses, **options, with_measures=True)
    for a, b in zip(short, full, strict=True):
        assert a.deviations.shape[-1] == 3 and a.mask.any() and a.mean > 0
        torch.testing.assert_close(a.deviations, b.deviations)
        assert b.entropies.min() > 0 and b.measures.norms.min() > 0


def check_preview(folder, path, processor, rows, capsys):
    """`rlfr preview` shows each prompt with its number of tokens."""
    from rlfr_vlm.data.encode import encode_prompts

    capsys.readouterr()
    assert main(["preview", "--model_name_or_path", str(folder), "--dataset_name", str(path), "--rows", "3"]) == 0
    shown = capsys.readouterr().out
    for number in range(3):
        tokens = int(encode_prompts(processor, [rows[number]]).attention_mask.sum())
        assert f"row {number}: {tokens} tokens" in shown, shown


def check_plan(policy, spec):
    """`rlfr plan` runs two blocks on the meta device."""
    estimate = estimate_memory(policy, MemorySettings(flow=spec, rows=2, positions=64, response=16))
    assert estimate.weights == 4 * sum(parameter.numel() for parameter in policy.parameters())
    assert estimate.activations > 0 and estimate.lm_head > 0


def losses(trainer):
    return [log for log in trainer.state.log_history if "loss" in log]


def recorded_rollouts(trainer):
    """Batches that the rollouts of a trainer return, as they are made."""
    batches, original = [], trainer.roll_out

    def roll_out(*args, **kwargs):
        batches.append(original(*args, **kwargs))
        return batches[-1]

    trainer.roll_out = roll_out
    return batches


def check_rollout(batch, rows, processor, banned):
    """The prompts are those that fitting and evaluation would encode, and no vision token was sampled."""
    from rlfr_vlm.data.encode import encode_prompts

    encoded = encode_prompts(processor, [rows[number] for number in range(len(rows))])
    known = {
        tuple(ids[mask.bool()].tolist()) for ids, mask in zip(encoded.input_ids, encoded.attention_mask, strict=True)
    }
    found = {
        tuple(ids[mask.bool()].tolist()) for ids, mask in zip(batch["prompt_ids"], batch["prompt_mask"], strict=True)
    }
    assert len(found) == 4 and found <= known
    sampled = batch["completion_ids"][batch["completion_mask"].bool()]
    assert len(sampled) and not torch.isin(sampled, torch.tensor(banned)).any()
