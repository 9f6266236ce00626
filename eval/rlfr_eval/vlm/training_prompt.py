"""How a policy was asked while it was trained, from the configuration that `rlfr train` writes beside its results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlfr_vlm.errors import UserError

CONFIG_FILE = "config.yaml"


@dataclass(frozen=True)
class TrainingPrompt:
    """What decides a prompt besides the question."""

    system_prompt: str = ""
    min_pixels: int | None = None
    max_pixels: int | None = None


def training_prompt(model: str) -> TrainingPrompt:
    """Read it from the folder of a checkpoint, or the one above it.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    folder = Path(model).expanduser()
    path = next((place / CONFIG_FILE for place in (folder, folder.parent) if (place / CONFIG_FILE).is_file()), None)
    if path is None:
        raise UserError(
            f"--preset training wants the {CONFIG_FILE} that `rlfr train` wrote beside {model or 'the checkpoint'}; "
            "there is none. Say how the policy was asked with --system-prompt TEXT (empty for none)."
        )
    import yaml

    try:
        settings: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"Cannot read {path}: {error}.") from None
    if not isinstance(settings, dict):
        raise UserError(f"{path} is no table of settings.")
    return TrainingPrompt(
        settings.get("system_prompt") or "", settings.get("image_min_pixels"), settings.get("image_max_pixels")
    )
