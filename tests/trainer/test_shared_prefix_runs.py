"""Runs with shared prompts against the same runs row by row, and what the trainer does around its passes."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from rlfr_vlm.data.load import load_rows
from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.pass_inputs import PassInputs
from rlfr_vlm.trainer.shared_prefix import PrefixSharing, SharedPrefixPolicy

ONE_UPDATE = {"steps_per_generation": 2, "gradient_accumulation_steps": 2}
CASES = {
    "rlvr": {},
    "rlfr": {"flow": "new", "flow_update": False},
    "rlfr, beside the pass of the old log-probs": {"flow": "new", "flow_update": False, "num_iterations": 2},
    "rlfr, means of image and prompt": {
        "flow": "new", "flow_update": False, "spec_changes": {"image_context": True, "latents": "minus_prompt"}},
    "entropy": {"method": "rlvr+entropy"},
    "reference model": {"beta": 0.1, "learning_rate": 0.03},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "packed by length": {"pack_by_length": True},
    "refilled groups": {"group_filter": "mixed", "refill_rounds": 2},
    "parts of groups": {"per_device_train_batch_size": 2, "steps_per_generation": 4, "gradient_accumulation_steps": 4},
    "trained tower": {"freeze_vision": False},
}  # fmt: skip


def run(make_trainer, policy, share, changes):
    """A trained trainer, and the batches of its rollouts."""
    trainer = make_trainer(
        policy,
        share_prefix=share,
        logging_steps=1,
        **(ONE_UPDATE | {"max_steps": 3, "learning_rate": 0.3, "optim": "sgd"} | changes),
    )
    rollouts, roll_out = [], trainer.roll_out

    def noted(*args, **kwargs):
        rollouts.append(roll_out(*args, **kwargs))
        return rollouts[-1]

    trainer.roll_out = noted
    trainer.train()
    return trainer, rollouts


@pytest.mark.parametrize("case", CASES)
def test_a_run_goes_as_it_does_row_by_row(case, make_trainer, make_policy, tmp_path):
    from transformers import AutoModelForImageTextToText

    make_policy().save_pretrained(tmp_path / "policy")
    load = partial(AutoModelForImageTextToText.from_pretrained, tmp_path / "policy")  # the reference is loaded again
    rows, row_rollouts = run(make_trainer, load(), "false", CASES[case])
    shared, rollouts = run(make_trainer, load(), "true", CASES[case])
    assert shared.sharing.is_on and rows.sharing is None
    assert len(rollouts) == len(row_rollouts) > 0
    for ours, theirs in zip(rollouts, row_rollouts, strict=True):
        assert torch.equal(ours["completion_ids"], theirs["completion_ids"])
        torch.testing.assert_close(ours["advantages"], theirs["advantages"], atol=1e-4, rtol=1e-3)
    numbers = zip(shared.state.log_history, rows.state.log_history, strict=True)
    for ours, theirs in numbers:
        for name in theirs.keys() & {
            "loss",
            "grad_norm",
            "entropy",
            "kl",
            "flow/reward_per_token",
            "rlpr/probability",
        }:
            assert ours[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name
    moved = 0.0
    for (name, ours), theirs, start in zip(
        shared.model.named_parameters(), rows.model.parameters(), load().parameters(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3, msg=name)
        moved = max(moved, (ours - start).abs().max().item())
    assert moved > 1e-3
    saved = [log["share_prefix/tokens_saved"] for log in shared.state.log_history if "loss" in log]
    assert min(saved) > 0.1


@pytest.mark.slow
def test_ten_steps_end_within_a_thousandth_of_the_way(make_trainer, make_policy):
    changes = {"flow": "new", "max_steps": 10, "flow_update": False}
    start, rows, shared = (
        dict(model.named_parameters())
        for model in (
            make_policy(),
            run(make_trainer, make_policy(), "false", changes)[0].model,
            run(make_trainer, make_policy(), "true", changes)[0].model,
        )
    )

    def distance(one, other):
        return sum((one[name] - other[name]).square().sum() for name in one).sqrt().item()

    assert distance(start, rows) > 1e-2
    assert distance(rows, shared) < 1e-3 * distance(start, rows)


def mixed_rows(path):
    """Rows with one, no and two images, among them two with the same words."""
    import json

    from PIL import Image

    torch.manual_seed(0)
    rows = []
    for number, sizes in enumerate([[(40, 60)], [], [(28, 28), (56, 28)], [(60, 40)]]):
        names = []
        for size in sizes:
            names.append(f"{number}-{len(names)}.png")
            Image.effect_noise(size, 90).convert("RGB").save(path / names[-1])
        rows.append({"prompt": "What is it?" + " Think." * (number % 3), "answer": str(number), "images": names})
    (path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return load_rows(str(path / "rows.jsonl"), columns=("prompt", "answer"))


def test_rows_with_and_without_images(make_trainer, make_policy, tmp_path):
    changes = {"dataset": mixed_rows(tmp_path), "per_device_train_batch_size": 8, "max_steps": 2, "flow": "new",
               "flow_update": False}  # fmt: skip
    rows, row_rollouts = run(make_trainer, make_policy(), "false", changes)
    shared, rollouts = run(make_trainer, make_policy(), "true", changes)
    assert {number for batch in rollouts for number in batch["num_images"]} == {0, 1, 2}
    for ours, theirs in zip(rollouts, row_rollouts, strict=True):
        torch.testing.assert_close(ours["advantages"], theirs["advantages"], atol=1e-4, rtol=1e-3)
    for ours, theirs in zip(shared.model.parameters(), rows.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3)
    saved = [log["share_prefix/images_saved"] for log in shared.state.log_history if "loss" in log]
    assert saved == pytest.approx([0.75, 0.75])  # each image of a group of four is run once


def test_lora_policies_and_their_reference(make_trainer, make_policy):
    from peft import LoraConfig, get_peft_model

    found = []
    for share in ("false", "true"):
        torch.manual_seed(3)
        policy = get_peft_model(make_policy(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
        found.append(run(make_trainer, policy, share, {"beta": 0.1, "learning_rate": 3.0})[0])
    rows, shared = found
    moved = 0.0
    for (name, ours), theirs in zip(shared.model.named_parameters(), rows.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-3, msg=name)
        moved = max(moved, ours.abs().max().item() if "lora_B" in name else 0.0)
    assert moved > 1e-3 and shared.sharing.is_on


def passes_of(trainer):
    """Shapes of `input_ids` in each forward pass of the policy outside of generation."""
    shapes = []

    def note(_module, _args, kwargs):
        if kwargs.get("past_key_values") is None and not kwargs.get("use_cache"):
            shapes.append(tuple(kwargs["input_ids"].shape))

    trainer.model.model.register_forward_pre_hook(note, with_kwargs=True)
    return shapes


def test_the_first_pass_is_compared_with_a_row_wise_one_and_the_others_are_not(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), share_prefix="true", per_device_train_batch_size=2, steps_per_generation=4)
    shapes = passes_of(trainer)
    trainer.train()
    rows = [shape[0] for shape in shapes]
    # compared: four rows, and those four packed; then old log-probs of two whole groups, though micro-batches have two
    # rows; then the updates
    assert rows == [4, 1, 1, 1, 1, 1]


def test_generation_runs_each_prompt_once(make_trainer, make_policy):
    first = {}
    for share in ("true", "false"):
        trainer, shapes = make_trainer(make_policy(), share_prefix=share, max_steps=1), []
        trainer.model.model.language_model.layers[0].register_forward_pre_hook(
            lambda _, args, shapes=shapes: shapes.append(tuple(args[0].shape[:2]))
        )
        trainer.train()
        first[share] = shapes[0]
    rows, length = first["false"]
    assert rows == 8 and first["true"] == (2, length - 1)  # two prompts; `generate` runs their last tokens


def test_sharing_stops_where_log_probs_differ(make_trainer, make_policy, monkeypatch, capsys):
    from rlfr_vlm.models.shared_prefix import attention

    monkeypatch.setattr(attention, "_behind_prefix", lambda states, group: attention_of_zeros(states, group))
    trainer, _ = run(make_trainer, make_policy(), "auto", {"max_steps": 1})
    assert not trainer.sharing.is_on
    assert "share_prefix is off: log-probs with shared prompts differ by" in capsys.readouterr().out
    plain, _ = run(make_trainer, make_policy(), "false", {"max_steps": 1})
    assert trainer.state.log_history[0]["loss"] == pytest.approx(plain.state.log_history[0]["loss"], abs=1e-6)
    assert "share_prefix/tokens_saved" not in trainer.state.log_history[0]


def attention_of_zeros(states, group):
    """Keys and values of a prefix that are forgotten."""
    from rlfr_vlm.models.shared_prefix.attention import _blocks

    blocks = _blocks(states, group)
    return torch.cat([blocks.new_zeros(*blocks.shape[:2], group.prefix, blocks.shape[3]), blocks], dim=2)


class FakePass:
    """Log-probs of a row-wise pass, of one over half of the rows, and of one with shared prompts."""

    def __init__(self, between_rows, difference):
        self.between_rows, self.difference, self.calls = between_rows, difference, []

    def __call__(self, model, ids, _mask, _length, batch_size):
        self.calls.append((ids[:, 0].tolist(), batch_size))
        is_shared = isinstance(model, SharedPrefixPolicy)
        value = self.difference if is_shared else self.between_rows if batch_size < len(ids) else 0.0
        return torch.full((len(ids), 3), value), None, None


@pytest.mark.parametrize(
    ("difference", "between_rows", "precision", "expected", "passes"),
    [
        (1e-5, 0.0, "no", True, 2),
        (2e-4, 0.0, "no", False, 3),
        (2e-4, 1.1e-4, "no", True, 3),  # TF32, say
        (0.06, 0.0, "bf16", True, 2),  # eight steps of bfloat16 at 1 are 0.0625
        (0.07, 0.0, "bf16", False, 3),
        (0.19, 0.1, "bf16", True, 3),
        (0.21, 0.1, "bf16", False, 3),
        (float("nan"), 0.1, "bf16", False, 3),
    ],
)
def test_log_probs_may_differ_as_rounding_does(difference, between_rows, precision, expected, passes, make_policy):
    policy = make_policy()
    accelerator = SimpleNamespace(mixed_precision=precision, gather=lambda values: values, is_main_process=False)
    sharing = PrefixSharing(policy, None, group_size=4)
    row_pass = FakePass(between_rows, difference)

    def inputs(prompts):
        ids = torch.tensor(prompts).unsqueeze(1).expand(-1, 5)
        return PassInputs(ids, torch.ones_like(ids), 3, {})

    sharing.check(row_pass, policy, inputs([1, 2, 3]), None, accelerator)
    assert not sharing.is_checked and not row_pass.calls  # no prompt repeats
    sharing.check(row_pass, policy, inputs([5, 6, 7, 6, 8, 6]), None, accelerator)
    assert sharing.is_on is expected and sharing.is_checked
    # the pass that tells rounding runs only where the difference is not small anyway
    assert row_pass.calls == ([([6, 6, 6, 5], 4)] * 2 + [([6, 6, 6, 5], 2)])[:passes]


def sharp_policy(make_policy):
    """A policy whose log-probs are as far apart as those of a trained one, so that rounding shows."""
    policy = make_policy(hidden_size=128, intermediate_size=256)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "language_model" in name and weight.dim() == 2:
                weight.mul_(5)
            if "lm_head" in name:
                weight.mul_(10)
    return policy


@pytest.mark.parametrize("in_bf16", ["weights", "autocast"])
def test_rounding_of_bf16_does_not_stop_sharing(make_trainer, make_policy, in_bf16):
    policy = sharp_policy(make_policy)
    if in_bf16 == "weights":
        policy = policy.to(torch.bfloat16)
    one_row = {"per_device_train_batch_size": 1, "steps_per_generation": 8, "gradient_accumulation_steps": 8}
    trainer = make_trainer(policy, share_prefix="true", max_steps=1, bf16=in_bf16 == "autocast", **one_row)
    trainer.train()
    assert trainer.sharing.is_on


def test_the_passes_of_rlpr_keep_their_batch_size(make_trainer, make_policy, monkeypatch, tmp_path):
    monkeypatch.setenv("RLFR_CACHE", str(tmp_path))
    trainer = make_trainer(
        make_policy(), method="rlpr", reward=None, rlpr_batch_size=1, share_prefix="true", max_steps=1, **ONE_UPDATE
    )
    shapes = passes_of(trainer)
    trainer.probabilities.prepare(trainer.train_dataset, 16)
    assert len(shapes) == 32 and {rows for rows, _ in shapes} == {1}  # a pass for each of 32 rows, as row by row


def test_a_reference_model_with_another_attention_is_not_shared(make_trainer, make_policy, tmp_path, capsys):
    """TRL loads the reference with `model_init_kwargs`, also where the policy is an object."""
    from transformers import AutoModelForImageTextToText

    make_policy().save_pretrained(tmp_path / "policy")
    policy = AutoModelForImageTextToText.from_pretrained(tmp_path / "policy")
    trainer = make_trainer(policy, beta=0.1, model_init_kwargs={"attn_implementation": "eager"})
    assert trainer.sharing is None
    assert "of the reference model: the policy's attention is eager" in capsys.readouterr().out


@pytest.mark.parametrize("defaults", [{"num_beams": 2}, {"cache_implementation": "static"}], ids=str)
def test_defaults_of_the_policys_generation_settings_count(make_trainer, make_policy, defaults):
    """`generate` fills what TRL's settings leave out from the policy's own."""
    policy = make_policy()
    for name, value in defaults.items():
        setattr(policy.generation_config, name, value)
    run(make_trainer, policy, "true", {"max_steps": 1})


def test_true_says_why_it_cannot_be(make_trainer, make_text_policy, text_tokenizer, text_digits, capsys):
    arguments = {"processing_class": text_tokenizer, "dataset": text_digits}
    policy = make_text_policy()
    policy.config._attn_implementation_internal = "eager"
    with pytest.raises(UserError, match="share_prefix is true, but the policy's attention is eager"):
        make_trainer(policy, share_prefix="true", **arguments)
    with pytest.raises(UserError, match="torch_compile is true, and each packed row has another shape"):
        make_trainer(make_text_policy(), share_prefix="true", torch_compile=True, **arguments)
    trainer = make_trainer(policy, share_prefix="auto", **arguments)
    assert trainer.sharing is None
    assert "prompts are not shared in forward passes: the policy's attention is eager" in capsys.readouterr().out
    with pytest.raises(UserError, match="share_prefix is 'yes'; choose one of auto, true, false"):
        make_trainer(policy, share_prefix="yes", **arguments)


def test_yaml_reads_true_and_false_as_truth_values(make_trainer, make_policy):
    assert make_trainer(make_policy(), share_prefix=False).sharing is None
    assert make_trainer(make_policy(), share_prefix=True).args.share_prefix == "true"


def test_images_in_blocks_are_run_row_by_row(make_policy):
    sharing = PrefixSharing(make_policy(), None, group_size=4)
    ids = torch.tensor([[7, 1, 2, 3], [7, 1, 2, 7]])

    def applies(rows, image_token):
        return sharing.applies_to(PassInputs(rows, torch.ones_like(rows), 2, {}), image_token)

    assert applies(ids[:1], 7) and not applies(ids, 7) and applies(ids, None)
    assert not applies(torch.tensor([[1, 7, 2, 3]]), 7)  # the last token of the prompt


def test_chunks_without_gradients_hold_whole_groups(make_policy):
    sharing = PrefixSharing(make_policy(), None, group_size=8)
    assert [sharing.rows_at_once(size) for size in (1, 8, 9, None)] == [8, 8, 16, None]


def test_a_saved_policy_knows_nothing_of_packed_rows(make_trainer, make_policy, tmp_path):
    trainer, _ = run(make_trainer, make_policy(), "true", {"max_steps": 1})
    trainer.save_model(str(tmp_path / "saved"))
    assert "packed" not in (tmp_path / "saved" / "config.json").read_text()
