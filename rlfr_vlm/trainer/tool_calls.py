"""Tools in a rollout: a chat template that can call them, and images of tool results that a response holds whole.

TRL runs the conversation (read in TRL 1.16.0: `_tool_call_loop`): the policy calls a tool, the result is put behind
the call, and the policy goes on. `tool_mask` is 0 at the result. Letters: B rows, T response tokens.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rlfr_vlm.checkpoint import is_first_process
from rlfr_vlm.errors import UserError
from rlfr_vlm.models import ModelFamily
from rlfr_vlm.models.qwen_vl import VISION_TOKENS
from rlfr_vlm.rewards import ReferenceProbability
from rlfr_vlm.tools.zoom import Zoom
from rlfr_vlm.trainer.trl_seams import Generated, ToolParts, tool_parts, with_tool_parts

if TYPE_CHECKING:
    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig


def prepare_template(processing_class: "ProcessingClass") -> bool:
    """Give a policy whose chat template has no tools one that has, and say so; returns whether it was changed.

    Qwen2-VL and Qwen2.5-VL have the chat format and vision tokens of Qwen3-VL, whose template TRL ships with a parser
    of its tool calls.

    Raises:
        UserError: the template cannot show tool calls, and no other one is known.
    """
    from trl.chat_template_utils import qwen3_vl_chat_template, supports_tool_calling

    if supports_tool_calling(processing_class):
        return False
    template = processing_class.chat_template or ""
    if not all(token in template for token in ("<|im_start|>", *VISION_TOKENS[:2])):
        raise UserError(
            "The policy's chat template cannot show tool calls and their results. Use a policy that was trained to "
            "call tools, such as Qwen3-VL or Qwen2.5, or put a chat_template.jinja with tools into its folder."
        )
    processing_class.chat_template = qwen3_vl_chat_template
    if is_first_process():
        print("tools: the policy's chat template has none, so Qwen3-VL's is used, and saved with the policy")
    return True


def refuse_with_tools(args: "RLFRConfig", family: ModelFamily, rewards: Sequence[object], environment: object) -> None:
    """Refuse settings that do not go with tools.

    Args:
        environment: what makes the environments; None without.

    Raises:
        UserError: names the setting.
    """
    if any(isinstance(reward, ReferenceProbability) for reward in rewards):
        raise UserError(
            "The reward reference_probability puts the gold answer into the policy's response, and responses with "
            "tool calls have several parts. Use other rewards, or leave the tools out."
        )
    if not args.ban_vision_tokens:
        raise UserError(
            "ban_vision_tokens is false: the policy could write image tokens between those of tool results. Leave "
            "it true with tools."
        )
    if args.use_vllm and family.vision_tower is not None and not family.images_are_runs:
        raise UserError(
            f"rollout {args.rollout} cannot continue prompts of {family.name} behind a tool call: their images are no "
            "runs of one token. Set rollout: hf."
        )
    if environment is Zoom and family.vision_tower is None:
        raise UserError(
            f"The environment zoom shows images, and {family.name} take none. Use a vision-language policy, or leave "
            "the environment out."
        )
    if environment and args.refill_rounds:
        raise UserError(
            f"refill_rounds is {args.refill_rounds}; groups with an environment cannot be refilled, since rewards "
            "would read the environments of the refill. Set refill_rounds: 0."
        )


def whole_images(
    generated: Generated, image_token_id: int | None, tokens_of: Callable[[Any], int]
) -> tuple[Generated, int]:
    """Cut responses before the first image of a tool that they do not hold whole; returns how many were cut.

    TRL 1.16.0 leaves out the images of **all** rows of a batch if the image tokens of one row are not those of its
    images.

    Args:
        generated: what `_generate` returned.
        image_token_id: token id of image positions; None for a text-only policy.
        tokens_of: number of tokens of an image.
    """
    parts = tool_parts(generated)
    if image_token_id is None or not any(parts.tool_images):
        return generated, 0
    cut = 0
    for row, images in enumerate(parts.tool_images):
        places = [place for place, token in enumerate(parts.completion_ids[row]) if token == image_token_id]
        counts = [tokens_of(image) for image in images]
        if len(places) == sum(counts):
            continue
        cut += 1
        whole = 0
        while whole < len(counts) and sum(counts[: whole + 1]) <= len(places):
            whole += 1
        kept = sum(counts[:whole])
        _cut(parts, row, places[kept] if kept < len(places) else len(parts.completion_ids[row]), whole)
    return with_tool_parts(generated, parts), cut


def _cut(parts: ToolParts, row: int, length: int, images: int) -> None:
    """Cut a response to a length, and drop the images of its tools beyond a number."""
    dropped = len(parts.tool_images[row]) - images
    by_token: list[list[Any] | None] = [parts.completion_ids, parts.tool_mask, parts.logprobs]
    for values in by_token:
        if values is not None:
            values[row] = values[row][:length]
    parts.tool_images[row] = parts.tool_images[row][:images]
    if parts.images is not None and dropped:
        parts.images[row] = parts.images[row][:-dropped]
