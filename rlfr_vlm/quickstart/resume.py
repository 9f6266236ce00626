"""What lets a quick start on a pretrained policy go on where it stopped: its settings and responses."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rlfr_vlm.errors import UserError
from rlfr_vlm.evaluate import Response
from rlfr_vlm.files import JsonObject, write_json
from rlfr_vlm.quickstart.recipe import QuickstartRecipe

SETTINGS_FILE = "quickstart.json"


def check_settings(out: Path, recipe: QuickstartRecipe, first_seed: int) -> None:
    """Write the settings into a new folder; refuse a folder with results of others.

    Raises:
        UserError: the folder has such results; names a setting that differs.
    """
    path = out / SETTINGS_FILE
    settings = json.loads(json.dumps({**asdict(recipe), "first_seed": first_seed}))
    if not path.exists():
        write_json(path, settings)
        return
    stored: JsonObject = json.loads(path.read_text(encoding="utf-8"))
    for name in settings:
        if stored.get(name) != settings[name]:
            raise UserError(
                f"{out} has results of a quick start with {name} {stored.get(name)}; now it is {settings[name]}. "
                "Name another folder with --out, or give the former settings to go on."
            )


def kept_responses(path: Path, respond: Callable[[], list[Response]], keep: bool) -> list[Response]:
    """Return the responses in a file; otherwise draw them and, with `keep`, write them there."""
    if keep and path.exists():
        return [Response(**response) for response in json.loads(path.read_text(encoding="utf-8"))]
    responses = respond()
    if keep:
        write_json(path, [asdict(response) for response in responses])
    return responses


def is_last(checkpoint: Path, steps: int) -> bool:
    """Whether a checkpoint is of the last update: resumed from there, transformers would make one more."""
    return int(checkpoint.name.rpartition("-")[2]) >= steps
