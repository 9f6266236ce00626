"""Accuracy of a policy on a set of rows, greedy or sampled, with a confidence interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch

from rlfr_vlm.data.encode import encode_prompts, tokenizer_of
from rlfr_vlm.data.rows import Row
from rlfr_vlm.files import JsonObject
from rlfr_vlm.models.vision import vision_token_ids
from rlfr_vlm.stats import wilson_interval

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

    Processor: TypeAlias = "PreTrainedTokenizerBase | ProcessorMixin"

Reward = Callable[..., list[float | None]]


@dataclass
class Response:
    """A response: token ids up to and including the end token, text, and score (None: undecided)."""

    ids: list[int]
    text: str
    score: float | None


@dataclass
class Accuracy:
    """Accuracy among the decided responses; undecided ones are counted separately."""

    right: int
    wrong: int
    undecided: int

    @classmethod
    def of(cls, responses: Sequence[Response]) -> "Accuracy":
        """Count the verdicts of responses."""
        scores = [response.score for response in responses]
        right, undecided = scores.count(1.0), scores.count(None)
        return cls(right, len(scores) - right - undecided, undecided)

    @property
    def n(self) -> int:
        """Number of decided responses."""
        return self.right + self.wrong

    @property
    def value(self) -> float | None:
        """Share of right responses, or None if none was decided."""
        return self.right / self.n if self.n else None

    def to_dict(self) -> JsonObject:
        interval = list(wilson_interval(self.right, self.n))
        return {"acc": self.value, "n": self.n, "ci95": interval, "undecided": self.undecided}


@torch.no_grad()
def _generate(
    policy: "PreTrainedModel", processing_class: "Processor", rows: Sequence[Row], sampled: bool, max_new_tokens: int
) -> list[list[int]]:
    batch = encode_prompts(processing_class, rows).to(policy.device)
    sampling = {"temperature": 1.0, "top_k": 0, "top_p": 1.0} if sampled else {}
    output = policy.generate(
        **batch.model_inputs(),
        do_sample=sampled,
        max_new_tokens=max_new_tokens,
        suppress_tokens=vision_token_ids(policy, processing_class) or None,
        **sampling,
    )
    end = tokenizer_of(processing_class).eos_token_id
    responses = output[:, batch.input_ids.shape[1] :].tolist()
    return [ids[: ids.index(end) + 1] if end in ids else ids for ids in responses]


def respond(
    policy: "PreTrainedModel",
    processing_class: "Processor",
    dataset: Sequence[Row],
    reward: Reward,
    *,
    sampled: bool,
    seed: int = 0,
    batch_size: int = 256,
    max_new_tokens: int = 32,
    progress: str = "",
) -> list[Response]:
    """Generate one response per row and score it.

    Sampling uses temperature 1 and the full vocabulary. The global random state and the policy's training mode are
    restored afterwards.

    Args:
        policy: the model.
        processing_class: its processor or tokenizer.
        dataset: rows with a prompt and the columns that `reward` needs.
        reward: reward function that scores the responses.
        sampled: sample, instead of decoding greedily.
        seed: seed of the sampling.
        batch_size: rows per generation call.
        max_new_tokens: limit of a response.
        progress: label of a progress bar; empty for none.
    """
    from tqdm import tqdm

    training = policy.training
    policy.eval()
    responses: list[Response] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in tqdm(range(0, len(dataset), batch_size), desc=progress, unit="batch", disable=not progress):
            rows = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
            ids = _generate(policy, processing_class, rows, sampled, max_new_tokens)
            texts = tokenizer_of(processing_class).batch_decode(ids, skip_special_tokens=True)
            columns = {name: [row.get(name) for row in rows] for name in rows[0] if name != "prompt"}
            scores = reward(completions=texts, **columns)
            responses += [Response(*parts) for parts in zip(ids, texts, scores, strict=True)]
    policy.train(training)
    return responses
