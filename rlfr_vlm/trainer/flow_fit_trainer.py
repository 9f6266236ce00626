"""Fit a flow field to the latents of a frozen policy on expert responses.

transformers' `Trainer` does gradient accumulation, mixed precision, several ranks, TensorBoard, checkpoints and exact
resume. This subclass adds the loss and the held-out report.

Letters: L hooked layers, B samples, T response tokens, M response tokens that have a partner.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import torch
from torch import Tensor, nn

from rlfr_vlm.checkpoint import CompleteCheckpoints
from rlfr_vlm.config_file import resolved
from rlfr_vlm.data.draws import draws_of
from rlfr_vlm.data.encode import Encoded, encode_examples
from rlfr_vlm.data.load import Rows, as_dataset
from rlfr_vlm.data.rows import Row
from rlfr_vlm.deviation import flow_inputs_of
from rlfr_vlm.errors import UserError
from rlfr_vlm.flow.field import RIGHT, WRONG
from rlfr_vlm.flow.pairing import FlowInputs
from rlfr_vlm.flow.path import logit_normal, standard_normal, target_velocity, token_flow_losses
from rlfr_vlm.flow.spec import FlowSpec, check_same_field
from rlfr_vlm.flow.storage import FIELD_FOLDER, build_field, load_field, save_field
from rlfr_vlm.models.towers import find_language_tower, find_vision_tower
from rlfr_vlm.trainer.finite import FiniteUpdates
from rlfr_vlm.trainer.flow_fit_config import FlowFitConfig
from rlfr_vlm.trainer.records.default_records import keep_records
from rlfr_vlm.trainer.setup import load_model, prepare_dataset

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

    from rlfr_vlm.data.encode import ProcessingClass

TIME_BUCKETS = 5  # of t in [0, 1], in the held-out report
CLASSES = {"right": RIGHT, "wrong": WRONG}  # of the column verdict
STATISTICS_ROWS = 256  # rows that a layer's mean and standard deviation are taken over


class Collated(TypedDict):
    """One micro-batch.

    Attributes:
        batch: its encoded rows, None if all were too long.
        labels: (B,) class of each row, for a contrast field; None without.
        left_out: number of rows left out as too long.
    """

    batch: Encoded | None
    labels: Tensor | None
    left_out: int


def empty_inputs(spec: FlowSpec, device: torch.device) -> FlowInputs:
    """Inputs without any token that counts."""
    hidden = torch.zeros(len(spec.layer_indices), 1, 1, spec.hidden_size, device=device)
    means = hidden[:, :, 0]
    inputs = spec.inputs(hidden, torch.zeros(1, 1, device=device), 1, means if spec.image_context else None, means)
    if spec.is_contrast:
        inputs.label = torch.zeros(1, dtype=torch.long, device=device)
    return inputs


class FlowFitTrainer(FiniteUpdates, CompleteCheckpoints):
    """Fits a field. Overrides the loss, `evaluate`, and how weights are saved and loaded; the rest is inherited.

    Args:
        model: policy, or a hub id or folder to load it from. It is frozen and put into evaluation mode.
        args: settings; None is `FlowFitConfig` with its defaults.
        train_dataset: Hugging Face dataset with the columns prompt, response and, for vision-language policies,
            images. With `flow_accept` right or wrong, or `flow_reference` contrast, also verdict (right, wrong or
            undecided; `rlfr sample` writes it).
        eval_dataset: held-out rows; None holds out the last `eval_fraction` of the training rows.
        processing_class: processor or tokenizer; None loads the one of the model.
        spec: of the field; None makes it from `args`. Its `steps` and `final_loss` are filled in.
        kwargs: further arguments of transformers' `Trainer`, such as `callbacks`.

    Raises:
        UserError: the model cannot be loaded, image context is asked of a text-only policy, rows have no verdict, or
            no rows are left for training or for holding out.
    """

    def __init__(
        self,
        model: "PreTrainedModel | str",
        args: FlowFitConfig | None = None,
        train_dataset: "Dataset | None" = None,
        eval_dataset: "Dataset | None" = None,
        processing_class: "ProcessingClass | None" = None,
        *,
        spec: FlowSpec | None = None,
        **kwargs: object,
    ) -> None:
        if isinstance(model, str):
            model, processing_class = load_model(model, processing_class)
        if args is None:
            args = FlowFitConfig(f"{Path(getattr(model, 'name_or_path', '') or 'policy').name}-flow")
        settings = resolved(args)  # before transformers fills in defaults
        self.policy = model.requires_grad_(False).eval()
        self.spec = spec_for(model, args) if spec is None else spec
        self.left_out = 0
        self.encoder = processing_class
        train_dataset = _accepted(train_dataset, processing_class, args)
        if eval_dataset is not None:
            eval_dataset = _accepted(eval_dataset, processing_class, args)
        elif train_dataset is not None:
            train_dataset, eval_dataset = hold_out(train_dataset, args)
        torch.manual_seed(args.seed)
        super().__init__(
            model=build_field(self.spec),
            args=args,
            data_collator=self._collate,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            **kwargs,
        )
        self.policy.to(args.device)
        if args.flow_normalise:
            self.measure_statistics()
        keep_records(self, "fit flow", settings)

    def _collate(self, rows: list[Row]) -> Collated:
        """Encode rows. The number of left-out rows is returned, because this may run in a worker process."""
        batch = encode_examples(self.encoder, rows)
        limit = self.args.max_length
        if batch.input_ids.shape[1] <= limit:
            return {"batch": batch, "labels": self._labels(rows), "left_out": 0}
        # Padding may make the batch too long; only rows that are too long themselves are left out.
        lengths = batch.attention_mask.sum(dim=1).tolist()
        short = [row for row, length in zip(rows, lengths, strict=True) if length <= limit]
        left_out = len(rows) - len(short)
        if not short:
            return {"batch": None, "labels": None, "left_out": left_out}
        return {"batch": encode_examples(self.encoder, short), "labels": self._labels(short), "left_out": left_out}

    def _labels(self, rows: Sequence[Row]) -> Tensor | None:
        """Class (B,) of each row, for a contrast field."""
        return torch.tensor([CLASSES[row["verdict"]] for row in rows]) if self.spec.is_contrast else None

    def _inputs(self, collated: Collated) -> FlowInputs:
        """Field inputs of a micro-batch; without rows a pass over no token keeps several ranks in step."""
        batch, labels = collated["batch"], collated["labels"]
        if batch is None:
            return empty_inputs(self.spec, self.args.device)
        inputs = flow_inputs_of(self.policy, batch.to(self.args.device), self.spec)
        inputs.label = None if labels is None else labels.to(self.args.device)
        return inputs

    def measure_statistics(self) -> None:
        """Put each layer's mean and standard deviation, over tokens and channels of its raw latents, into the spec."""
        total = squares = torch.zeros(len(self.spec.layer_indices), dtype=torch.float64)
        count, size = 0, self.args.per_device_train_batch_size
        rows = range(min(STATISTICS_ROWS, len(self.train_dataset)))
        for start in rows[::size]:
            batch = self._collate([self.train_dataset[i] for i in rows[start : start + size]])["batch"]
            if batch is None:
                continue
            target, _, _ = flow_inputs_of(self.policy, batch.to(self.args.device), self.spec).packed()
            values = target.flatten(1).cpu().double()
            total, squares = total + values.sum(dim=1), squares + values.square().sum(dim=1)
            count += values.shape[1]
        mean = total / max(count, 1)
        self.spec.latent_mean = tuple(mean.tolist())
        self.spec.latent_std = tuple((squares / max(count, 1) - mean.square()).clamp(min=1e-12).sqrt().tolist())

    def left_out_rows(self) -> int:
        """Rows read in training that were too long, over all ranks."""
        return int(self.accelerator.reduce(torch.tensor(self.left_out, device=self.args.device), reduction="sum"))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Collated,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Mean flow-matching loss over tokens, noise repeats and layers."""
        self.left_out += inputs["left_out"]
        flow_inputs = self._inputs(inputs)
        with self.accelerator.autocast():
            losses = token_flow_losses(model, flow_inputs, noise_repeats=self.args.flow_noise_repeats)
        return losses.sum() / max(losses.numel(), 1)

    @torch.no_grad()
    def evaluate(self, *args: object, **kwargs: object) -> dict[str, float]:
        """Held-out loss: overall, per layer, per bucket of t, and of the zero predictor. Same noise every time."""
        self.model.eval()
        generator = torch.Generator(device=self.args.device).manual_seed(self.args.seed)
        sums = torch.zeros(3, len(self.spec.layer_indices), TIME_BUCKETS, dtype=torch.float64)
        rows = range(self.args.process_index, len(self.eval_dataset), self.args.world_size)
        size = self.args.per_device_eval_batch_size
        for start in range(0, len(rows), size):
            collated = self._collate([self.eval_dataset[i] for i in rows[start : start + size]])
            if collated["batch"] is not None:
                sums += self._loss_sums(self._inputs(collated), generator)
        self.model.train()
        # float32: some accelerators have no float64 reduction
        sums = self.accelerator.reduce(sums.float().to(self.args.device), reduction="sum").double().cpu()
        metrics = held_out_metrics(sums, self.spec.layer_indices)
        self.log(dict(metrics))
        self.spec.final_loss = metrics["eval_loss"]
        return metrics

    def _loss_sums(self, flow_inputs: FlowInputs, generator: torch.Generator) -> Tensor:
        """(3, L, buckets): token count, loss of the field, loss of the zero predictor."""
        target, _, _ = flow_inputs.packed()
        shape = (1, *target.shape)
        noise = standard_normal(shape, target.device, generator)
        t = logit_normal(shape[:-1], target.device, generator)
        with self.accelerator.autocast():
            losses = token_flow_losses(self.model, flow_inputs, noise=noise, t=t)
        zero = target_velocity(target, noise).square().mean(dim=-1)
        bucket = (t * TIME_BUCKETS).long().clamp(max=TIME_BUCKETS - 1)[0].cpu()
        sums = torch.zeros(3, target.shape[0], TIME_BUCKETS, dtype=torch.float64)
        for row, values in enumerate((torch.ones_like(losses), losses, zero)):
            sums[row].scatter_add_(1, bucket, values[0].cpu().double())
        return sums

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        self.spec.steps = self.state.global_step
        save_field(
            Path(output_dir or self.args.output_dir) / FIELD_FOLDER,
            self.accelerator.unwrap_model(self.model),
            self.spec,
        )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        field, spec = load_field(Path(resume_from_checkpoint) / FIELD_FOLDER)
        check_same_field(self.spec, spec, resume_from_checkpoint)
        self.accelerator.unwrap_model(model or self.model).load_state_dict(field.state_dict())
        # Statistics were measured once, when the run began.
        self.spec.latent_mean, self.spec.latent_std = spec.latent_mean, spec.latent_std


def spec_for(policy: "PreTrainedModel", args: FlowFitConfig, policy_name: str = "", data: str = "") -> FlowSpec:
    """The spec of a new field for a policy.

    Args:
        policy_name: written into the spec; "" is the policy's own.
        data: description of the expert data, written into the spec.

    Raises:
        UserError: image context is asked of a text-only policy.
    """
    name = policy_name or getattr(policy, "name_or_path", "")
    if args.flow_image_context and find_vision_tower(policy) is None:
        raise UserError(f"{name or 'The policy'} is a text-only policy. Set flow_image_context: false.")
    return FlowSpec.for_policy(
        find_language_tower(policy).config,
        name,
        args.flow_depth,
        args.flow_layers,
        context_mode=args.flow_context_mode,
        shift=args.flow_shift,
        image_context=args.flow_image_context,
        data=data,
        reference=args.flow_reference,
        latents=args.flow_latents,
    )


def _accepted(
    dataset: "Dataset | None", processing_class: "ProcessingClass | None", args: FlowFitConfig
) -> "Dataset | None":
    prepared = prepare_dataset(dataset, processing_class)
    return None if prepared is None else accepted_rows(prepared, args)


def accepted_rows(dataset: "Dataset", args: FlowFitConfig) -> "Dataset":
    """Rows that the field is fitted on, by their verdict.

    Raises:
        UserError: a verdict is needed and missing, has an unknown value, or leaves no rows of a class.
    """
    contrast = args.flow_reference == "contrast"
    if args.flow_accept == "all" and not contrast:
        return dataset
    reason = "flow_reference contrast" if contrast else f"flow_accept {args.flow_accept}"
    rows: Rows = dataset.format["format_kwargs"]["transform"]
    try:
        verdicts = {number: verdict for number, (verdict,) in rows.stored_values("verdict").items()}
    except UserError as error:
        raise UserError(f"{reason} needs the column verdict, which `rlfr sample` writes. {error}") from None
    if unknown := sorted({str(verdict) for verdict in verdicts.values()} - {*CLASSES, "undecided"}):
        raise UserError(f"The column verdict has the value {unknown[0]!r}; it must be right, wrong or undecided.")
    kept = list(CLASSES) if contrast else [args.flow_accept]
    for verdict in kept:
        if verdict not in verdicts.values():
            raise UserError(f"{reason} needs {verdict} responses, and none of the {len(dataset)} rows is {verdict}.")
    return as_dataset(rows, [number for number, verdict in verdicts.items() if verdict in kept])


def hold_out(dataset: "Dataset", args: FlowFitConfig) -> tuple["Dataset", "Dataset"]:
    """Training rows and held-out rows: the last `eval_fraction` of the rows, `eval_rows` at most.

    Of a mixture, each source is held out in proportion to its rows.

    Raises:
        UserError: the split leaves no training or no held-out rows.
    """
    held_out = min(args.eval_rows, round(args.eval_fraction * len(dataset)))
    if not 0 < held_out < len(dataset):
        raise UserError(
            f"{len(dataset)} rows with eval_fraction {args.eval_fraction} leave {held_out} held-out and "
            f"{len(dataset) - held_out} training rows; both must exist. Change eval_fraction or take more rows."
        )
    draws = draws_of(dataset, shuffle=False)  # of a mixture without weights: each row once, sources in turn
    order = list(range(len(dataset))) if draws is None else draws.take(len(dataset))
    return dataset.select(order[:-held_out]), dataset.select(order[-held_out:])


def held_out_metrics(sums: Tensor, layers: Sequence[int]) -> dict[str, float]:
    """Means from the sums (3, L, buckets) of counts, losses and zero-predictor losses.

    `eval_loss` is the mean over all tokens and layers; `eval_ratio` is it over the zero predictor's.
    """
    count, losses, zero = sums
    metrics = {
        "eval_loss": _ratio(losses.sum(), count.sum()),
        "eval_zero_predictor_loss": _ratio(zero.sum(), count.sum()),
        "eval_ratio": _ratio(losses.sum(), zero.sum()),
    }
    for row, layer in enumerate(layers):
        metrics[f"eval_loss_layer_{layer}"] = _ratio(losses[row].sum(), count[row].sum())
    for column in range(TIME_BUCKETS):
        low, high = column / TIME_BUCKETS, (column + 1) / TIME_BUCKETS
        metrics[f"eval_loss_t_{low:.1f}_{high:.1f}"] = _ratio(losses[:, column].sum(), count[:, column].sum())
    return metrics


def _ratio(numerator: Tensor, denominator: Tensor) -> float:
    return (numerator / denominator).item() if denominator > 0 else math.nan
