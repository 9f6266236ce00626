"""Encoding of rows as tensors."""

import torch

from rlfr_vlm.data.digits import digit_rows
from rlfr_vlm.data.encode import encode_examples, encode_prompts, render_prompt, tokenizer_of
from rlfr_vlm.data.prompts import build_messages


def rows_of(processor) -> list[dict]:
    rows = digit_rows("train", 3, 0)
    rows[1]["response"] = "7"
    for row in rows:
        row["prompt"] = build_messages(row["prompt"], 1)
    return rows


def test_prompt_string_is_the_chat_template_with_one_placeholder(processor):
    prompt = build_messages("sum?", 1)
    expected = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>sum?<|im_end|>\n<|im_start|>assistant\n"
    assert render_prompt(processor, prompt) == expected


def test_prompts_equal_those_of_trl(processor):
    """TRL tokenizes with `apply_chat_template`. Both ways must give the same ids and pixels."""
    row = rows_of(processor)[0]
    encoded = encode_prompts(processor, [row])
    image = row["images"][0]
    messages = [
        {**m, "content": [{**b, "image": image} if b["type"] == "image" else b for b in m["content"]]}
        for m in row["prompt"]
    ]
    expected = processor.apply_chat_template([messages], tokenize=True, return_dict=True, add_generation_prompt=True)
    assert encoded.input_ids[0].tolist() == expected["input_ids"][0]
    assert torch.equal(encoded.extra["pixel_values"], expected["pixel_values"])
    # image tokens = patches / merge^2
    image_tokens = (encoded.input_ids == processor.image_token_id).sum()
    assert image_tokens == encoded.extra["image_grid_thw"].prod() // 4 == 2


def test_responses_follow_the_prompt_and_end_with_the_end_token(processor):
    rows = rows_of(processor)
    batch = encode_examples(processor, rows)
    tokenizer, length = tokenizer_of(processor), batch.completion_mask.shape[1]
    for number, row in enumerate(rows):
        ids = batch.input_ids[number, -length:][batch.completion_mask[number]]
        assert tokenizer.decode(ids) == row["response"] + "<|im_end|>"
    assert batch.completion_mask[1].sum() == 2
    assert torch.equal(batch.attention_mask[:, -length:].bool(), batch.completion_mask)
    assert batch.extra["mm_token_type_ids"].shape == batch.input_ids.shape


def test_text_only_tokenizer(text_tokenizer):
    rows = [
        {"prompt": build_messages("sum?", 0), "response": "7"},
        {"prompt": build_messages("product?", 0), "response": "10"},
    ]
    batch = encode_examples(text_tokenizer, rows)
    assert batch.extra == {} or "pixel_values" not in batch.extra
    assert text_tokenizer.decode(batch.input_ids[0], skip_special_tokens=True) == "user\nsum?\nassistant\n7"
