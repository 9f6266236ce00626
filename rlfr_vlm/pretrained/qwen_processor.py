"""Chat template and image processors of small Qwen2.5-VL policies that are made here."""

from typing import Any

# Qwen2.5-VL's chat format without the default system message, which would only lengthen the prompts.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def image_processors() -> dict[str, Any]:
    """Return Qwen2.5-VL's image and video processors for small images, as arguments of its processor."""
    from transformers import Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    limits = {"min_pixels": 28 * 28, "max_pixels": 64 * 28 * 28}
    return {
        "image_processor": Qwen2VLImageProcessor(**limits),
        "video_processor": Qwen2VLVideoProcessor(
            size={"shortest_edge": limits["min_pixels"], "longest_edge": limits["max_pixels"]},
            cap_pixels_per_frame=False,
        ),
    }
