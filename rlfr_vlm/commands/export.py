"""`rlfr export`: write a checkpoint as a plain Hugging Face folder."""

import argparse
import json
from pathlib import Path

from rlfr_vlm.command_line import options_parser
from rlfr_vlm.errors import UserError
from rlfr_vlm.files import JsonObject, refuse_existing

SUMMARY = "write a checkpoint as a plain Hugging Face folder with a model card"


def parser() -> argparse.ArgumentParser:
    parser = options_parser("export", SUMMARY)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint-N folder, or the output folder of `rlfr train`")
    parser.add_argument("--to", type=Path, required=True, help="folder to write; must be new or empty")
    parser.add_argument("--base", help="base model: of an adapter that has moved; its name stands on the card")
    parser.add_argument("--dtype", default="auto", help="auto (as stored), float32, bfloat16 or float16")
    parser.add_argument("--results", type=Path, help="run folder of `rlfr-eval`; its scores stand on the card")
    parser.add_argument("--licence", help="of the base model, when no README.md beside it says so")
    return parser


def run(options: argparse.Namespace) -> int:
    """Export the checkpoint. Returns the exit code."""
    from rlfr_vlm.export import ADAPTER_FILE, DTYPES, export
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.model_card import licence_of, model_card, public_name

    silence_libraries()
    if not options.checkpoint.is_dir():
        raise UserError(f"No folder at {options.checkpoint}. Name a checkpoint-N folder of a run.")
    if options.dtype not in DTYPES:
        raise UserError(f"--dtype is {options.dtype!r}; choose one of {', '.join(DTYPES)}.")
    refuse_existing(options.to)
    settings = _settings(options.checkpoint)
    adapter = _json(options.checkpoint / ADAPTER_FILE).get("base_model_name_or_path")
    base = str(options.base or settings.get("model_name_or_path") or adapter or "not recorded")
    card = model_card(
        settings,
        base=public_name(base),
        licence=options.licence or licence_of(base),
        steps=_json(options.checkpoint / "trainer_state.json").get("global_step"),
        takes_images=(options.checkpoint / "preprocessor_config.json").is_file()
        or (options.checkpoint / "processor_config.json").is_file(),
        scores=_scores(options.results),
    )
    written = export(options.checkpoint, options.to, card, base=options.base, dtype=options.dtype)
    print(
        f"{written['class']} with {written['parameters'] / 1e6:.1f}M parameters in {written['dtype']}"
        f"{', adapter merged,' if written['merged'] else ''} in {options.to}"
    )
    return 0


def _settings(checkpoint: Path) -> JsonObject:
    import yaml

    from rlfr_vlm.config_file import RESOLVED_FILE

    path = checkpoint / RESOLVED_FILE
    if not path.is_file():
        print(f"no {RESOLVED_FILE} in {checkpoint}: the card will not say how the policy was trained")
        return {}
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def _scores(folder: Path | None) -> JsonObject | None:
    if folder is None:
        return None
    path = folder / "scores.json"
    if not path.is_file():
        raise UserError(f"{folder} has no scores.json. Give the run folder of an `rlfr-eval` run that has ended.")
    return _json(path)


def _json(path: Path) -> JsonObject:
    """Read a JSON object; empty if the file is missing or holds another JSON value."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}.") from None
    return value if isinstance(value, dict) else {}
