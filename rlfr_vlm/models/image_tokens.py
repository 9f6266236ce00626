"""Count the tokens that an image of a given size becomes, before the image is read.

`tokens` is what the image adds to a prompt in place of its one placeholder: image tokens, and tokens around and
between them.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image

    from rlfr_vlm.data.encode import ProcessingClass

Size = tuple[int, int]  # width and height in pixels


class ImageGrid(Protocol):
    """Image-token arithmetic of one processor."""

    @property
    def shrinks(self) -> bool:
        """Whether a smaller image becomes fewer tokens."""

    @property
    def min_pixels(self) -> int:
        """Pixels that the processor enlarges an image to."""

    @property
    def side(self) -> int:
        """Pixels of the side of one image token; 1 where tokens do not shrink."""

    def tokens(self, width: int, height: int) -> int:
        """Number of tokens of an image of this size in pixels."""

    def row_tokens(self, sizes: Sequence[Size]) -> int:
        """Number of tokens of the images of one row."""

    def resized(self, image: "Image") -> "Image":
        """The image at the size that the processor would give it, or unchanged if that is not needed."""


class CountedGrid:
    """Counts by functions of the processor, and remembers the counts.

    Args:
        count: tokens of an image by width and height.
        key: what the count depends on; images with the same key are counted once.
        shrinks: whether a smaller image becomes fewer tokens.
        side: pixels of the side of one image token, if tokens shrink.
        row_count: tokens of the images of a row; None is the sum over its images.
    """

    def __init__(
        self,
        count: Callable[[int, int], int],
        key: Callable[[int, int], Hashable] = lambda width, height: (width, height),
        *,
        shrinks: bool = False,
        side: int = 1,
        row_count: "Callable[[CountedGrid, Sequence[Size]], int] | None" = None,
    ) -> None:
        self.shrinks = shrinks
        self.side = side
        self.min_pixels = 1
        self._count = count
        self._key = key
        self._row_count = row_count
        self._known: dict[Hashable, int] = {}

    def tokens(self, width: int, height: int) -> int:
        """Number of tokens of an image of this size."""
        key = self._key(width, height)
        if key not in self._known:
            self._known[key] = self._count(width, height)
        return self._known[key]

    def row_tokens(self, sizes: Sequence[Size]) -> int:
        """Number of tokens of the images of one row."""
        return self._row_count(self, sizes) if self._row_count else sum(self.tokens(*size) for size in sizes)

    def resized(self, image: "Image") -> "Image":
        """The image itself."""
        return image


def tokens_by_size(processing_class: "ProcessingClass", width: int, height: int) -> int:
    """Number of tokens by the processor's own arithmetic, which transformers keeps for vLLM.

    Read in transformers 5.17, under a contract test.
    """
    [count] = processing_class._get_num_multimodal_tokens(image_sizes=[(height, width)]).num_image_tokens
    return int(count)


def tokens_by_processing(processing_class: "ProcessingClass", width: int, height: int) -> int:
    """Number of tokens that the processor makes of a black image, where it has no arithmetic of its own."""
    from PIL import Image

    image = Image.new("RGB", (width, height))
    batch = processing_class(text=[processing_class.image_token], images=[[image]], add_special_tokens=False)
    return len(batch["input_ids"][0])
