"""The trainer on tiny policies: equal to TRL without flow, right with it."""

import math

import pytest
import torch

from rlfr_vlm.errors import UserError
from rlfr_vlm.flow import FlowSpec, build_field
from rlfr_vlm.models.towers import find_language_tower
from rlfr_vlm.shaping import flow_rewards, shape_advantages


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def losses_of(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def run_trl(policy, processing_class, dataset, reward, arguments):
    from trl import GRPOConfig, GRPOTrainer

    args = GRPOConfig(**arguments)
    trainer = GRPOTrainer(
        policy, args=args, reward_funcs=[reward], train_dataset=dataset, processing_class=processing_class
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("updates", [1, 2])
def test_without_flow_losses_and_weights_are_trls_bit_for_bit_text(
    make_trainer, make_text_policy, text_tokenizer, text_digits, arguments, updates
):
    changes = {"max_steps": 4, "steps_per_generation": updates, "per_device_train_batch_size": 4}
    ours = make_trainer(
        make_text_policy(), processing_class=text_tokenizer, dataset=text_digits, share_prefix="false", **changes
    )
    ours.train()
    adam = {"adam_beta2": ours.args.adam_beta2}
    theirs = run_trl(
        make_text_policy(), text_tokenizer, text_digits, ours.reward_funcs[0], arguments(**changes, **adam)
    )
    assert losses_of(ours) == losses_of(theirs)
    assert any(losses_of(ours))
    assert same(weights_of(ours.model), weights_of(theirs.model))


def test_without_flow_losses_are_trls_bit_for_bit_vision(make_trainer, make_policy, processor, digits, arguments):
    """TRL does not ban vision tokens from its log-probs, so its policy is given the same ban and freeze by hand."""
    from rlfr_vlm.models.vision import ban_tokens, freeze_vision_tower, vision_token_ids

    ours = make_trainer(make_policy(), max_steps=4, share_prefix="false", image_feature_cache_gb=0)
    ours.train()
    policy = make_policy()
    freeze_vision_tower(policy)
    ban_tokens(policy, vision_token_ids(policy, processor))
    theirs = run_trl(policy, processor, digits, ours.reward_funcs[0], arguments(max_steps=4, adam_beta2=0.95))
    assert losses_of(ours) == losses_of(theirs)
    assert same(weights_of(ours.model), weights_of(theirs.model))


def test_flow_without_weight_on_any_token_leaves_the_losses_alone(make_trainer, make_policy):
    """A threshold no deviation can pass: advantages become (B, T) but keep their values."""
    plain = make_trainer(make_policy())
    plain.train()
    flow = make_trainer(make_policy(), flow="new", flow_threshold=1.0)
    flow.train()
    assert losses_of(flow) == pytest.approx(losses_of(plain), rel=1e-5)


def capture_rollout(trainer):
    """Keep the batch that shaping produced and what went into it."""
    seen: dict[str, torch.Tensor] = {}
    roll_out, shape_rollout = trainer.roll_out, trainer._shape

    def recording_shape(rollout, batch, record):
        if trainer.flow is not None:
            deviations, mask = rollout.score.deviations()
            seen.update(outcome=batch["advantages"].clone(), deviation=deviations.mean(dim=0), mask=mask)
        return shape_rollout(rollout, batch, record)

    def recording(inputs):
        output = roll_out(inputs)
        seen.update({name: output[name] for name in ("advantages", "completion_mask", "flow_weight")})
        return output

    trainer._shape, trainer.roll_out = recording_shape, recording
    return seen


def test_a_closed_gate_is_trl_bit_for_bit(make_trainer, make_policy):
    """The gate needs more than two rollouts to open, and flow rewards that do not count leave no trace."""
    plain = make_trainer(make_policy())
    plain.train()
    gated = make_trainer(make_policy(), flow="new", flow_gate="auto", flow_coef=0.5, flow_threshold=0.2)
    gated.train()
    assert losses_of(gated) == losses_of(plain) and any(losses_of(plain))
    assert same(weights_of(gated.model), weights_of(plain.model))
    logged = gated.state.log_history[0]
    assert logged["flow/gate"] == 0 and logged["flow/coef_share"] == 0 and logged["flow/reward_per_token"] == 0


@pytest.mark.parametrize("setting", [{"flow_from_step": 99}, {"flow_level": "response", "flow_response_coef": 0.0}])
def test_flow_rewards_without_weight_are_trl_bit_for_bit(make_trainer, make_policy, setting):
    plain = make_trainer(make_policy())
    plain.train()
    flow = make_trainer(make_policy(), flow="new", **setting)
    flow.train()
    assert losses_of(flow) == losses_of(plain)
    assert same(weights_of(flow.model), weights_of(plain.model))


def test_the_coefficient_follows_its_schedule(make_trainer, make_policy):
    trainer = make_trainer(
        make_policy(), flow="new", max_steps=3, steps_per_generation=1, flow_schedule="linear", flow_end_share=0.25
    )
    trainer.train()
    shares = [entry["flow/coef_share"] for entry in trainer.state.log_history if "flow/coef_share" in entry]
    assert shares == pytest.approx([1.0, 0.75, 0.5])  # updates 0, 1, 2 of 3


def test_an_open_gate_rewards_and_is_measured_on_the_statistic(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), flow="new", max_steps=1, flow_gate="auto", flow_threshold=0.2)
    trainer.flow_reward.gate.open = True
    seen = capture_rollout(trainer)
    trainer.train()
    assert seen["advantages"].dim() == 2
    logged = trainer.state.log_history[0]
    assert logged["flow/gate"] == 1
    if logged["flow/gate_groups"]:
        assert logged["flow/gate_auc"] == pytest.approx(logged["flow/auc_within_group_mean"])


def test_response_level_adds_the_standard_score_within_the_group(make_trainer, make_policy):
    """Against a slow loop over groups and responses."""
    trainer = make_trainer(
        make_policy(),
        flow="new",
        max_steps=1,
        flow_level="response",
        flow_statistic="max",
        flow_response_coef=0.25,
        flow_skip_uniform=False,
    )
    seen = capture_rollout(trainer)
    trainer.train()
    largest = [row[mask].max().item() for row, mask in zip(seen["deviation"], seen["mask"], strict=True)]
    for start in (0, 4):
        group = torch.tensor(largest[start : start + 4], dtype=torch.float64)
        for row in range(4):
            expected = seen["outcome"][start + row] - 0.25 * (group[row] - group.mean()) / group.std()
            assert seen["advantages"][start + row].item() == pytest.approx(expected.item(), abs=1e-5)


def test_responses_of_a_group_are_scored_under_the_same_noise(make_trainer, make_policy):
    """Chunks of two rows: each chunk gets the draws of its rows' groups, and a retest other ones."""
    trainer = make_trainer(
        make_policy(), flow="new", max_steps=1, steps_per_generation=4, per_device_train_batch_size=2
    )
    noises = []
    score = trainer.flow.score
    trainer.flow.score = lambda latents, valid, number, noise=None, generator=None: (
        noises.append(noise) or score(latents, valid, number, noise, generator)
    )
    trainer.train()
    own, retest = torch.cat(noises[::2], dim=2), torch.cat(noises[1::2], dim=2)  # (1, L, 8, D)
    for noise in (own, retest):
        assert noise.shape[2] == 8
        assert all(torch.equal(noise[:, :, 0], noise[:, :, row]) for row in (1, 2, 3))
        assert all(torch.equal(noise[:, :, 4], noise[:, :, row]) for row in (5, 6, 7))
        assert not torch.equal(noise[:, :, 0], noise[:, :, 4])
    assert not torch.equal(own, retest)
    logged = trainer.state.log_history[0]
    assert 0 <= logged["flow/sign_agreement"] <= 1 and -1 <= logged["flow/retest_correlation"] <= 1


def test_a_contrast_field_is_updated_on_both_classes(make_trainer, make_policy):
    policy = make_policy()
    spec = FlowSpec.for_policy(policy.config.get_text_config(), "tiny", 1, (0.25, 0.5), reference="contrast")
    field = build_field(spec)
    for parameter in field.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.zeros_(field.class_embed.weight)
    trainer = make_trainer(policy, flow=(field, spec), max_steps=1)
    trainer.train()
    assert trainer.flow.field.class_embed.weight.abs().sum(dim=1).min() > 0


def test_latents_less_the_prompts_mean_reach_the_field(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), flow="new", max_steps=1, spec_changes={"latents": "minus_prompt"})
    shapes = []
    score = trainer.flow.score
    trainer.flow.score = lambda latents, *rest: shapes.append(latents.prompt.shape) or score(latents, *rest)
    trainer.train()
    assert shapes[0][0] == 2 and shapes[0][2] == trainer.flow.spec.hidden_size


def test_advantages_are_outcome_plus_return_of_flow_rewards(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), flow="new", max_steps=1, flow_coef=0.5, flow_threshold=0.2, flow_top_k=4)
    seen = capture_rollout(trainer)
    trainer.train()
    assert seen["advantages"].shape == seen["completion_mask"].shape
    rewards = flow_rewards(
        seen["deviation"], seen["mask"] & seen["completion_mask"].bool(), coef=0.5, threshold=0.2, top_k=4
    )
    assert rewards.abs().sum() > 0
    torch.testing.assert_close(seen["advantages"], shape_advantages(seen["outcome"], rewards, seen["completion_mask"]))
    assert (seen["advantages"][seen["completion_mask"] == 0] == 0).all()
    lengths = seen["completion_mask"].sum(dim=1)
    last = (torch.arange(8), lengths - 1)
    assert not seen["mask"][last].any()  # token_pre: the last response token has no partner


def test_deviations_of_both_passes_agree(make_trainer, make_policy):
    """Two updates a rollout: TRL's old-log-prob pass. One update: our shortened pass. Same rollout, same scores."""
    results = []
    for updates in (2, 1):
        trainer = make_trainer(
            make_policy(),
            flow="new",
            max_steps=1,
            steps_per_generation=updates,
            per_device_train_batch_size=8 // updates,
            spec_changes={"image_context": True, "context_mode": "token_post"},
            flow_context_mode="token_post",
        )
        trainer.flow.score = score_by_latents
        seen = capture_rollout(trainer)
        trainer.train()
        results.append((seen["deviation"], seen["mask"]))
    (first, first_mask), (second, second_mask) = results
    assert torch.equal(first_mask, second_mask)
    torch.testing.assert_close(first, second)


def score_by_latents(latents, valid, num_response, *noise):
    """Stands in for the field, whose noise depends on the chunking: a number that every latent enters."""
    assert latents.hidden.shape[2] == num_response + 1  # token_post: one prompt token is the first one's partner
    values = latents.hidden.sum(dim=(0, 3)) + latents.image.sum(dim=(0, 2)).unsqueeze(1)
    return (values * valid)[:, 1:].expand(2, -1, -1), valid[:, 1:].bool()


def count_blocks(trainer) -> list[int]:
    ran = [0, 0, 0, 0]

    def count(number):
        def hook(*_):
            ran[number] += 1

        return hook

    for number, block in enumerate(find_language_tower(trainer.model).layers):
        block.register_forward_hook(count(number))
    return ran


def forward_counts(make_trainer, policy, **changes) -> tuple[list[int], int]:
    trainer = make_trainer(policy, max_steps=1, share_prefix="false", **changes)
    original, tokens = trainer._generate, [0]

    def no_count(prompts):
        before = list(ran)
        result = original(prompts)
        tokens[0] += ran[0] - before[0]
        for number in range(4):
            ran[number] = before[number]
        return result

    trainer._generate = no_count
    ran = count_blocks(trainer)
    trainer.train()
    return ran, tokens[0]


def test_scoring_adds_no_pass_where_trl_computes_old_log_probs(make_trainer, make_policy):
    plain, _ = forward_counts(make_trainer, make_policy())
    with_flow, _ = forward_counts(make_trainer, make_policy(), flow="new")
    assert with_flow == plain == [3, 3, 3, 3]  # two chunks of old log-probs and one update


def test_scoring_pass_stops_at_the_deepest_hooked_block_elsewhere(make_trainer, make_policy):
    on_policy = {"steps_per_generation": 1, "per_device_train_batch_size": 8}
    plain, _ = forward_counts(make_trainer, make_policy(), **on_policy)
    with_flow, _ = forward_counts(make_trainer, make_policy(), flow="new", **on_policy)
    assert plain == [1, 1, 1, 1]
    assert with_flow == [2, 2, 1, 1]  # hooked blocks are 1 and 2 of 4


