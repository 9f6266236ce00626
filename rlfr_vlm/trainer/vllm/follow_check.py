"""Check that vLLM received the new weights: after the first real update its log-probs must differ."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.trl_seams import engine_stream, replace_engine_stream

PROMPTS = 8  # prompts asked for their next token
CANDIDATES = 20  # top-k log-probs requested per prompt (vLLM's maximum)
STRIDE = 101  # every 101st element of a weight is hashed

Logprobs = list[dict[int, float]]


class FollowCheck:
    """Compares vLLM's next-token log-probs of the first rollout's prompts before and after its weights change.

    Weights count as changed if the numbers that vLLM gets differ in vLLM's own precision: a learning rate of 0, or an
    update too small for bfloat16, changes nothing. vLLM is asked right before it generates, when it is awake and,
    with several ranks, when all of them take part.

    Args:
        generation: TRL's `VLLMGeneration` in colocate mode. Its stream of weights and vLLM's `generate` are wrapped
            until the comparison was made.
    """

    def __init__(self, generation: Any) -> None:
        self.generation = generation
        self._prompts: list[Any] = []
        self._sent_hash = ""
        self._first: tuple[str, Logprobs] | None = None
        self._stream, self._generate = engine_stream(generation), generation.llm.generate
        replace_engine_stream(generation, self._hashed_stream)
        generation.llm.generate = self._checked_generate

    def check(self, prompts: Sequence[Any]) -> None:
        """Ask vLLM, if its weights have changed since the first call or this is the first call.

        Args:
            prompts: as vLLM takes them.

        Raises:
            UserError: vLLM got other weights than before and answers exactly as before.
        """
        if self._first is None:
            self._prompts = list({str(prompt["prompt_token_ids"]): prompt for prompt in prompts}.values())[:PROMPTS]
            self._first = self._sent_hash, self._next_token_logprobs()
        elif self._sent_hash != self._first[0]:
            replace_engine_stream(self.generation, self._stream)
            self.generation.llm.generate = self._generate
            refuse_standstill(self._first[1], self._next_token_logprobs())

    def _checked_generate(self, prompts: Sequence[Any], *args: Any, **kwargs: Any) -> Any:
        self.check(prompts)
        return self._generate(prompts, *args, **kwargs)

    def _hashed_stream(self) -> Iterator[tuple[str, Tensor]]:
        """The weights on their way to vLLM; those of the decoder blocks are hashed."""
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
        UserError: all are the same.
    """
    if before == after:
        raise UserError(
            f"The policy has changed, but vLLM's log-probs of {len(before)} prompts are exactly what they were: the "
            "new weights never reached it. Set rollout: hf, or vllm_enable_sleep_mode: false, and report this with "
            "the policy's name."
        )
