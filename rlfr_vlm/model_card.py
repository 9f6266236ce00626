"""README.md of an exported policy: what it is, how it was made, what came out, how to use it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

# Settings worth reading on a card, in this order; the whole configuration lies in the checkpoint.
SHOWN_SETTINGS = (
    "method", "learning_rate", "lr_scheduler_type", "num_generations", "generation_batch_size",
    "max_completion_length", "beta", "epsilon", "loss_type", "flow_coef", "flow_timesteps", "flow_context_mode",
    "flow_threshold", "flow_top_k", "entropy_alpha", "rlpr_mode", "group_filter", "freeze_vision", "use_peft",
    "lora_r", "seed",
)  # fmt: skip
PREFIXES = {"rlfr": "flow_", "entropy": "entropy_", "rlpr": "rlpr_"}  # settings that only this method reads
METHOD_NAMES = {"rlvr": "GRPO with verifiable rewards", "rlfr": "GRPO with flow rewards (arXiv 2510.10201)",
                "entropy": "GRPO with entropy-advantage shaping (arXiv 2506.14758)",
                "rlpr": "GRPO with reference-probability rewards (arXiv 2506.18254)"}  # fmt: skip


def model_card(
    settings: Mapping[str, Any], *, base: str, licence: str | None, steps: int | None, sees: bool, scores: Any = None
) -> str:
    """The card's text.

    Args:
        settings: the resolved configuration of training (config.yaml); may be empty.
        base: hub id or folder name of the base model.
        licence: of the base model, if known.
        steps: optimiser steps so far.
        sees: whether the policy takes images.
        scores: rlfr-eval's scores.json, or None.
    """
    front = {"base_model": base, "library_name": "transformers", "tags": ["rlfr-vlm", "grpo"]}
    front["pipeline_tag"] = "image-text-to-text" if sees else "text-generation"
    if licence:
        front["license"] = licence
    method = " + ".join(METHOD_NAMES.get(part, part) for part in str(settings.get("method", "")).split("+") if part)
    data = settings.get("dataset_name")
    lines = [
        "---", yaml.safe_dump(front, sort_keys=True).strip(), "---", "",
        f"# {_last(base)}, trained with rlfr-vlm", "",
        f"- Base model: {base}",
        f"- Method: {method or 'not recorded'}",
        f"- Data: {_last(str(data)) if data else 'not recorded'}" + (f", split {settings['dataset_split']}" if
                                                                     settings.get("dataset_split") else ""),
        f"- Updates: {steps if steps is not None else 'not recorded'}",
        f"- Licence: {licence or 'see the base model; no licence was found beside it'}", "",
    ]  # fmt: skip
    parts = str(settings.get("method", "")).split("+")
    unused = {name for part, prefix in PREFIXES.items() if part not in parts for name in SHOWN_SETTINGS
              if name.startswith(prefix)}  # fmt: skip
    unused |= set() if settings.get("use_peft") else {"use_peft", "lora_r"}
    shown = [(n, settings[n]) for n in SHOWN_SETTINGS if settings.get(n) is not None and n not in unused]
    if shown:
        lines += ["## Settings", "", "| setting | value |", "|---|---|"]
        lines += [f"| `{name}` | {_cell(value)} |" for name, value in shown] + [""]
    lines += ["## Results", "", *_results(scores), "", "## How to use", "", _usage(sees, settings)]
    return "\n".join(lines) + "\n"


def licence_of(base: str) -> str | None:
    """The licence in the front matter of a local base model's README.md."""
    path = Path(base) / "README.md"
    if not path.is_file():
        return None
    found = re.match(r"---\n(.*?)\n---", path.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        front = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        return None
    return str(front["license"]) if isinstance(front, dict) and front.get("license") else None


def _results(scores: Any) -> list[str]:
    benchmarks = scores.get("benchmarks") if isinstance(scores, Mapping) else None
    if not benchmarks:
        return ["None were given."]
    rows = ["| benchmark | metric | accuracy | 95 % interval | coverage | judge |", "|---|---|---|---|---|---|"]
    for name, score in benchmarks.items():
        low, high = score.get("ci95") or (None, None)
        interval = "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
        value = "undecided" if score.get("accuracy") is None else f"{100 * score['accuracy']:.1f}"
        note = " (partial)" if score.get("partial") else ""
        rows.append(
            f"| {_cell(score.get('title', name))}{note} | {score.get('metric', '')} | {value} | {interval} "
                    f"| {100 * score.get('coverage', 0):.1f} % | {_cell(score.get('judge') or 'rules')} |"
        )  # fmt: skip
    return [*rows, "", "Measured with `rlfr-eval`; coverage is the share of answers that were decided."]


def _usage(sees: bool, settings: Mapping[str, Any]) -> str:
    cls, content = (
        ("AutoModelForImageTextToText", '[{"type": "image", "image": "image.png"}, {"type": "text", "text": "..."}]')
        if sees
        else ("AutoModelForCausalLM", '"..."')
    )
    system = settings.get("system_prompt")
    messages = [f'    {{"role": "system", "content": {str(system)!r}}},'] if system else []
    return "\n".join([
        "```python", f"from transformers import {cls}, AutoProcessor", "",
        'processor = AutoProcessor.from_pretrained("FOLDER")',
        f'model = {cls}.from_pretrained("FOLDER", dtype="auto", device_map="auto")',
        "messages = [", *messages, f'    {{"role": "user", "content": {content}}},', "]",
        "inputs = processor.apply_chat_template(",
        '    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"',
        ").to(model.device)", "output = model.generate(**inputs, max_new_tokens=1024)",
        'print(processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0])', "```",
    ])  # fmt: skip


def _cell(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _last(name: str) -> str:
    """A hub id whole, of a folder only its last part: a machine's paths do not belong on a card."""
    return Path(name).name if name.startswith((".", "/", "~")) or name.count("/") > 1 else name
