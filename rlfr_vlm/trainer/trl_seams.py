"""Private names of TRL 1.16.0 that this package relies on, each under a public name.

Other modules only override private methods of TRL. tests/trainer/test_trl_seams.py compares what is
assumed here with the installed TRL: when TRL is updated, read this file and that test.

Letters: B rows of this rank, N rows of all ranks, P prompt tokens, T response tokens.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from trl import GRPOTrainer
from trl.trainer import utils as trl_utils

from rlfr_vlm.rewards.completion import Completion, Prompt

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase
    from trl.generation.vllm_client import VLLMClient
    from trl.generation.vllm_generation import VLLMGeneration

Batch: TypeAlias = dict[str, Any]
ImageInputs: TypeAlias = Mapping[str, Tensor | list[int]]  # keyword arguments of the log-prob pass, LOGPROB_IMAGE_KEYS
# Token ids, images and multimodal fields, returned by `GRPOTrainer._tokenize_prompts`.
TokenizedPrompts: TypeAlias = tuple[list[list[int]], list[Any] | None, dict[str, Any]]
Generated: TypeAlias = tuple[Any, ...]  # returned by `GRPOTrainer._generate`

# Vocabulary columns of the logits that TRL computes at a time in its fused log-prob pass.
LOGPROB_CHUNK_COLUMNS: int = trl_utils._CHUNKED_LOGPROB_CHUNK_SIZE

# Keys of a rollout's batch by the columns of their tensors. All others with T columns are padded like completion_ids.
PROMPT_KEYS = ("prompt_ids", "prompt_mask")  # (B, P), padded on the left
SEQUENCE_KEYS = ("mm_token_type_ids", "token_type_ids")  # (B, P + T)
# Flat over images or tiles of all rows, or one row for each prompt; TRL splits them by num_images or num_tiles.
IMAGE_KEYS = (
    "pixel_values",
    "image_grid_thw",
    "image_sizes",
    "image_position_ids",
    "pixel_attention_mask",
    "spatial_shapes",
)
# Keyword arguments of the log-prob pass besides tokens and masks.
LOGPROB_IMAGE_KEYS = (
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "mm_token_type_ids",
    "token_type_ids",
    "pixel_attention_mask",
    "image_sizes",
    "spatial_shapes",
    "num_tiles",
    "image_position_ids",
)
KEEP_BATCH_SIZE = "keep_batch_size"  # keyword argument of `RLFRTrainer`'s log-prob pass: rows of a chunk are a limit
_IMAGES = 6  # index of the images in the tuple that `GRPOTrainer._generate` returns
_COMPLETION_IDS, _COMPLETIONS = 1, 3  # and of token ids and texts
_TOOL_MASK, _LOGPROBS, _TOOL_IMAGES = 2, 4, 7


def response_mask(batch: Mapping[str, Tensor]) -> Tensor:
    """(B, T) mask of the tokens that the policy wrote: no padding, no tool output."""
    mask = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask


class GRPOSeams(GRPOTrainer):
    """`GRPOTrainer` with public names for the private ones that subclasses and their helpers use."""

    @property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer, also where the processing class is a processor."""
        return self._tokenizer

    @property
    def pad_token_id(self) -> int:
        """Token id of padding."""
        return self._tokenizer.pad_token_id

    @property
    def end_token_ids(self) -> set[int]:
        """Token ids that end a response, padding among them."""
        return {*self.eos_token_ids, self.pad_token_id}

    @property
    def takes_images(self) -> bool:
        """Whether the processing class is a processor of images."""
        return self._is_vlm

    @property
    def calls_tools(self) -> bool:
        """Whether the policy may call tools, its own or those of an environment."""
        return bool(self.tools)

    @property
    def computes_old_logps(self) -> bool:
        """Whether a rollout includes a pass for old log-probs: TRL's own condition."""
        corrects_vllm = self.use_vllm and self.vllm_importance_sampling_correction
        return self.args.gradient_accumulation_steps % self.micro_batches_per_rollout != 0 or corrects_vllm

    @property
    def micro_batch(self) -> int:
        """Number of the current micro-batch, from 0, since training began or was resumed."""
        number: int = self._step
        return number

    @property
    def micro_batches_per_rollout(self) -> int:
        """Number of micro-batches that a rollout is used for."""
        number: int = self.args.steps_per_generation * self.num_iterations
        return number

    @property
    def starts_rollout(self) -> bool:
        """Whether the current micro-batch is the first one of a new rollout."""
        return self._step % self.micro_batches_per_rollout == 0

    @property
    def buffered_batches(self) -> Sequence[Batch]:
        """Micro-batches of the current rollout, in the order of use."""
        return self._buffered_inputs

    def replace_buffered_batches(self, batches: Sequence[Batch]) -> Batch:
        """Use other micro-batches for the rest of the rollout; returns the current one."""
        self._buffered_inputs: list[Batch] = list(batches)
        return batches[self._step % self.args.steps_per_generation]

    def log_values(self, values: Mapping[str, float]) -> None:
        """Add numbers to the metrics of the current mode; TRL logs their mean at the next log."""
        mode = "train" if self.model.training else "eval"
        for name, value in values.items():
            self._metrics[mode][name].append(value)

    def discard_eval_metrics(self) -> None:
        """Drop the metrics that TRL collected during evaluation."""
        self._metrics["eval"].clear()

    def mean_over_ranks(self, value: float) -> float:
        """Mean of a number over the ranks."""
        return self.accelerator.gather(torch.tensor([value], device=self.accelerator.device)).mean().item()

    def generate(self, prompts: list[Prompt]) -> tuple[list[list[int]], list[Completion]]:
        """Generate one response to each prompt; returns token ids and responses as reward functions take them."""
        result = self._generate(prompts)
        return result[_COMPLETION_IDS], responses_of(result)

    def request_responses(self, prompts: list[Prompt]) -> None:
        """Send prompts to vLLM as `generate` does, after new weights if the policy has changed; drop the responses."""
        ids, images, fields = self._tokenize_prompts(prompts)
        self._generate_single_turn(ids, images, fields, self.num_generations)

    def response_logps(
        self, input_ids: Tensor, attention_mask: Tensor, num_response: int, batch_size: int, images: ImageInputs
    ) -> Tensor:
        """(B, T) log-probs of the last `num_response` tokens under the policy.

        Args:
            input_ids, attention_mask: (B, P + T).
            batch_size: rows of one forward pass.
            images: keyword arguments of the pass that hold the images.
        """
        options = {**images, KEEP_BATCH_SIZE: True}
        logps, _, _ = self._get_per_token_logps_and_entropies(
            self.model, input_ids, attention_mask, num_response, batch_size=batch_size, **options
        )
        return logps

    @contextmanager
    def one_response_per_prompt(self) -> Iterator[None]:
        """Evaluate with one response per prompt. In server mode TRL deduplicates prompts by `num_generations`."""
        number: int = self.num_generations_eval
        self.num_generations_eval: int = 1
        try:
            yield
        finally:
            self.num_generations_eval = number

    @contextmanager
    def decoding(self, greedy: bool) -> Iterator[None]:
        """Decode greedily, or sample at the run's temperature.

        With rollout hf, sampling is seeded and the random state of the run is restored afterwards.
        """
        if self.use_vllm:
            generation = self.vllm_generation
            temperature = generation.temperature
            if greedy:
                generation.temperature = 0.0
            try:
                yield
            finally:
                generation.temperature = temperature
            return
        config = self.generation_config
        if greedy:
            self.generation_config: GenerationConfig = type(config)(**(config.to_diff_dict() | {"do_sample": False}))
        cuda = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=cuda):
                torch.manual_seed(self.args.seed + self.accelerator.process_index)
                yield
        finally:
            self.generation_config = config


