"""Each image is processed once per rollout, and nothing else changes."""

import torch
from PIL import Image

from rlfr_vlm.models.shared_images import images_processed_once

RED, BLUE = Image.new("RGB", (56, 28), "red"), Image.new("RGB", (84, 56), "blue")


def count_calls(processor, monkeypatch):
    """Numbers of images that really were processed, call by call."""
    counts = []
    cls = type(processor.image_processor)
    original = cls._preprocess

    def counting(self, images, *arguments, **settings):
        counts.append(len(images))
        return original(self, images, *arguments, **settings)

    monkeypatch.setattr(cls, "_preprocess", counting)
    return counts


def test_same_result_from_fewer_images(processor, monkeypatch):
    texts = ["<|vision_start|><|image_pad|><|vision_end|>a"] * 4
    images = [[RED], [RED], [BLUE], [RED]]
    plain = processor(text=texts, images=images, padding=True, return_tensors="pt")
    counts = count_calls(processor, monkeypatch)
    with images_processed_once(processor):
        shared = processor(text=texts, images=images, padding=True, return_tensors="pt")
        again = processor(text=texts[:2], images=images[1:3], padding=True, return_tensors="pt")
    assert counts == [2, 0] or counts == [2]
    for key in plain:
        assert torch.equal(plain[key], shared[key]), key
    assert torch.equal(again["image_grid_thw"], plain["image_grid_thw"][1:3])


def test_the_processor_is_as_before_afterwards(processor, tmp_path):
    before = type(processor.image_processor)
    with images_processed_once(processor):
        assert type(processor.image_processor).__name__ == before.__name__
        processor.save_pretrained(tmp_path)
    assert type(processor.image_processor) is before
    processor(text=["a"], return_tensors="pt")


def test_plain_tokenizers_are_left_alone(text_tokenizer):
    with images_processed_once(text_tokenizer):
        assert text_tokenizer("a")["input_ids"]


def test_a_rollout_processes_each_prompts_image_once(make_trainer, make_policy, processor, monkeypatch):
    """Two prompts, four responses each, processed for generation and again for the log-probs: two images in all."""
    counts = count_calls(processor, monkeypatch)
    make_trainer(make_policy(), max_steps=1).train()
    assert sum(counts) == 2
