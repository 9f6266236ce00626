"""The reward of a reward model: its score of the whole conversation, batches, images, and what cannot be used."""

import pytest
import torch
from PIL import Image

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RewardOptions, ScriptArguments
from rlfr_vlm.rewards import build_rewards
from tests.models.small_families import TEXTS, VISION, build_processor

PROMPTS = [[{"role": "user", "content": f"What is {number} + 1?"}] for number in range(3)]
COMPLETIONS = [[{"role": "assistant", "content": text}] for text in ("1", "It is two.", "")]


def save(folder, family, labels=1):
    """A tiny random reward model of a family."""
    from transformers import AutoModelForSequenceClassification

    from tests.models.small_families import build_policy

    processor = build_processor(family)
    config = build_policy(family, processor).config
    config.num_labels = labels
    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    for parameter in model.parameters():
        if not parameter.any():  # Gemma 3's projector of images begins at zero
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return processor, model


@pytest.fixture
def reward(tmp_path):
    def build(**changes):
        options = RewardOptions(rewards=["reward_model"], reward_model=str(tmp_path), **changes)
        return build_rewards(["reward_model"], options, 8)[0]

    return build


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_the_reward_is_the_models_output_at_the_end_of_each_conversation(tmp_path, reward, batch_size):
    tokenizer, model = save(tmp_path, TEXTS["Llama"])
    scores = reward(reward_model_batch_size=batch_size)(prompts=PROMPTS, completions=COMPLETIONS, answer=["1"] * 3)
    for prompt, completion, score in zip(PROMPTS, COMPLETIONS, scores, strict=True):
        text = tokenizer.apply_chat_template([*prompt, *completion], tokenize=False)
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            hidden = model.model(input_ids=ids).last_hidden_state[0, -1]
        assert score == pytest.approx((model.score.weight @ hidden).item(), abs=1e-5)
    assert len(set(scores)) == 3


def test_a_model_with_eyes_sees_the_images(tmp_path, reward):
    save(tmp_path, VISION["Gemma 3"])
    blocks = [{"type": "image"}, {"type": "text", "text": "What is it?"}]
    prompts = [[{"role": "user", "content": blocks}], *PROMPTS[:1]]
    images = [[Image.effect_noise((28, 28), 80).convert("RGB")], []]
    function = reward()
    scores = function(prompts=prompts, completions=COMPLETIONS[:2], images=images)
    black = function(prompts=prompts, completions=COMPLETIONS[:2], images=[[Image.new("RGB", (28, 28))], []])
    assert scores[0] != black[0] and scores[1] == pytest.approx(black[1], abs=1e-6)


def test_a_score_that_is_not_finite_is_undecided(tmp_path, reward):
    save(tmp_path, TEXTS["Llama"])
    function = reward()
    with torch.no_grad():
        function.model.score.weight.fill_(float("inf"))
    assert function(prompts=PROMPTS, completions=COMPLETIONS) == [None] * 3


def test_it_trains_a_policy(tmp_path, make_trainer, make_policy, digits):
    save(tmp_path, VISION["Gemma 3"])
    options = RewardOptions(reward_model=str(tmp_path))
    trainer = make_trainer(make_policy(), reward=build_rewards(["reward_model"], options, 8), max_steps=1)
    trainer.train()
    [log] = [log for log in trainer.state.log_history if "loss" in log]
    assert log["rewards/reward_model/std"] > 0 and log["grad_norm"] > 0


def test_models_that_cannot_be_used(tmp_path, reward, monkeypatch):
    with pytest.raises(UserError, match="needs the setting reward_model"):
        build_rewards(["reward_model"], RewardOptions(), 8)
    with pytest.raises(UserError, match="Cannot load the reward model"):
        reward()
    with pytest.raises(UserError, match="reward_model_dtype is 'int8'"):
        reward(reward_model_dtype="int8")
    with pytest.raises(UserError, match="reward_model_batch_size is 0"):
        ScriptArguments(reward_model_batch_size=0)
    save(tmp_path, TEXTS["Llama"], labels=2)
    with pytest.raises(UserError, match="has 2 outputs, and a reward is one number"):
        reward()
