"""Write settings with their reasons as a commented YAML file."""

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from rlfr_vlm import __version__
from rlfr_vlm.errors import printable
from rlfr_vlm.starting_config.next_steps import fit_commands, next_commands
from rlfr_vlm.starting_config.settings import Choices, Setting, settings_of
from rlfr_vlm.starting_config.sizes import GENERATIONS

WIDTH = 119


def yaml_text(choices: Choices, path: str) -> str:
    """Return the configuration as text; `path` is where it will be written."""
    fitting = {"flow_path": fit_commands(choices, path)}  # setting -> commands that make what it names
    blocks = ["".join(_lines(one, fitting.get(one.name, [])) for one in settings) for settings in settings_of(choices)]
    return _head(choices, path) + "\n".join(blocks)


def _head(choices: Choices, path: str) -> str:
    batches, machine = choices.batches, choices.machine
    processes = f"{batches.processes} process{'es' * (batches.processes > 1)}"
    paragraphs = [
        f"A starting point for `rlfr train`, written by `rlfr init` {__version__}. Nothing in it is tuned: comments "
        "say what was measured and what is assumed. `rlfr train --help` lists every setting.",
        f"processes: {batches.processes}",
        f"Batch: {batches.prompts} prompts x {GENERATIONS} responses = {batches.update * batches.updates} a rollout; "
        f"{batches.updates} update{'s' * (batches.updates > 1)} of {batches.update} responses = {batches.rows} per "
        f"process x {batches.accumulation} accumulation steps x {processes}.",
        f"Hardware: {processes}, {machine.memory:g} GB a GPU ({machine.origin}). {memory_line(choices)}",
    ]
    if choices.not_looked_at:
        paragraphs.append(f"Not looked at: {'; '.join(choices.not_looked_at)}.")
    lines = [line for text in paragraphs for line in _comment(text)]
    return "\n".join([*lines, f"#   {_one_line(next_commands(choices, path)[-1])}"]) + "\n"


def memory_line(choices: Choices) -> str:
    """Return what an update needs of a GPU's memory, and how the policy is held."""
    fit = choices.fit
    layout = "adapters (LoRA)" if fit.layout.lora else f"sharding {fit.layout.sharding}"
    if fit.needed is None:
        return f"Memory was not estimated, because config.json was not read; {layout}."
    engine = " beside vLLM" if choices.machine.vllm and not fit.layout.sleeps else ""
    verdict = "" if fit.fits else ", which does NOT fit: use more or larger GPUs, or a smaller model"
    return f"An update needs {fit.needed / 1e9:.1f} GB{engine}, estimated as by `rlfr plan`, with {layout}{verdict}."


def _lines(setting: Setting, commands: Sequence[str]) -> str:
    """Return a setting and its reason; the reason stands above where the line would be long, or has commands."""
    value = _value(setting.value)
    if "\n" in value:  # folded; a reason behind its first line would be a part of the text
        text = f"{setting.name}: {value}\n"
    else:
        text = f"{setting.name}:{' ' * bool(value)}{value}"
        if not commands and len(text) + len(setting.why) + 6 <= WIDTH:
            return f"{'' if setting.is_set else '# '}{text}  # {_one_line(setting.why)}\n"
        text += "\n"
    marked = text if setting.is_set else textwrap.indent(text, "# ")
    above = [*_comment(setting.why), *(f"#   {_one_line(command)}" for command in commands)]
    return "".join(f"{line}\n" for line in above) + marked


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        _one_line(text),
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _one_line(text: str) -> str:
    """Return a text that stays within its comment, whatever names and messages it has."""
    return " ".join(printable(text).split())


def _value(value: Any) -> str:
    """Return a value as YAML; long texts are folded over indented lines."""
    if value is None:
        return ""
    if isinstance(value, str) and len(value) > 90 and value == _one_line(value):
        lines = textwrap.wrap(value, WIDTH - 2, break_long_words=False, break_on_hyphens=False)
        return "\n".join([">-", *(f"  {line}" for line in lines)])
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )
