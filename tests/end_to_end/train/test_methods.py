"""The methods in the trainer: entropy shaping, token rewards of one's own, group filters, refilling, resuming."""

import json

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.rewards import ReferenceProbability, wrap
from rlfr_vlm.rewards.accuracy import accuracy
from rlfr_vlm.shaping import entropy_bonus
from rlfr_vlm.trainer.batches import join_batches, select_rows
from rlfr_vlm.trainer.passes import LossPass
from rlfr_vlm.trainer.rlfr_config import RLFRConfig


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RLFR_CACHE", str(tmp_path / "cache"))


def even(completions, **_):
    return [float(len(c[0]["content"]) % 2 == 0) for c in completions]


def record_losses(trainer):
    """What each update's loss saw: the rollout's advantages, and those after the bonus."""
    seen = []
    logps_pass = trainer._get_per_token_logps_and_entropies

    def recording(*args, **kwargs):
        watched = trainer._pass
        before = watched.batch["advantages"].clone() if isinstance(watched, LossPass) else None
        result = logps_pass(*args, **kwargs)
        if before is not None:
            seen.append((before, watched.batch["advantages"].clone(), result[1].detach()))
        return result

    trainer._get_per_token_logps_and_entropies = recording
    return seen


@pytest.mark.parametrize(
    ("advantage", "entropy", "expected"),
    [
        (1.0, 0.5, 1.2),  # 0.4 * 0.5
        (1.0, 5.0, 1.5),  # capped at |A| / 2
        (-1.0, 0.5, -0.8),
        (-1.0, 5.0, -0.5),  # never flips the sign
        (0.0, 5.0, 0.0),
    ],
)
def test_entropy_bonus(advantage, entropy, expected):
    found = entropy_bonus(
        torch.tensor([advantage]), torch.tensor([[entropy]], requires_grad=True), alpha=0.4, kappa=2.0
    )
    assert found.item() == pytest.approx(expected) and not found.requires_grad


def test_entropy_is_the_current_policys_at_every_update(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), method="entropy", max_steps=2, num_iterations=2, learning_rate=1e-2)
    seen = record_losses(trainer)
    trainer.train()
    assert len(seen) == 2
    for before, after, entropies in seen:
        assert before.dim() == 1  # the rollout's own advantages stay as they are, update after update
        torch.testing.assert_close(after, entropy_bonus(before, entropies, alpha=0.4, kappa=2.0))
    assert trainer.state.log_history[0]["loss"] != 0


def test_entropy_and_flow_together(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), flow="new", method="rlfr+entropy", max_steps=1, flow_threshold=0.1)
    seen = record_losses(trainer)
    trainer.train()
    before, after, entropies = seen[0]
    assert before.dim() == 2
    torch.testing.assert_close(after, entropy_bonus(before, entropies, alpha=0.4, kappa=2.0))


def test_one_value_per_token_enters_the_advantages(make_trainer, make_policy):
    """The reward gives its first token 0.5 and nothing else, so every advantage before token 1 is 0.5 higher."""
    token_reward = wrap(
        lambda completion_ids, **_: [[0.5] + [0.0] * (len(ids) - 1) for ids in completion_ids], "first"
    )
    trainer = make_trainer(make_policy(), reward=even, max_steps=1)
    plain = record_losses(trainer)
    trainer.train()
    trainer = make_trainer(make_policy(), reward=[even, token_reward], max_steps=1)
    shaped = record_losses(trainer)
    trainer.train()
    before = plain[0][0].unsqueeze(1)
    after = shaped[0][0]
    torch.testing.assert_close(after[:, :1], before + 0.5)
    torch.testing.assert_close(after[:, 1:2], before)
    assert trainer.state.log_history[0]["rewards/first/mean"] == 0.0


