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
    """Read it from the folder of a checkpoint, or the one above it; a model's name on a server has neither.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    folder = Path(model).expanduser().resolve()
    places = (folder, folder.parent) if model and folder.is_dir() else ()  # else a name, and no file is beside it
    path = next((place / CONFIG_FILE for place in places if (place / CONFIG_FILE).is_file()), None)
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
    wanted = {"system_prompt": str, "image_min_pixels": int, "image_max_pixels": int}
    for key, kind in wanted.items():
        if settings.get(key) is not None and type(settings[key]) is not kind:
            raise UserError(f"{path}: {key} is {settings[key]!r}; it must be of type {kind.__name__}.")
    system, least, most = map(settings.get, wanted)
    return TrainingPrompt(system or "", least, most)
