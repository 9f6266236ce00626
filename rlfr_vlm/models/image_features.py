"""Keep what a frozen vision tower makes of an image, for all passes of a rollout.

GRPO shows an image n times to the tower in generation, and again in the passes for old log-probs, latents, references
and losses. With a frozen tower the features are the same each time, so they are computed once. Families that can
split a batch of images (`ModelFamily.splits_images`) are supported.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlfr_vlm.models import family_of
from rlfr_vlm.models.replaced import method_replaced
from rlfr_vlm.models.towers import find_vision_tower, unwrap


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one or several images, as a family's forward method reads them.

    Attributes:
        pooler_output: image tokens (tokens, D) of each image.
        deepstack_features: features (tokens, D) of earlier blocks of the tower, of all images; None where there are
            none.
    """

    pooler_output: Sequence[Tensor]
    deepstack_features: Sequence[Tensor] | None = None

    @property
    def num_bytes(self) -> int:
        """Memory of all features."""
        return sum(tensor.nbytes for tensor in [*self.pooler_output, *(self.deepstack_features or ())])

    def split(self) -> list["ImageFeatures"]:
        """Features of each image."""
        sizes = [len(tokens) for tokens in self.pooler_output]
        if self.deepstack_features is None:
            return [ImageFeatures([tokens]) for tokens in self.pooler_output]
        blocks = [block.split(sizes) for block in self.deepstack_features]
        return [
            ImageFeatures([tokens], [block[number] for block in blocks])
            for number, tokens in enumerate(self.pooler_output)
        ]

    def moved(self, device: torch.device, *, copy: bool = False) -> "ImageFeatures":
        """The features on a device, without their history.

        Args:
            copy: do not keep the memory of the other images of their batch alive.
        """

        def moved(tensors: Sequence[Tensor]) -> list[Tensor]:
            return [tensor.detach().to(device, copy=copy) for tensor in tensors]

        deep = None if self.deepstack_features is None else moved(self.deepstack_features)
        return ImageFeatures(moved(self.pooler_output), deep)


def joined(parts: Sequence[ImageFeatures]) -> ImageFeatures:
    """Features of the images of all parts, in order."""
    tokens = [image for part in parts for image in part.pooler_output]
    blocks = [part.deepstack_features for part in parts if part.deepstack_features is not None]
    if not blocks:
        return ImageFeatures(tokens)
    return ImageFeatures(tokens, [torch.cat(block) for block in zip(*blocks, strict=True)])


class ImageFeatureCache:
    """Cache of the features of a rollout's images, within a limit of memory.

    Attributes:
        limit: bytes; images beyond it are computed in every pass.
        on_host: whether features are kept in host memory instead of the device's.
        run, asked: images that went through the tower, and images that passes asked for, since `take_metrics`.
    """

    def __init__(self, limit: int, on_host: bool) -> None:
        self.limit, self.on_host = limit, on_host
        self.run = self.asked = 0
        self._known: dict[str, ImageFeatures] = {}
        self._bytes = 0

    @staticmethod
    def suits(policy: nn.Module) -> bool:
        """Whether a policy's family splits images, and its tower is frozen and without adapters."""
        tower = find_vision_tower(policy)
        if tower is None or not family_of(policy).splits_images:
            return False
        has_adapters = any("lora_" in name for name, _ in tower.named_parameters())
        return not has_adapters and not is_trained(tower)

    @contextmanager
    def answering(self, policy: nn.Module) -> Iterator[None]:
        """Answer a policy's requests for image features, inside the context; what was kept is forgotten afterwards.

        Args:
            policy: wrapped or not; `suits` it, and its tower is whole on this process.
        """
        family, tower = family_of(policy), find_vision_tower(policy)
        assert tower is not None
        backbone: Any = unwrap(policy).base_model
        compute = backbone.get_image_features

        def get_image_features(pixel_values: Tensor, image_grid_thw: Tensor, **kwargs: Any) -> Any:
            if is_trained(tower):  # by a callback, since the run began
                return compute(pixel_values, image_grid_thw, **kwargs)
            images = family.split_images({"pixel_values": pixel_values, "image_grid_thw": image_grid_thw})

            def features(chosen: list[dict[str, Tensor]]) -> ImageFeatures:
                output = compute(**family.join_images(chosen), **(kwargs | {"return_dict": True}))
                return ImageFeatures(output.pooler_output, getattr(output, "deepstack_features", None))

            return self._of(images, features)

        with method_replaced(backbone, "get_image_features", get_image_features):
            try:
                yield
            finally:
                self.clear()

    def _of(
        self, images: list[dict[str, Tensor]], compute: Callable[[list[dict[str, Tensor]]], ImageFeatures]
    ) -> ImageFeatures:
        """Features of images (one dict of tensors each); those that are not known are computed, each once."""
        device = images[0]["pixel_values"].device
        keys = [_key(image) for image in images]
        new = {key: image for key, image in zip(keys, images, strict=True) if key not in self._known}
        found: dict[str, ImageFeatures] = {}
        if new:
            computed = compute(list(new.values())).split()
            found = {key: features.moved(device) for key, features in zip(new, computed, strict=True)}
            for key, features in found.items():
                self._keep(key, features)
        self.run, self.asked = self.run + len(new), self.asked + len(images)
        return joined([found[key] if key in found else self._known[key].moved(device) for key in keys])

    def _keep(self, key: str, features: ImageFeatures) -> None:
        if self._bytes + features.num_bytes <= self.limit:
            device = torch.device("cpu") if self.on_host else features.pooler_output[0].device
            self._known[key] = features.moved(device, copy=True)
            self._bytes += features.num_bytes

    def clear(self) -> None:
        """Forget all images."""
        self._known, self._bytes = {}, 0

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Leave the images of passes inside the context out of the metrics."""
        counts = self.run, self.asked
        try:
            yield
        finally:
            self.run, self.asked = counts

    def take_metrics(self) -> dict[str, float]:
        """Share of the images that the tower did not run since the last call."""
        run, asked, self.run, self.asked = self.run, self.asked, 0, 0
        return {"images/tower_saved": 1 - run / asked} if asked else {}


def is_trained(tower: nn.Module) -> bool:
    """Whether a weight of a tower gets a gradient."""
    return any(weight.requires_grad for weight in tower.parameters())


def _key(image: dict[str, Tensor]) -> str:
    """Hash of an image's patches and grid, and of the type in which the tower runs."""
    pixels = image["pixel_values"].detach().contiguous()
    device = pixels.device.type
    autocast = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else ""
    digest = hashlib.blake2b(f"{image['image_grid_thw'].tolist()} {pixels.dtype} {autocast}".encode(), digest_size=16)
    digest.update(pixels.view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()
