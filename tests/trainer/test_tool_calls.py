"""Rollouts with tools: what the policy did not write gets no reward and teaches no field; images stay with rows."""

import json
import math

import pytest
import torch
from PIL import Image

from rlfr_vlm.errors import UserError
from rlfr_vlm.rewards import accuracy
from rlfr_vlm.tools import calculator
from rlfr_vlm.tools.zoom import Zoom
from rlfr_vlm.trainer import tool_calls
from rlfr_vlm.trainer.trl_seams import tool_parts

CALL = '<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call><|im_end|>'
IMAGE = 7  # token id of image positions in hand-made rollouts


def script(trainer, tokenizer, turns):
    """Let the policy write given texts: one list for each turn, one text for each response that is generated."""
    asked = []

    def generate(prompt_ids, images, multimodal_fields, *args, **kwargs):
        asked.append([tokenizer.decode(ids) for ids in prompt_ids])
        texts = turns[len(asked) - 1]
        texts = texts * len(prompt_ids) if len(texts) == 1 else texts
        return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts], None

    trainer._generate_single_turn = generate
    return asked


@pytest.fixture
def long_policy(make_policy):
    """A tiny policy with room for descriptions of tools."""
    policy = make_policy()
    policy.config.text_config.max_position_embeddings = 8192
    return policy


@pytest.fixture
def tool_processor(processor):
    import copy

    return copy.deepcopy(processor)  # the template is changed


def build(make_trainer, policy, processor, **changes):
    changes = {"max_completion_length": 400, "steps_per_generation": 1, "per_device_train_batch_size": 8} | changes
    trainer = make_trainer(policy, processing_class=processor, **changes)
    trainer.current_gradient_accumulation_steps = 1  # TRL sets it in the training loop
    return trainer


def call(name, **arguments):
    return CALL.format(name=name, arguments=json.dumps(arguments))


