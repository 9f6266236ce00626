"""Does the engine follow the policy? After the first change of what it is sent, its log-probs must have moved."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError

PROMPTS = 8  # how many prompts are asked
CANDIDATES = 20  # of how many next tokens each; vLLM's own limit
STRIDE = 101  # of a weight, every so manieth number is looked at


class FollowCheck:
    """Asks the engine for the next token's log-probs of the first rollout's prompts until its weights have changed.

    Weights count as changed when the numbers it is sent differ in the engine's own precision: a learning rate that
    is still 0, or updates too small for bfloat16, are no fault of the engine. It is asked right before it generates,
    when it is awake and, where it runs on several processes, when all of them are there.

    Args:
        generation: TRL's `VLLMGeneration` in colocate mode; its stream of weights and its engine are listened to.
    """

    def __init__(self, generation: Any) -> None:
        self.generation = generation
        self._asked: list[Any] = []
        self._sent = ""
        self._first: tuple[str, list[dict[int, float]]] | None = None
        self._stream, self._generate = generation._iter_named_params, generation.llm.generate
        generation._iter_named_params, generation.llm.generate = self._listen, self._answer

    def look(self, prompts: Sequence[Any]) -> None:
        """Ask, unless nothing has changed since the first time.

        Args:
            prompts: as vLLM takes them.

        Raises:
            UserError: it was sent other weights than before and answers as before.
        """
        if self._first is None:
            self._asked = list({str(prompt["prompt_token_ids"]): prompt for prompt in prompts}.values())[:PROMPTS]
            self._first = self._sent, self._ask()
        elif self._sent != self._first[0]:
            self.generation._iter_named_params, self.generation.llm.generate = self._stream, self._generate
            refuse_standstill(self._first[1], self._ask())

    def _answer(self, prompts: Sequence[Any], *arguments: Any, **settings: Any) -> Any:
        self.look(prompts)
        return self._generate(prompts, *arguments, **settings)

    def _listen(self) -> Iterator[tuple[str, Tensor]]:
        """The weights on their way to the engine; what is sent of the blocks is noted."""
        dtype = self.generation.llm.llm_engine.model_config.dtype
        digest = hashlib.sha256()
        for name, weight in self._stream():
            if ".layers." in name:
                digest.update(weight.flatten()[::STRIDE].to(dtype).float().cpu().numpy().tobytes())
            yield name, weight
        self._sent = digest.hexdigest()

    @torch.no_grad()
    def _ask(self) -> list[dict[int, float]]:
        from vllm import SamplingParams

        parameters = SamplingParams(max_tokens=1, temperature=1.0, logprobs=CANDIDATES, seed=0)
        outputs = self._generate(self._asked, sampling_params=parameters, use_tqdm=False)
        return [{token: found.logprob for token, found in output.outputs[0].logprobs[0].items()} for output in outputs]


def refuse_standstill(before: list[dict[int, float]], after: list[dict[int, float]]) -> None:
    """Stop when no log-prob has moved.

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
