"""`rlfr preview`: show the exact prompts of a few rows."""

import argparse
import base64
import html
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rlfr_vlm.errors import UserError
from rlfr_vlm.options import DataOptions

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import PreTrainedTokenizerBase, ProcessorMixin

    from rlfr_vlm.data.rows import Row

SUMMARY = "show the exact prompt string, its token count and thumbnails for a few rows"
THUMBNAIL = 256  # pixels of the longer side, on the page
TERMINAL_WIDTH = 40  # pixels of the longer side, in a terminal


@dataclass
class PreviewOptions:
    """Options of the preview."""

    model_name_or_path: str = field(default="", metadata={"help": "The policy; its processor builds the prompt."})
    rows: int = field(default=3, metadata={"help": "How many rows."})
    start: int = field(default=0, metadata={"help": "The first one."})
    html: str | None = field(default=None, metadata={"help": "Also write a page with thumbnails to this file."})


def help_text() -> str:
    from rlfr_vlm.commands.option_help import describe_options

    return describe_options(
        "rlfr preview --model_name_or_path POLICY --dataset_name NAME [--config FILE.yaml] [--rows N] [--html FILE]",
        "Show the prompts of rows as the policy gets them: training data or a benchmark's.",
        PreviewOptions,
        DataOptions,
        inherited="A training configuration can be given as --config; its other keys are ignored.",
    )


def parsers() -> list[argparse.ArgumentParser]:
    from rlfr_vlm.config_file import parser_of

    return [parser_of((DataOptions, PreviewOptions))]


def run(arguments: Sequence[str]) -> int:
    """Print the rows, and write the page if --html is given. Returns the exit code."""
    from rlfr_vlm.config_file import parse_config_subset
    from rlfr_vlm.data.check import notes_of_rows
    from rlfr_vlm.data.load import read_rows
    from rlfr_vlm.data.rows import BadRow
    from rlfr_vlm.files import write_text
    from rlfr_vlm.flow_options import FitOptions
    from rlfr_vlm.library_output import silence_libraries
    from rlfr_vlm.options import ScriptArguments
    from rlfr_vlm.policy import load_processor
    from rlfr_vlm.trainer.rlfr_config import RLFRConfig

    silence_libraries()
    data, options = parse_config_subset(
        (DataOptions, PreviewOptions), (ScriptArguments, FitOptions, RLFRConfig), arguments
    )
    if not options.model_name_or_path:
        raise UserError("model_name_or_path is not set. Give the policy whose prompts you want to see.")
    processing_class = load_processor(options.model_name_or_path, data)
    rows = read_rows(data)
    rows.suit(processing_class)
    cards = []
    for number in range(options.start, min(options.start + options.rows, rows.size)):
        try:
            row = rows.load(number)
        except BadRow as error:
            print(f"row {number}: bad, {error}\n")
            continue
        text, tokens = exact_prompt(processing_class, row)
        print(_for_terminal(number, row, text, tokens))
        cards.append(_card(number, row, text, tokens))
    for line in notes_of_rows(rows):
        print(line)
    if options.html:
        write_text(Path(options.html), PAGE.format(cards="\n".join(cards)))
        print(f"page: {options.html}")
    return 0


def exact_prompt(processing_class: "ProcessorMixin | PreTrainedTokenizerBase", row: "Row") -> tuple[str, int]:
    """Return the prompt before image placeholders are expanded, and its number of tokens."""
    from rlfr_vlm.data.encode import encode_prompts, render_prompt

    tokens = int(encode_prompts(processing_class, [row]).attention_mask.sum())
    return render_prompt(processing_class, row["prompt"]), tokens


def _for_terminal(number: int, row: "Row", text: str, tokens: int) -> str:
    """Render a row for the terminal. Control characters in the data are escaped."""
    safe = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
    sizes = ", ".join(f"{image.width} x {image.height}" for image in row["images"]) or "none"
    videos = "".join(
        f"; video: {len(video.frames)} frames of {video.frames[0].width} x {video.frames[0].height}, {video.fps:g} fps"
        for video in row.get("videos") or []
    )
    lines = [f"--- row {number}: {tokens} tokens; images: {sizes}{videos}; answer: {row.get('answer')!r}"]
    if sys.stdout.isatty():
        lines += [half_blocks(picture) for picture in _shown(row)]
    return "\n".join([*lines, safe, ""])


def _shown(row: "Row") -> "list[Image]":
    """Images of a row, and a strip of frames of each video."""
    from rlfr_vlm.data.videos import strip_of

    return [*row["images"], *(strip_of(video) for video in row.get("videos") or [])]


def half_blocks(image: "Image") -> str:
    """Render a thumbnail as coloured half blocks, two pixels per character."""
    import numpy as np

    small = image.copy()
    small.thumbnail((TERMINAL_WIDTH, TERMINAL_WIDTH))
    pixels = np.asarray(small)  # (height, width, 3)
    lines = []
    for y in range(0, small.height - 1, 2):
        cells = []
        for x in range(small.width):
            (r, g, b), (s, h, c) = pixels[y, x].tolist(), pixels[y + 1, x].tolist()
            cells.append(f"\033[38;2;{r};{g};{b};48;2;{s};{h};{c}m▀")
        lines.append("".join(cells) + "\033[0m")
    return "\n".join(lines)


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Prompts</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>body {{ font: 15px/1.5 system-ui; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere; background: #8881; padding: 1rem }}
img {{ image-rendering: pixelated; margin-right: 1rem }}</style>
{cards}
</html>
"""


def _card(number: int, row: "Row", text: str, tokens: int) -> str:
    images = "".join(f'<img alt="image {i}" src="{_data_url(image)}">' for i, image in enumerate(_shown(row)))
    answer = html.escape(repr(row.get("answer")))
    return f"<h2>Row {number}</h2><p>{tokens} tokens, answer {answer}</p>{images}<pre>{html.escape(text)}</pre>"


def _data_url(image: "Image") -> str:
    small = image.copy()
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    small.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