def test_rewards_are_told_the_log_probs_and_whether_the_response_ended(make_trainer, make_policy):
    seen = {}
    trainer = make_trainer(make_policy(), reward=wrap(lambda **k: seen.update(k) or [0.0] * 8, "mine"), max_steps=1)
    trainer.train()
    assert [len(own) for own in seen["per_token_logps"]] == [len(ids) for ids in seen["completion_ids"]]
    assert all(value <= 0 for own in seen["per_token_logps"] for value in own)
    end = trainer._tokenizer.eos_token_id
    assert seen["truncated"] == [ids[-1] != end for ids in seen["completion_ids"]]
    assert seen["step"] == 0 and len(seen["images"]) == 8


def test_an_undecided_answer_is_masked_whole(make_trainer, make_policy):
    """A format reward beside the undecided outcome must not turn it into a bad (or good) answer of its group."""

    def outcome(completions, **_):
        return [None, 1.0, 0.0, 1.0] * 2

    def shape(completions, **_):
        return [1.0] * 8

    trainer = make_trainer(make_policy(), reward=[outcome, shape], max_steps=1, undecided_limit=1.0)
    seen = []
    roll_out = trainer.roll_out
    trainer.roll_out = lambda inputs: seen.append(roll_out(inputs)) or seen[-1]
    trainer.train()
    # of 2, 1, 2: mean 5/3, standard deviation sqrt(1/3)
    scale = (1 / 3) ** 0.5 + 1e-4
    expected = torch.tensor([0.0, 1 / 3 / scale, -2 / 3 / scale, 1 / 3 / scale] * 2)
    torch.testing.assert_close(seen[0]["advantages"], expected, rtol=1e-4, atol=1e-4)


def test_a_run_of_undecided_answers_is_stopped(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), reward=lambda completions, **_: [None] * 8, undecided_window=8)
    with pytest.raises(UserError, match=r"8 of the last 8 responses were undecided.*check-data"):
        trainer.train()


