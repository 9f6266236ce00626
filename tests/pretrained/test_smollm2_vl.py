"""SmolLM2 behind a vision tower: text logits, vision tokens, reading, and a warm start that goes on after a stop."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rlfr_vlm.cli import main
from rlfr_vlm.data.digits import label_of, pair_image, scan_indices
from rlfr_vlm.pretrained import eyes, smollm2_vl
from rlfr_vlm.pretrained.eyes import EyesRecipe, cached_smollm2_vl
from rlfr_vlm.quickstart.small_policy import build_tokenizer

RECIPE = EyesRecipe(reading_steps=2, reading_batch=4, answering_steps=2, answering_batch=2, rows=8, save_steps=1)


@pytest.fixture(scope="module")
def llama(tmp_path_factory) -> Path:
    """A Llama of SmolLM2's form: grouped heads of width 64, tied embedding, and Qwen's chat tokens."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = build_tokenizer(["What is 3 + 14? 3 + 14 = 17. sum? product? difference?"] * 10, 300)
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=3,
        num_key_value_heads=1,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.convert_tokens_to_ids("<|im_start|>"),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch, llama):
    monkeypatch.setenv("RLFR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("rlfr_vlm.pretrained.smollm2.cached_smollm2", lambda run_folder=None: (llama, True))
    return tmp_path / "cache"


def test_logits_of_text_are_those_of_the_language_model(llama):
    from transformers import LlamaForCausalLM

    language = LlamaForCausalLM.from_pretrained(llama)
    processor, policy = smollm2_vl.with_vision_tower(llama)
    ids = processor.tokenizer("What is 3 + 14?", return_tensors="pt").input_ids
    with torch.no_grad():
        expected, found = language(ids).logits, policy(input_ids=ids).logits
    torch.testing.assert_close(found[..., : expected.shape[-1]], expected, atol=1e-5, rtol=0)


def test_the_embedding_is_tied_and_new_tokens_have_the_mean_embedding(llama):
    processor, policy = smollm2_vl.with_vision_tower(llama)
    embedding = policy.get_input_embeddings().weight
    assert policy.lm_head.weight.data_ptr() == embedding.data_ptr()
    assert len(processor.tokenizer) == len(embedding)
    assert processor.tokenizer.eos_token == "<|im_end|>"
    biases = [p for name, p in policy.model.language_model.named_parameters() if name.endswith("_proj.bias")]
    assert len(biases) == 6 and not any(bias.any() for bias in biases)


def test_weights_without_a_place_are_no_silent_loss(llama):
    from transformers import LlamaForCausalLM

    language = LlamaForCausalLM.from_pretrained(llama)
    _, policy = smollm2_vl.with_vision_tower(llama)
    policy.model.language_model.layers = policy.model.language_model.layers[:1]
    with pytest.raises(RuntimeError, match=r"layers\.1.* have no place"):
        smollm2_vl._copy_language(language, policy)


def test_reading_moves_image_tokens_to_the_embeddings_of_their_digits(llama):
    processor, policy = smollm2_vl.with_vision_tower(llama)
    language = {name: tensor.clone() for name, tensor in policy.model.language_model.state_dict().items()}
    before = _distance(processor, policy)
    eyes.learn_to_read(processor, policy, replace(RECIPE, reading_steps=12, reading_batch=8))
    assert _distance(processor, policy) < before / 10
    for name, tensor in policy.model.language_model.state_dict().items():
        assert torch.equal(tensor, language[name]), name


def _distance(processor, policy) -> float:
    """Mean squared distance of two held-out scans from the embeddings of their digits."""
    left, right = scan_indices("test")[:2].tolist()
    seen = eyes.image_tokens(processor, policy, [pair_image(left, right)])
    wanted = eyes.digit_embeddings(processor, policy)[[label_of(left), label_of(right)]]
    return (seen - wanted).pow(2).mean().item()


def test_a_scan_is_read_if_its_digit_is_the_nearest(llama, monkeypatch):
    processor, policy = smollm2_vl.with_vision_tower(llama)
    digits = eyes.digit_embeddings(processor, policy)
    labels = [label_of(scan) for scan in scan_indices("test")]
    shown = digits[labels + labels[:1]]  # 397 scans: the last image shows the first scan again
    monkeypatch.setattr(eyes, "image_tokens", lambda *_: shown)
    assert eyes.share_read(processor, policy, "test") == 1.0
    wrong = shown.clone()
    wrong[0] = digits[(labels[0] + 1) % 10]
    monkeypatch.setattr(eyes, "image_tokens", lambda *_: wrong)
    assert eyes.share_read(processor, policy, "test") == pytest.approx(397 / 398)


def test_the_policy_is_cached_and_answers_in_the_roles_of_the_task(cache):
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    folder, was_cached = cached_smollm2_vl(RECIPE)
    assert not was_cached and cached_smollm2_vl(RECIPE) == (folder, True)
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["answering_steps"] == 2 and 0 <= recipe["held_out_scans_read"] <= 1
    assert [path.name for path in cache.iterdir()] == [folder.name]  # its checkpoints are gone
    Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    rows = eyes.expert_dialogues(RECIPE)
    assert rows[0]["completion"][0]["role"] == "assistant" and "boxed" in rows[0]["completion"][0]["content"]
    text = processor.apply_chat_template(rows[0]["prompt"], tokenize=False, add_generation_prompt=True)
    assert text.count("<|image_pad|>") == 1


def test_answering_goes_on_from_the_last_checkpoint(cache, monkeypatch):
    from trl import SFTTrainer

    straight = _weights(cached_smollm2_vl(RECIPE)[0])
    (cache / f"smollm2-vl-{RECIPE.digest}").rename(cache / "straight")

    steps, training_step = [], SFTTrainer.training_step

    def interrupted_at_the_second(self, *args, **kwargs):
        steps.append(self.state.global_step)
        if steps == [0, 1]:
            raise KeyboardInterrupt
        return training_step(self, *args, **kwargs)

    monkeypatch.setattr(SFTTrainer, "training_step", interrupted_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        cached_smollm2_vl(RECIPE)
    with monkeypatch.context() as patch:
        patch.setattr(eyes.shutil, "rmtree", lambda *args, **kwargs: None)  # its checkpoints stay
        folder, _ = cached_smollm2_vl(RECIPE)
    resumed = _weights(folder)
    assert steps == [0, 1, 1]  # update 0 was not repeated
    folder.rename(folder.with_name("killed before it was renamed"))
    again = _weights(cached_smollm2_vl(RECIPE)[0])
    assert steps == [0, 1, 1] and all(torch.equal(again[name], tensor) for name, tensor in resumed.items())
    for name, tensor in straight.items():
        torch.testing.assert_close(resumed[name], tensor, atol=1e-6, rtol=0)


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["smollm2", "--steps", "3"], "--tasks and --steps train smollm2-vl"),
        (["smollm2-vl", "--tasks", "digit"], "Did you mean 'digits'?"),
        (["smollm2-vl", "--steps", "0"], "--steps is 0; it must be at least 1"),
    ],
)
def test_command_refuses_settings_that_mean_nothing(tmp_path, capsys, arguments, message):
    assert main(["get-policy", *arguments, "--to", str(tmp_path / "new")]) == 2
    assert message in capsys.readouterr().err