class _WithoutUndecidedNotices(logging.Filter):
    """Drops TRL's warning about undecided responses, which prints the row with its images for each rollout."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "All reward functions returned None" not in record.getMessage()


def drop_undecided_notices() -> None:
    """Silence TRL's warning about undecided responses; this package counts them as `outcome/undecided`."""
    logger = logging.getLogger("trl.trainer.grpo_trainer")
    if not any(isinstance(existing, _WithoutUndecidedNotices) for existing in logger.filters):
        logger.addFilter(_WithoutUndecidedNotices())


def with_empty_image_lists(generated: Generated) -> Generated:
    """Replace None by an empty list for each row without images, in what `_generate` returned.

    TRL 1.16.0 passes None for rows without images; the processor then fails if other rows have images.
    """
    images = generated[_IMAGES]
    if images is not None:
        images = [row_images or [] for row_images in images]
    return *generated[:_IMAGES], images, *generated[_IMAGES + 1 :]


def responses_of(generated: Generated) -> list[Completion]:
    """Responses in what `_generate` returned, as reward functions take them."""
    responses: list[Completion] = generated[_COMPLETIONS]
    return responses


@dataclass
class ToolParts:
    """Lists by row in what `_generate` returned that must fit each other.

    Attributes:
        completion_ids: token ids of each response.
        tool_mask: 0 at tokens of tool results.
        logprobs: of vLLM; None without.
        images: those of the prompt, then those of tools; None without any.
        tool_images: those of tools.
    """

    completion_ids: list[list[int]]
    tool_mask: list[list[int]] | None
    logprobs: list[list[float]] | None
    images: list[list[Any]] | None
    tool_images: list[list[Any]]