def rollout(trainer):
    rows = [trainer.train_dataset[number // 4] for number in range(8)]
    trainer.model.train()
    return trainer._generate_and_score_completions(rows)


def test_the_result_of_a_tool_is_masked_and_the_last_message_is_graded(
    make_trainer, long_policy, tool_processor, trainer_kwargs
):
    tokenizer = tool_processor.tokenizer
    seen = []

    def reward(completions, **kwargs):
        seen.extend(completions)
        return [float("36" in completion[-1]["content"]) for completion in completions]

    trainer_kwargs["tools"] = [calculator]
    trainer = build(make_trainer, long_policy, tool_processor, flow="new", reward=reward)
    answers = [r"\boxed{36}<|im_end|>"] * 4 + [r"\boxed{1}<|im_end|>"] * 4
    asked = script(trainer, tokenizer, [[call("calculator", expression="4 * 9")], answers])
    batch = rollout(trainer)

    assert [message["role"] for message in seen[0]] == ["assistant", "tool", "assistant"]
    assert seen[0][1]["content"] == "36" and "<tool_response>\n36" in asked[1][0]
    assert "calculator" in asked[0][0]  # the prompt describes the tool
    mask = batch["tool_mask"][0].bool()
    ids = batch["completion_ids"][0]
    assert tokenizer.decode(ids[~mask & batch["completion_mask"][0].bool()]).strip().endswith("<|im_start|>assistant")
    assert batch["advantages"].dim() == 2  # flow rewards are per token


def test_tokens_of_results_have_no_flow_reward_and_are_no_targets(
    make_trainer, long_policy, tool_processor, trainer_kwargs, monkeypatch
):
    trainer_kwargs["tools"] = [calculator]
    trainer = build(make_trainer, long_policy, tool_processor, flow="new")
    script(
        trainer,
        tool_processor.tokenizer,
        [[call("calculator", expression="1 + 1")], ["yes<|im_end|>", "no<|im_end|>"] * 4],
    )
    measured = {}
    of_rollout = trainer.flow_reward.of_rollout

    def keep(deviations, scored, *args, **kwargs):
        measured["scored"] = scored
        measured["result"] = of_rollout(deviations, scored, *args, **kwargs)
        return measured["result"]

    monkeypatch.setattr(trainer.flow_reward, "of_rollout", keep)
    batch = rollout(trainer)
    results = (batch["tool_mask"] == 0) & batch["completion_mask"].bool()
    assert results.sum(dim=1).min() > 20
    assert not measured["scored"][results].any()
    assert measured["scored"][batch["tool_mask"].bool() & batch["completion_mask"].bool()].float().mean() > 0.9
    assert not measured["result"].token_rewards[results].any()

    weights = []
    monkeypatch.setattr(trainer.flow, "accumulate", lambda latents, mask, weight, right: weights.append(weight))
    batch["flow_weight"] = torch.ones(8)
    trainer._compute_loss(trainer.model, batch)
    assert (
        not weights[0][results].any() and weights[0][batch["tool_mask"].bool() & batch["completion_mask"].bool()].all()
    )


def test_losses_are_finite_and_results_have_no_gradient(make_trainer, long_policy, tool_processor, trainer_kwargs):
    """The zoomed image's tokens are banned in the log-probs; their loss must not be NaN times zero."""
    trainer_kwargs["environment_factory"] = Zoom
    trainer = build(make_trainer, long_policy, tool_processor, reward=accuracy)
    zoom = call("zoom", left=0, top=0, right=0.5, bottom=1)
    script(trainer, tool_processor.tokenizer, [[zoom], ["yes<|im_end|>", "no<|im_end|>"] * 4])
    batch = rollout(trainer)
    token = tool_processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert (batch["prompt_ids"] == token).sum(dim=1).tolist() == [2] * 8
    assert (batch["completion_ids"] == token).sum(dim=1).tolist() == [2] * 8  # the crop has the image's size
    assert list(batch["num_images"]) == [2] * 8 and len(batch["image_grid_thw"]) == 16
    batch["advantages"] = torch.linspace(-1, 1, 8)
    loss = trainer._compute_loss(trainer.model, batch)
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in trainer.model.parameters() if p.grad is not None)
    changed = dict(batch, advantages=batch["advantages"].unsqueeze(1) * batch["tool_mask"])
    torch.testing.assert_close(trainer._compute_loss(trainer.model, changed), loss)


def test_results_have_no_entropy_bonus_and_no_visual_dependency(
    make_trainer, long_policy, tool_processor, trainer_kwargs, monkeypatch
):
    trainer_kwargs["environment_factory"] = Zoom
    trainer = build(make_trainer, long_policy, tool_processor, method="entropy+visual")
    zoom = call("zoom", left=0, top=0, right=1, bottom=1)
    script(trainer, tool_processor.tokenizer, [[zoom], ["yes<|im_end|>", "no<|im_end|>"] * 4])
    seen = {}
    of_rollout = trainer.visual.of_rollout

    def keep(dependency, mask, *args, **kwargs):
        seen["dependency"], seen["mask"] = dependency, mask
        return of_rollout(dependency, mask, *args, **kwargs)

    monkeypatch.setattr(type(trainer.visual), "of_rollout", staticmethod(keep))
    batch = rollout(trainer)
    results = (batch["tool_mask"] == 0) & batch["completion_mask"].bool()
    assert results.any() and not seen["mask"][results].any() and not seen["dependency"][results].any()
    assert seen["dependency"][seen["mask"].bool()].any()

    trainer.bonus = lambda advantages, entropies: seen.setdefault("entropies", entropies) * 0 + advantages
    trainer._compute_loss(trainer.model, batch)
    assert not seen["entropies"][results].any() and seen["entropies"][seen["mask"].bool()].min() > 0


@pytest.mark.parametrize("kind", ["calculator", "zoom"])
def test_two_updates_with_the_policy_s_own_tokens_after_a_call(
    make_trainer, long_policy, tool_processor, trainer_kwargs, kind
):
    if kind == "zoom":
        trainer_kwargs["environment_factory"], text = Zoom, call("zoom", left=0, top=0, right=1, bottom=1)
    else:
        trainer_kwargs["tools"], text = [calculator], call("calculator", expression="3 * 3")
    trainer = build(make_trainer, long_policy, tool_processor, flow="new", max_steps=2)
    tokenizer, own = tool_processor.tokenizer, trainer._generate_single_turn
    turns = []

    def first_turn_is_given(prompt_ids, images, fields, *args, **kwargs):
        turns.append(len(prompt_ids))
        if len(turns) % 2:
            return [tokenizer(text, add_special_tokens=False)["input_ids"] for _ in prompt_ids], None
        ids, logps = own(prompt_ids, images, fields, *args, **kwargs)
        return [row[:8] for row in ids], logps

    trainer._generate_single_turn = first_turn_is_given
    trainer.train()
    losses = [step["loss"] for step in trainer.state.log_history if "loss" in step]
    logged = [step for step in trainer.state.log_history if "tools/call_frequency" in step]
    assert len(losses) == 2 and all(math.isfinite(loss) for loss in losses)
    assert logged[0]["tools/call_frequency"] >= 1 and logged[0]["tools/cut_at_images"] == 0


class Guess:
    """An environment that scores its responses: whether the number of the row was guessed."""

    def reset(self, answer, **row):
        self.answer, self.guessed = answer, None

    def guess(self, number: str) -> str:
        """Guess the number.

        Args:
            number: The number.
        """
        self.guessed = number
        return "noted"

    def get_reward(self) -> float:
        return float(self.guessed == self.answer)


def test_the_reward_of_an_environment_is_the_outcome(make_trainer, long_policy, tool_processor, trainer_kwargs):
    trainer_kwargs["environment_factory"] = Guess
    trainer = build(make_trainer, long_policy, tool_processor, reward=[])
    golds = [trainer.train_dataset[number]["answer"] for number in (0, 1)]
    calls = [call("guess", number=gold) for gold in [golds[0], "x", "y", golds[0]] + [golds[1]] * 4]
    script(trainer, tool_processor.tokenizer, [calls, ["done<|im_end|>"]])
    batch = rollout(trainer)
    assert trainer.reward_func_names == ["Guess"]
    assert trainer._outcome.tolist() == [1, 0, 0, 1, 1, 1, 1, 1]
    assert (batch["advantages"][:4] > 0).tolist() == [True, False, False, True] and not batch["advantages"][4:].any()
    unset = type(trainer)(
        long_policy,
        args=trainer.args,
        train_dataset=trainer.train_dataset,
        processing_class=tool_processor,
        environment_factory=Guess,
    )
    assert unset.reward_func_names == ["Guess"]


def test_held_out_rows_may_call_tools(make_trainer, long_policy, tool_processor, trainer_kwargs, digits):
    trainer_kwargs["tools"] = [calculator]
    golds = [row["answer"] for row in digits.select(range(4))]
    trainer = build(
        make_trainer, long_policy, tool_processor, reward=accuracy, eval_dataset=digits.select(range(4)),
        per_device_eval_batch_size=4,
    )  # fmt: skip
    answers = [rf"\boxed{{{gold}}}<|im_end|>" for gold in golds[:3]] + [r"\boxed{-999}<|im_end|>"]
    script(trainer, tool_processor.tokenizer, [[call("calculator", expression="2")], answers] * 2)
    metrics = trainer.evaluate()
    assert metrics["eval_greedy"] == metrics["eval_sampled"] == 0.75


# --- images that a response does not hold whole ----------------------------------------------------------------------


def generated(completion_ids, tool_images, images=None, logprobs=None):
    masks = [[1] * len(ids) for ids in completion_ids]
    return ([[1]] * len(completion_ids), completion_ids, masks, ["text"], logprobs, {}, images, tool_images)


def test_a_response_that_holds_its_images_whole_is_left_alone():
    rollout = generated([[5, IMAGE, IMAGE, 6]], [["crop"]])
    assert tool_calls.whole_images(rollout, IMAGE, lambda image: 2) == (rollout, 0)
    assert tool_calls.whole_images(rollout, None, lambda image: 99) == (rollout, 0)


def test_a_cut_image_is_dropped_with_what_follows_and_other_rows_keep_theirs():
    rollout = generated(
        [[5, IMAGE, IMAGE, 6, IMAGE], [5, IMAGE, IMAGE, 6]],
        [["first", "second"], ["third"]],
        images=[["prompt", "first", "second"], ["third"]],
        logprobs=[[0.1, 0.2, 0.3, 0.4, 0.5], [0.1] * 4],
    )
    result, cut = tool_calls.whole_images(rollout, IMAGE, lambda image: 2)
    parts = tool_parts(result)
    assert cut == 1
    assert parts.completion_ids == [[5, IMAGE, IMAGE, 6], [5, IMAGE, IMAGE, 6]]
    assert [len(mask) for mask in parts.tool_mask] == [4, 4] and parts.logprobs[0] == [0.1, 0.2, 0.3, 0.4]
    assert parts.tool_images == [["first"], ["third"]] and parts.images == [["prompt", "first"], ["third"]]


def test_tokens_beyond_the_images_are_cut():
    result, cut = tool_calls.whole_images(generated([[5, IMAGE, IMAGE, IMAGE, 6]], [["crop"]]), IMAGE, lambda image: 2)
    assert cut == 1 and tool_parts(result).completion_ids == [[5, IMAGE, IMAGE]]
    assert tool_parts(result).tool_images == [["crop"]]


def test_a_batch_keeps_its_images_when_one_conversation_is_cut(
    make_trainer, long_policy, tool_processor, trainer_kwargs, monkeypatch
):
    """TRL 1.16.0 leaves out all images of the batch; if this fails without `whole_images`, remove that function."""
    trainer_kwargs["environment_factory"] = Zoom
    trainer = build(make_trainer, long_policy, tool_processor)
    zoom = call("zoom", left=0, top=0, right=1, bottom=1)
    loop = type(trainer)._tool_call_loop

    def cut_the_first(self, *args, **kwargs):
        mask, completions, ids, *rest = loop(self, *args, **kwargs)
        token = tool_processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        place = ids[0].index(token) + 1
        return [mask[0][:place], *mask[1:]], completions, [ids[0][:place], *ids[1:]], *rest

    monkeypatch.setattr(type(trainer), "_tool_call_loop", cut_the_first)
    turns = [[zoom], ["yes<|im_end|>", "no<|im_end|>"] * 4]
    script(trainer, tool_processor.tokenizer, turns)
    batch = rollout(trainer)
    assert list(batch["num_images"]) == [1] + [2] * 7 and len(batch["image_grid_thw"]) == 15
    monkeypatch.setattr("rlfr_vlm.trainer.rlfr_trainer.whole_images", lambda generated, *_: (generated, 0))
    script(trainer, tool_processor.tokenizer, turns)
    assert "pixel_values" not in rollout(trainer)


# --- templates and refusals ------------------------------------------------------------------------------------------


def test_a_template_without_tools_is_replaced_where_the_format_is_qwen_s(tool_processor):
    from trl.chat_template_utils import qwen3_vl_chat_template, supports_tool_calling

    assert tool_calls.prepare_template(tool_processor)
    assert tool_processor.chat_template == qwen3_vl_chat_template and supports_tool_calling(tool_processor)
    assert not tool_calls.prepare_template(tool_processor)
    tool_processor.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(UserError, match="cannot show tool calls"):
        tool_calls.prepare_template(tool_processor)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ban_vision_tokens": False}, "ban_vision_tokens is false"),
        ({"method": "rlpr", "reward": None}, "reference_probability puts the gold answer"),
        ({"refill_rounds": 2, "group_filter": "mixed"}, "refill_rounds is 2; groups with an environment"),
    ],
)
def test_settings_that_do_not_go_with_tools(
    make_trainer, long_policy, tool_processor, trainer_kwargs, changes, message
):
    trainer_kwargs["environment_factory"] = Zoom
    with pytest.raises(UserError, match=message):
        build(make_trainer, long_policy, tool_processor, **changes)


