"""Run TRL's log-prob passes with each prompt, and each image, once for the rows that share it.

TRL goes on making chunks of rows and slicing what comes back. `SharedPrefixPolicy` takes the place of the policy in
its call: it packs the chunk, runs one forward pass, and returns log-probs and entropies row by row.

Letters: B rows of a chunk, W columns, T response columns, N tokens of the packed row.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from trl.trainer.utils import FusedCausalLMOutput

from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of
from rlfr_vlm.models.shared_prefix.attention import LAYOUT, learn_layouts, packed_mask
from rlfr_vlm.models.shared_prefix.layout import PackedLayout, packed_layout
from rlfr_vlm.models.shared_prefix.prompts import RowImages, rows_by_prompt
from rlfr_vlm.models.shared_prefix.support import why_not_shared
from rlfr_vlm.models.towers import unwrap
from rlfr_vlm.trainer.pass_inputs import PassInputs

if TYPE_CHECKING:
    from accelerate import Accelerator

    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

CHECK_LIMIT = 1e-4  # largest difference of a log-prob in float32
COARSE_STEPS = 8  # in types with fewer bits: steps of the type at 1; the CPU rounds alike whatever the number of rows
IGNORED = -100  # label of a position that is not scored


@dataclass
class SharedTokens:
    """Tokens and images that passes ran, and those that they would have run row by row."""

    packed: int = 0
    row_wise: int = 0
    packed_images: int = 0
    row_images: int = 0


@dataclass
class SharedPrefixPolicy:
    """Takes the place of the policy in TRL's log-prob pass (read in TRL 1.16.0, under a contract test).

    Attributes:
        run: forward pass: the policy, or a function that takes its arguments.
        policy: whose positions and tokens of images are used; may be wrapped.
        num_response: T.
        images: of all rows that TRL passes on, chunk by chunk; None without any.
        tokens: counts what was run.
    """

    run: Callable[..., FusedCausalLMOutput]
    policy: nn.Module
    num_response: int
    images: RowImages | None
    tokens: SharedTokens
    _first_row: int = field(default=0, init=False)

    def __call__(
        self, *, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, fused_lm_head: bool, **inputs: Any
    ) -> FusedCausalLMOutput:
        """Log-probs and entropies (B, T) of a chunk of rows.

        Args:
            input_ids, attention_mask: (B, W).
            labels: (B, W), `IGNORED` where a token is not scored.
            fused_lm_head: true.
            inputs: image arguments of the forward method.
        """
        images = self.images and self.images.chunk(self._first_row, len(input_ids))
        self._first_row += len(input_ids)
        prompt = slice(0, input_ids.shape[1] - self.num_response)
        groups = rows_by_prompt(input_ids[:, prompt], attention_mask[:, prompt], images)
        layout = packed_layout(attention_mask, groups, self.num_response)
        once = images and images.of_rows([rows[0] for rows in groups])
        packed = self._packed(layout, groups, input_ids, attention_mask, inputs, once)
        if once is not None:
            packed |= {"pixel_values": once.pixel_values, "image_grid_thw": once.image_grid_thw}
        self._count(layout, images, once)
        response = labels[:, -self.num_response :]
        is_scored = response != IGNORED
        predicting = layout.index[:, -self.num_response - 1 : -1][is_scored]
        with _hidden_states_at(unwrap(self.policy).base_model, predicting):  # type: ignore[arg-type]
            output = self.run(**packed, shift_labels=response[is_scored].unsqueeze(0), fused_lm_head=fused_lm_head)

        def row_wise(values: Tensor | None) -> Tensor | None:
            return None if values is None else values.new_zeros(is_scored.shape).masked_scatter(is_scored, values)

        return FusedCausalLMOutput(
            log_probs=row_wise(output.log_probs), entropy=row_wise(output.entropy), label_mask=is_scored
        )

    def _packed(
        self,
        layout: PackedLayout,
        groups: Sequence[Sequence[int]],
        input_ids: Tensor,
        attention_mask: Tensor,
        inputs: dict[str, Any],
        images: RowImages | None,
    ) -> dict[str, Any]:
        """Arguments of the forward pass but for the images: tokens, positions and the layout.

        Args:
            images: of the groups.
        """
        model, kinds = unwrap(self.policy), inputs.get("mm_token_type_ids")
        # the longest row of a group has the positions of all its rows
        longest = [rows[group.blocks.index(group.width)] for rows, group in zip(groups, layout.groups, strict=True)]
        with_images: dict[str, Any] = {}
        if images is not None:
            with_images = {
                "image_grid_thw": images.image_grid_thw,
                "mm_token_type_ids": None if kinds is None else kinds[longest],
            }
        positions = family_of(model).token_positions(model, input_ids[longest], attention_mask[longest], with_images)
        packed: dict[str, Any] = {
            "input_ids": layout.pack(input_ids),
            "position_ids": positions.flatten(-2)[..., layout.source_in_groups(groups)].unsqueeze(-2),
            "attention_mask": packed_mask(input_ids.device),
            LAYOUT: layout,
        }
        return packed if kinds is None else packed | {"mm_token_type_ids": layout.pack(kinds)}

    def _count(self, layout: PackedLayout, images: RowImages | None, once: RowImages | None) -> None:
        self.tokens.packed += len(layout.source)
        self.tokens.row_wise += layout.index.numel()
        self.tokens.row_images += 0 if images is None else len(images.image_grid_thw)
        self.tokens.packed_images += 0 if once is None else len(once.image_grid_thw)


@contextmanager
def _hidden_states_at(backbone: nn.Module, positions: Tensor) -> Iterator[None]:
    """Let a backbone return the last hidden states (1, M, D) of these positions (M,) alone, for the LM head.

    Where TRL has no Triton, on a CPU, its LM head would run at all positions of prompts, too.
    """

    def select(_module: nn.Module, _inputs: object, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, positions]
        return output

    hook = backbone.register_forward_hook(select)
    try:
        yield
    finally:
        hook.remove()


class PrefixSharing:
    """Shares prompts in the passes of a run, after a check against a row-wise pass.

    Attributes:
        is_on: false after the check failed.
        is_checked: whether the first rows of the run have been compared.
        tokens: counts since the last `take_metrics`.
    """

    def __init__(self, policy: nn.Module, ref_model: nn.Module | None, group_size: int) -> None:
        for model in (policy, ref_model):
            if model is not None:
                learn_layouts(model)
        self.group_size = group_size
        self.is_on = True
        self.tokens = SharedTokens()
        self.is_checked = False

    @classmethod
    def for_run(
        cls,
        args: "RLFRConfig",
        policy: nn.Module,
        ref_model: nn.Module | None,
        group_size: int,
        accelerator: "Accelerator",
    ) -> "PrefixSharing | None":
        """The sharing of a run; None without.

        Raises:
            UserError: `share_prefix` is true, but the run cannot share prompts.
        """
        if args.share_prefix == "false":
            return None
        reason = why_not_shared(policy) or _why_not_in(args, accelerator)
        if ref_model is not None and reason is None and (reason := why_not_shared(ref_model)):
            reason = f"of the reference model: {reason}"
        if reason is None:
            return cls(policy, ref_model, group_size)
        if args.share_prefix == "true":
            raise UserError(f"share_prefix is true, but {reason}. Set share_prefix: auto, or false.")
        if accelerator.is_main_process:
            print(f"prompts are not shared in forward passes: {reason}")
        return None

    def applies_to(self, inputs: PassInputs, image_token: int | None) -> bool:
        """Whether prompts are shared in a pass: blocks, which begin before the response, must have no image.

        Args:
            image_token: id of the policy's image token; None for a text-only policy.
        """
        blocks = inputs.input_ids[:, -inputs.num_response - 1 :]
        return self.is_on and (image_token is None or not (blocks == image_token).any())

    def instead_of(
        self, model: Callable[..., Any], policy: nn.Module, inputs: PassInputs, *, counts: bool = True
    ) -> SharedPrefixPolicy:
        """What takes the place of `model` in a log-prob pass.

        Args:
            model: the policy, or a function that takes its arguments.
            policy: the policy.
            counts: count its tokens.
        """
        tokens = self.tokens if counts else SharedTokens()
        return SharedPrefixPolicy(model, policy, inputs.num_response, inputs.row_images, tokens)

    def rows_at_once(self, batch_size: int | None) -> int | None:
        """Rows of one chunk of a rollout's pass without gradients: whole groups."""
        if batch_size is None or not self.is_on:
            return batch_size
        return -(-batch_size // self.group_size) * self.group_size

    def check(
        self,
        row_pass: Callable[..., tuple[Tensor, Tensor | None, Tensor | None]],
        policy: nn.Module,
        inputs: PassInputs,
        image_token: int | None,
        accelerator: "Accelerator",
    ) -> None:
        """Compare the log-probs of some rows with and without sharing; stop sharing if they differ.

        This waits for the first pass in which a prompt repeats. Log-probs may differ by `CHECK_LIMIT`, in a coarse
        type by some of its steps, or by twice as much as two row-wise passes over other numbers of rows do.

        Args:
            row_pass: TRL's `_get_per_token_logps_and_entropies`.
            policy: as the trainer runs it.
            inputs: of the pass.
            image_token: as for `applies_to`.
            accelerator: all ranks compare, and decide alike.
        """
        groups = sorted(inputs.prompts(), key=len, reverse=True)
        repeats = torch.tensor([len(groups[0]) > 1], device=inputs.input_ids.device)
        if not accelerator.gather(repeats).any():
            return
        self.is_checked = True
        # the largest group, and as many rows on every rank, since each runs as many passes
        chosen = inputs.of_rows([row for group in groups for row in group][: self.group_size])
        shared: Callable[..., Any] = policy
        if self.applies_to(chosen, image_token):
            shared = self.instead_of(policy, policy, chosen, counts=False)
        rows = len(chosen.input_ids)

        def log_probs(model: object, batch_size: int) -> Tensor:
            return row_pass(
                model, chosen.input_ids, chosen.attention_mask, chosen.num_response, batch_size, **chosen.images
            )[0]

        training = policy.training
        policy.eval()
        assert isinstance(policy.dtype, torch.dtype)
        allowed = _rounding(policy.dtype, accelerator.mixed_precision)
        with torch.no_grad():
            expected = log_probs(policy, rows)

            def difference(model: object, batch_size: int) -> float:
                """The largest one of all ranks."""
                own = (expected - log_probs(model, batch_size)).abs().max()
                return float(accelerator.gather(own.unsqueeze(0)).max())

            found = difference(shared, rows)
            if not found <= allowed:  # on all ranks
                allowed = max(allowed, 2 * difference(policy, -(-rows // 2)))
        policy.train(training)
        if not found <= allowed:  # also where it is NaN
            self.is_on = False
            if accelerator.is_main_process:
                print(
                    f"share_prefix is off: log-probs with shared prompts differ by {found:.2g} from row-wise ones, "
                    f"and {allowed:.2g} would be rounding. Please report the policy's model type and attention."
                )

    def take_metrics(self) -> dict[str, float]:
        """Share of tokens and images that were not run since the last call."""
        tokens, self.tokens = self.tokens, SharedTokens()
        metrics = {}
        if tokens.row_wise:
            metrics["share_prefix/tokens_saved"] = 1 - tokens.packed / tokens.row_wise
        if tokens.row_images:
            metrics["share_prefix/images_saved"] = 1 - tokens.packed_images / tokens.row_images
        return metrics


def _rounding(weights: torch.dtype, mixed_precision: str) -> float:
    """Difference of log-probs that rounding explains.

    >>> _rounding(torch.float32, "no"), _rounding(torch.float32, "bf16"), _rounding(torch.float16, "no")
    (0.0001, 0.0625, 0.0078125)
    """
    autocast = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(mixed_precision, weights)
    coarse = max(torch.finfo(dtype).eps for dtype in (weights, autocast))
    return max(CHECK_LIMIT, COARSE_STEPS * coarse)


def _why_not_in(args: "RLFRConfig", accelerator: "Accelerator") -> str | None:
    """Why a run's settings do not let prompts be shared; None if they do."""
    if args.use_liger_kernel:
        return "use_liger_kernel is true, and its loss runs row by row"
    if args.torch_compile:
        return "torch_compile is true, and each packed row has another shape"
    parallel = getattr(accelerator, "parallelism_config", None)
    if parallel is not None and (getattr(parallel, "cp_size", 1) > 1 or getattr(parallel, "sp_size", 1) > 1):
        return "rows are split over processes by sequence or context parallelism"
    return None
