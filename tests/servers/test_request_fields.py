"""Requests say the same to servers that name a field differently, and others get them as they are."""

import copy

import pytest

from rlfr_vlm.servers.request_fields import neutral_sampling, with_pixel_limits

IMAGE, TEXT = {"type": "image_url", "image_url": {"url": "data:,"}}, {"type": "text", "text": "sum?"}
BODY = {
    "messages": [{"role": "system", "content": "Think."}, {"role": "user", "content": [IMAGE, TEXT, IMAGE]}],
    "seed": 1,
    "extra_body": {"mm_processor_kwargs": {"max_pixels": 50176, "fps": 2}, "top_k": 5},
}


def test_only_vllm_and_lmdeploy_are_told_to_take_no_setting_of_the_models():
    neutral = {"repetition_penalty": 1.0, "min_p": 0.0}
    assert neutral_sampling("vllm") == neutral | {"top_k": -1}
    assert neutral_sampling("lmdeploy") == neutral | {"top_k": 0}
    assert neutral_sampling("openai") == neutral_sampling(None) == {}
    neutral_sampling("vllm").clear()
    assert neutral_sampling("vllm")  # a copy


def test_lmdeploy_finds_limits_of_pixels_at_each_image_and_under_image():
    before = copy.deepcopy(BODY)
    found = with_pixel_limits(BODY, "lmdeploy")
    limited = {"type": "image_url", "image_url": {"url": "data:,", "max_pixels": 50176}}
    assert found["messages"][1]["content"] == [limited, TEXT, limited]
    assert found["messages"][0] == BODY["messages"][0] and found["seed"] == 1
    assert found["extra_body"] == {"mm_processor_kwargs": {"image": {"max_pixels": 50176}, "fps": 2}, "top_k": 5}
    assert before == BODY  # which other tries send again


@pytest.mark.parametrize("extra", [None, {}, {"mm_processor_kwargs": {"image": {"max_pixels": 9}}},
                                   {"mm_processor_kwargs": "text"}])  # fmt: skip
def test_what_needs_no_change_stays(extra):
    assert with_pixel_limits(BODY, "vllm") is BODY and with_pixel_limits(BODY, None) is BODY
    body = {**BODY, "extra_body": extra}
    assert with_pixel_limits(body, "lmdeploy") is body
    assert with_pixel_limits({"prompt": "1+1="}, "lmdeploy") == {"prompt": "1+1="}
