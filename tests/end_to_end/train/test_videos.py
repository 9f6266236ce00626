"""Training on videos of digits that appear one after another: fit, two steps of RLFR, evaluation, measurement."""

import hashlib
import json
import math

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText

from rlfr_vlm.data.encode import append_responses, encode_prompts
from rlfr_vlm.data.load import load_rows
from rlfr_vlm.deviation import response_deviations
from rlfr_vlm.errors import UserError
from rlfr_vlm.evaluate import Response
from rlfr_vlm.models.vision import vision_token_ids
from rlfr_vlm.rewards.reference_probability import Spliced
from rlfr_vlm.trainer import rlfr_trainer
from rlfr_vlm.trainer.video_prompts import tokenize
from tests.models.small_families import VISION, build_policy, build_processor, prefer

EVERY_RUN = ("Qwen2-VL", "Qwen2.5-VL", "Qwen3-VL")
FAMILIES = (*EVERY_RUN, "Qwen3-VL-MoE", "Qwen3.5")


@pytest.fixture(
    params=[*EVERY_RUN, *(pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES if name not in EVERY_RUN)]
)
def family(request):
    return VISION[request.param]


def small_frames(family):
    """The family's processor, which enlarges frames to 28x28 pixels and not to 128 tokens."""
    processor = build_processor(family)
    processor.video_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 64 * 28 * 28}
    return processor


@pytest.fixture
def video_processor(family):
    return small_frames(family)


@pytest.fixture
def rows():
    return load_rows("digits_video", limit=8, columns=("prompt", "answer", "response"))


def recorded_passes(trainer):
    """Arguments and log-probs of the log-prob passes of a trainer."""
    passes, run = [], trainer._get_per_token_logps_and_entropies

    def recorded(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs):
        result = run(model, input_ids, attention_mask, logits_to_keep, *args, **kwargs)
        passes.append((input_ids, attention_mask, logits_to_keep, result[0].detach()))
        return result

    trainer._get_per_token_logps_and_entropies = recorded
    return passes


def row_by_row(policy, processor, rows, input_ids, attention_mask, num_response):
    """Log-probs of responses, one row at a time, with the tensors that the processor makes of the row alone."""
    logps = []
    for row, ids, mask in zip(rows, input_ids, attention_mask, strict=True):
        response = ids[-num_response:].tolist()
        batch = append_responses(encode_prompts(processor, [row]), [response], 0)
        assert batch.input_ids[0].tolist() == ids[len(ids) - batch.input_ids.shape[1] :].tolist()
        batch.attention_mask[0] = mask[len(ids) - batch.input_ids.shape[1] :]
        with torch.no_grad():
            logits = policy(**batch.model_inputs()).logits[0, -num_response - 1 : -1]
        logps.append(logits.log_softmax(dim=-1).gather(1, ids[-num_response:, None]).squeeze(1))
    return torch.stack(logps)


def test_a_rollout_of_videos_has_the_log_probs_of_each_row_alone(family, video_processor, make_trainer, rows):
    """Two rows a chunk: the frames of each row reach its own row, with its own positions."""
    policy = build_policy(family, video_processor)
    trainer = make_trainer(
        policy, processing_class=video_processor, dataset=rows, num_generations=2, per_device_train_batch_size=2,
        steps_per_generation=4, max_steps=1, pack_by_length=False, shuffle_dataset=False, learning_rate=0.0,
    )  # fmt: skip
    passes = recorded_passes(trainer)
    trainer.train()
    input_ids, attention_mask, num_response, logps = passes[0]  # of the old log-probs, in the order of the rows
    assert len(input_ids) == 8
    prompts = [rows[number] for number in (0, 0, 1, 1, 2, 2, 3, 3)]
    expected = row_by_row(policy, video_processor, prompts, input_ids, attention_mask, num_response)
    mask = attention_mask[:, -num_response:].bool()
    torch.testing.assert_close(logps[mask], expected[mask], atol=1e-4, rtol=1e-4)
    shuffled = row_by_row_of_other_videos(policy, video_processor, prompts, input_ids, attention_mask, num_response)
    assert (shuffled - expected)[mask].abs().max() > 1e-4  # the frames make a difference


def row_by_row_of_other_videos(policy, processor, rows, *arguments):
    """The same prompts with the frames of the next prompt."""
    others = []
    for row, other in zip(rows, rows[2:] + rows[:2], strict=True):
        [message] = row["prompt"]
        blocks = [
            block if block["type"] == "text" else other["prompt"][0]["content"][0] for block in message["content"]
        ]
        others.append({**row, "prompt": [{**message, "content": blocks}]})
    return row_by_row(policy, processor, others, *arguments)


