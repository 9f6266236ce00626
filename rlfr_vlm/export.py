"""Export a checkpoint as a plain Hugging Face folder: weights, processor, generation settings, model card."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, replace_directory
from rlfr_vlm.model_card import CARD_FILE

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel

ADAPTER_FILE = "adapter_config.json"
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
# Generation settings that describe the model rather than the sampling of the training run.
GENERATION_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def export(checkpoint: Path, to: Path, card: str, *, base: str | None = None, dtype: str = "auto") -> JsonObject:
    """Write the folder atomically.

    Args:
        checkpoint: a checkpoint or the output folder of `rlfr train`.
        to: folder to write; must not exist.
        card: text of the model card, README.md.
        base: base model of an adapter, if it is not where it was in training.
        dtype: type of the weights; `auto` keeps the stored one.

    Returns:
        Number of parameters, dtype, class, and whether an adapter was merged.

    Raises:
        UserError: the checkpoint holds no loadable weights, or the base model of an adapter is missing.
    """
    from transformers import AutoProcessor

    model, merged, source = load(checkpoint, base, dtype)
    model.config.use_cache = True  # gradient checkpointing turns it off
    model.config.get_text_config().use_cache = True
    model.generation_config = clean_generation_config(model)
    processing_class = AutoProcessor.from_pretrained(checkpoint if _has_tokenizer(checkpoint) else source)
    with replace_directory(to) as folder:
        model.save_pretrained(folder)
        processing_class.save_pretrained(folder)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return {
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "class": type(model).__name__,
        "merged": merged,
    }


def load(checkpoint: Path, base: str | None, dtype: str) -> "tuple[PreTrainedModel, bool, str]":
    """Load the policy of a checkpoint.

    Returns:
        The policy, whether an adapter was merged into it, and the folder or hub id of the full weights.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    if (checkpoint / ADAPTER_FILE).is_file():
        source = base or str(_read_json_object(checkpoint / ADAPTER_FILE).get("base_model_name_or_path") or "")
        if not source or (source.startswith(("/", ".")) and not Path(source).is_dir()):
            raise UserError(
                f"{checkpoint} is an adapter of {source!r}, which is not there. Name its base with --base."
            )
    elif any((checkpoint / name).is_file() for name in WEIGHT_FILES):
        source = str(checkpoint)
    else:
        raise UserError(
            f"{checkpoint} holds no model.safetensors and no {ADAPTER_FILE}. Give a checkpoint-N folder or the output "
            "folder of `rlfr train`; a ZeRO-3 run must save whole weights (zero3_save_16bit_model: true)."
        )
    try:
        takes_images = hasattr(AutoConfig.from_pretrained(source), "vision_config")
        cls = AutoModelForImageTextToText if takes_images else AutoModelForCausalLM
        model = cls.from_pretrained(source, dtype=dtype)
        if source != str(checkpoint):
            from peft import PeftModel

            return PeftModel.from_pretrained(model, str(checkpoint)).merge_and_unload(), True, source
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"Cannot load the policy of {checkpoint}: {' '.join(str(error).split())[:300]}") from None
    return model, False, source


def clean_generation_config(model: "PreTrainedModel") -> "GenerationConfig":
    """Keep the special tokens of a model's generation settings and drop the sampling of the training run."""
    from transformers import GenerationConfig

    tokens: dict[str, int | list[int]] = {}
    for key in GENERATION_KEYS:
        value = getattr(model.generation_config, key, None)
        if isinstance(value, list):
            value = list(dict.fromkeys(value))
            value = value[0] if len(value) == 1 else value
        if value is not None:
            tokens[key] = value
    return GenerationConfig(**tokens)


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer_config.json").is_file()


def _read_json_object(path: Path) -> JsonObject:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    return value if isinstance(value, dict) else {}
