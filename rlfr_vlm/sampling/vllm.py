"""Draw responses with vLLM in this process."""

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rlfr_vlm.data.encode import render_prompt, tokenizer_of
from rlfr_vlm.data.rows import Row
from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of_processor
from rlfr_vlm.sampling.engine import Sample, Sampling

if TYPE_CHECKING:
    from vllm import CompletionOutput, SamplingParams

    from rlfr_vlm.data.encode import ProcessingClass


@dataclass(frozen=True)
class VllmSettings:
    """How vLLM is started; the names are those of vLLM's arguments.

    Attributes:
        dtype: type of the weights.
        gpu_memory_utilization: share of the GPU's memory.
        max_model_len: largest number of tokens of prompt and response; None is the policy's own.
        tensor_parallel_size: number of GPUs.
    """

    dtype: str = "auto"
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    tensor_parallel_size: int = 1


def stored_dtype(name: str) -> str:
    """Return the type that a policy is stored in; vLLM's own choice would make float32 a half."""
    from transformers import AutoConfig

    dtype = AutoConfig.from_pretrained(name).dtype
    return "auto" if dtype is None else str(dtype).removeprefix("torch.")


def check_installed() -> None:
    """Check that vLLM is installed.

    Raises:
        UserError: it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise UserError(
            "--engine is vllm, but vLLM is not installed. Run `bash scripts/setup.sh --extras vllm`, or give --engine "
            "hf or the address of a server."
        )


class VllmEngine:
    """Draws responses with `vllm.LLM`. Vision tokens are banned, and images have the processor's size, as in training.

    Args:
        name: folder or hub id of the policy.
        processing_class: its processor or tokenizer.
        sampling: how responses are drawn.
        settings: how vLLM is started.

    Raises:
        UserError: vLLM is not installed, or cannot start.
    """

    def __init__(
        self,
        name: str,
        processing_class: "ProcessingClass",
        sampling: Sampling,
        settings: VllmSettings = VllmSettings(),
    ) -> None:
        import torch

        check_installed()
        on_cpu = not torch.cuda.is_available()
        if on_cpu:
            from rlfr_vlm.trainer.vllm.patches import CPU_ENVIRONMENT

            for variable, value in CPU_ENVIRONMENT.items():
                os.environ.setdefault(variable, value)
        from transformers import AutoConfig
        from vllm import LLM

        self.processing_class, self.sampling = processing_class, sampling
        family = family_of_processor(processing_class)
        self.grid = family.image_grid(processing_class)
        self.banned = family.vision_token_texts(AutoConfig.from_pretrained(name), processing_class)
        arguments = asdict(settings)
        if settings.dtype == "auto":
            arguments["dtype"] = stored_dtype(name)
        if on_cpu:
            # On a CPU a prompt that is split over two steps ends vLLM 0.31: it rewinds the generator of the request's
            # seed by `set_offset`, which only generators of GPUs have.
            arguments["enable_chunked_prefill"] = False
        try:
            self.llm = LLM(model=name, **arguments)
        except ValueError as error:
            raise UserError(f"vLLM cannot start with {name}: {' '.join(str(error).split())}") from None

    def sample(self, rows: Sequence[Row], seeds: Sequence[int]) -> list[Sample]:
        """Draw one response to each row with its own seed.

        Raises:
            UserError: a prompt and its response do not fit into vLLM's context.
        """
        prompts: Any = [self._prompt(row) for row in rows]
        try:
            outputs = self.llm.generate(prompts, [self._parameters(seed) for seed in seeds], use_tqdm=False)
        except ValueError as error:
            raise UserError(
                f"vLLM refuses a prompt of rows {rows[0]['row_number']} to {rows[-1]['row_number']}: {error} Set "
                "--max_prompt_tokens, or raise --vllm_max_model_length."
            ) from None
        responses = [output.outputs[0] for output in outputs]
        texts = tokenizer_of(self.processing_class).batch_decode(
            [list(response.token_ids) for response in responses], skip_special_tokens=True
        )
        return [_sample_of(response, text) for response, text in zip(responses, texts, strict=True)]

    def _prompt(self, row: Row) -> dict[str, Any]:
        """Return a prompt as vLLM takes it: token ids with one placeholder per image, which vLLM expands."""
        text = render_prompt(self.processing_class, row["prompt"])
        ids = tokenizer_of(self.processing_class)(text, add_special_tokens=False)["input_ids"]
        if not row["images"] or self.grid is None:
            return {"prompt_token_ids": ids}
        return {
            "prompt_token_ids": ids,
            "multi_modal_data": {"image": [self.grid.resized(image) for image in row["images"]]},
        }

    def _parameters(self, seed: int) -> "SamplingParams":
        from vllm import SamplingParams

        return SamplingParams(
            temperature=self.sampling.temperature,
            top_p=self.sampling.top_p,
            top_k=self.sampling.top_k,
            max_tokens=self.sampling.max_new_tokens,
            seed=seed,
            logprobs=0,  # those of the drawn tokens alone
            bad_words=self.banned or None,
            detokenize=False,  # vLLM leaves out a last character of which a byte is missing; training decodes it
        )


def _sample_of(output: "CompletionOutput", text: str) -> Sample:
    ids, steps = list(output.token_ids), output.logprobs or []
    logp = sum(step[token].logprob for token, step in zip(ids, steps, strict=True) if step is not None)
    return Sample(text, ids, logp, output.finish_reason == "length")
