"""Read the prompt settings of a policy's training from the config.yaml that `rlfr train` writes."""

from dataclasses import dataclass
from pathlib import Path

from rlfr_vlm.errors import UserError

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class TrainingPrompt:
    """Settings of the training that affect a prompt.

    Attributes:
        min_pixels, max_pixels: limits of an image's size; None for the processor's own.
    """

    system_prompt: str = ""
    min_pixels: int | None = None
    max_pixels: int | None = None


def training_prompt(model: str) -> TrainingPrompt:
    """Read the settings from a checkpoint's folder or its parent folder.

    Args:
        model: path of a checkpoint, or a model's name on a server, which has no such file.

    Raises:
        UserError: the file is missing or cannot be read.
    """
    folder = Path(model).expanduser().resolve()
    folders = (folder, folder.parent) if model and folder.is_dir() else ()
    path = next((folder / CONFIG_FILE for folder in folders if (folder / CONFIG_FILE).is_file()), None)
    if path is None:
        raise UserError(
            f"--preset training needs the {CONFIG_FILE} that `rlfr train` wrote beside {model or 'the checkpoint'}; "
            "there is none. Give the system prompt of the training with --system-prompt TEXT (empty for none)."
        )
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path} is no table of settings.")
    types = {"system_prompt": str, "image_min_pixels": int, "image_max_pixels": int}
    for key, expected in types.items():
        if settings.get(key) is not None and type(settings[key]) is not expected:
            raise UserError(f"{path}: {key} is {settings[key]!r}; it must be of type {expected.__name__}.")
    system, min_pixels, max_pixels = map(settings.get, types)
    return TrainingPrompt(system or "", min_pixels, max_pixels)
