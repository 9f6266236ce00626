"""Every README.md that a run leaves names the base model, also where that was loaded from a folder."""

import pytest
import yaml


@pytest.fixture
def cards(make_trainer, make_policy, tmp_path):
    """Train two steps from the folder `base`; return the READMEs of the run folder and of its checkpoint."""

    def train(adapter=None):
        base = make_policy()
        base.save_pretrained(tmp_path / "base")
        (tmp_path / "base" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
        policy = type(base).from_pretrained(tmp_path / "base")
        if adapter is not None:
            from peft import get_peft_model

            policy = get_peft_model(policy, adapter)
        trainer = make_trainer(policy, save_strategy="steps", save_steps=2)
        trainer.train()
        at_checkpoint = (tmp_path / "run" / "README.md").read_text()
        trainer.save_model()
        found = {path.parent.name: path.read_text() for path in (tmp_path / "run").rglob("README.md")}
        assert set(found) == {"run", "checkpoint-2"}
        return [at_checkpoint, *found.values()]

    return train


def test_cards_name_the_base_model_and_how_it_was_trained(cards, tmp_path):
    for card in cards():
        front = yaml.safe_load(card.split("---")[1])
        assert (front["base_model"], front["license"], front["library_name"]) == ("base", "apache-2.0", "transformers")
        assert "# base, trained with rlfr-vlm" in card and "- Updates: 2\n" in card
        assert "- Method: GRPO with verifiable rewards\n" in card and "| `learning_rate` | 0.001 |" in card
        assert str(tmp_path) not in card and "None" not in card.split("## Results")[0]


def test_an_adapters_card_is_ours_too(cards, tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    for card in cards(peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")):
        front = yaml.safe_load(card.split("---")[1])
        assert (front["base_model"], front["library_name"]) == ("base", "peft")
        assert "# base, trained with rlfr-vlm" in card and str(tmp_path) not in card
