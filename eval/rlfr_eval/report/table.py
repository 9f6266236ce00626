"""Tables for people: on the terminal and in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlfr_vlm.errors import printable

HEADER = (
    "benchmark", "n", "score", "95 % interval", "rules / judge / undecided", "bounds", "rules only", "truncated",
    "no answer",
)  # fmt: skip
TRUNCATED_WARNING = 0.01
LEFT_OUT = "_problems_left_out"


def percent(share: float | None) -> str:
    """A share in percent; a dash when there is none."""
    return "-" if share is None else f"{100 * share:.1f}"


def score_rows(scores: Mapping[str, Any], show_undecided: bool = False) -> list[list[str]]:
    """One row per benchmark. A score without a headline shows only when asked for, and marked."""
    rows = []
    for name, one in scores["benchmarks"].items():
        score = percent(one["accuracy"])
        if one.get("unscoreable"):
            score = "-"
        elif not one["headline"]:
            score = f"({score})" if show_undecided else "undecided"
        label = name if one["metric"] == "pass@1" else f"{name} ({one['metric']})"
        if one["partial"]:
            label += f" PARTIAL {one['problems']}/{one['problems_planned']}"
        shown = (one["headline"] or show_undecided) and not one.get("unscoreable")
        rows.append([
            label,
            str(one["answered"]) if not one["missing"] else f"{one['answered']}/{one['answers_expected']}",
            score,
            _interval(one) if shown else "-",
            " / ".join(percent(share) for share in _decided_by(one)),
            "-" if one.get("unscoreable") else f"{percent(one['lower'])} to {percent(one['upper'])}",
            _rules_only(one),
            percent(one["truncated"]),
            percent(one["no_answer_found"]),
        ])  # fmt: skip
    return rows


def _interval(one: Mapping[str, Any]) -> str:
    low, high = one["ci95"]
    return f"[{percent(low)}, {percent(high)}]"


def _rules_only(one: Mapping[str, Any]) -> str:
    """What rules alone say; nothing where the score is not the share of right answers."""
    if one.get("unscoreable") or "dimensions" in one:
        return "-"
    return f"{percent(one['rules_only']['accuracy'])} of {percent(one['rules_only']['coverage'])}"


def _decided_by(one: Mapping[str, Any]) -> tuple[float, float, float]:
    """Shares of the answers that the score is about that rules, a judge and nobody decided."""
    expected = one.get("problems_scored", one["answers_expected"])
    judged = one["judged"] / expected if expected else 0.0
    return one["coverage"] - judged, judged, 1 - one["coverage"]


def mean_line(scores: Mapping[str, Any]) -> str:
    """The mean over benchmarks, as papers report it; nothing while a benchmark has no number or is partial."""
    ones = list(scores["benchmarks"].values())
    if len(ones) < 2 or not all(one["headline"] and not one["partial"] for one in ones):
        return ""
    return f"mean over {len(ones)} benchmarks: {percent(sum(one['accuracy'] for one in ones) / len(ones))}"


def notes(scores: Mapping[str, Any]) -> list[str]:
    """What a reader must know before quoting a number."""
    found = []
    for name, one in scores["benchmarks"].items():
        if one["partial"]:
            found.append(f"{name}: PARTIAL, {one['problems']} of {one['problems_planned']} problems (--limit).")
        if one["missing"]:
            found.append(f"{name}: {one['missing']} answers are missing; run the same command again to get them.")
        found += [f"{name}: {note}." for note in one.get("notes", ())]
        if one.get("unscoreable"):
            found.append(f"{name}: no score: {one['unscoreable']}.")
        elif not one["headline"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in one["undecided_reasons"].items())
            share = percent(one.get("undecided_share", 1 - one["coverage"]))
            found.append(
                f"{name}: {share} % undecided ({reasons}), more than 1 %: no single number "
                "stands for it. A judge can decide what rules cannot; --show-undecided prints the number all the same."
            )
        if one["truncated"] > TRUNCATED_WARNING:
            found.append(f"{name}: {percent(one['truncated'])} % of the answers were cut off at max_tokens.")
    if scores.get("faults"):
        faults = ", ".join(f"{count} {kind}" for kind, count in scores["faults"].items())
        found.append(f"Requests that failed on the way: {faults} (failures.jsonl).")
    if scores.get("damaged_lines"):
        found.append(
            f"{scores['damaged_lines']} stored lines were damaged and passed over; their answers were asked again."
        )
    if scores.get("judge_spent"):
        tokens = sum(one["input_tokens"] + one["output_tokens"] for one in scores["judge_spent"])
        found.append(f"The judge took {tokens} tokens, {sum(one['usd'] for one in scores['judge_spent']):.4f} USD.")
    return found


def over_samples_lines(scores: Mapping[str, Any], show_undecided: bool = False) -> list[str]:
    """pass@k and maj@k, a line per benchmark that has several samples and may be quoted."""
    lines = []
    for name, one in scores["benchmarks"].items():
        if not (one["headline"] or show_undecided) or one.get("unscoreable"):
            continue
        values = [
            f"{key} {percent(more['accuracy'])} {_interval(more)} of {more['n']}"
            for key, more in one.get("metrics", {}).items()
        ]
        for key, value in one.items():
            if key.startswith(("pass@", "maj@")) and not key.endswith(LEFT_OUT):
                left_out = one.get(f"{key}{LEFT_OUT}", 0)
                values.append(f"{key} {percent(value)}{f' ({left_out} problems left out)' if left_out else ''}")
        if values:
            lines.append(f"{name}: {', '.join(values)}")
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns under one another."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; cells are escaped."""
    cells = [[cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def summary(run: Mapping[str, Any], scores: Mapping[str, Any], show_undecided: bool = False) -> str:
    """What a finished command prints."""
    who = f"{run['model']['name']}, judge: {scores['judge'] or 'none (rules only)'}"
    parts = [
        printable(who),
        aligned([HEADER, *score_rows(scores, show_undecided)]),
        "score, bounds and shares in percent; bounds: all undecided wrong, all right",
        *filter(None, [mean_line(scores)]),
        *over_samples_lines(scores, show_undecided),
        *(f"note: {note}" for note in notes(scores)),
    ]
    return "\n".join(parts)
