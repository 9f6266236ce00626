"""The settings of runs that a report lists: what a user set differently, and derived ones that decide training."""

from collections.abc import Sequence

from rlfr_vlm.files import JsonObject
from rlfr_vlm.report.read_run import SEEDS_AND_PLACES, Run

FACTS = frozenset({"method", "model_name_or_path", "dataset_name", "dataset_split"})  # shown at the head of each run
WEIGHTS = frozenset({"entropy_alpha", "flow_coef"})  # 0 where the method has no such part
# Settings that follow from others or from the machine. They are listed where a user set them.
DERIVED = WEIGHTS | frozenset(
    {
        "dataloader_pin_memory",
        "eval_steps",
        "generation_batch_size",
        "greater_is_better",
        "logging_strategy",
        "metric_for_best_model",
        "use_cpu",
        "use_vllm",
        "vllm_mode",
    }
)
# And derived ones that are listed, because they decide training.
DECIDES_TRAINING = frozenset({"bf16", "group_filter", "steps_per_generation"})


def is_listed(run: Run, name: str) -> bool:
    """Whether a setting of a run is listed where its value differs: the user set it, or it decides training."""
    if name in SEEDS_AND_PLACES | FACTS:
        return False
    if run.given is not None:
        return name in run.given or name in DECIDES_TRAINING
    return name not in DERIVED or (name in WEIGHTS and run.config.get(name) != 0)


def settings_of(run: Run, defaults: JsonObject) -> list[tuple[str, str, str]]:
    """(name, value, default) of each listed setting that differs from its default."""
    missing = object()
    result = []
    for name, value in sorted(run.config.items()):
        default = defaults.get(name, missing)
        if default is not missing and value != default and is_listed(run, name):
            result.append((name, _text(value), _text(default)))
    return result


def differing_settings(runs: Sequence[Run], defaults: JsonObject) -> list[tuple[str, list[str]]]:
    """(name, value in each run) of each fact and each listed setting in which the runs differ.

    A run that lacks a setting has an empty value.
    """
    names = sorted(FACTS | {name for run in runs for name, _, _ in settings_of(run, defaults)})
    values = [(name, [_text(run.config[name]) if name in run.config else "" for run in runs]) for name in names]
    return [(name, texts) for name, texts in values if len(set(texts)) > 1]


def _text(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