@pytest.mark.parametrize("checkpointing", [None, True, False])
def test_update_moves_the_field_and_not_the_policys_gradients(make_trainer, make_policy, checkpointing):
    """Same seeds, with and without the online update; `checkpointing` is use_reentrant."""
    extra = {}
    if checkpointing is not None:
        extra = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": checkpointing}}
    gradients, fields = [], []
    for update in (True, False):
        trainer = make_trainer(make_policy(), flow="new", flow_update=update, max_steps=1, max_grad_norm=0, **extra)
        before = weights_of(trainer.flow.field)
        grads = record_gradients(trainer)
        trainer.train()
        gradients.append(grads)
        fields.append((before, weights_of(trainer.flow.field)))
        assert any("flow/loss" in entry for entry in trainer.state.log_history) == update
    assert gradients[0] and same(*gradients)
    assert not same(*fields[0])
    assert same(*fields[1])


def record_gradients(trainer) -> dict[str, torch.Tensor]:
    from transformers import TrainerCallback

    grads: dict[str, torch.Tensor] = {}

    class Record(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            for name, parameter in trainer.model.named_parameters():
                if parameter.grad is not None:
                    grads[name] = parameter.grad.detach().clone()

    trainer.add_callback(Record())
    return grads


def test_nothing_moves_when_nothing_is_accepted(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), flow="new", reward=lambda completions, **_: [0.0] * len(completions))
    before = weights_of(trainer.flow.field)
    trainer.train()
    assert same(before, weights_of(trainer.flow.field))
    assert not any("flow/loss" in entry for entry in trainer.state.log_history)


def test_soft_weight_lets_rejected_responses_in(make_trainer, make_policy):
    trainer = make_trainer(
        make_policy(), flow="new", flow_soft_weight=0.5, reward=lambda completions, **_: [0.0] * len(completions)
    )
    before = weights_of(trainer.flow.field)
    trainer.train()
    assert not same(before, weights_of(trainer.flow.field))


def test_high_entropy_tokens_can_be_accepted_instead(make_trainer, make_policy):
    trainer = make_trainer(
        make_policy(), flow="new", flow_accept="entropy", reward=lambda completions, **_: [0.0] * len(completions)
    )
    before = weights_of(trainer.flow.field)
    seen = []
    accumulate = trainer.flow.accumulate
    trainer.flow.accumulate = lambda latents, valid, weights, is_right: (
        seen.append(weights),
        accumulate(latents, valid, weights),
    )
    trainer.train()
    assert not same(before, weights_of(trainer.flow.field))
    share = sum(w.sum() for w in seen) / sum(w.numel() for w in seen)
    assert 0 < share < 0.5  # the quantile is 0.8


def test_with_entropy_acceptance_undecided_answers_and_dropped_groups_teach_nothing(make_trainer, make_policy):
    """Group 0 has an undecided answer; group 1 is all right, which the filter drops."""

    def reward(completions, **_):
        return [None, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]

    trainer = make_trainer(
        make_policy(), flow="new", max_steps=1, flow_accept="entropy", flow_soft_weight=0.5, group_filter="mixed",
        per_device_train_batch_size=8, steps_per_generation=1, reward=reward, undecided_limit=1.0,
    )  # fmt: skip
    seen = []
    accumulate = trainer.flow.accumulate
    trainer.flow.accumulate = lambda latents, valid, weights, is_right: (
        seen.append((latents.hidden.shape[1], weights)),
        accumulate(latents, valid, weights),
    )
    trainer.train()
    ((rows, weights),) = seen
    assert rows == 3 and len(weights) == 3 and (weights.amax(dim=1) > 0).all()


def test_undecided_responses_get_no_advantage_and_teach_the_field_nothing(make_trainer, make_policy):
    def reward(completions, **_):
        return [None if i % 4 == 0 else float(i % 2) for i in range(len(completions))]

    trainer = make_trainer(
        make_policy(), flow="new", max_steps=1, flow_soft_weight=1.0, flow_threshold=0.1, reward=reward
    )
    seen = capture_rollout(trainer)
    trainer.train()
    assert (seen["advantages"][::4] == 0).all()
    assert seen["flow_weight"].tolist() == [0, 1, 1, 1] * 2
    logged = trainer.state.log_history[0]
    assert logged["outcome/undecided"] == 0.25
    assert logged["outcome/accuracy"] == pytest.approx(2 / 3)  # of 1, 2, 3 in each group, 1 and 3 are right