def test_a_whole_run_on_videos(family, video_processor, make_trainer, rows, tmp_path):
    from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
    from rlfr_vlm.trainer.flow_fit_trainer import FlowFitTrainer

    policy = build_policy(family, video_processor)
    fit = FlowFitConfig(
        str(tmp_path / "fit"), max_steps=1, per_device_train_batch_size=4, use_cpu=True, report_to=[], flow_depth=1,
        logging_steps=1, disable_tqdm=True, save_strategy="no", eval_fraction=0.25, flow_image_context=True,
    )  # fmt: skip
    fitted = FlowFitTrainer(policy, fit, rows, processing_class=video_processor)
    fitted.train()
    assert math.isfinite(fitted.state.log_history[0]["loss"]) and fitted.spec.image_context

    policy = build_policy(family, video_processor)  # fitting froze the first one
    banned = vision_token_ids(policy, video_processor)
    prefer(policy, banned)
    trainer = make_trainer(
        policy, flow=(fitted.model, fitted.spec), processing_class=video_processor, dataset=rows, eval_dataset=rows,
        num_generations=2, per_device_train_batch_size=4, steps_per_generation=2, max_steps=2, pack_by_length=True,
    )  # fmt: skip
    passes = recorded_passes(trainer)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 2 and all(math.isfinite(log["loss"]) and math.isfinite(log["grad_norm"]) for log in logs)
    video_token = video_processor.video_token_id
    for input_ids, _, num_response, _ in passes:
        assert not set(input_ids[:, -num_response:].flatten().tolist()) & set(banned)
        assert ((input_ids == video_token).sum(dim=1) == 3).all()  # a token for a pair of frames of 28x28 pixels
    accuracy = trainer.evaluate()
    assert accuracy["eval_rows"] == 8 and 0 <= accuracy["eval_greedy"] <= 1
    logged = [json.loads(line) for line in (tmp_path / "run/rollouts/rank0.jsonl").read_text().splitlines()]
    assert all(len(group["thumbnails"]) == 3 for group in logged)  # first, middle and last frame
    assert "<video>" in logged[0]["prompt"][0]["content"]
    responses = [Response([200, 201, 202], "", 1.0)] * 2
    measured = response_deviations(
        policy, video_processor, [rows[0], rows[1]], responses, fitted.model.eval(), fitted.spec, with_measures=True
    )
    assert all(one.measures.visual_dependency is not None for one in measured)


