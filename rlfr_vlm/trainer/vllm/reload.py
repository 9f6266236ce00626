"""Load new weights into a vLLM model by vLLM's own `reload_weights`, on a CPU, too."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner


def reload_weights(runner: "GPUModelRunner", weights: Iterable[tuple[str, Tensor]]) -> None:
    """Load weights that have the names of a checkpoint. Drops what the worker remembers of images.

    On a CPU, vLLM 0.31 leaves a head that is tied to the embedding with its packed copy of the old weights; it is
    packed again.
    """
    from vllm.model_executor.layers.utils import dispatch_cpu_unquantized_gemm
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
    from vllm.platforms import current_platform

    runner.reload_weights(weights_iterator=weights)
    if current_platform.is_cpu():
        for module in runner.get_model().modules():
            if isinstance(module, ParallelLMHead):
                dispatch_cpu_unquantized_gemm(module, remove_weight=False)
