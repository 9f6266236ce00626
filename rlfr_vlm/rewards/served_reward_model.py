"""Reward from a reward model that a vLLM server serves: its output for prompt and response, through `/pooling`.

Start the server with `vllm serve MODEL --runner pooling --convert classify` (read in vLLM 0.31). It applies the chat
template of the model to the whole conversation. The output is taken as it is, without a sigmoid.
"""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from rlfr_vlm.data.prompts import flatten_text
from rlfr_vlm.errors import UserError
from rlfr_vlm.options import RewardOptions
from rlfr_vlm.rewards.completion import Completion, Prompt, completion_text
from rlfr_vlm.rewards.reward_model import conversation_of
from rlfr_vlm.servers.concurrency import gather_or_cancel
from rlfr_vlm.servers.endpoint import Endpoint, Fault
from rlfr_vlm.servers.urls import base_url

TIME_LIMIT = 120.0  # seconds for one conversation
GONE = ("connection", "time-out", "server error", "rate limit")  # faults of the server, not of a conversation


def is_address(name: str | None) -> bool:
    """Whether `reward_model` names a server."""
    return (name or "").startswith(("http://", "https://"))


class ServedRewardModel:
    """The reward function. A conversation that the server refuses, such as one too long, is None, undecided.

    Args:
        options: the address, and how many conversations are sent at a time (`reward_model_batch_size`).

    Raises:
        UserError: the address is none, the server cannot be reached, or its model has other than one output.
    """

    def __init__(self, options: RewardOptions) -> None:
        self.__name__ = "reward_model"
        self.url = base_url(options.reward_model or "", "reward_model")
        self.at_a_time = options.reward_model_batch_size
        [score] = self._run([[{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]])
        if score is None:
            raise UserError(f"The reward model at {self.url} gave no finite number for a first conversation.")

    def __call__(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], **kwargs: Any
    ) -> list[float | None]:
        """Return the model's output for each response.

        Raises:
            UserError: a prompt has images, or the server is gone.
        """
        if any(kwargs.get("images") or ()):
            raise UserError(
                f"The reward model at {self.url} reads text, and the prompts have images. Name a folder or hub id, "
                "whose model runs here and sees them."
            )
        return self._run(
            [
                flatten_text(conversation_of(prompt, completion_text(completion)))
                for prompt, completion in zip(prompts, completions, strict=True)
            ]
        )

    def _run(self, conversations: Sequence[list[dict[str, Any]]]) -> list[float | None]:
        return asyncio.run(self._scores(conversations))

    async def _scores(self, conversations: Sequence[list[dict[str, Any]]]) -> list[float | None]:
        slots = asyncio.Semaphore(self.at_a_time)
        async with Endpoint(self.url, time_limit=TIME_LIMIT, name="the reward model's server") as endpoint:
            await endpoint.resolve_model("--served-model-name of the server")

            async def score(conversation: list[dict[str, Any]]) -> float | None:
                async with slots:
                    try:
                        outputs = await endpoint.pool({"messages": conversation})
                    except Fault as fault:
                        if fault.kind in GONE:
                            raise UserError(
                                f"The reward model at {self.url} is gone: {fault}. Start it again, and resume from "
                                "the last checkpoint."
                            ) from None
                        return None
                if len(outputs) != 1:
                    raise UserError(
                        f"The reward model at {self.url} has {len(outputs)} outputs, and a reward is one number. "
                        "Serve a model that was trained with num_labels=1."
                    )
                return outputs[0] if math.isfinite(outputs[0]) else None

            return list(await gather_or_cancel(map(score, conversations)))
