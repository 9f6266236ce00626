"""A checkpoint as a plain Hugging Face folder: weights, processor, generation settings, model card."""

import json
from pathlib import Path
from typing import Any

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import replace_directory

ADAPTER_FILE = "adapter_config.json"
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")
# Of the generation settings, what describes the model and not how training sampled from it.
GENERATION_KEYS = ("bos_token_id", "eos_token_id", "pad_token_id")
DTYPES = ("auto", "float32", "bfloat16", "float16")


def export(checkpoint: Path, to: Path, card: str, *, base: str | None = None, dtype: str = "auto") -> dict[str, Any]:
    """Write the folder; it is there whole or not at all.

    Args:
        checkpoint: of `rlfr train`, or its output folder.
        to: folder to write; must not exist.
        card: text of the model card, README.md.
        base: base model of an adapter, when it is not where it was in training.
        dtype: type of the weights; `auto` as they are stored.

    Returns:
        What was written: parameters, dtype, class, and whether an adapter was merged.

    Raises:
        UserError: the checkpoint holds no loadable weights, or its base is not there.
    """
    from transformers import AutoProcessor

    model, merged, source = load(checkpoint, base, dtype)
    model.config.use_cache = True  # gradient checkpointing turns it off
    model.config.get_text_config().use_cache = True
    model.generation_config = clean_generation_config(model)
    processing_class = AutoProcessor.from_pretrained(source if not _has_tokenizer(checkpoint) else checkpoint)
    with replace_directory(to) as folder:
        model.save_pretrained(folder)
        processing_class.save_pretrained(folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
    return {
        "parameters": model.num_parameters(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "class": type(model).__name__,
        "merged": merged,
    }


def load(checkpoint: Path, base: str | None, dtype: str) -> tuple[Any, bool, str]:
    """The policy of a checkpoint, whether an adapter was merged into it, and the folder of its base or its own."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    if (checkpoint / ADAPTER_FILE).is_file():
        source = base or str(_read(checkpoint / ADAPTER_FILE).get("base_model_name_or_path") or "")
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
        sees = hasattr(AutoConfig.from_pretrained(source), "vision_config")
        cls = AutoModelForImageTextToText if sees else AutoModelForCausalLM
        model = cls.from_pretrained(source, dtype=dtype)
        if source != str(checkpoint):
            from peft import PeftModel

            return PeftModel.from_pretrained(model, str(checkpoint)).merge_and_unload(), True, source
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"Cannot load the policy of {checkpoint}: {' '.join(str(error).split())[:300]}") from None
    return model, False, source


def clean_generation_config(model: Any) -> Any:
    """The generation settings of the base model's kind: ends and padding, no sampling of the training run."""
    from transformers import GenerationConfig

    kept: dict[str, Any] = {}
    for key in GENERATION_KEYS:
        value = getattr(model.generation_config, key, None)
        if isinstance(value, list):
            value = list(dict.fromkeys(value))
            value = value[0] if len(value) == 1 else value
        if value is not None:
            kept[key] = value
    return GenerationConfig(**kept)


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer_config.json").is_file()


def _read(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    return value if isinstance(value, dict) else {}
