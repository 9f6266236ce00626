"""Model card (README.md) of a trained policy: base model, training settings, results, usage."""

import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from rlfr_vlm.config_file import Settings

CARD_FILE = "README.md"
# Settings listed on the card, in this order; the checkpoint has the full configuration.
SHOWN_SETTINGS = (
    "method", "learning_rate", "lr_scheduler_type", "num_generations", "generation_batch_size",
    "max_completion_length", "beta", "epsilon", "loss_type", "flow_coef", "flow_timesteps", "flow_context_mode",
    "flow_threshold", "flow_top_k", "entropy_alpha", "rlpr_mode", "group_filter", "curriculum_band", "freeze_vision",
    "use_peft", "lora_r", "seed",
)  # fmt: skip
PREFIXES = {"rlfr": "flow_", "entropy": "entropy_", "rlpr": "rlpr_"}  # settings that only one method reads
METHOD_NAMES = {
    "rlvr": "GRPO with verifiable rewards",
    "rlfr": "GRPO with flow rewards (arXiv 2510.10201)",
    "entropy": "GRPO with entropy-advantage shaping (arXiv 2506.14758)",
    "rlpr": "GRPO with reference-probability rewards (arXiv 2506.18254)",
}

USAGE = """
```python
from transformers import {model_class}, AutoProcessor

processor = AutoProcessor.from_pretrained("FOLDER")
model = {model_class}.from_pretrained("FOLDER", dtype="auto", device_map="auto")
messages = [
{system_message}    {{"role": "user", "content": {content}}},
]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
).to(model.device)
output = model.generate(**inputs, max_new_tokens=1024)
print(processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])
```
"""


def model_card(
    settings: Settings,
    *,
    base: str,
    licence: str | None,
    steps: int | None,
    takes_images: bool,
    is_adapter: bool = False,
    scores: object = None,
) -> str:
    """Write the text of the card.

    Args:
        settings: resolved configuration of training (config.yaml); may be empty.
        base: hub id or folder name of the base model.
        licence: licence of the base model, if known.
        steps: optimiser steps of training, if known.
        takes_images: whether the policy takes images.
        is_adapter: whether the weights are an adapter of the base model.
        scores: content of rlfr-eval's scores.json, or None.
    """
    front = {
        "base_model": base,
        "library_name": "peft" if is_adapter else "transformers",
        "tags": ["rlfr-vlm", "grpo"],
        "pipeline_tag": "image-text-to-text" if takes_images else "text-generation",
    }
    if licence:
        front["license"] = licence
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True).strip(),
        "---",
        "",
        f"# {_short_name(base)}, trained with rlfr-vlm",
        "",
        f"- Base model: {base}",
        f"- Method: {_method_name(settings) or 'not recorded'}",
        f"- Data: {_data_name(settings) or 'not recorded'}",
        f"- Updates: {steps if steps is not None else 'not recorded'}",
        f"- Licence: {licence or 'see the base model; no licence was found beside it'}",
        "",
    ]
    rows = _setting_rows(settings)
    if rows:
        lines += ["## Settings", "", "| setting | value |", "|---|---|", *rows, ""]
    lines += ["## Results", "", *_results(scores), "", "## How to use", "", _usage(takes_images, settings)]
    return "\n".join(lines) + "\n"


def _methods(settings: Settings) -> list[str]:
    return str(settings.get("method", "")).split("+")


def _method_name(settings: Settings) -> str:
    return " + ".join(METHOD_NAMES.get(method, method) for method in _methods(settings) if method)


def _data_name(settings: Settings) -> str:
    data, split = settings.get("dataset_name"), settings.get("dataset_split")
    if not data:
        return ""
    names = [data] if isinstance(data, str) else data
    return ", ".join(_short_name(str(name)) for name in names) + (f", split {split}" if split else "")


def _setting_rows(settings: Settings) -> list[str]:
    """Table rows of the settings that are set and that the method reads."""
    methods = _methods(settings)
    prefixes = tuple(prefix for method, prefix in PREFIXES.items() if method not in methods)
    unused = {name for name in SHOWN_SETTINGS if name.startswith(prefixes)}
    unused |= set() if settings.get("use_peft") else {"use_peft", "lora_r"}
    names = [name for name in SHOWN_SETTINGS if settings.get(name) is not None and name not in unused]
    return [f"| `{name}` | {_cell(settings[name])} |" for name in names]


def licence_of(base: str) -> str | None:
    """Read the licence from the front matter of a local base model's README.md."""
    path = Path(base) / CARD_FILE
    if not path.is_file():
        return None
    match = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        front = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return None
    return str(front["license"]) if isinstance(front, dict) and front.get("license") else None


def _results(scores: object) -> list[str]:
    """Table of benchmark scores."""
    benchmarks = scores.get("benchmarks") if isinstance(scores, Mapping) else None
    if not benchmarks:
        return ["None were given."]
    rows = ["| benchmark | metric | accuracy | 95 % interval | coverage | judge |", "|---|---|---|---|---|---|"]
    for name, score in benchmarks.items():
        low, high = score.get("ci95") or (None, None)
        interval = "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
        value = "undecided" if score.get("accuracy") is None else f"{100 * score['accuracy']:.1f}"
        note = " (partial)" if score.get("partial") else ""
        title, coverage = _cell(score.get("title", name)), 100 * score.get("coverage", 0)
        judge = _cell(score.get("judge") or "rules")
        metric = score.get("metric", "")
        rows.append(f"| {title}{note} | {metric} | {value} | {interval} | {coverage:.1f} % | {judge} |")
    return [*rows, "", "Measured with `rlfr-eval`; coverage is the share of answers that were decided."]


def _usage(takes_images: bool, settings: Settings) -> str:
    """Code block that loads the policy and generates one response."""
    if takes_images:
        model_class = "AutoModelForImageTextToText"
        content = '[{"type": "image", "image": "image.png"}, {"type": "text", "text": "..."}]'
    else:
        model_class = "AutoModelForCausalLM"
        content = '"..."'
    system = settings.get("system_prompt")
    system_message = f'    {{"role": "system", "content": {str(system)!r}}},\n' if system else ""
    return USAGE.format(model_class=model_class, content=content, system_message=system_message).strip()


def _cell(value: object) -> str:
    """Escape a value for a Markdown table."""
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def public_name(base: str) -> str:
    """Return a hub id as it is, but only the last part of a local path."""
    return Path(base).name if Path(base).exists() or base.startswith(("/", ".", "~")) else base


def _short_name(name: str) -> str:
    """Return a hub id unchanged and only the last part of a path: local paths do not belong on a card."""
    return Path(name).name if name.startswith((".", "/", "~")) or name.count("/") > 1 else name