def test_a_policy_of_text_cannot_zoom(make_trainer, make_text_policy, text_tokenizer, text_digits, trainer_kwargs):
    trainer_kwargs["environment_factory"] = Zoom
    with pytest.raises(UserError, match="The environment zoom shows images"):
        make_trainer(make_text_policy(), processing_class=text_tokenizer, dataset=text_digits)


def test_a_rollout_function_says_what_the_policy_did_not_write(make_trainer, make_policy, processor, trainer_kwargs):
    tokenizer = processor.tokenizer

    def generate(prompts, trainer):
        asked = processor.apply_chat_template(prompts, tokenize=True, add_generation_prompt=True, return_dict=True)
        response = tokenizer("12 34", add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        masks = [[1, 0] + [1] * (len(response) - 2) for _ in prompts]
        return {
            "prompt_ids": asked["input_ids"],
            "completion_ids": [response] * len(prompts),
            "logprobs": None,
            "env_mask": masks,
        }

    trainer_kwargs["rollout_func"] = generate
    trainer = build(make_trainer, make_policy(), processor, flow="new")
    batch = rollout(trainer)
    assert batch["tool_mask"][:, 1].tolist() == [0] * 8 and batch["tool_mask"][:, [0, 2]].all()
    assert list(batch["num_images"]) == [1] * 8
    loss = trainer._compute_loss(trainer.model, batch)
    assert loss.isfinite()


def test_zoom_shows_the_part_that_was_asked_for():
    image = Image.new("RGB", (8, 8), "white")
    image.paste("black", (4, 0, 8, 4))
    environment = Zoom()
    environment.reset(images=[image], answer="7")
    [block] = environment.zoom(0.5, 0, 1, 0.5)
    assert block["image"].size == (8, 8) and block["image"].getcolors() == [(64, (0, 0, 0))]
    for box in ((0.5, 0, 0.5, 1), (0, 0, 1.2, 1), (0, float("nan"), 1, 1), (0, 0, 0.2, 1)):
        with pytest.raises(ValueError, match="part"):
            environment.zoom(*box)
    environment.reset()
    with pytest.raises(ValueError, match="no image"):
        environment.zoom(0, 0, 1, 1)