def tool_parts(generated: Generated) -> ToolParts:
    """Parts of what `_generate` returned, as lists that can be changed."""
    places = _COMPLETION_IDS, _TOOL_MASK, _LOGPROBS, _IMAGES, _TOOL_IMAGES
    lists: list[Any] = [None if generated[place] is None else list(generated[place]) for place in places]
    return ToolParts(*lists)


def with_tool_parts(generated: Generated, parts: ToolParts) -> Generated:
    """Return what `_generate` returned with other parts."""
    values = list(generated)
    values[_COMPLETION_IDS], values[_TOOL_MASK] = parts.completion_ids, parts.tool_mask
    values[_LOGPROBS], values[_IMAGES], values[_TOOL_IMAGES] = parts.logprobs, parts.images, parts.tool_images
    return tuple(values)


@contextmanager
def server_clients(make: Callable[..., "VLLMClient"]) -> Iterator[None]:
    """Let TRL make its client of a vLLM server by `make` while the context is open."""
    import trl.generation.vllm_generation as module

    own = module.VLLMClient
    module.VLLMClient = make
    try:
        yield
    finally:
        module.VLLMClient = own


WeightStream = Callable[[], Iterator[tuple[str, Tensor]]]


def engine_stream(generation: "VLLMGeneration") -> WeightStream:
    """Function that yields the names and weights that a `VLLMGeneration` sends to vLLM."""
    return generation._iter_named_params


def replace_engine_stream(generation: "VLLMGeneration", stream: WeightStream) -> None:
    """Let a `VLLMGeneration` send what `stream()` yields."""
    generation._iter_named_params = stream


def is_fsdp_engine(generation: "VLLMGeneration") -> bool:
    """Whether a `VLLMGeneration` takes its weights from an FSDP policy."""
    return generation._dist.is_fsdp


def gathered_parameters(
    generation: "VLLMGeneration", parameters: list[nn.Parameter]
) -> AbstractContextManager[object]:
    """Gather sharded parameters while the context is open."""
    return generation._dist.gather_params(parameters)


def engine_name(generation: "VLLMGeneration", name: str) -> str:
    """Return vLLM's name of a parameter."""
    return generation._fix_param_name_to_vllm(name, extra_prefixes=["modules_to_save.default."])
