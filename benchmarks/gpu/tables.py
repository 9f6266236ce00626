"""Turn the numbers of each part into tables of text."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlfr_vlm.files import JsonObject


@dataclass(frozen=True)
class Table:
    """A table of text, with sentences below it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def of_tests(result: JsonObject) -> Table:
    """Outcome of each test with its numbers; failures have their last lines."""
    tests = result["tests"]
    rows = [
        (name.partition("tests/gpu/")[2] or name, test["outcome"], f"{test['seconds']:.1f}",
         ", ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                   for key, value in test.get("numbers", {}).items()), test.get("message", ""))
        for name, test in tests.items()
    ]  # fmt: skip
    outcomes = [test["outcome"] for test in tests.values()]
    counts = ", ".join(f"{outcomes.count(name)} {name}" for name in ("passed", "failed", "skipped"))
    left = result["planned"] - len(tests)
    notes = [counts + (f"; {left} more did not run" if left > 0 else "")]
    return Table(("test", "outcome", "seconds", "numbers", "message"), rows, notes)


def of_step(result: JsonObject) -> Table:
    """Seconds of an update by kind, and the ratio to TRL's."""
    rows = []
    for kind, seconds in result["seconds_per_update"].items():
        spread = (min(seconds), statistics.median(seconds), max(seconds))
        peak = result.get("peak_bytes", {}).get(kind)
        rows.append(
            (kind, str(len(seconds)), *(f"{value:.3f}" for value in spread), f"{result['over_trl'][kind]:.3f}",
             "unknown" if peak is None else f"{peak / 1e9:.1f}")
        )  # fmt: skip
    head = ("kind", "rounds", "s an update, min", "median", "max", "over TRL, same round", "peak memory, GB")
    notes = [f"{kind}: " + ", ".join(f"{part} {seconds:.3f} s" for part, seconds in parts.items())
             for kind, parts in result["parts"].items()]  # fmt: skip
    layers, whole = result.get("layers"), result.get("layers_of_model")
    if layers is not None and whole is not None:
        fits = "all decoder blocks" if layers == whole else "the memory does not hold more decoder blocks"
        notes.insert(0, f"{layers} of {whole} decoder blocks: {fits}.")
    elif layers is not None:
        notes.insert(0, f"{layers} decoder blocks; not all rounds were run.")
    return Table(head, rows, notes)


def of_fit(result: JsonObject) -> Table:
    """Speed of fitting by width."""
    rows = []
    for field in result["fields"]:
        of_card = field.get("share_of_card_peak")
        rows.append(
            (str(field["width"]), str(field["depth"]), field["dtype"], f"{field['seconds']['median']:.4f}",
             f"{field['tokens_per_second']:.0f}", f"{field['matmul_peak_flops'] / 1e12:.2f}",
             f"{field['share_of_matmul_peak']:.1%}", "unknown card" if of_card is None else f"{of_card:.1%}")
        )  # fmt: skip
    head = ("width", "depth", "type", "s a step, median", "tokens/s", "measured matmul peak, TFLOP/s",
            "share of it", "share of the card's peak")  # fmt: skip
    return Table(head, rows)


def of_prefix(result: JsonObject) -> Table:
    """What sharing prompts saves in each pass."""
    rows = [
        (case, name, f"{numbers['times_faster']:.2f}", f"{numbers['fewer_flops']:.2f}", f"{numbers['memory']:.2f}",
         f"{min(numbers['seconds']['trl']):.4f}", f"{min(numbers['seconds']['rlvr']):.4f}")
        for case, both in result.items()
        for name, numbers in both.items()
    ]  # fmt: skip
    head = ("prompt / response", "pass", "times faster", "times fewer FLOPs", "share of memory",
            "s without sharing, min", "s with sharing, min")  # fmt: skip
    return Table(head, rows)


def of_rl(result: JsonObject) -> Table:
    """The sweep's own table, with what it says of it."""
    states = ", ".join(f"{run}: {state}" for run, state in result["states"].items())
    return Table(result["head"], result["rows"], [*result["notes"], *([states] if states else [])])


TABLES: dict[str, Callable[[JsonObject], Table]] = {
    "tests": of_tests, "step_3b": of_step, "step_7b": of_step, "flow_fit": of_fit, "prefix": of_prefix,
    "rl_smollm2": of_rl, "rl_smollm2_vl": of_rl,
}  # fmt: skip


def table_of(name: str, result: JsonObject) -> Table:
    """Table of a part's result; of a result in another form, one that says so."""
    try:
        return TABLES[name](result)
    except (KeyError, TypeError, ValueError, AttributeError, statistics.StatisticsError) as error:
        return Table((), (), [f"The result cannot be shown ({type(error).__name__}: {error}); results.json has it."])
