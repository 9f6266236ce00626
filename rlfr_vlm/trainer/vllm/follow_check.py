"""Check that vLLM received the new weights: after the first real update its log-probs must differ."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.trl_seams import engine_stream, replace_engine_stream

if TYPE_CHECKING:
    from trl.generation.vllm_generation import VLLMGeneration
    from vllm import RequestOutput

PROMPTS = 8  # prompts asked for their next token
CANDIDATES = 20  # top-k log-probs requested per prompt (vLLM's maximum)
STRIDE = 101  # every 101st element of a weight is hashed

Logprobs: TypeAlias = list[dict[int, float]]
VLLMPrompt: TypeAlias = Mapping[str, object]  # vLLM's `TokensPrompt`: token ids and images


class FollowCheck:
    """Compares vLLM's next-token log-probs of the first rollout's prompts before and after its weights change.

    Weights count as changed if the numbers that vLLM gets differ in vLLM's precision: a learning rate of 0, or an
    update too small for bfloat16, changes nothing. The log-probs are requested right before vLLM generates: then the
    engine is awake and, with several ranks, all of them take part.

    Args:
        generation: TRL's `VLLMGeneration` in colocate mode. Its stream of weights and vLLM's `generate` are wrapped
            until the comparison is made.
    """

    def __init__(self, generation: "VLLMGeneration") -> None:
        self.generation = generation
        self._prompts: list[VLLMPrompt] = []
        self._sent_hash = ""
        self._first: tuple[str, Logprobs] | None = None
        self._stream, self._generate = engine_stream(generation), generation.llm.generate
        replace_engine_stream(generation, self._hashed_stream)
        generation.llm.generate = self._checked_generate

    def check(self, prompts: Sequence[VLLMPrompt]) -> None:
        """Request log-probs at the first call, and once more when vLLM's weights have changed since then.

        Args:
            prompts: as vLLM takes them.

        Raises:
            UserError: vLLM got new weights, and its log-probs are exactly the same.
        """
        if self._first is None:
            self._prompts = list({str(prompt["prompt_token_ids"]): prompt for prompt in prompts}.values())[:PROMPTS]
            self._first = self._sent_hash, self._next_token_logprobs()
        elif self._sent_hash != self._first[0]:
            replace_engine_stream(self.generation, self._stream)
            self.generation.llm.generate = self._generate
            refuse_standstill(self._first[1], self._next_token_logprobs())

    def _checked_generate(
        self, prompts: Sequence[VLLMPrompt], *args: object, **kwargs: object
    ) -> "list[RequestOutput]":
        self.check(prompts)
        return self._generate(prompts, *args, **kwargs)

    def _hashed_stream(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights that are sent to vLLM, and hash those of the decoder blocks."""
        dtype = self.generation.llm.llm_engine.model_config.dtype
        digest = hashlib.sha256()
        for name, weight in self._stream():
            if ".layers." in name:
                digest.update(weight.flatten()[::STRIDE].to(dtype).float().cpu().numpy().tobytes())
            yield name, weight
        self._sent_hash = digest.hexdigest()

    @torch.no_grad()
    def _next_token_logprobs(self) -> Logprobs:
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=1, temperature=1.0, logprobs=CANDIDATES, seed=0)
        outputs = self._generate(self._prompts, sampling_params=parameters, use_tqdm=False)
        return [{token: value.logprob for token, value in output.outputs[0].logprobs[0].items()} for output in outputs]


def refuse_standstill(before: Logprobs, after: Logprobs) -> None:
    """Stop if no log-prob has changed.

    Args:
        before, after: for each prompt, the log-prob of each candidate token.

    Raises:
        UserError: they are equal.
    """
    if before == after:
        raise UserError(
            f"The policy has changed, but vLLM's log-probs of {len(before)} prompts are exactly what they were: the "
            "new weights never reached it. Set rollout: hf, or vllm_enable_sleep_mode: false, and report this with "
            "the policy's name."
        )
