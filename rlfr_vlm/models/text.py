"""Text-only policies whose decoder blocks are `model.layers`."""

from rlfr_vlm.models.family import ModelFamily


class TextFamily(ModelFamily):
    """Causal language models of the Llama layout."""

    name = "text-only policies"
    # Each of these was fitted, trained, evaluated and exported once with a tiny random policy.
    model_types = (
        "llama",
        "qwen2",
        "qwen3",
        "qwen3_moe",
        "mistral",
        "phi",
        "phi3",
        "gemma2",
        "gemma3_text",
        "olmo2",
        "smollm3",
        "granite",
        "glm4",
        "gpt_oss",
    )
