"""Packing moves rows, by length or by prompt, drops padding, and leaves the update what it was."""

import torch

from rlfr_vlm.trainer.packing import pack_by_length, pack_by_prompt, padding_share, trim


def batch(prompts, responses):
    """Rows with these lengths of prompt and response; token ids tell where they come from."""
    width, length = max(prompts), max(responses)
    sizes = list(enumerate(zip(prompts, responses, strict=True)))
    return {
        "prompt_ids": torch.tensor([[0] * (width - p) + [10 + row] * p for row, (p, _) in sizes]),
        "prompt_mask": torch.tensor([[0] * (width - p) + [1] * p for p in prompts]),
        "completion_ids": torch.tensor([[20 + row] * r + [0] * (length - r) for row, (_, r) in sizes]),
        "completion_mask": torch.tensor([[1] * r + [0] * (length - r) for r in responses]),
        "advantages": torch.arange(len(prompts)).float(),
    }  # fmt: skip


def test_rows_are_sorted_within_an_update_and_trimmed():
    first, second = batch([4, 1], [1, 6]), batch([2, 3], [1, 2])
    packed = pack_by_length([first, second], per_update=2, pad_token_id=0)
    assert [own["advantages"].tolist() for own in packed] == [[0.0, 0.0], [1.0, 1.0]]  # lengths 3 and 5, then 5 and 7
    assert packed[0]["prompt_ids"].tolist() == [[0, 0, 10, 10], [10, 10, 10, 10]]
    assert packed[0]["completion_ids"].tolist() == [[20], [20]]
    assert packed[1]["prompt_ids"].shape == (2, 3) and packed[1]["completion_ids"].shape == (2, 6)
    assert padding_share([first, second]) == 1 - 20 / 30 and padding_share(packed) == 1 - 20 / 28
    apart = pack_by_length([first, second], per_update=1, pad_token_id=0)
    assert [own["advantages"].tolist() for own in apart] == [[0.0, 1.0], [0.0, 1.0]]


def test_trim_by_hand():
    own = batch([2, 1], [1, 2]) | {"mm_token_type_ids": torch.arange(12).view(2, 6), "token": torch.ones(2, 9)}
    for key in ("prompt_ids", "prompt_mask"):
        own[key] = torch.cat([torch.zeros(2, 1, dtype=torch.long), own[key]], dim=1)
    for key in ("completion_ids", "completion_mask"):
        own[key] = torch.cat([own[key], torch.zeros(2, 1, dtype=torch.long)], dim=1)
    cut = trim(own)
    assert cut["prompt_mask"].tolist() == [[1, 1], [0, 1]] and cut["completion_mask"].tolist() == [[1, 0], [1, 1]]
    assert cut["mm_token_type_ids"].tolist() == [[1, 2, 3, 4], [7, 8, 9, 10]] and cut["token"].shape == (2, 9)


def test_an_update_is_the_same_with_and_without(make_trainer, make_policy):
    weights = []
    for packs in (True, False):
        trainer = make_trainer(
            make_policy(), flow="new", flow_accept="entropy", max_steps=1, per_device_train_batch_size=2,
            gradient_accumulation_steps=4, steps_per_generation=4, pack_by_length=packs, optim="sgd",
            learning_rate=0.1, share_prefix="false",
        )  # fmt: skip
        start = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.train()
        weights.append(dict(trainer.model.named_parameters()))
    way = sum((weights[1][name] - start[name]).square().sum() for name in start).sqrt()
    apart = sum((weights[0][name] - weights[1][name]).square().sum() for name in start).sqrt()
    assert way > 1e-3 and apart < 1e-4 * way


def rows_of(packed):
    return [own["advantages"].tolist() for own in packed]


def test_rows_with_the_same_prompt_come_one_after_the_other():
    first, second = batch([4, 1, 2], [1, 6, 1]), batch([2, 4, 1], [1, 2, 2])
    second["advantages"] += 3
    for own, prompts in ((first, [1, 2, 3]), (second, [3, 1, 2])):  # the same rows of the prompts in another order
        own["prompt_ids"] = torch.tensor(prompts).unsqueeze(1) * own["prompt_mask"]
    packed = pack_by_prompt([first, second], per_update=2, pad_token_id=0)
    assert rows_of(packed) == [[0.0, 4.0, 1.0], [5.0, 2.0, 3.0]]
    assert packed[1]["prompt_ids"].tolist() == [[0, 2], [3, 3], [3, 3]]  # trimmed
    # longest rows of the prompts: 6, 7 and 3 tokens
    assert rows_of(pack_by_prompt([first, second], 2, 0, by_length=True)) == [[2.0, 3.0, 0.0], [4.0, 1.0, 5.0]]
    # two updates of three rows: each is sorted, and none gets rows of the other
    assert rows_of(pack_by_prompt([first, second], 1, 0, by_length=True)) == [[0.0, 4.0, 1.0], [2.0, 3.0, 5.0]]
