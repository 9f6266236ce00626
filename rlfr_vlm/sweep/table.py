"""The table of a sweep as text, with what must be said about it."""

from collections.abc import Iterator, Sequence

from rlfr_vlm.files import JsonObject
from rlfr_vlm.sweep.results import Comparison, Row


def table_of(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table."""
    names = comparison.metrics.values()
    several = any(row.reference for row in comparison.rows)
    header = ["runs", "seeds", *names, *(["minus", *(f"difference, {name}" for name in names)] if several else [])]
    rows = []
    for row in comparison.rows:
        cells = [row.cell.name, str(_seeds(row)), *(_number(row.means[metric]) for metric in comparison.metrics)]
        if several:
            differences = [_difference(row, metric) for metric in comparison.metrics]
            cells += [row.reference or "", *differences]
        rows.append(cells)
    return header, rows


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown, with columns of equal width.

    >>> print(markdown(["a", "b"], [["1", "long"]]))
    | a | b    |
    |---|------|
    | 1 | long |
    """
    header, *rows = [[cell.replace("|", r"\|") for cell in cells] for cells in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True))} |"

    return "\n".join([line(header), f"|{'|'.join('-' * (width + 2) for width in widths)}|", *map(line, rows)])


def text_of(comparison: Comparison) -> str:
    """Table in Markdown, with the notes below it."""
    return "\n".join([markdown(*table_of(comparison)), "", *notes_of(comparison)])


def notes_of(comparison: Comparison) -> list[str]:
    """Sentences below the table."""
    differing = ", ".join(comparison.unlike)
    unlike = [f"The runs differ in more than the sweep's settings: {differing} (see their run.json)."]
    return [
        comparison.measured,
        *_missing(comparison),
        *(unlike if differing else []),
        *_about_differences(comparison),
    ]


def results_json(comparison: Comparison) -> JsonObject:
    """Table and notes as JSON."""
    return {
        "measured": comparison.measured,
        "seeds": comparison.seeds,
        "rows": [row.to_dict() for row in comparison.rows],
        "notes": notes_of(comparison),
    }


def _seeds(row: Row) -> int:
    return max(len(by_seed) for by_seed in row.values.values())


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _difference(row: Row, metric: str) -> str:
    if row.reference is None:
        return ""
    difference = row.differences[metric]
    if difference is None:
        return "no pair"
    pairs = len(difference["seeds"])
    if difference["ci95"] is None:
        return f"{difference['mean']:+.3f}, no interval (1 pair)"
    low, high = difference["ci95"]
    return f"{difference['mean']:+.3f} [{low:+.3f}, {high:+.3f}] ({pairs} pairs)"


def _missing(comparison: Comparison) -> Iterator[str]:
    for row in comparison.rows:
        present = [seed for seed in comparison.seeds if any(seed in by_seed for by_seed in row.values.values())]
        absent = [str(seed) for seed in comparison.seeds if seed not in present]
        if absent:
            word = "seed" if len(absent) == 1 else "seeds"
            yield f"{row.cell.name} lacks {word} {', '.join(absent)}, left out of its mean and its pairs."
        undecided = {str(seed) for by_seed in row.values.values() for seed, value in by_seed.items() if value is None}
        if undecided:
            yield f"{row.cell.name} has no value for seed {', '.join(sorted(undecided))}: not measured, or undecided."


def _about_differences(comparison: Comparison) -> Iterator[str]:
    compared = [row for row in comparison.rows if row.reference is not None]
    if not compared:
        return
    of = {row.cell.name: row for row in comparison.rows}
    for row in compared:
        other = of[str(row.reference)]
        if row.quantity and other.quantity and row.quantity != other.quantity:
            yield (
                f"{row.cell.name} measures {row.quantity} and {other.cell.name} {other.quantity}, which are not "
                "subtracted. An evaluation on held-out rows (--eval_strategy steps) makes them comparable."
            )
    if len(comparison.seeds) == 1:
        yield "One seed: no difference has an interval, and none can be told from noise; `--seeds 5` gives intervals."
        return
    differences = {
        f"{row.cell.name} minus {row.reference}, {comparison.metrics[metric]}": one["ci95"]
        for row in compared
        for metric, one in row.differences.items()
        if one
    }
    intervals = {name: ci95 for name, ci95 in differences.items() if ci95}
    if not intervals:
        return
    yield "Differences are paired by seed, with 95 % t-intervals over the pairs."
    beyond = [name for name, (low, high) in intervals.items() if not low <= 0 <= high]
    yield (
        f"Beyond noise, with an interval that excludes 0: {'; '.join(beyond)}."
        if beyond
        else "No difference is beyond noise: every interval includes 0."
    )
    if any(low == high for low, high in intervals.values()):
        yield "An interval without width comes from pairs with equal differences; it is no certainty."
    if len(intervals) > 2:
        yield f"Of {len(intervals)} intervals, one in twenty excludes 0 by chance even if no method differs."
