"""What a vLLM server's workers can do in addition: load a policy's weights from a folder.

scripts/serve_policy.sh names the class as `--worker-extension-cls`, and vLLM adds it to its workers' classes. The
trainer calls its method through the server's `/collective_rpc`. Read in vLLM 0.31.0; tests/trainer/vllm/
test_patches.py checks the names.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.trainer.vllm.reload import reload_weights
from rlfr_vlm.trainer.vllm.weight_folder import COUNT, read_weights

if TYPE_CHECKING:
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner


class LoadsPolicy:
    """Methods of a worker."""

    model_runner: "GPUModelRunner"

    def load_policy(self, folder: str) -> dict[str, str]:
        """Load the weights in a folder; returns {"error": text}, with "" if all is well.

        Of an exception the client would see HTTP 500 alone, and ask again.
        """
        path = Path(folder)
        if not (path / COUNT).is_file():
            return {"error": f"the server sees no weights in {folder}"}
        try:
            reload_weights(self.model_runner, read_weights(path))
        except Exception as error:  # weights of another model are an AssertionError of vLLM's
            return {"error": f"{type(error).__name__}: {error}"}
        return {"error": ""}
