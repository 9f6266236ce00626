"""Draw responses with transformers in this process, and add up their log-probs while they are generated.

The log-probs are read from the logits that each token is drawn from. A second, teacher-forced pass would double the
time on short responses; `output_logits=True` would keep (B, T, V) floats, 5 GB for 8 responses of 1,024 tokens.

Letters: B responses, P prompt length (left-padded), T response length, V vocabulary.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from rlfr_vlm.data.encode import encode_prompts, tokenizer_of
from rlfr_vlm.data.rows import Row
from rlfr_vlm.models import family_of
from rlfr_vlm.models.shared_prefix.prefill import shared_prefill
from rlfr_vlm.models.vision import ban_tokens, vision_token_ids
from rlfr_vlm.sampling.engine import Sample, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass


class LogprobRecorder(LogitsProcessor):
    """Adds up the log-probs of the tokens that are drawn. It must come before temperature, top_k and top_p.

    `generate` calls it once a token, with the tokens so far; the last were drawn from the logits of the call before.

    Attributes:
        steps: log-probs (B,) of the tokens drawn so far, at temperature 1.
    """

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self._logps: Tensor | None = None  # (B, V) of the next token

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.drawn(input_ids[:, -1])
        self._logps = scores.float().log_softmax(dim=-1)
        return scores

    def drawn(self, tokens: Tensor) -> None:
        """Record the tokens (B,) drawn since the last call; nothing before the first token."""
        if self._logps is not None:
            self.steps.append(self._logps.gather(1, tokens[:, None]).squeeze(1))
            self._logps = None


class HfEngine:
    """Draws responses with `generate`. Vision tokens are banned by a bias of the LM head, as in training.

    All responses of a call are drawn with the first one's seed: a call with the same rows gives the same responses.

    Args:
        policy: the model; its own settings of generation, such as a repetition penalty, do not apply.
        processing_class: its processor or tokenizer.
        sampling: how responses are drawn.
    """

    def __init__(self, policy: "PreTrainedModel", processing_class: "ProcessingClass", sampling: Sampling) -> None:
        self.policy, self.processing_class = policy.eval(), processing_class
        self.is_text = family_of(policy).vision_tower is None
        self.ends = end_tokens(policy, processing_class)
        tokenizer = tokenizer_of(processing_class)
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
        policy.generation_config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=self.ends,
            pad_token_id=pad,
            **(drawn | {"top_k": sampling.top_k} if sampling.temperature > 0 else {"do_sample": False}),
        )
        ban_tokens(policy, vision_token_ids(policy, processing_class))

    @torch.no_grad()
    def sample(self, rows: Sequence[Row], seeds: Sequence[int]) -> list[Sample]:
        """Draw one response to each row with the seed of the first one."""
        batch = encode_prompts(self.processing_class, rows).to(self.policy.device)
        recorder = LogprobRecorder()
        torch.manual_seed(seeds[0])
        inputs = batch.model_inputs()
        if self.is_text and (cache := shared_prefill(self.policy, batch.input_ids, batch.attention_mask)) is not None:
            inputs["past_key_values"] = cache
        output = self.policy.generate(**inputs, logits_processor=LogitsProcessorList([recorder]))
        recorder.drawn(output[:, -1])
        responses = [self._up_to_end(ids) for ids in output[:, batch.input_ids.shape[1] :].tolist()]
        logps = torch.stack(recorder.steps, dim=1).double()  # (B, T)
        texts = tokenizer_of(self.processing_class).batch_decode(responses, skip_special_tokens=True)
        return [
            Sample(text, ids, logps[row, : len(ids)].sum().item(), ids[-1] not in self.ends)
            for row, (ids, text) in enumerate(zip(responses, texts, strict=True))
        ]

    def _up_to_end(self, ids: list[int]) -> list[int]:
        end = next((place for place, token in enumerate(ids) if token in self.ends), len(ids))
        return ids[: end + 1]


def end_tokens(policy: "PreTrainedModel", processing_class: "ProcessingClass") -> list[int]:
    """Return the ids of the tokens that end a response: the tokenizer's, and those of the policy's own settings."""
    own = getattr(policy.generation_config, "eos_token_id", None)
    ids = [own] if isinstance(own, int) else own or []
    return sorted({*ids, tokenizer_of(processing_class).eos_token_id})
