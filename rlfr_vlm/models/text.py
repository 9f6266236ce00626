"""Text-only policies: the layout of Llama, and the older layouts."""

from typing import TYPE_CHECKING

from rlfr_vlm.models.family import ModelFamily

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig


class TextFamily(ModelFamily):
    """Causal language models of the Llama layout."""

    name = "text-only policies"
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
        "gemma",
        "olmo3",
        "ministral3",
        "lfm2",
        "qwen3_5_text",
        "qwen3_next",
        "qwen2_moe",
        "mixtral",
        "glm",
        "glm4_moe",
        "cohere2",
        "ernie4_5",
        "seed_oss",
    )
    shares_prompts = (
        "llama",
        "qwen2",
        "qwen3",
        "mistral",
        "phi",
        "phi3",
        "olmo2",
        "smollm3",
        "granite",
        "glm4",
        "gemma",
        "ministral3",
        "glm",
        "ernie4_5",
        "seed_oss",
    )


class GPT2Family(ModelFamily):
    """GPT-2 and Falcon."""

    name = "GPT-2 and Falcon"
    model_types = ("gpt2", "falcon")
    language_tower = "transformer"
    blocks = "h"


class GPTNeoXFamily(ModelFamily):
    """GPT-NeoX and Pythia."""

    name = "GPT-NeoX"
    model_types = ("gpt_neox",)
    language_tower = "gpt_neox"


class OPTFamily(ModelFamily):
    """OPT."""

    name = "OPT"
    model_types = ("opt",)
    language_tower = "model.decoder"

    def block_inputs(self, config: "PreTrainedConfig", embeddings: "Tensor") -> dict[str, "Tensor"]:
        """Positions, which the model counts in a mask of tokens."""
        import torch

        rows, positions = embeddings.shape[:2]
        return {"position_ids": torch.arange(positions, device=embeddings.device).expand(rows, -1)}
