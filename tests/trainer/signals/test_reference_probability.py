"""Reference probabilities under policies whose probabilities are set, and the cache of the initial ones."""

import json

import pytest
import torch

from rlfr_vlm.data.encode import encode_prompts
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards import ReferenceProbability
from rlfr_vlm.rewards.reference_probability import splice, unreasoned
from rlfr_vlm.trainer.signals.reference_probability import policy_fingerprint, reference_of

ROWS = [{"prompt": [{"role": "user", "content": text}], "answer": "4"} for text in ("sum?", "what is the product?")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RLFR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "reference_probability"


@pytest.fixture
def bind(make_trainer):
    """A trainer with the reward; gives the trainer and its probabilities."""

    def make(policy, **changes):
        known = ("rlpr_debias", "rlpr_repetition_penalty")
        options = RewardOptions(rlpr_mode="r1_nothink", **{k: v for k, v in changes.items() if k in known})
        changes = {k: v for k, v in changes.items() if k not in vars(options)}
        trainer = make_trainer(policy, reward=ReferenceProbability(options), **changes)
        return trainer, trainer.probabilities

    return make


def set_probabilities(policy, probabilities: torch.Tensor) -> None:
    """Make every position's distribution `probabilities` (V,), whatever came before."""
    head = torch.nn.Linear(policy.lm_head.in_features, policy.lm_head.out_features, bias=True)
    torch.nn.init.zeros_(head.weight)
    head.bias.data = probabilities.log()
    policy.set_output_embeddings(head)


def texts(*responses, reference="42"):
    return [splice(response, reference, "r1_nothink") for response in responses]


def test_uniform_policy_gives_one_over_v(bind, make_text_policy, text_tokenizer, text_digits):
    policy = make_text_policy()
    size = policy.config.vocab_size
    set_probabilities(policy, torch.full((size,), 1 / size))
    _, probabilities = bind(policy, processing_class=text_tokenizer, dataset=text_digits)
    found = probabilities.current(ROWS, texts("a <answer>1", "no <answer>2</answer>"))
    assert found == pytest.approx([1 / size] * 2, rel=1e-4)


def test_set_probabilities_give_the_closed_form(bind, make_text_policy, text_tokenizer, text_digits):
    """The reference's tokens, found by hand: `42` behind `<answer> `, digits single, so ` ` + 4 + 2 or ` 4` + 2."""
    policy = make_text_policy()
    size = policy.config.vocab_size
    weights = torch.arange(1, size + 1, dtype=torch.float32)
    set_probabilities(policy, weights / weights.sum())
    _, probabilities = bind(policy, processing_class=text_tokenizer, dataset=text_digits)
    spliced = texts("ab <answer>1")[0]
    encoded = text_tokenizer(spliced.text, add_special_tokens=False, return_offsets_mapping=True)
    of_reference = [
        token
        for token, (a, b) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        if set(range(a, b)) & {spliced.start, spliced.end - 1}
    ]
    assert text_tokenizer.decode(of_reference).strip() == "42"
    expected = sum((token + 1) / weights.sum().item() for token in of_reference) / len(of_reference)
    assert probabilities.current(ROWS[:1], [spliced]) == pytest.approx([expected], rel=1e-4)


def test_batched_equals_row_by_row_and_invalid_rows_are_zero(bind, make_policy, digits):
    trainer, probabilities = bind(make_policy(), rlpr_batch_size=2)
    rows = [{**digits[i], "answer": digits[i]["answer"]} for i in range(5)]
    spliced = [splice(f"{'x' * i} <answer>1", row["answer"], "r1_nothink") for i, row in enumerate(rows)]
    spliced[2] = None
    together = probabilities.current(rows, spliced)
    alone = [probabilities.current([row], [text])[0] for row, text in zip(rows, spliced, strict=True)]
    assert together == pytest.approx(alone, rel=1e-4)
    assert together[2] == 0.0 and min(together[:2] + together[3:]) > 0
    trainer.model.train()
    probabilities.current(rows[:1], spliced[:1])
    assert trainer.model.training  # its mode is put back
    assert together != pytest.approx(probabilities.current([rows[1], *rows[1:]], spliced), rel=1e-4)  # images count


def test_shared_prompts_give_the_probabilities_of_rows(bind, make_policy, digits):
    rows = [digits[0], digits[1], digits[0], digits[0]]
    spliced = texts("a <answer>1", "b <answer>1", "longer c <answer>1", "d <answer>1")
    found = []
    for share in ("false", "true"):
        trainer, probabilities = bind(make_policy(), share_prefix=share)
        found.append(probabilities.current(rows, spliced))
    assert found[1] == pytest.approx(found[0], rel=1e-4) and min(found[0]) > 0
    assert trainer.sharing.is_on and trainer.sharing.take_metrics()["share_prefix/images_saved"] == 0.5


def test_image_rows_beside_text_rows(bind, make_policy, digits):
    _, probabilities = bind(make_policy())
    rows = [digits[0], {"prompt": ROWS[0]["prompt"], "images": [], "answer": "4"}, digits[1]]
    spliced = texts("a <answer>1", "b <answer>1", "c <answer>1")
    alone = [probabilities.current([row], [text])[0] for row, text in zip(rows, spliced, strict=True)]
    assert probabilities.current(rows, spliced) == pytest.approx(alone, rel=1e-4)


def test_an_over_long_row_never_voids_its_neighbours(bind, make_policy, digits, processor):
    rows = [digits[0], digits[1]]
    longest = int(encode_prompts(processor, rows).attention_mask.sum(dim=1).max()) + 60
    _, probabilities = bind(make_policy(), rlpr_max_tokens=longest)
    short, long = texts("a <answer>1", "word " * 200 + "<answer>1")
    alone = probabilities.current(rows[:1], [short])
    assert probabilities.current(rows, [short, long]) == pytest.approx([*alone, 0.0], rel=1e-4)


def test_prompt_ids_are_those_of_generation(bind, make_policy, digits):
    """The reward scores what the policy was asked: its prompts are encoded as TRL encodes them."""
    trainer, probabilities = bind(make_policy(), max_steps=1, rlpr_debias=False)
    seen = {}
    own = probabilities._probabilities

    def recording(rows, prompts, tokens):
        seen["reward"] = [
            ids[mask.bool()].tolist() for ids, mask in zip(prompts.input_ids, prompts.attention_mask, strict=True)
        ]
        return own(rows, prompts, tokens)

    generate = trainer._generate

    def recording_generate(prompts):
        result = generate(prompts)
        seen["generation"] = [list(ids) for ids in result[0]]
        return result

    probabilities._probabilities, trainer._generate = recording, recording_generate
    trainer.train()
    assert seen["reward"] == seen["generation"]


def test_baseline_is_computed_once_with_the_initial_policy(bind, make_policy, digits, cache):
    trainer, probabilities = bind(make_policy(), max_steps=2)
    rows = [digits[i] for i in range(4)]
    expected = probabilities.current(rows, [unreasoned(row["answer"], "r1_nothink") for row in rows])
    trainer.train()
    assert probabilities.baseline(rows, [reference_of(row) for row in rows]) == pytest.approx(expected, rel=1e-4)
    lines = [line for path in cache.glob("*.jsonl") for line in path.read_text().splitlines() if line]
    assert len(lines) == len({json.loads(line)[0] for line in lines}) <= len(digits)

    _, from_disk = bind(make_policy(), max_steps=1)
    from_disk.current = None  # asking the policy would fail
    from_disk.prepare(digits, 8)
    assert from_disk.baseline(rows, [reference_of(row) for row in rows]) == pytest.approx(expected, rel=1e-6)

    _, other = bind(make_policy(seed=1), max_steps=1)
    other.prepare(digits, 8)  # another policy has its own
    assert other.baseline(rows, [reference_of(row) for row in rows]) != pytest.approx(expected, rel=1e-3)


def test_a_line_cut_off_by_a_kill_is_computed_again(bind, make_policy, digits, cache):
    _, probabilities = bind(make_policy())
    probabilities.prepare(digits, 16)
    path = next(cache.glob("*.jsonl"))
    whole = path.read_text()
    path.write_text(whole[:-20])
    _, again = bind(make_policy())
    again.prepare(digits, 16)
    rows = [digits[i] for i in range(len(digits))]
    references = [reference_of(row) for row in rows]
    assert again.baseline(rows, references) == pytest.approx(probabilities.baseline(rows, references), rel=1e-4)


def test_rows_that_change_are_refused(bind, make_policy, digits):
    _, probabilities = bind(make_policy())
    with pytest.raises(UserError, match="are computed by train"):
        probabilities.baseline(ROWS[:1], ["4"])
    probabilities.prepare(digits, 8)
    with pytest.raises(UserError, match="1 rows have no reference probability under the initial policy"):
        probabilities.baseline(ROWS[:1], ["4"])


def test_settings_that_change_probabilities_have_a_cache_of_their_own(bind, make_policy, digits, cache):
    for temperature in (1.0, 0.5):
        _, probabilities = bind(make_policy(), temperature=temperature)
        probabilities.prepare(digits, 16)
    assert len(list(cache.glob("*.jsonl"))) == 2


def test_fingerprint_tells_policies_apart(make_policy):
    assert policy_fingerprint(make_policy()) == policy_fingerprint(make_policy())
    assert policy_fingerprint(make_policy()) != policy_fingerprint(make_policy(seed=1))


def test_training_with_reference_probability_and_flow(bind, make_policy):
    trainer, _ = bind(make_policy(), flow="new", max_steps=1, method="rlfr+rlpr", flow_accept_threshold=0.001)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert {"rlpr/probability", "rlpr/baseline", "flow/reward_per_token"} <= set(logged)
