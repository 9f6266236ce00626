"""`FlowFitConfig`: transformers' `TrainingArguments` and what `FlowFitTrainer` reads beside it."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from rlfr_vlm.checkpoint import ResumableArguments
from rlfr_vlm.errors import UserError, nearest
from rlfr_vlm.flow.spec import LATENT_FORMS, REFERENCES
from rlfr_vlm.flow_options import FIT_ACCEPTS, FitOptions


@dataclass
class FlowFitConfig(FitOptions, ResumableArguments, TrainingArguments):
    """Settings of `FlowFitTrainer`: transformers' `TrainingArguments` with RLFR's values, plus `FitOptions`."""

    learning_rate: float = field(default=1e-4, metadata={"help": "AdamW learning rate."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "Learning-rate schedule."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Warm-up, as a share of all steps when below 1."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW weight decay."})
    num_train_epochs: float = field(default=2.0, metadata={"help": "Passes over the expert data."})
    logging_steps: float = field(default=10, metadata={"help": "Updates between two logs."})
    # None stands first as in transformers, whose parser depends on the order.
    report_to: None | str | list[str] = field(default="tensorboard", metadata={"help": "Where metrics go."})  # noqa: RUF036
    remove_unused_columns: bool = field(default=False, metadata={"help": "The trainer's collator encodes rows."})

    def __post_init__(self) -> None:
        for name in ("flow_noise_repeats", "flow_depth", "max_length"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name, known in (
            ("flow_reference", REFERENCES),
            ("flow_accept", FIT_ACCEPTS),
            ("flow_latents", LATENT_FORMS),
        ):
            value = getattr(self, name)
            if value not in known:
                raise UserError(f"{name} is {value!r}; choose one of {', '.join(known)}.{nearest(value, known)}")
        if self.flow_reference == "contrast" and self.flow_accept != "all":
            raise UserError(
                f"flow_accept is {self.flow_accept}, but flow_reference contrast is fitted on right and wrong rows. "
                "Leave flow_accept out."
            )
        super().__post_init__()