def test_evaluation_beside_training(make_trainer, make_policy, digits):
    """Evaluation has rows of its own, no bonus and no filter, and leaves training as it would be without."""
    seen = []
    reward = wrap(
        lambda **k: seen.append(k["per_token_logps"]) or [float(sum(i) % 2) for i in k["completion_ids"]], "m"
    )
    runs = []
    for changes in ({"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 16}, {}):
        held_out = digits.select(range(20)) if changes else None
        trainer = make_trainer(make_policy(), reward=reward, method="entropy", max_steps=4, eval_dataset=held_out,
                               **changes)  # fmt: skip
        trainer.train()
        runs.append(trainer)
        if changes:
            assert seen[0][0] is not None and seen[-1][0] is None
    measured = [entry for entry in runs[0].state.log_history if "eval_greedy" in entry]
    assert [entry["step"] for entry in measured] == [2, 4] and measured[0]["eval_rows"] == 20
    for entry in measured:
        assert entry["eval_greedy_low"] <= entry["eval_greedy"] <= entry["eval_greedy_high"]
        assert entry["eval_sampled"] * 20 == pytest.approx(round(entry["eval_sampled"] * 20))  # all 20 judged, once
    assert runs[0].state.best_metric == max(entry["eval_greedy"] for entry in measured)
    weights = [dict(trainer.model.named_parameters()) for trainer in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_server_is_asked_for_each_held_out_prompt(make_trainer, make_policy, digits):
    """TRL asks a server once for as many equal prompts as an evaluation has responses of each: here one."""
    trainer = make_trainer(make_policy(), eval_dataset=digits.select(range(5)), eval_strategy="steps")
    seen, generate = [], trainer._generate
    trainer._generate = lambda prompts: seen.append(trainer.num_generations_eval) or generate(prompts)
    before = trainer.num_generations_eval
    trainer.evaluate()
    assert set(seen) == {1} and trainer.num_generations_eval == before != 1


def test_without_a_verifier_in_training_held_out_answers_are_graded_all_the_same(make_trainer, make_policy, digits):
    """RLPR's reward is a probability, which judges nothing."""
    trainer = make_trainer(make_policy(), method="rlpr", reward=None, rlpr_mode="boxed", rlpr_debias=False,
                           eval_dataset=digits.select(range(6)), eval_strategy="steps")  # fmt: skip
    answers = [str(digits[number]["answer"]) for number in range(6)]
    texts = ["\\boxed{" + (own if number % 3 else "nothing") + "}" for number, own in enumerate(answers)]
    generate = trainer._generate

    def scripted(prompts):
        result = list(generate(prompts))
        result[3] = [[{"role": "assistant", "content": text}] for text in texts]
        return tuple(result)

    trainer._generate = scripted
    metrics = trainer.evaluate()
    assert metrics["eval_greedy"] == metrics["eval_sampled"] == pytest.approx(4 / 6)
    assert not trainer._times.seconds  # no part of a training step


def by_group(outcomes):
    """A reward that gives the groups of each rollout, in order, these outcomes of four responses."""
    queue = [list(map(float, group)) for group in outcomes]

    def reward(completions, **_):
        return [value for _ in range(len(completions) // 4) for value in queue.pop(0)]

    reward.left = queue
    return reward


def test_dropped_groups_are_replaced_by_new_prompts(make_trainer, make_policy, digits):
    """First rollout: all right, mixed. One new prompt: all wrong. Another one: mixed."""
    reward = by_group(["1111", "0110", "0000", "1000"])
    trainer = make_trainer(
        make_policy(), reward=reward, max_steps=1, method="rlvr", group_filter="mixed", refill_rounds=3
    )
    batches = []
    generate = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: batches.append(generate(inputs)) or batches[-1]
    trainer.train()
    assert reward.left == []
    batch = batches[0]
    assert batch["keep"].all() and batch["completion_ids"].shape[0] == 8
    assert (batch["advantages"].view(2, 4).abs().sum(dim=1) > 0).all()
    assert batch["pixel_values"].shape[0] == batch["image_grid_thw"].prod(dim=1).sum()
    assert batch["num_items_in_batch"] == batch["completion_mask"].sum()
    logged = trainer.state.log_history[0]
    assert logged["groups/refill_rounds"] == 2 and logged["groups/not_refilled"] == 0
    assert torch.isfinite(torch.tensor(logged["loss"]))


def test_what_cannot_be_replaced_stays_without_advantage(make_trainer, make_policy):
    reward = by_group(["1111", "0110", "0000"])
    trainer = make_trainer(
        make_policy(),
        flow="new",
        flow_threshold=0.1,
        reward=reward,
        max_steps=1,
        group_filter="mixed",
        refill_rounds=1,
    )
    seen = []
    generate = trainer._generate_and_score_completions
    trainer._generate_and_score_completions = lambda inputs: seen.append(generate(inputs)) or seen[-1]
    trainer.train()
    advantages = seen[0]["advantages"]
    assert (advantages[:4] == 0).all() and (advantages[4:] != 0).any()  # flow rewards do not keep a dropped group
    assert trainer.state.log_history[0]["groups/not_refilled"] == 0.5


def test_selecting_only_text_rows_leaves_no_empty_pixels():
    joined = join_batches([batch_of(1, 2, 2, image=False), batch_of(1, 2, 2)], pad_token_id=0)
    assert "pixel_values" not in select_rows(joined, [0]) and "pixel_values" in select_rows(joined, [1])


def test_refilling_needs_whole_groups_and_a_filter(make_trainer, make_policy, tmp_path):
    with pytest.raises(UserError, match="refill_rounds is 2, but group_filter is none"):
        RLFRConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to=[], refill_rounds=2)


def test_nothing_is_refilled_twice_after_a_resume(make_trainer, make_policy, tmp_path):
    def run(resume=None, **changes):
        trainer = make_trainer(
            make_policy(), reward=by_group(["1111"] * 40), method="rlvr", group_filter="mixed", refill_rounds=1,
            save_strategy="steps", save_steps=2, **changes,
        )  # fmt: skip
        drawn = []
        new_prompts = trainer.selector.new_prompts
        trainer.selector.new_prompts = lambda *a: drawn.extend(new_prompts(*a)) or drawn[-a[0] :]
        trainer.train(resume_from_checkpoint=resume)
        return drawn

    whole = run(max_steps=4)
    first = run(max_steps=2)
    rest = run(max_steps=4, resume=str(tmp_path / "run" / "checkpoint-2"))
    assert first + rest == whole and len(whole) == 4
    assert json.loads((tmp_path / "run" / "checkpoint-4" / "groups.json").read_text())["position"] == 4


def batch_of(rows, prompt, response, image=True):
    batch = {
        "prompt_ids": torch.full((rows, prompt), 3), "prompt_mask": torch.ones(rows, prompt),
        "completion_ids": torch.full((rows, response), 4), "completion_mask": torch.ones(rows, response),
        "advantages": torch.arange(rows, dtype=torch.float32), "num_items_in_batch": torch.tensor(1),
    }  # fmt: skip
    if image:
        batch |= {
            "pixel_values": torch.arange(rows * 4, dtype=torch.float32).view(-1, 1), "num_images": [1] * rows,
            "image_grid_thw": torch.tensor([[1, 2, 2]] * rows),
            "mm_token_type_ids": torch.ones(rows, prompt + response, dtype=torch.long),
        }  # fmt: skip
    return batch


def test_batches_join_and_select():
    joined = join_batches([batch_of(2, 3, 2), batch_of(1, 2, 4)], pad_token_id=0)
    assert joined["prompt_ids"].tolist() == [[3, 3, 3], [3, 3, 3], [0, 3, 3]]
    assert joined["completion_ids"].tolist() == [[4, 4, 0, 0], [4, 4, 0, 0], [4, 4, 4, 4]]
    assert joined["completion_mask"].sum(dim=1).tolist() == [2, 2, 4]
    assert joined["mm_token_type_ids"].tolist() == [[1] * 5 + [0] * 2] * 2 + [[0] + [1] * 6]
    chosen = select_rows(joined, [2, 0])
    assert chosen["pixel_values"].flatten().tolist() == [0, 1, 2, 3, 0, 1, 2, 3]  # of the second batch, then the first
    assert chosen["advantages"].tolist() == [0.0, 0.0] and chosen["num_images"] == [1, 1]


def test_a_batch_of_text_joins_one_with_images():
    joined = join_batches([batch_of(1, 2, 2, image=False), batch_of(1, 2, 2)], pad_token_id=0)
    assert joined["num_images"] == [0, 1] and joined["pixel_values"].shape[0] == 4
    assert "pixel_values" not in join_batches([batch_of(1, 2, 2, image=False)] * 2, pad_token_id=0)


METHODS = ["rlvr", "rlfr", "entropy", "rlpr", "rlfr+rlpr"]


@pytest.mark.parametrize("family", ["qwen2", "llama"])
@pytest.mark.parametrize("method", METHODS)
def test_text_policies_run_every_method(make_trainer, make_text_policy, text_tokenizer, text_digits, method, family):
    policy = make_text_policy(family=family)
    flow = "new" if "rlfr" in method else None
    trainer = make_trainer(
        policy, flow=flow, processing_class=text_tokenizer, dataset=text_digits, method=method, max_steps=2,
        reward=None, rlpr_mode="boxed", flow_accept_threshold=0.5,
    )  # fmt: skip
    expected = ReferenceProbability if "rlpr" in method else type(accuracy)
    assert isinstance(trainer.reward_funcs[0], expected) or trainer.reward_funcs[0].func is accuracy
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(steps) == 2 and all(torch.isfinite(torch.tensor(entry["loss"])) for entry in steps)
