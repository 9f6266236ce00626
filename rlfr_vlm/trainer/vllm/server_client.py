"""TRL's client of a vLLM server, with weights by folder and with a request that is sent ahead.

Read in TRL 1.16.0 and vLLM 0.31.0; tests/trainer/vllm/test_patches.py checks the names.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from trl.generation.vllm_client import VLLMClient

from rlfr_vlm.errors import UserError
from rlfr_vlm.servers.wait_notice import WaitNotice
from rlfr_vlm.trainer.vllm.request_ahead import RequestAhead
from rlfr_vlm.trainer.vllm.weight_folder import write_weights

if TYPE_CHECKING:
    from PIL.Image import Image

LOAD = "load_policy"  # of `worker_extension.LoadsPolicy`
CACHES = ("reset_mm_cache", "reset_encoder_cache")  # of images that were encoded by the policy before

Output: TypeAlias = dict[str, Any]  # what `VLLMClient.generate` returns
Features: TypeAlias = Sequence[dict[str, Any] | None]


class PolicyServer(VLLMClient):
    """A vLLM server that generates for the trainer.

    Args:
        weights_folder: where new weights are written for the server to read; None sends them over NCCL, as TRL does.
        options: of `VLLMClient`.

    Attributes:
        before_generate: called with prompts and features right before a request is sent.

    Raises:
        UserError: the server cannot be reached, refuses a request, or cannot load weights from a folder.
    """

    def __init__(self, *, weights_folder: Path | None, **options: Any) -> None:
        self.weights_folder = None if weights_folder is None else weights_folder.absolute()
        self.before_generate: Callable[[Sequence[list[int]], Features | None], None] | None = None
        self._ahead: RequestAhead | None = None
        self._sends_ahead = False
        self._last_images: tuple[list[list[Image] | None], Features] = ([], [])
        with self._explained():
            super().__init__(**options)

    def check_server(self, total_timeout: float = 0.0, retry_interval: float = 2.0) -> None:
        """Wait for at most `total_timeout` seconds until the server answers, and say so."""
        import requests

        notice = WaitNotice(f"waiting for the vLLM server at {self.base_url}, at most {total_timeout:.0f} s")
        start = time.monotonic()
        while True:
            try:
                return super().check_server(0.0, retry_interval)
            except requests.ConnectionError:
                if (waited := time.monotonic() - start) >= total_timeout:
                    raise
                notice(waited)
                time.sleep(retry_interval)

    # --- weights ----------------------------------------------------------------------------------------------------

    @cached_property
    def dtype(self) -> torch.dtype:
        """Type of the server's weights."""
        name = str(self.get_server_info()["model_config"]["dtype"]).removeprefix("torch.")
        dtype: torch.dtype = getattr(torch, name)
        return dtype

    def init_communicator(self, device: torch.device | str | int = 0) -> None:
        """Join the server's NCCL group, or check that the server can load weights from a folder."""
        with self._explained():
            if self.weights_folder is None:
                super().init_communicator(device)
                return
            extension = self.get_server_info()["parallel_config"]["worker_extension_cls"]
        if not str(extension).endswith("LoadsPolicy"):
            raise UserError(
                f"The vLLM server at {self.base_url} cannot load weights from a folder. Start it with "
                "`bash scripts/serve_policy.sh`, or set server_weights: nccl."
            )

    def update_named_params(
        self, metadata: list[tuple[str, str, list[int]]], named_params: Iterator[tuple[str, Tensor]]
    ) -> None:
        """Give the server new weights, after it has answered what was sent ahead."""
        if self._ahead is not None:
            self._ahead.wait()
        with self._explained():
            if self.weights_folder is None:
                super().update_named_params(metadata, named_params)
                return
            body = {"method": LOAD, "kwargs": {"folder": str(self.weights_folder)}}
            try:
                write_weights(self.weights_folder, named_params, self.dtype)
                results = self._post(f"{self.base_url}/collective_rpc", json=body)["results"]
            finally:
                shutil.rmtree(self.weights_folder, ignore_errors=True)
        if errors := sorted({result["error"] for result in results} - {""}):
            raise UserError(
                f"The vLLM server at {self.base_url} did not load the policy's weights: {errors[0]}. It must serve "
                "the model that is trained, and see server_weights_folder under the trainer's path."
            )

    def reset_prefix_cache(self) -> None:
        """Drop what the server remembers of prompts and images."""
        with self._explained():
            super().reset_prefix_cache()
            for name in CACHES:
                response = self.session.post(f"{self.base_url}/{name}")
                if response.status_code != 200:
                    raise UserError(
                        f"The vLLM server at {self.base_url} answered {response.status_code} to {name}, so it may "
                        "keep images as an earlier policy encoded them. Start it with `bash scripts/serve_policy.sh`."
                    )

    @property
    def is_idle(self) -> bool:
        """Whether no answer to a request sent ahead is waited for."""
        return self._ahead is None

    # --- generation -------------------------------------------------------------------------------------------------

    @contextmanager
    def sending_ahead(self) -> Iterator[None]:
        """Within the context, `generate` sends the request, returns empty responses and does not wait.

        The next call of `generate` with the same prompts and settings returns the responses.
        """
        self._sends_ahead = True
        try:
            yield
        finally:
            self._sends_ahead = False

    def image_features(self, images: "list[list[Image] | None]", *args: Any, **kwargs: Any) -> Features:
        """Features that the server computes of images, or those of the request that was sent ahead."""
        if self._ahead is not None and not self._sends_ahead and (known := self._ahead.features_of(images)):
            return known
        with self._explained():
            features = super().image_features(images, *args, **kwargs)
        self._last_images = images, features
        return features

    def generate(self, prompts: list[list[int]], features: Features | None = None, **settings: Any) -> Output:
        """Responses to prompts, or those of the same request that was sent ahead."""
        ahead = self._ahead
        if ahead is not None and not self._sends_ahead and ahead.fits(prompts, settings):
            self._ahead = None
            with self._explained():
                return ahead.result()
        if self.before_generate is not None:
            with self._explained():
                self.before_generate(prompts, features)
        if not self._sends_ahead:
            return self.ask(prompts, features, **settings)
        images, own = self._last_images if features is not None else (None, None)
        self._ahead = RequestAhead(prompts, settings, images, own, lambda: self.ask(prompts, features, **settings))
        empty: list[list[Any]] = [[] for _ in range(len(prompts) * settings.get("n", 1))]
        return {"prompt_ids": prompts, "completion_ids": empty, "logprobs": empty, "logprob_token_ids": empty}

    def ask(self, prompts: list[list[int]], features: Features | None = None, **settings: Any) -> Output:
        """Send a request and wait for the responses."""
        with self._explained():
            return super().generate(prompts, features=features, **settings)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what TRL and requests raise into one message."""
        import requests

        try:
            yield
        except UserError:
            raise
        except requests.RequestException as error:
            raise UserError(
                f"The vLLM server at {getattr(self, 'base_url', 'vllm_server_base_url')} does not answer "
                f"({type(error).__name__}). Start it with `bash scripts/serve_policy.sh`, whose output says why if it "
                "ended; a run that was stopped goes on with --resume auto."
            ) from None
        except Exception as error:
            text = str(error)
            if text.startswith("Request failed"):  # TRL raises a bare Exception
                raise UserError(f"The vLLM server at {self.base_url} refused a request. {text[:500]}") from None
            if text.startswith("The vLLM server"):  # TRL says which option the server lacks
                raise UserError(text) from None
            raise
