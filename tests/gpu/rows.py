"""Policies and batches of grouped rows for the tests of this folder: tiny on a CPU, wider on a GPU."""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head

from rlfr_vlm.data.encode import append_responses, encode_prompts
from rlfr_vlm.data.prompts import build_messages
from rlfr_vlm.models.shared_prefix.attention import learn_layouts
from rlfr_vlm.models.shared_prefix.prompts import RowImages
from rlfr_vlm.trainer.shared_prefix import SharedPrefixPolicy, SharedTokens
from rlfr_vlm.trainer.trl_seams import LOGPROB_CHUNK_COLUMNS

IGNORED = -100
TEMPERATURE = 0.9
GROUPS = [0, 0, 0, 1, 1, 1, 1, 2]  # prompt of each row
PICTURES = ([(112, 84)], [(56, 56), (84, 56)], [])  # sizes of the images of each prompt


def small_or_wide(device: torch.device) -> dict[str, int]:
    """Sizes of a policy of the fixture `make_policy`."""
    if device.type == "cpu":
        return {"hidden_size": 64, "num_heads": 2, "intermediate_size": 96}
    return {"hidden_size": 512, "num_heads": 8, "intermediate_size": 1536}


def text_policy(device: torch.device) -> Any:
    """A Llama whose vocabulary takes two tiles of TRL's fused pass, with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    width = 32 if device.type == "cpu" else 512
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=LOGPROB_CHUNK_COLUMNS + 1000, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
        num_attention_heads=width // 16, num_key_value_heads=width // 32, max_position_embeddings=512,
    )  # fmt: skip
    policy = LlamaForCausalLM(config).eval()
    torch.nn.init.normal_(policy.lm_head.weight, std=1 / width**0.5)  # logits of spread 1, so that tokens differ
    return policy.to(device)


class Rows:
    """Rows of three groups: prompts with and without images, responses of several lengths."""

    def __init__(self, processor: Any, device: torch.device) -> None:
        self.length = length = 12 if device.type == "cpu" else 96
        draw = torch.Generator().manual_seed(1)
        torch.manual_seed(1)
        pictures = [[Image.effect_noise(size, 90).convert("RGB") for size in sizes] for sizes in PICTURES]
        rows = [
            {"prompt": build_messages("What is it?" + " Think." * prompt, len(pictures[prompt])),
             "images": pictures[prompt]}
            for prompt in GROUPS
        ]  # fmt: skip
        responses = [
            torch.randint(20, 280, (length - row,), generator=draw).tolist() for row in range(len(GROUPS))
        ]  # fmt: skip
        batch = append_responses(encode_prompts(processor, rows), responses, 0).to(device)
        self.ids, self.mask, self.images = batch.input_ids, batch.attention_mask, batch.extra
        self.labels = self.ids.masked_fill(self.mask == 0, IGNORED)
        self.labels[:, :-length] = IGNORED
        self.row_images = RowImages.of_batch(
            {**batch.extra, "num_images": [len(row["images"]) for row in rows]}, len(rows)
        )

    @property
    def scored(self) -> Tensor:
        """(B, T) whether a response token is one, and no padding."""
        return self.labels[:, -self.length :] != IGNORED

    def log_probs(self, policy: Any, *, shared: bool = False) -> Tensor:
        """(B, T) log-probs of the response tokens in one pass, row by row or with each prompt once."""
        runs: Callable[..., Any] = policy
        if shared:
            learn_layouts(policy)
            runs = SharedPrefixPolicy(policy, policy, self.length, self.row_images, SharedTokens())
        inputs = {"input_ids": self.ids, "attention_mask": self.mask, "labels": self.labels, **self.images}
        found: Tensor = runs(**inputs, fused_lm_head=True).log_probs[:, -self.length :]
        return found


def with_fused_head(policy: Any, device: torch.device) -> Any:
    """The policy on a device, with TRL's head that gives log-probs in place of logits."""
    add_fused_lm_head(policy, temperature=TEMPERATURE, outputs=("log_probs", "entropy"))
    return policy.to(device)
