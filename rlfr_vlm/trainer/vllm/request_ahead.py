"""A request to a vLLM server whose answer is collected later."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


class RequestAhead:
    """Runs `ask` in a thread of its own, which does not keep the process alive.

    Args:
        prompts: token ids of each prompt.
        settings: of sampling.
        images: of each prompt; None without images.
        features: what the server made of the images.
        ask: sends the request and returns the server's output.
    """

    def __init__(
        self,
        prompts: Sequence[list[int]],
        settings: Mapping[str, Any],
        images: "Sequence[list[Image] | None] | None",
        features: Sequence[dict[str, Any] | None] | None,
        ask: Callable[[], dict[str, Any]],
    ) -> None:
        self.prompts, self.settings, self.images, self.features = prompts, settings, images, features
        self._future: Future[dict[str, Any]] = Future()
        threading.Thread(target=self._run, args=[ask], name="rollout ahead", daemon=True).start()

    def fits(self, prompts: Sequence[list[int]], settings: Mapping[str, Any]) -> bool:
        """Whether this is the request for these prompts, sampled with these settings."""
        return list(prompts) == list(self.prompts) and dict(settings) == dict(self.settings)

    def features_of(self, images: "Sequence[list[Image] | None]") -> Sequence[dict[str, Any] | None] | None:
        """Features of the request's images if these are the same pixels, else None."""
        return self.features if self.images is not None and list(images) == list(self.images) else None

    def wait(self) -> None:
        """Wait until the server has answered, or failed."""
        self._future.exception()

    def result(self) -> dict[str, Any]:
        """Return the server's output; raises what the request raised."""
        return self._future.result()

    def _run(self, ask: Callable[[], dict[str, Any]]) -> None:
        try:
            self._future.set_result(ask())
        except BaseException as error:
            self._future.set_exception(error)