def test_metrics_of_a_step(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), flow="new", flow_threshold=0.2, max_steps=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    for name in (
        "outcome/accuracy", "outcome/undecided", "rewards/last_digit_reward/mean", "completions/clipped_ratio",
        "flow/deviation_correct", "flow/deviation_wrong", "flow/auc_wrong_above_correct_mean",
        "flow/auc_wrong_above_correct_max", "flow/auc_within_group_mean", "flow/groups_with_both",
        "flow/share_rewarded", "flow/share_penalised", "flow/reward_per_token",
        "flow/reward_per_response", "flow/loss", "entropy", "seconds/rollout", "seconds/generate", "seconds/reward",
        "seconds/flow_score", "seconds/flow_update", "seconds/loss",
    ):  # fmt: skip
        assert name in logged, name
        assert logged[name] is not None and math.isfinite(logged[name]), name
    assert 0 < logged["flow/share_rewarded"] < 1


def test_policy_that_would_sample_vision_tokens_trains(make_trainer, make_policy, processor):
    """The head prefers the vision tokens by 100 nats; without the ban the next pass dies on image features."""
    policy = make_policy()
    push_towards_vision_tokens(policy, processor)
    trainer = make_trainer(policy, flow="new")
    sampled: list[int] = []
    generate = trainer._generate

    def recording(prompts):
        result = generate(prompts)
        sampled.extend(token for ids in result[1] for token in ids)
        return result

    trainer._generate = recording
    trainer.train()
    from rlfr_vlm.models.vision import vision_token_ids

    assert sampled and not set(sampled) & set(vision_token_ids(policy, processor))
    assert all(math.isfinite(loss) for loss in losses_of(trainer))


def push_towards_vision_tokens(policy, processor) -> None:
    from rlfr_vlm.models.vision import vision_token_ids

    policy.lm_head.weight = torch.nn.Parameter(policy.lm_head.weight.detach().clone())  # untie
    with torch.no_grad():
        policy.lm_head.weight[:, 0] = 0
        policy.lm_head.weight[vision_token_ids(policy, processor), 0] = 10
    direction = torch.zeros(policy.config.get_text_config().hidden_size)
    direction[0] = 10
    policy.model.language_model.norm.register_forward_hook(lambda _m, _i, output: output + direction)


def test_vision_tower_is_frozen_unless_asked(make_trainer, make_policy, capsys):
    trainer = make_trainer(make_policy())
    assert not any(p.requires_grad for p in trainer.model.model.visual.parameters())
    assert "vision tower frozen" in capsys.readouterr().out
    trainer = make_trainer(make_policy(), freeze_vision=False)
    assert all(p.requires_grad for p in trainer.model.model.visual.parameters())


def test_field_stays_outside_the_policy(make_trainer, make_policy):
    trainer = make_trainer(make_policy(), flow="new")
    policy_parameters = {id(p) for p in trainer.model.parameters()}
    assert not policy_parameters & {id(p) for p in trainer.flow.field.parameters()}
    assert not any("flow" in name or "banned" in name for name in trainer.model.state_dict())
    assert "lm_head.bias" not in trainer.model.state_dict()


def test_field_saved_in_rl_loads_back(make_trainer, make_policy, tmp_path):
    from rlfr_vlm.flow import load_field

    trainer = make_trainer(make_policy(), flow="new", save_strategy="steps", save_steps=2)
    trainer.train()
    field, spec = load_field(tmp_path / "run" / "checkpoint-2" / "flow")
    assert same(weights_of(field), weights_of(trainer.flow.field))
    assert spec == trainer.flow.spec


def test_lora_policy_trains_with_flow_rewards(make_trainer, make_policy):
    from peft import LoraConfig, get_peft_model

    policy = get_peft_model(make_policy(), LoraConfig(target_modules=["q_proj", "v_proj"]))
    trainer = make_trainer(policy, flow="new", beta=0.04)  # the reference pass is the same module with adapters off
    before = weights_of(policy)
    trainer.train()
    changed = {name for name, weight in weights_of(policy).items() if not torch.equal(weight, before[name])}
    assert changed and all("lora_" in name for name in changed)
    assert any("flow/loss" in entry for entry in trainer.state.log_history)


