"""Look at a model without its weights: its config.json, and its tokenizer where that can be read."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError
from rlfr_vlm.models import family_of_config
from rlfr_vlm.options import DataOptions
from rlfr_vlm.policy import load_processor, refuse_missing_folder

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from rlfr_vlm.data.encode import ProcessingClass
    from rlfr_vlm.models import ModelFamily

NOT_CACHED = "it is in no cache on this machine, and no network is used unless HF_HUB_OFFLINE=0 is set"


@dataclass(frozen=True)
class ModelFacts:
    """What is known of a model.

    Attributes:
        name: folder or hub id; empty if none is named.
        config: its configuration; None where that cannot be read.
        family: None without a configuration.
        processing_class: processor or tokenizer; None where that cannot be read.
        no_config, no_tokenizer: why they cannot be read; empty where they can, and without a name.
    """

    name: str = ""
    config: "PreTrainedConfig | None" = None
    family: "ModelFamily | None" = None
    processing_class: "ProcessingClass | None" = None
    no_config: str = ""
    no_tokenizer: str = ""

    @property
    def takes_images(self) -> bool | None:
        """Whether the family has a vision tower; None where it is unknown."""
        return None if self.family is None else self.family.vision_tower is not None

    @property
    def context(self) -> int | None:
        """Tokens of prompt and response together; None without a limit or where it is unknown."""
        return getattr(self.config.get_text_config(), "max_position_embeddings", None) if self.config else None


def look_at_model(name: str) -> ModelFacts:
    """Read a model's configuration and tokenizer.

    Args:
        name: folder or hub id, of which the cache is read; empty if none is named.

    Raises:
        UserError: there is no such folder, its config.json cannot be read, or its family is not known.
    """
    from huggingface_hub.errors import StrictDataclassError  # a value of config.json has a wrong type
    from transformers import AutoConfig

    if not name:
        return ModelFacts()
    refuse_missing_folder(name)
    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError, ImportError, AttributeError, StrictDataclassError) as error:
        if not Path(name).exists():
            return ModelFacts(name, no_config=NOT_CACHED, no_tokenizer=NOT_CACHED)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"Cannot read config.json of the model {name}: {reason} Give the folder of a Hugging Face model."
        ) from None
    family = family_of_config(config, f"The model {name!r}")
    try:
        processing_class = load_processor(name, DataOptions())
    except UserError as error:
        return ModelFacts(name, config, family, no_tokenizer=str(error))
    return ModelFacts(name, config, family, processing_class)
