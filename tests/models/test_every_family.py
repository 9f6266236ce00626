"""Every family that the table in rlfr_vlm/models/README.md names, with a tiny random policy built without a hub."""

import functools
import json
import re

import pytest
import torch
from PIL import Image

from rlfr_vlm.data.encode import append_responses, encode_prompts
from rlfr_vlm.data.lengths import TokenCounter, plan_lengths
from rlfr_vlm.data.load import read_rows
from rlfr_vlm.data.prompts import build_messages
from rlfr_vlm.errors import UserError
from rlfr_vlm.models import FAMILIES, family_of, family_of_processor, model_type_of
from rlfr_vlm.models.dummy_image import without_missing_images
from rlfr_vlm.models.latents import capture_latents
from rlfr_vlm.models.pass_images import count_rows_of_images
from rlfr_vlm.models.towers import find_language_tower, find_vision_tower
from rlfr_vlm.models.vision import ban_tokens, vision_token_ids
from rlfr_vlm.options import DataOptions
from rlfr_vlm.trainer.batches import join_batches, select_rows
from rlfr_vlm.trainer.vllm.plain_prompts import PlainPrompts
from tests.models import small_families
from tests.models.small_families import TEXTS, VISION, prefer

SIZES = [(56, 28), (28, 56), (100, 75), (75, 100), (300, 40), (64, 64), (33, 200), (640, 480)]
# rows with one image, none, two, and one of another shape
ROWS = [[(100, 75)], [], [(56, 28), (64, 64)], [(40, 90)]]


@functools.cache
def processor_of(name):
    return small_families.build_processor((VISION | TEXTS)[name])


def policy_of(name, seed=0):
    return small_families.build_policy((VISION | TEXTS)[name], processor_of(name), seed)


def row(sizes, question="sum?"):
    images = [Image.effect_noise(size, 90).convert("RGB") for size in sizes]
    return {"prompt": build_messages(question, len(images)), "images": images, "answer": "4"}


def mixed_rows(name):
    return [row(sizes if name in VISION else [], "sum?" + " more" * number) for number, sizes in enumerate(ROWS)]


def mixed_batch(name, responses=((200, 201, 202), (203, 204), (205, 206, 207), (208,))):
    return append_responses(encode_prompts(processor_of(name), mixed_rows(name)), responses, 0)


@pytest.mark.parametrize("name", VISION | TEXTS)
def test_latents_equal_output_hidden_states(name):
    policy, batch = policy_of(name), mixed_batch(name)
    tower = find_language_tower(policy)
    assert len(tower.layers) == 4 and tower.config.hidden_size == 32
    assert (find_vision_tower(policy) is None) == (name in TEXTS)
    with torch.no_grad(), capture_latents(policy, (1, 2, 3), 4) as captured:
        output = policy(**batch.model_inputs(), output_hidden_states=True)
    hidden = captured[0].hidden
    assert hidden.shape == (3, 4, 4, 32) and hidden.abs().sum() > 0
    torch.testing.assert_close(hidden, torch.stack(output.hidden_states[1:4])[:, :, -4:])


@pytest.mark.parametrize("name", VISION)
def test_image_tokens_are_counted_before_training(name):
    processor, counter = processor_of(name), TokenCounter(processor_of(name))
    rows = [row([size]) for size in SIZES] + mixed_rows(name)
    sizes = [[image.size for image in one["images"]] for one in rows]
    expected = [int(encode_prompts(processor, [one]).attention_mask.sum()) for one in rows]
    assert counter.prompt_tokens(rows, sizes) == expected
    assert max(expected) > min(expected)


@pytest.mark.parametrize("name", VISION)
def test_vision_tokens_are_never_sampled(name):
    policy, processor = policy_of(name), processor_of(name)
    banned = vision_token_ids(policy, processor)
    image_token = family_of(policy).image_token_id(policy.config)
    texts = set(processor.tokenizer.convert_ids_to_tokens(banned))
    assert image_token in banned and set(VISION[name].tokens) - {"<end_of_utterance>"} == texts
    prefer(policy, banned)
    batch = encode_prompts(processor, mixed_rows(name))
    probabilities = policy(**batch.model_inputs()).logits[:, -1].softmax(dim=-1)
    assert probabilities[:, banned].sum(dim=-1).min() > 1 - 1e-6
    ban_tokens(policy, banned)
    logits = policy(**batch.model_inputs()).logits[:, -1]
    assert (logits.softmax(dim=-1)[:, banned] == 0).all()
    torch.manual_seed(0)
    output = policy.generate(**batch.model_inputs(), do_sample=True, top_k=0, max_new_tokens=8, min_new_tokens=8)
    assert not torch.isin(output[:, batch.input_ids.shape[1] :], torch.tensor(banned)).any()