def test_flow_coefficient_without_a_field_is_refused(make_trainer, make_policy):
    with pytest.raises(UserError, match=r"flow_coef is 0\.01 but there is no flow field.*fit-flow"):
        make_trainer(make_policy(), flow_coef=0.01)


def test_field_that_does_not_fit_is_refused(make_trainer, make_policy):
    spec = FlowSpec(hidden_size=64, depth=1, num_layers=4, layer_percentiles=(0.5,), layer_indices=(2,))
    with pytest.raises(UserError, match="hidden width: field 64, policy 32"):
        make_trainer(make_policy(), flow=(build_field(spec), spec))
    with pytest.raises(UserError, match="asks for token_post"):
        make_trainer(make_policy(), flow="new", flow_context_mode="token_post")


def test_save_model_saves_the_field_beside_the_policy(make_trainer, make_policy, tmp_path):
    from rlfr_vlm.flow import load_field

    trainer = make_trainer(make_policy(), flow="new", max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    field, spec = load_field(tmp_path / "saved" / "flow")
    assert same(weights_of(field), weights_of(trainer.flow.field)) and spec == trainer.flow.spec
    assert (tmp_path / "saved" / "config.json").is_file()


@pytest.fixture
def saved_policy(make_policy, processor, tmp_path):
    folder = tmp_path / "policy"
    make_policy().save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def test_model_and_rewards_by_name_and_field_by_path(saved_policy, make_policy, arguments, digits, tmp_path):
    from rlfr_vlm import RLFRConfig, RLFRTrainer, save_field

    spec = FlowSpec.for_policy(make_policy().config.get_text_config(), "tiny", 1, (0.25, 0.5))
    save_field(tmp_path / "flow", build_field(spec), spec)
    args = RLFRConfig(**arguments(flow_path=str(tmp_path / "flow"), max_steps=1))
    trainer = RLFRTrainer(saved_policy, ["accuracy", "format_boxed"], args, digits)
    assert trainer.flow is not None and trainer.flow.spec == spec
    assert trainer.reward_func_names == ["accuracy", "format_boxed"]
    trainer.train()
    assert trainer.state.global_step == 1


def test_flow_path_that_is_not_there_and_none_at_all(saved_policy, arguments, digits, tmp_path):
    from rlfr_vlm import RLFRConfig, RLFRTrainer

    with pytest.raises(UserError, match="flow_path is not set"):
        RLFRTrainer(saved_policy, "accuracy", RLFRConfig(**arguments()), digits)
    with pytest.raises(UserError, match="nowhere"):
        RLFRTrainer(saved_policy, "accuracy", RLFRConfig(**arguments(flow_path=str(tmp_path / "nowhere"))), digits)
    with pytest.raises(UserError, match="Cannot load the model 'no/model'"):
        RLFRTrainer("no/model", "accuracy", RLFRConfig(**arguments(method="rlvr")), digits)


def test_a_plain_hugging_face_dataset_works_as_it_is(make_policy, processor, arguments):
    import datasets

    from rlfr_vlm import RLFRConfig, RLFRTrainer
    from rlfr_vlm.data.digits import digit_rows

    rows = [
        {"prompt": row["prompt"][0]["content"], "images": row["images"], "answer": row["answer"]}
        for row in digit_rows("train", 8, 0)
    ]
    plain = datasets.Dataset.from_list(rows)
    seen = []

    def reward(completions, answer, images, **_):
        seen.append((answer, images))
        return [0.0] * len(completions)

    trainer = RLFRTrainer(
        make_policy(), reward, RLFRConfig(**arguments(method="rlvr", max_steps=1)), plain, processing_class=processor
    )
    trainer.train()
    answers, images = seen[0]
    assert set(answers) <= {row["answer"] for row in rows} and all(row[0].size == (56, 28) for row in images)


def test_settings_may_be_left_out(make_text_policy, text_tokenizer, text_digits, tmp_path, monkeypatch):
    from rlfr_vlm import RLFRTrainer

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="flow_path is not set"):  # rlfr is the default method
        RLFRTrainer(make_text_policy(), "accuracy", train_dataset=text_digits, processing_class=text_tokenizer)
