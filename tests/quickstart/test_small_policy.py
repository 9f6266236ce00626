"""The small policy is a Qwen2.5-VL that transformers loads like any other."""

from transformers import AutoModelForImageTextToText, AutoProcessor, Qwen2_5_VLForConditionalGeneration

from rlfr_vlm.data.digits import digit_rows
from rlfr_vlm.quickstart.small_policy import PolicySize, build_policy


def test_size_and_parts(processor):
    policy = build_policy(processor, PolicySize())
    assert isinstance(policy, Qwen2_5_VLForConditionalGeneration)
    assert 0.9e6 < sum(p.numel() for p in policy.parameters()) < 1.2e6
    assert policy.lm_head.weight is policy.model.language_model.embed_tokens.weight
    assert sum(policy.config.get_text_config().rope_parameters["mrope_section"]) == 16  # half the head dimension


def test_saved_folder_loads_as_any_hugging_face_model(make_policy, processor, tmp_path):
    make_policy().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert isinstance(AutoModelForImageTextToText.from_pretrained(tmp_path), Qwen2_5_VLForConditionalGeneration)
    assert loaded.tokenizer.eos_token == "<|im_end|>"
    image = digit_rows("train", 1, 0)[0]["images"][0]
    text = "<|vision_start|><|image_pad|><|vision_end|>sum?"
    assert (
        loaded(text=[text], images=[image])["input_ids"][0] == processor(text=[text], images=[image])["input_ids"][0]
    )


def test_digits_are_single_tokens_and_text_survives(processor):
    text = "12 * 34 = 408. \\boxed{408} é 数"
    ids = processor.tokenizer(text)["input_ids"]
    assert processor.tokenizer.decode(ids) == text
    for digit in "0123456789":
        assert len(processor.tokenizer(digit)["input_ids"]) == 1
    assert [processor.tokenizer.decode([i]) for i in processor.tokenizer("12")["input_ids"]] == ["1", "2"]
