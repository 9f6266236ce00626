"""Exported folders load with the card's snippet, give the trained policy's logits and have a complete model card."""

import json

import pytest
import torch
import yaml

from rlfr_vlm.cli import main
from rlfr_vlm.model_card import licence_of, model_card


@pytest.fixture
def trained(make_trainer, make_policy, tmp_path):
    """The final folder of a run, with its configuration beside it."""

    def run(**changes):
        from rlfr_vlm.config_file import write_resolved

        base = make_policy()
        base.generation_config.update(temperature=0.7, top_k=5, do_sample=True, max_new_tokens=99)  # of training
        base.save_pretrained(tmp_path / "base")
        (tmp_path / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
        policy = base
        if "peft" in changes:
            from peft import get_peft_model

            policy = get_peft_model(type(base).from_pretrained(tmp_path / "base"), changes.pop("peft"))
        trainer = make_trainer(policy, max_steps=4, save_strategy="steps", save_steps=2)
        write_resolved(tmp_path / "run", trainer.args)
        settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
        settings |= {"model_name_or_path": str(tmp_path / "base"), "dataset_name": "digits", "dataset_split": "train"}
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
        trainer.train()
        return trainer, tmp_path / "run" / "checkpoint-4"

    return run


def logits(model, processor, digits):
    from rlfr_vlm.data.encode import encode_prompts

    batch = encode_prompts(processor, [digits[0]]).model_inputs()
    with torch.no_grad():
        return model.eval()(**batch).logits


def unbanned(policy):
    """The trained policy without the ban of vision tokens, which is no weight."""
    head = policy.get_output_embeddings()
    del head._buffers["bias"]
    head.register_parameter("bias", None)
    return policy


def test_a_users_snippet_loads_it(trained, processor, digits, tmp_path, capsys):
    from transformers import AutoModelForImageTextToText, AutoProcessor

    trainer, checkpoint = trained()
    assert main(["export", str(checkpoint), "--to", str(tmp_path / "out")]) == 0
    assert "Qwen2_5_VLForConditionalGeneration with 0.1M parameters in float32" in capsys.readouterr().out
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype="auto")
    loaded = AutoProcessor.from_pretrained(tmp_path / "out")
    assert loaded.chat_template == processor.chat_template
    assert torch.equal(logits(model, loaded, digits), logits(unbanned(trainer.model), processor, digits))
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert not {"temperature", "top_k", "do_sample", "max_new_tokens"} & generation.keys()
    assert generation["eos_token_id"] == processor.tokenizer.eos_token_id
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert not {"optimizer.pt", "trainer_state.json", "complete.json", "training_args.bin", "flow"} & names
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "apache-2.0" and front["base_model"] == "base"
    assert front["pipeline_tag"] == "image-text-to-text"
    assert "GRPO with verifiable rewards" in card and "- Updates: 4" in card and "| `learning_rate` | 0.001 |" in card
    assert str(tmp_path) not in card  # no path of this machine


def test_an_adapter_is_merged(trained, processor, digits, tmp_path):
    from peft import LoraConfig
    from transformers import AutoModelForImageTextToText

    trainer, checkpoint = trained(peft=LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    assert main(["export", str(checkpoint), "--to", str(tmp_path / "out"), "--base", str(tmp_path / "base")]) == 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out", dtype="auto")
    expected = logits(unbanned(trainer.model.merge_and_unload()), processor, digits)
    assert torch.allclose(logits(model, processor, digits), expected, atol=1e-5)
    base = AutoModelForImageTextToText.from_pretrained(tmp_path / "base", dtype="auto")
    assert not torch.allclose(logits(base, processor, digits), expected, atol=1e-2)


def test_a_text_policy_loads_as_a_causal_model_in_another_type(make_text_policy, text_tokenizer, tmp_path):
    from transformers import AutoModelForCausalLM

    policy = make_text_policy()
    policy.save_pretrained(tmp_path / "final")
    text_tokenizer.save_pretrained(tmp_path / "final")
    arguments = ["export", str(tmp_path / "final"), "--to", str(tmp_path / "out"), "--dtype", "bfloat16"]
    assert main([*arguments, "--licence", "mit"]) == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.bfloat16
    assert torch.equal(model.lm_head.weight, policy.lm_head.weight.bfloat16())
    front = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert front["license"] == "mit" and front["pipeline_tag"] == "text-generation"


def test_mistakes_give_one_message(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "/gone/base"}')
    for arguments, message in [
        ([str(tmp_path / "none"), "--to", "x"], "No folder at"),
        ([str(tmp_path / "empty"), "--to", str(tmp_path / "out")], "holds no model.safetensors"),
        ([str(tmp_path / "empty"), "--to", str(tmp_path / "full")], "exists already"),
        ([str(tmp_path / "adapter"), "--to", str(tmp_path / "out")], "is an adapter of '/gone/base', which is not"),
        ([str(tmp_path / "empty"), "--to", str(tmp_path / "out"), "--dtype", "int8"], "--dtype is 'int8'"),
        ([str(tmp_path / "empty"), "--to", str(tmp_path / "out"), "--results", str(tmp_path)], "has no scores.json"),
    ]:
        assert main(["export", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_the_card_shows_scores_and_escapes_their_texts():
    scores = {"benchmarks": {
        "math500": {"title": "MATH-500", "metric": "pass@1", "accuracy": 0.5, "ci95": [0.456, 0.544], "coverage": 0.99,
                    "judge": None, "partial": True},
        "x": {"title": "a|b<script>", "accuracy": None, "ci95": None, "coverage": 0.0, "judge": "local"},
    }}  # fmt: skip
    settings = {"method": "rlfr+rlpr", "system_prompt": 'Say "hi"\nnow'}
    card = model_card(settings, base="Qwen/Base", licence=None, steps=None, takes_images=False, scores=scores)
    assert "| MATH-500 (partial) | pass@1 | 50.0 | [45.6, 54.4] | 99.0 % | rules |" in card
    assert "| a\\|b&lt;script> |  | undecided |  | 0.0 % | local |" in card
    assert "flow rewards (arXiv 2510.10201) + GRPO with reference-probability" in card
    assert "see the base model; no licence was found" in card and "base_model: Qwen/Base" in card
    code = card.split("```python\n")[1].split("```")[0]
    compile(code, "snippet", "exec")


def test_licence_is_none_without_valid_front_matter(tmp_path):
    assert licence_of("Qwen/Base") is None
    (tmp_path / "README.md").write_text("---\n: [\n---\n")
    assert licence_of(str(tmp_path)) is None
