"""Tables of scores for the terminal and for Markdown, and the rules for which scores may be reported.

`score` is one benchmark's entry of scores.json throughout.
"""

from collections.abc import Sequence

from rlfr_eval.score.verdicts import RuleReason
from rlfr_vlm.benchmark_scores import scored_answers
from rlfr_vlm.errors import printable
from rlfr_vlm.files import JsonMapping, JsonObject
from rlfr_vlm.grading import Reason

AGAIN = "the same command, or `rlfr-eval regrade`, grades them again"
HEADER = (
    "benchmark",
    "n",
    "score",
    "95 % interval",
    "rules / judge / undecided",
    "bounds",
    "rules only",
    "truncated",
    "no answer",
)
# Reasons of undecided answers that are named however few they are, since their cause is not the answer.
NAMED_REASONS = {
    Reason.TIME_OUT: f"answers are undecided because of a {Reason.TIME_OUT} of the grader; {AGAIN}",
    Reason.CRASH: f"answers are undecided because the {Reason.CRASH}; {AGAIN}",
    RuleReason.ONLY_REASONING: "answers stand only in the server's reasoning (reasoning_content) and have no text, so "
    "they are undecided; see the server's reasoning parser",
    RuleReason.FILTERED: "answers were stopped by the server's content filter",
}
TRUNCATED_WARNING = 0.01  # share of truncated answers above which a note is printed
NO_ANSWER_WARNING = 0.25  # share of answers without a final answer above which a note is printed
LEFT_OUT = "_problems_left_out"  # suffix of keys in scores.json


def percent(share: float | None) -> str:
    """Return a share in percent; a dash for None."""
    return "-" if share is None else f"{100 * share:.1f}"


def reportable_score(score: JsonMapping) -> float | None:
    """Return the accuracy; None if too many answers are undecided or the subset has no score."""
    accuracy: float | None = score["accuracy"]
    return accuracy if score["headline"] and not score.get("unscoreable") else None


def no_score_reason(score: JsonMapping) -> str:
    """Return why `reportable_score` is None; "" if it is not."""
    if score.get("unscoreable"):
        return str(score["unscoreable"])
    return "" if score["headline"] else f"{percent(1 - score['coverage'])} % undecided"


def reference_rows(score: JsonMapping) -> list[JsonObject]:
    """Return the published values with this run's difference in points; None without a comparable score."""
    accuracy = None if score["partial"] else reportable_score(score)
    return [
        {**reference, "difference": None if accuracy is None else 100 * accuracy - reference["value"]}
        for reference in score["reference"]
    ]


def score_rows(scores: JsonMapping, show_undecided: bool = False) -> list[list[str]]:
    """Return one row per benchmark.

    Args:
        show_undecided: show scores with too many undecided answers in brackets instead of hiding them.
    """
    rows = []
    for name, score in scores["benchmarks"].items():
        accuracy = percent(score["accuracy"])
        if score.get("unscoreable"):
            accuracy = "-"
        elif not score["headline"]:
            accuracy = f"({accuracy})" if show_undecided else "undecided"
        label = name if score["metric"] == "pass@1" else f"{name} ({score['metric']})"
        if score["partial"]:
            label += f" PARTIAL {score['problems']}/{score['problems_planned']}"
        visible = (score["headline"] or show_undecided) and not score.get("unscoreable")
        row = [
            label,
            count_text(score),
            accuracy,
            _interval(score) if visible else "-",
            " / ".join(percent(share) for share in _decided_by(score)),
            "-" if score.get("unscoreable") else f"{percent(score['lower'])} to {percent(score['upper'])}",
            _rules_only(score),
            percent(score["truncated"]),
            percent(score["no_answer_found"]),
        ]
        rows.append(row)
    return rows


def count_text(score: JsonMapping) -> str:
    """Return the number of scored answers, or of the answers that are there if some are missing."""
    if score["missing"]:
        return f"{score['answered']}/{score['answers_expected']}"
    return str(scored_answers(score))


def _interval(score: JsonMapping) -> str:
    low, high = score["ci95"]
    return f"[{percent(low)}, {percent(high)}]"


def _rules_only(score: JsonMapping) -> str:
    """Return accuracy and coverage by rules alone; a dash if the score is not the share of right answers."""
    if score.get("unscoreable") or "dimensions" in score:
        return "-"
    return f"{percent(score['rules_only']['accuracy'])} of {percent(score['rules_only']['coverage'])}"


def _decided_by(score: JsonMapping) -> tuple[float, float, float]:
    """Return the shares of scored answers decided by rules, decided by a judge, and undecided."""
    expected = scored_answers(score)
    judged = score["judged"] / expected if expected else 0.0
    return score["coverage"] - judged, judged, 1 - score["coverage"]


def mean_line(scores: JsonMapping) -> str:
    """Return the mean over benchmarks as papers report it; "" if a benchmark is undecided or partial."""
    entries = list(scores["benchmarks"].values())
    if len(entries) < 2 or not all(score["headline"] and not score["partial"] for score in entries):
        return ""
    mean = sum(score["accuracy"] for score in entries) / len(entries)
    return f"mean over {len(entries)} benchmarks: {percent(mean)}"


