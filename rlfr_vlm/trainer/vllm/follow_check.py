"""Check that vLLM received the new weights: after the first real update its log-probs must differ."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError
from rlfr_vlm.trainer.trl_seams import engine_stream, replace_engine_stream

if TYPE_CHECKING:
    from trl.generation.vllm_generation import VLLMGeneration
    from vllm import RequestOutput

    from rlfr_vlm.trainer.vllm.server_client import Features, PolicyServer

PROMPTS = 8  # prompts asked for their next token
CANDIDATES = 20  # top-k log-probs requested per prompt (vLLM's maximum)
STRIDE = 101  # every 101st element of a weight is hashed

Logprobs: TypeAlias = list[dict[int, float]]
VLLMPrompt: TypeAlias = Mapping[str, Any]  # `prompt_token_ids`, and the images as vLLM or its server takes them


class FollowCheck:
    """Compares vLLM's next-token log-probs of the first rollout's prompts before and after its weights change.

    Weights count as changed if the numbers that vLLM gets differ in vLLM's precision: a learning rate of 0, or an
    update too small for bfloat16, changes nothing. The log-probs are requested right before vLLM generates: then the
    engine is awake and, with several ranks, all of them take part.

    Args:
        generation: TRL's `VLLMGeneration`. Its stream of weights is wrapped until the comparison is made.
        dtype: type of vLLM's weights.
        ask: returns vLLM's log-probs of the next token for each prompt.
    """

    def __init__(
        self,
        generation: "VLLMGeneration",
        dtype: torch.dtype,
        ask: Callable[[Sequence[VLLMPrompt]], Logprobs],
    ) -> None:
        self.generation, self.dtype, self.ask = generation, dtype, ask
        self.is_done = False
        self._prompts: list[VLLMPrompt] = []
        self._sent_hash = ""
        self._first: tuple[str, Logprobs] | None = None
        self._stream = engine_stream(generation)
        replace_engine_stream(generation, self._hashed_stream)

    def check(self, prompts: Sequence[VLLMPrompt]) -> None:
        """Request log-probs at the first call, and once more when vLLM's weights have changed since then.

        Args:
            prompts: as vLLM takes them.

        Raises:
            UserError: vLLM got new weights, and its log-probs are exactly the same.
        """
        if self.is_done:
            return
        if self._first is None:
            self._prompts = list({str(prompt["prompt_token_ids"]): prompt for prompt in prompts}.values())[:PROMPTS]
            self._first = self._sent_hash, self.ask(self._prompts)
        elif self._sent_hash != self._first[0]:
            replace_engine_stream(self.generation, self._stream)
            self.is_done = True
            refuse_standstill(self._first[1], self.ask(self._prompts))

    def _hashed_stream(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the weights that are sent to vLLM, and hash those of the decoder blocks."""
        digest = hashlib.sha256()
        for name, weight in self._stream():
            if ".layers." in name:
                digest.update(weight.flatten()[::STRIDE].to(self.dtype).float().cpu().numpy().tobytes())
            yield name, weight
        self._sent_hash = digest.hexdigest()


def follow_colocated(generation: "VLLMGeneration") -> FollowCheck:
    """Check an engine in this process, each time before it generates."""
    from vllm import SamplingParams

    generate = generation.llm.generate

    @torch.no_grad()
    def ask(prompts: Sequence[VLLMPrompt]) -> Logprobs:
        parameters = SamplingParams(max_tokens=1, temperature=1.0, logprobs=CANDIDATES, seed=0)
        outputs = generate(prompts, sampling_params=parameters, use_tqdm=False)
        return [{token: value.logprob for token, value in output.outputs[0].logprobs[0].items()} for output in outputs]

    check = FollowCheck(generation, generation.llm.llm_engine.model_config.dtype, ask)

    def checked(prompts: Sequence[VLLMPrompt], *args: object, **kwargs: object) -> "list[RequestOutput]":
        check.check(prompts)
        if check.is_done:
            generation.llm.generate = generate
        return generate(prompts, *args, **kwargs)

    generation.llm.generate = checked
    return check


def follow_server(generation: "VLLMGeneration", client: "PolicyServer") -> FollowCheck:
    """Check a server, each time before a request is sent to it."""

    def ask(prompts: Sequence[VLLMPrompt]) -> Logprobs:
        features = [prompt["features"] for prompt in prompts]
        output = client.ask(
            [prompt["prompt_token_ids"] for prompt in prompts],
            features if any(features) else None,
            max_tokens=1,
            temperature=1.0,
            logprobs=CANDIDATES,
            generation_kwargs={"seed": 0},
        )
        pairs = zip(output["logprob_token_ids"], output["logprobs"], strict=True)
        return [dict(zip(tokens[0], logprobs[0], strict=True)) for tokens, logprobs in pairs]

    check = FollowCheck(generation, client.dtype, ask)

    def before(prompts: Sequence[list[int]], features: "Features | None") -> None:
        own = [None] * len(prompts) if features is None else features
        check.check([{"prompt_token_ids": ids, "features": one} for ids, one in zip(prompts, own, strict=True)])
        if check.is_done:
            client.before_generate = None

    client.before_generate = before
    return check


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