@pytest.fixture
def mixed_rows(tmp_path):
    """A row with a video, one with an image, one with both, and one of text."""
    for number in range(4):
        pixels = hashlib.shake_128(bytes([number])).digest(28 * 28 * 3)
        Image.frombytes("RGB", (28, 28), pixels).save(tmp_path / f"{number}.png")
    frames = ["0.png", "1.png", "2.png", "3.png"]
    rows = [
        {"prompt": "which?", "videos": frames},
        {"prompt": "what?", "images": ["2.png"]},
        {"prompt": "<image>is it in <video>?", "images": ["1.png"], "videos": [frames[::-1]]},
        {"prompt": "why?"},
    ]
    lines = [json.dumps({**row, "answer": "7", "response": "7."}) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    return load_rows(str(tmp_path / "rows.jsonl"), columns=("prompt", "answer"))


@pytest.mark.parametrize("pack", [False, True])
def test_rows_with_videos_images_both_and_neither_mix(mixed_rows, make_trainer, pack):
    """Log-probs of the old pass, and of the pass of the loss after TRL shuffled (and packing sorted) the rows."""
    family = VISION["Qwen2.5-VL"]
    processor = small_frames(family)
    policy = build_policy(family, processor)
    trainer = make_trainer(
        policy, processing_class=processor, dataset=mixed_rows, num_generations=2, per_device_train_batch_size=4,
        steps_per_generation=2, max_steps=2, pack_by_length=pack, shuffle_dataset=False, learning_rate=0.0,
    )  # fmt: skip
    passes = recorded_passes(trainer)
    trainer.train()
    assert len(passes) == 3 and len(passes[0][0]) == 8
    known = {prompt_of(processor, row): row for row in mixed_rows}
    for input_ids, attention_mask, num_response, logps in passes:
        prompts = [
            known[tuple(ids[:-num_response][mask[:-num_response].bool()].tolist())]
            for ids, mask in zip(input_ids, attention_mask, strict=True)
        ]
        expected = row_by_row(policy, processor, prompts, input_ids, attention_mask, num_response)
        mask = attention_mask[:, -num_response:].bool()
        torch.testing.assert_close(logps[mask], expected[mask], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["Qwen2.5-VL", "Qwen3-VL"])
def test_groups_are_refilled_and_held_near_a_reference_model(mixed_rows, make_trainer, name, tmp_path):
    """Rollouts of videos are joined with rollouts of images and of text, whose tensors TRL makes; with beta another
    model runs the same rows, of which some micro-batches have no image."""
    family = VISION[name]
    processor = small_frames(family)
    build_policy(family, processor).save_pretrained(tmp_path / "policy")
    policy = AutoModelForImageTextToText.from_pretrained(tmp_path / "policy", dtype="float32")
    trainer = make_trainer(
        policy, processing_class=processor, dataset=mixed_rows, num_generations=2, per_device_train_batch_size=2,
        steps_per_generation=2, max_steps=4, pack_by_length=True, group_filter="mixed", refill_rounds=3, beta=0.1,
        reward=every_second_is_right,
    )  # fmt: skip
    passes = recorded_passes(trainer)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 4 and all(math.isfinite(log["loss"]) and math.isfinite(log["kl"]) for log in logs)
    assert max(log["groups/refill_rounds"] for log in logs if "groups/refill_rounds" in log) > 0
    known = {prompt_of(processor, row): row for row in mixed_rows}
    for input_ids, attention_mask, num_response, _ in passes:
        for ids, mask in zip(input_ids, attention_mask, strict=True):
            assert tuple(ids[:-num_response][mask[:-num_response].bool()].tolist()) in known


def every_second_is_right(completions, prompts, **kwargs):
    """Groups of rows with an image are all wrong, so that they are refilled; the others are half right."""
    has_image = ["image" in json.dumps(prompt, default=str) for prompt in prompts]
    return [float(index % 2 and not image) for index, image in enumerate(has_image)]


def test_a_policy_that_takes_no_videos_says_so(make_trainer, rows):
    family = VISION["LLaVA"]
    processor = build_processor(family)
    trainer = make_trainer(
        build_policy(family, processor), processing_class=processor, dataset=rows, num_generations=2,
        per_device_train_batch_size=4, steps_per_generation=1, max_steps=1,
    )  # fmt: skip
    with pytest.raises(UserError, match="The data has videos, and LLaVA take none here"):
        trainer.train()


def prompt_of(processor, row):
    return tuple(encode_prompts(processor, [row]).input_ids[0].tolist())


def test_reference_probabilities_and_visual_dependency_see_the_frames(mixed_rows, make_trainer):
    family = VISION["Qwen2.5-VL"]
    processor = small_frames(family)
    policy = build_policy(family, processor)
    trainer = make_trainer(
        policy, method="rlpr+visual", reward=None, processing_class=processor, dataset=mixed_rows, max_steps=1,
        num_generations=2, per_device_train_batch_size=8, steps_per_generation=1,
    )  # fmt: skip
    trainer.train()
    log = next(log for log in trainer.state.log_history if "loss" in log)
    assert math.isfinite(log["loss"]) and len(trainer.probabilities._baseline) >= 4
    assert any(name.startswith("visual") for name in log)


def test_reference_probabilities_of_text_do_not_take_the_videos_of_the_rollout(mixed_rows, make_trainer):
    """The pass of the reward may have other rows than the rollout around it."""
    family = VISION["Qwen2.5-VL"]
    processor = small_frames(family)
    trainer = make_trainer(
        build_policy(family, processor), method="rlpr", reward=None, processing_class=processor, dataset=mixed_rows,
        num_generations=2, per_device_train_batch_size=8, steps_per_generation=1, max_steps=1,
    )  # fmt: skip
    rows, texts = [mixed_rows[3]] * 2, [Spliced("7", 0, 1)] * 2
    alone = trainer.probabilities.current(rows, texts)
    trainer._media = tokenize([mixed_rows[0]["prompt"]] * 2, processor, {}).media
    assert trainer.probabilities.current(rows, texts) == alone


def test_vllm_and_sharded_weights_refuse_videos(mixed_rows, make_trainer, monkeypatch):
    family = VISION["Qwen2.5-VL"]
    processor = small_frames(family)
    trainer = make_trainer(
        build_policy(family, processor), processing_class=processor, dataset=mixed_rows, num_generations=2,
        per_device_train_batch_size=8, steps_per_generation=1, max_steps=1,
    )  # fmt: skip
    prompts = [mixed_rows[0]["prompt"]]
    monkeypatch.setattr(trainer, "use_vllm", True)
    with pytest.raises(UserError, match="frames that the engine did not see"):
        trainer._tokenize_prompts(prompts)
    monkeypatch.setattr(trainer, "use_vllm", False)
    monkeypatch.setattr(rlfr_trainer, "is_sharded", lambda _: True)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", 2)
    with pytest.raises(UserError, match="sharded"):
        trainer._tokenize_prompts(prompts)
