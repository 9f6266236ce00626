"""An environment with one tool: look at a part of the image, enlarged."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

LEAST_SIDE = 4  # pixels of a crop's side


class Zoom:
    """Keeps the images of a row, and shows parts of the first one.

    Attributes:
        images: of the row.
    """

    def __init__(self) -> None:
        self.images: Sequence[Image] = ()

    def reset(self, images: "Sequence[Image] | None" = None, **row: object) -> None:
        """Take the images of a row; the prompt stays as it is."""
        self.images = list(images or ())

    def zoom(self, left: float, top: float, right: float, bottom: float) -> list[dict[str, Any]]:
        """Look at a part of the image, enlarged to the size of the whole.

        Args:
            left: Left edge of the part, from 0 (left edge of the image) to 1.
            top: Upper edge, from 0 (upper edge of the image) to 1.
            right: Right edge, greater than left.
            bottom: Lower edge, greater than top.

        Returns:
            The part as an image.
        """
        if not self.images:
            raise ValueError("the prompt has no image")
        if not (0 <= left < right <= 1 and 0 <= top < bottom <= 1):
            raise ValueError(
                f"({left}, {top}, {right}, {bottom}) is no part of the image; edges are from 0 to 1, left before "
                "right and top before bottom"
            )
        image = self.images[0]
        box = (
            int(left * image.width),
            int(top * image.height),
            round(right * image.width),
            round(bottom * image.height),
        )
        if min(box[2] - box[0], box[3] - box[1]) < LEAST_SIDE:
            raise ValueError(f"the part is smaller than {LEAST_SIDE} pixels")
        return [{"type": "image", "image": image.crop(box).resize(image.size)}]