@pytest.mark.parametrize("name", VISION)
def test_a_tokenizer_without_the_image_token_is_refused(name):
    """The ban would miss the token that the policy takes for an image."""
    policy, processor = policy_of(name), small_families.build_processor(TEXTS["Llama"])
    with pytest.raises(UserError, match=f"none of {re.escape(family_of(policy).name)}'s vision tokens .* ban nothing"):
        vision_token_ids(policy, processor)


@pytest.mark.parametrize("name", VISION)
def test_a_black_image_changes_nothing_and_runs_the_tower(name):
    policy, passes = policy_of(name), []
    find_vision_tower(policy).register_forward_hook(lambda *_: passes.append(1))
    inputs = {"input_ids": torch.tensor([[200, 201, 202]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    plain = policy(**inputs).logits
    assert passes == []
    with without_missing_images(policy, dummy=True):
        filled = policy(**inputs).logits
        assert torch.equal(filled, plain) and len(passes) == 1
        filled.sum().backward()
    projector = [p.grad for n, p in policy.named_parameters() if "projector" in n or "connector" in n or "merger" in n]
    assert all(gradient is not None and not gradient.any() for gradient in projector)


@pytest.mark.parametrize("name", VISION)
def test_image_tokens_of_rows_equal_the_prompts(name):
    processor, policy = processor_of(name), policy_of(name)
    family, batch = family_of(policy), mixed_batch(name)
    assert family is family_of_processor(processor)
    images = dict(batch.extra) | {"num_images": [len(sizes) for sizes in ROWS]}
    if name == "LFM2-VL":  # as TRL adds it; here no image is large enough for tiles
        images["num_tiles"] = images["num_images"]
    if name == "InternVL":
        images["num_tiles"] = [5, 0, 3 + 5, 3]  # tiles of 28 x 28 and a thumbnail
    found = (batch.input_ids == family.image_token_id(policy.config)).sum(dim=1).tolist()
    assert family.row_image_tokens(images, processor) == found


ROLLOUTS = ([[(100, 75)], [(64, 64)]], [[], [(56, 28), (40, 90)]], [[], []])  # sizes of the images of their rows


def rollout(name, sizes, first):
    """A batch as TRL's rollouts return it: two rows, each with a response of two tokens."""
    family = family_of(policy_of(name))
    rows = [row(one, "sum?" + " more" * (first + number)) for number, one in enumerate(sizes)]
    encoded = append_responses(encode_prompts(processor_of(name), rows), [(200, 201), (202, 203)], 0)
    width = encoded.input_ids.shape[1] - 2
    batch = dict(encoded.extra) | {
        "prompt_ids": encoded.input_ids[:, :width], "prompt_mask": encoded.attention_mask[:, :width],
        "completion_ids": encoded.input_ids[:, width:], "completion_mask": encoded.attention_mask[:, width:],
    }  # fmt: skip
    batch.pop("batch_num_images", None)
    if any(sizes):
        batch["num_images"] = [len(one) for one in sizes]
        tiles = {"LFM2-VL": [1, 1, 1, 1], "InternVL": [5, 5, 3, 3]}.get(name)  # of the images of ROLLOUTS in order
        if tiles:
            numbers = iter(tiles[2 * first :])
            batch["num_tiles"] = [sum(next(numbers) for _ in one) for one in sizes]
    count_rows_of_images(family, batch)
    return rows, batch


def logits_of_responses(policy, batch):
    family, num_images = family_of(policy), batch.get("num_images")
    keys = (*family.image_keys, "token_type_ids", "mm_token_type_ids")
    inputs = {key: batch[key] for key in keys if batch.get(key) is not None}
    if family.takes_image_numbers and num_images:
        inputs["batch_num_images"] = torch.tensor([number for number in num_images if number])
    inputs["input_ids"] = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    inputs["attention_mask"] = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    with torch.no_grad(), without_missing_images(policy, dummy=False):
        return policy(**inputs).logits[:, -2:]


@pytest.mark.parametrize("name", VISION)
def test_rows_of_several_rollouts_keep_their_images(name):
    """Rollouts with images of other sizes are joined, as for a refill, and rows are taken out in another order."""
    policy = policy_of(name)
    batches = [rollout(name, sizes, number)[1] for number, sizes in enumerate(ROLLOUTS)]
    expected = torch.cat([logits_of_responses(policy, batch) for batch in batches])
    joined = join_batches(batches, 0)
    torch.testing.assert_close(logits_of_responses(policy, joined), expected)
    for order in ([3, 5, 0], [1], [2, 4]):
        torch.testing.assert_close(logits_of_responses(policy, select_rows(joined, order)), expected[order])


@pytest.mark.parametrize("name", VISION)
def test_vllm_gets_one_placeholder_for_each_image(name):
    """Images stand side by side in one of the prompts; vLLM gets what the chat template wrote."""
    processor, policy = processor_of(name), policy_of(name)
    family, rows = family_of(policy), mixed_rows(name)
    batch = encode_prompts(processor, rows)
    prompts = [ids[mask.bool()].tolist() for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    plain = PlainPrompts(family, processor, family.image_token_id(policy.config), {})
    plain.remember([one["prompt"] for one in rows])
    ids = [processor.tokenizer.convert_tokens_to_ids(token) for token in VISION[name].tokens]
    for written, row_sizes in zip(plain.plain(prompts), ROWS, strict=True):
        assert processor.tokenizer.decode(written).count(VISION[name].image) == len(row_sizes)
        around = len(processor.tokenizer(VISION[name].image)["input_ids"])
        assert sum(token in ids for token in written) == len(row_sizes) * around


@pytest.mark.parametrize("name", VISION)
def test_long_prompts_are_downscaled_or_that_is_refused(name, tmp_path):
    """A row whose large image becomes more tokens than the limit, which is one below what it has."""
    Image.effect_noise((640, 480), 90).convert("RGB").save(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "sum?", "images": ["a.png"]}))
    rows = read_rows(DataOptions(dataset_name=str(tmp_path / "rows.jsonl")))
    processor = processor_of(name)
    limit = int(encode_prompts(processor, [rows.load(0)]).attention_mask.sum()) - 1
    if not family_of_processor(processor).image_grid(processor).shrinks:
        with pytest.raises(
            UserError, match=f"more than max_prompt_tokens {limit}, and long_prompts is downscale, but"
        ):
            plan_lengths(rows, processor, limit, "downscale")
        return
    plan = plan_lengths(rows, processor, limit, "downscale")
    assert plan.counts == {"downscaled": 1}
    rows.pixel_limits = plan.pixel_limits
    shrunk = int(encode_prompts(processor, [rows.load(0)]).attention_mask.sum())
    assert shrunk <= limit and rows.load(0)["images"][0].width >= 28


def test_the_documents_name_the_families_that_are_tested():
    """Run `python -m tests.models.families_table --write` when it fails."""
    from tests.models.families_table import BLOCK, README, ROOT, families_table

    shown = BLOCK.search(README.read_text(encoding="utf-8"))
    assert shown is not None and shown[0] == families_table()
    front = (ROOT / "README.md").read_text(encoding="utf-8").split("## Supported")[1].split("## Install")[0]
    for families, others, kind in (
        (VISION, 1, "vision-language"),
        (TEXTS, 2, "text"),
    ):  # others have rows of their own
        [listed] = re.findall(rf"{len(families) - others} more {kind} families: (.*?) \.\.\.", front)
        assert [name for name in listed.split(", ") if name not in families] == []


def test_every_model_type_is_tested():
    tested = {model_type_of(policy_of(name).config) for name in VISION | TEXTS}
    untested = {"qwen3_5_moe", "glm4v_moe"}  # variants with experts of families in the table
    assert {name for family in FAMILIES for name in family.model_types} == tested | untested
