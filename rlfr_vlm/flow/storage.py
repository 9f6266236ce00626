"""Save and load a field: `flow.safetensors` (weights) beside `flow.json` (its `FlowSpec`).

Also reads the files RLFR released (`flow_model.bin`), whose names may carry the prefix `model.`.
"""

import json
import pickle
from pathlib import Path

import torch
from torch import Tensor

from rlfr_vlm.errors import UserError
from rlfr_vlm.files import replace_directory, write_json
from rlfr_vlm.flow.field import VelocityField
from rlfr_vlm.flow.spec import FlowSpec

WEIGHTS_FILE = "flow.safetensors"
SPEC_FILE = "flow.json"
FIELD_FOLDER = "flow"  # folder of the field inside an output folder or a checkpoint
RELEASED_FILE = "flow_model.bin"
RELEASED_PREFIX = "model."
LARGEST_WEIGHT = 1e4  # far above those of fitted fields, which stay below 10
# Constants that the release stores among the weights; this package computes them.
RELEASED_CONSTANTS = ("time_embed.freqs", "layer_embed.freqs")


def build_field(spec: FlowSpec) -> VelocityField:
    """Build a new, untrained field for `spec`."""
    classes = 2 if spec.is_contrast else 0
    return VelocityField(spec.hidden_size, spec.depth, spec.eps, spec.image_context, classes)


def save_field(directory: str | Path, field: VelocityField, spec: FlowSpec) -> None:
    """Write weights and spec into `directory`; a field that is there is replaced atomically."""
    from safetensors.torch import save_file

    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in field.state_dict().items()}
    with replace_directory(Path(directory)) as folder:
        save_file(weights, folder / WEIGHTS_FILE)
        write_json(folder / SPEC_FILE, spec.to_dict())


def load_field(path: str | Path, spec: FlowSpec | None = None) -> tuple[VelocityField, FlowSpec]:
    """Load a field and its spec.

    Args:
        path: folder of the field, an output folder or checkpoint that has one, or a weights file.
        spec: needed for a weights file; None reads the spec beside the weights.

    Raises:
        UserError: nothing is there, the spec is missing, or weights and spec disagree.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"No flow field at {path}. Fit one with `rlfr fit-flow`, or set flow_path to its folder.")
    if (path / FIELD_FOLDER / SPEC_FILE).exists():
        path = path / FIELD_FOLDER
    if path.is_dir():
        spec = spec or read_spec(path / SPEC_FILE)
        released = path / RELEASED_FILE
        path = released if released.exists() and not (path / WEIGHTS_FILE).exists() else path / WEIGHTS_FILE
    if spec is None:
        raise UserError(
            f"{path} holds weights only. Put a {SPEC_FILE} that describes it into its folder and load the folder (a "
            f"released file must be called {RELEASED_FILE} there), or pass its FlowSpec."
        )
    field = build_field(spec)
    _load_weights(field, _read_weights(path), path, spec)
    return field, spec


def read_spec(path: Path) -> FlowSpec:
    if not path.is_file():
        raise UserError(f"{path.parent} is no flow field: {path.name} is missing.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}). Restore it or fit the field again.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no JSON object. Restore it or fit the field again.")
    return FlowSpec.from_dict(values)


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"Cannot read the flow weights {path}: {reason}") from None
    names = [name.removeprefix(RELEASED_PREFIX) for name in weights]
    named = zip(names, weights.values(), strict=True)
    return {name: weight for name, weight in named if name not in RELEASED_CONSTANTS}


def _load_weights(field: VelocityField, weights: dict[str, Tensor], path: Path, spec: FlowSpec) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in field.state_dict().items()}
    # A field fitted without image context or classes can be continued with them: the new inputs start at zero.
    optional = {"image_embed.weight", "class_embed.weight"}
    problems = [f"missing {name}" for name in expected if name not in weights and name not in optional]
    problems += [f"unexpected {name}" for name in weights if name not in expected]
    problems += [
        f"{name} is {tuple(weights[name].shape)} in the file, {shape} by the spec"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if problems:
        raise UserError(
            f"{path} does not hold a field of width {spec.hidden_size} and depth {spec.depth}: "
            f"{'; '.join(problems[:4])}{' ...' if len(problems) > 4 else ''}."
        )
    for name in expected:
        if name in weights and not weights[name].abs().max() <= LARGEST_WEIGHT:  # also true for NaN
            raise UserError(
                f"{path} holds no usable field: {name} has values that are not finite, or beyond {LARGEST_WEIGHT:g}. "
                "Fit it again, with a lower learning_rate if its loss was not finite, or take an earlier checkpoint."
            )
    field.load_state_dict(weights, strict=False)
