"""Choose the limit on images, and the limits on prompts and responses from measured lengths."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions
from rlfr_vlm.policy import load_processor
from rlfr_vlm.prompt_lengths import SAMPLE, measure_prompts
from rlfr_vlm.starting_config.data import DataFacts
from rlfr_vlm.starting_config.model import ModelFacts

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.models import ModelFamily

IMAGE_TOKENS = 640  # of an image at most, as in the paper
LARGE_IMAGE = (2048, 2048)  # whose tokens show the limits in force
VIDEO_ROWS = 32  # rows with videos that are decoded to measure them
PROMPT_TOKENS = 3000  # without prompts to measure; the recipes' number
RESPONSE_TOKENS = 1024  # without responses to measure; the recipes' number
LEAST_RESPONSE, MOST_RESPONSE = 64, 4096
STEP = 32  # limits are multiples of it


@dataclass(frozen=True)
class Limit:
    """A limit and its reason.

    Attributes:
        value: None if there is none to suggest.
        why: the reason for the value, or for leaving it out.
        is_set: whether the configuration sets it; else it stands there as a comment.
    """

    value: int | None
    why: str
    is_set: bool = True


def image_limit(model: ModelFacts, data: DataFacts) -> Limit | None:
    """Return the limit on the pixels of an image; None where the data has no images."""
    if data.largest_image is None:
        return None
    if model.family is None or model.processing_class is None:
        return Limit(IMAGE_TOKENS * 28 * 28, "not set: no processor was read, which has its own units", is_set=False)
    try:
        return _limit_of(model, model.family, model.processing_class, data.largest_image)
    except UserError as error:
        return Limit(None, f"not set: {error}", is_set=False)


def _limit_of(
    model: ModelFacts, family: "ModelFamily", processing_class: "ProcessingClass", largest: tuple[int, int]
) -> Limit:
    """Return a limit of `IMAGE_TOKENS`, where the processor's own limit is higher.

    Raises:
        UserError: the processor cannot keep a limit.
    """
    grid = family.image_grid(processing_class)
    if grid is None or not grid.shrinks:
        return Limit(None, "not set: smaller images are not shorter for this processor", is_set=False)
    pixels = IMAGE_TOKENS * grid.side**2
    limited = family.image_grid(load_processor(model.name, DataOptions(image_max_pixels=pixels)))
    own, ours = (one.tokens(*LARGE_IMAGE) for one in (grid, limited or grid))
    if own <= ours:
        return Limit(pixels, f"not set: the processor itself makes at most {own} tokens of an image", is_set=False)
    effect = "is shrunk" if largest[0] * largest[1] > pixels else "stays as it is"
    why = f"{IMAGE_TOKENS} x {grid.side} x {grid.side}: at most about {ours} tokens an image, up to {own} without it"
    return Limit(pixels, f"{why}; the largest one seen, {largest[0]} x {largest[1]}, {effect}")


def prompt_limit(model: ModelFacts, data: DataFacts, system_prompt: str | None, image: Limit | None) -> Limit:
    """Measure prompts as training builds them, and return a limit that the measured ones keep.

    Args:
        system_prompt: of the configuration.
        image: limit on the pixels of an image.
    """
    if data.rows is None or model.processing_class is None:
        missing = "tokenizer" if model.processing_class is None else "data"
        return Limit(PROMPT_TOKENS, f"not set: no {missing} was read, so no prompt was measured", is_set=False)
    pixels = image.value if image is not None and image.is_set else None
    processing_class = load_processor(model.name, DataOptions(image_max_pixels=pixels))
    data.rows.suit(processing_class)
    data.rows.system_prompt = system_prompt
    try:
        lengths = measure_prompts(data.rows, processing_class, VIDEO_ROWS if data.has_videos else SAMPLE)
    except UserError as error:
        return Limit(PROMPT_TOKENS, f"not set: no prompt could be measured, because {error}", is_set=False)
    if lengths.measured == lengths.rows:
        value, why = rounded_up(lengths.longest), f"the longest of all {lengths.rows} prompts has {lengths.longest}"
    else:
        value = rounded_up(lengths.longest * 5 // 4)
        why = f"the longest of {lengths.measured} measured prompts has {lengths.longest}; a quarter more for the rest"
    room = value if model.context is None else max(model.context - LEAST_RESPONSE, 1)
    if value > room:
        return Limit(room, f"the context of {model.context} less {LEAST_RESPONSE} for a response; {why}")
    return Limit(value, why)


def response_limit(model: ModelFacts, data: DataFacts, prompt: Limit) -> Limit:
    """Return the limit on responses: twice the longest response of the data, within the context."""
    if model.processing_class is None:
        return Limit(RESPONSE_TOKENS, "not set: no tokenizer was read; this is the default", is_set=False)
    if data.response_tokens is None:
        value, why = RESPONSE_TOKENS, "the recipes' number: the data has no responses to measure"
    else:
        value = min(max(rounded_up(2 * data.response_tokens), LEAST_RESPONSE), MOST_RESPONSE)
        why = f"about twice the longest of {data.responses} responses in the data, {data.response_tokens} tokens"
    room = (model.context or value) - (prompt.value or 0 if prompt.is_set else 0)
    if value > room:
        return Limit(room, f"what the context of {model.context} leaves beside the prompt")
    return Limit(value, why)


def rounded_up(tokens: int) -> int:
    """Return the next multiple of `STEP`.

    >>> rounded_up(1), rounded_up(32), rounded_up(33)
    (32, 32, 64)
    """
    return -(-tokens // STEP) * STEP