def notes(scores: JsonMapping) -> list[str]:
    """Return the notes that a reader needs before quoting a score."""
    lines = []
    for name, score in scores["benchmarks"].items():
        if score["partial"]:
            lines.append(f"{name}: PARTIAL, {score['problems']} of {score['problems_planned']} problems (--limit).")
        if imported := score.get("imported"):
            lines.append(import_note(name, imported, score["missing"]))
        elif score["missing"]:
            lines.append(f"{name}: {score['missing']} answers are missing; run the same command again to get them.")
        if score.get("not_scored"):
            rows = " and ".join(f"{column} {value}" for column, value in score["scored"].items())
            lines.append(
                f"{name}: the score is of the {score['problems_scored']} problems with {rows}; "
                f"{len(score['not_scored'])} others were answered too, and count in "
                f'"all {"questions" if score.get("question_of") else "rows"}".'
            )
        lines += [f"{name}: {note}." for note in score.get("notes", ())]
        for reason, note in NAMED_REASONS.items():
            if count := score["undecided_reasons"].get(reason, 0):
                lines.append(f"{name}: {count} {note}.")
        if score.get("unscoreable"):
            lines.append(f"{name}: no score: {score['unscoreable']}.")
        elif not score["headline"]:
            reasons = ", ".join(f"{count} {reason}" for reason, count in score["undecided_reasons"].items())
            share = percent(score.get("undecided_share", 1 - score["coverage"]))
            lines.append(
                f"{name}: {share} % undecided ({reasons}), more than 1 %: no single number "
                "stands for it. A judge can decide what rules cannot; --show-undecided prints the number all the same."
            )
        if (score["truncated"] or 0.0) > TRUNCATED_WARNING:
            lines.append(f"{name}: {percent(score['truncated'])} % of the answers were cut off at max_tokens.")
        if score["answered"] and (score["no_answer_found"] or 0.0) > NO_ANSWER_WARNING:
            lines.append(
                f"{name}: in {percent(score['no_answer_found'])} % of the answers no final answer was found. The "
                "model may not follow the prompt: read some with `rlfr-eval show`, or try another prompt."
            )
    if scores.get("faults"):
        faults = ", ".join(f"{count} {kind}" for kind, count in scores["faults"].items())
        lines.append(f"Requests that failed on the way: {faults} (failures.jsonl).")
    if scores.get("damaged_lines"):
        lines.append(
            f"{scores['damaged_lines']} stored lines were damaged and passed over; their answers were asked again."
        )
    if scores.get("judge_spent"):
        tokens = sum(spent["input_tokens"] + spent["output_tokens"] for spent in scores["judge_spent"])
        usd = sum(spent["usd"] for spent in scores["judge_spent"])
        lines.append(f"The judge took {tokens} tokens, {usd:.4f} USD.")
    return lines


def import_note(name: str, imported: JsonMapping, missing: int) -> str:
    """Return what a reader must know of answers that another tool asked for: the tool, and what was not used."""
    listed = "; ".join(f"{count} x {remark}" for remark, count in imported["listed"].items())
    parts = [f"{name}: {imported['tool']} asked for these answers, with a prompt and sampling of its own"]
    parts += [f"not used, or not there: {listed} ({imported['list_file']} lists them)"] if listed else []
    parts += [f"{missing} answers are missing"] if missing else []
    return ". ".join(part[:1].upper() + part[1:] if number else part for number, part in enumerate(parts)) + "."


def over_samples_lines(scores: JsonMapping, show_undecided: bool = False) -> list[str]:
    """Return a line with pass@k, maj@k and further metrics per benchmark whose score may be reported."""
    lines = []
    for name, score in scores["benchmarks"].items():
        if not (score["headline"] or show_undecided) or score.get("unscoreable"):
            continue
        values = [
            f"{key} {percent(metric['accuracy'])} {_interval(metric)} of {metric['n']}"
            for key, metric in score.get("metrics", {}).items()
        ]
        for key, value in score.items():
            if key.startswith(("pass@", "maj@")) and not key.endswith(LEFT_OUT):
                left_out = score.get(f"{key}{LEFT_OUT}", 0)
                values.append(f"{key} {percent(value)}{f' ({left_out} problems left out)' if left_out else ''}")
        if values:
            lines.append(f"{name}: {', '.join(values)}")
    return lines


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a plain-text table with aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table with escaped cells."""
    cells = [[cell.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in cells]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def summary(run: JsonMapping, scores: JsonMapping, show_undecided: bool = False) -> str:
    """Return the text that a finished command prints."""
    title = f"{run['model']['name']}, judge: {scores['judge'] or 'none (rules only)'}"
    parts = [
        printable(title),
        aligned([HEADER, *score_rows(scores, show_undecided)]),
        "score, bounds and shares in percent; bounds: all undecided wrong, all right",
        *filter(None, [mean_line(scores)]),
        *over_samples_lines(scores, show_undecided),
        *(printable(f"note: {note}") for note in notes(scores)),
    ]
    return "\n".join(parts)
