"""Compare two answers, in a worker process that can be killed: by rules, then part by part, then by algebra."""

import re
from functools import partial

from rlfr_vlm.grading.answer_parts import ascending, split_list
from rlfr_vlm.grading.by_parts import by_parts
from rlfr_vlm.grading.left_sides import is_equation, is_expression, is_sum, members, name_of, right_side
from rlfr_vlm.grading.normalise import compact, normalise
from rlfr_vlm.grading.parameters import same_parameter
from rlfr_vlm.grading.rules import apply_rules, depends_on_separators
from rlfr_vlm.grading.sentences import approximated, stated_value
from rlfr_vlm.grading.separators import other_readings
from rlfr_vlm.grading.spelling import plain_to_latex
from rlfr_vlm.grading.units import PRODUCTS, split_unit
from rlfr_vlm.grading.verdict import Decision, Reason, Verdict, decided, right, undecided, wrong
from rlfr_vlm.grading.words import has_long_words, is_long_prose

MAX_DEPTH = 6
BASED = re.compile(r"^\(?([0-9A-Z]+)\)?_\{?(\d{1,2})\}?$")
DEGREES = re.compile(r"\s*\^\s*\\circ(?!\s*[CF])|\s*(?:\\text\{\s*)?degrees?(?:\s*\})?")
INTEGRATION = re.compile(r"(?<=[\da-z ])\s*(?:\\mathrm\{d\}|d)\s*[a-z]\b")
VARIABLE = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])")
OF_NUMBERS = re.compile(
    r"\\(?:[dt]?frac|sqrt|sin|cos|tan|cot|sec|csc|log|ln|pi|cdot|times|div|circ|left|right)(?![a-zA-Z])"
)


def compare(gold: str, answer: str, tolerance: float = 0.0, depth: int = 0) -> Decision:
    """Return the verdict on one pair of texts. It is undecided if it depends on what commas and points mean."""
    decision = _compare_as_written(gold, answer, tolerance, depth)
    if depth == 0 and depends_on_separators(decision, gold, answer):  # parts are read as their whole text is
        for pair in other_readings(normalise(gold), normalise(answer)):
            if _compare_as_written(*pair, tolerance, depth + 1).right:
                return undecided("number", Reason.SEPARATORS)
    return decision


def _compare_as_written(gold: str, answer: str, tolerance: float, depth: int) -> Decision:
    decision = apply_rules(gold, answer, tolerance=tolerance)
    if decision is not None:
        return decision
    if depth > MAX_DEPTH:
        return undecided("parts", Reason.BAD_ANSWER)
    gold, answer = (ascending(plain_to_latex(normalise(text))) for text in (gold, answer))
    if compact(gold) == compact(answer):
        return right("text")
    deeper = partial(compare, tolerance=tolerance, depth=depth + 1)
    for step in (_by_approximation, _by_statement, _by_base, _by_equation, _by_angle, _by_unit):
        decision = step(gold, answer, deeper)
        if decision is not None:
            return decision
    gold, answer = same_parameter(gold, answer)
    decision = by_parts(gold, answer, deeper)
    if decision is not None:
        is_prose = decision.verdict is Verdict.WRONG and is_long_prose(answer)
        return undecided("parts", Reason.FREE_TEXT) if is_prose else decision
    from rlfr_vlm.grading.by_algebra import by_algebra

    return by_algebra(gold, answer, tolerance)


def _by_base(gold: str, answer: str, deeper: "partial[Decision]") -> Decision | None:
    """Compare numbers with a stated base; None if neither states one."""
    gold_base, answer_base = BASED.match(compact(gold)), BASED.match(compact(answer))
    if gold_base is None and answer_base is None:
        return None
    if gold_base is None:
        return _by_one_base(answer_base, compact(gold))
    if answer_base is None:
        return _by_one_base(gold_base, compact(answer))
    return decided(gold_base.groups() == answer_base.groups(), "base")


def _by_one_base(based: "re.Match[str] | None", other: str) -> Decision:
    """Compare a number with a base and one without, in this base or decimal: wrong if neither reading is equal."""
    assert based is not None
    digits, base = based.groups()
    try:
        value = int(digits, int(base))
    except ValueError:  # `A_1`
        return undecided("base", Reason.BASE)
    if not re.fullmatch(r"\d{1,80}", other) or other.lstrip("0") == digits.lstrip("0") or int(other) == value:
        return undecided("base", Reason.BASE)
    return wrong("base")


def _by_approximation(gold: str, answer: str, deeper: "partial[Decision]") -> Decision | None:
    r"""Compare the members of `\sqrt{2} \approx 1.41`: right if one is, wrong if all are.

    If both texts have such members, the exact ones count, and the rounded ones may only agree with them.
    """
    golds, answers = approximated(gold), approximated(answer)
    if len(golds) == len(answers) == 1:
        return None
    if len(golds) == len(answers):
        exact, rounded = (deeper(*pair) for pair in zip(golds, answers, strict=True))
        if exact.right and not rounded.right and not re.search(r"\d", golds[0]):
            return rounded  # the exact side is only a name
        if exact.right == rounded.right or (exact.right and not has_long_words(golds[0])):
            return exact
        return undecided("approximation", Reason.ROUNDED)
    decisions = [deeper(g, a) for g in golds for a in answers]
    for verdict in (Verdict.RIGHT, Verdict.UNDECIDED, Verdict.WRONG):
        for decision in decisions:
            if decision.verdict is verdict:
                return decision
    return None


def _by_statement(gold: str, answer: str, deeper: "partial[Decision]") -> Decision | None:
    """Compare the values that sentences state. A value in a sentence that differs may be misread: undecided."""
    values = stated_value(gold), stated_value(answer)
    if values == (None, None):
        return None
    decision = deeper(values[0] or gold, values[1] or answer)
    if values[0] and values[1] and gold.replace(values[0], "") != answer.replace(values[1], ""):
        return undecided("statement", Reason.FREE_TEXT)  # about different things
    if decision.right or decision.path in ("number", "option"):
        return decision
    return undecided("statement", Reason.FREE_TEXT)


def _by_equation(gold: str, answer: str, deeper: "partial[Decision]") -> Decision | None:
    """Compare an equation that names a value with a value, or two that name the same; None for other pairs."""
    if len(split_list(gold)) > 1 or len(split_list(answer)) > 1:
        return None
    names = name_of(gold), name_of(answer)
    if is_equation(gold) and is_equation(answer):
        if None in names:
            return None
        if names[0] == names[1]:
            return deeper(right_side(gold), right_side(answer))
        return _other_names(gold, answer, deeper)
    if not is_equation(gold) and not is_equation(answer):
        return None
    equation, value, gold_first = (gold, answer, True) if is_equation(gold) else (answer, gold, False)
    last, is_known = right_side(equation), True
    if last == equation:
        parts = members(equation)
        if not parts[0] or not parts[-1]:
            return None
        last = parts[-1]
        if not _is_derivation(parts, deeper):
            if not (is_expression(parts[0]) or (gold_first and is_sum(parts[0]))):
                if not gold_first and _none_is(value, parts, deeper):
                    return wrong("equation")
                return undecided("equation", Reason.LEFT_SIDE)
            if not re.search(r"[A-Za-z]", parts[0]):
                return wrong("equation")  # `1 + 1 = 3`
            is_known = False  # `x + y = 5` answers `5` if x + y is asked for, and does not if a line is
    decision = deeper(last, value) if gold_first else deeper(value, last)
    if decision.right and not is_known:
        return undecided("equation", Reason.LEFT_SIDE)
    if decision.verdict is Verdict.WRONG and len(members(equation)) > 2:
        others = [deeper(part, value) if gold_first else deeper(value, part) for part in members(equation)[1:-1]]
        if any(other.right for other in others):
            return undecided("equation", Reason.LEFT_SIDE)  # the members of the chain differ, or are rounded
    return decision


def _other_names(gold: str, answer: str, deeper: "partial[Decision]") -> Decision | None:
    """Compare two equations with different names on the left, as equations and then by their right sides."""
    from rlfr_vlm.grading.by_algebra import by_algebra

    decision = by_algebra(gold, answer, deeper.keywords["tolerance"])
    if decision.right or (members(gold)[0].split("(")[0] == members(answer)[0].split("(")[0]):
        return decision
    if deeper(right_side(gold), right_side(answer)).right:
        return undecided("equation", Reason.LEFT_SIDE)
    return decision


def _is_derivation(parts: list[str], deeper: "partial[Decision]") -> bool:
    """Return whether an equation such as `1 + 1 = 2` is true and has no variables; its last member is the answer."""
    return not VARIABLE.search(INTEGRATION.sub("", parts[0])) and deeper(parts[-1], parts[0]).right


def _none_is(gold: str, parts: list[str], deeper: "partial[Decision]") -> bool:
    """Return whether an equation is about numbers alone, none of which is the gold, whichever of them is meant."""
    if any(re.search(r"[a-zA-Z\\]", OF_NUMBERS.sub("", part)) for part in parts):
        return False
    return all(deeper(gold, part).verdict is Verdict.WRONG for part in parts)


def _by_unit(gold: str, answer: str, deeper: "partial[Decision]") -> Decision | None:
    """Compare expressions with units; None if neither has one."""
    bare_gold, gold_unit = split_unit(gold)
    bare_answer, answer_unit = split_unit(answer)
    if gold_unit is None and answer_unit is None:
        return None
    decision = deeper(bare_gold, bare_answer)
    if answer_unit and gold_unit and answer_unit != gold_unit:
        return wrong("unit") if decision.right else undecided("unit", Reason.UNITS)
    if decision.right and gold_unit in PRODUCTS and answer_unit is None:
        return undecided("unit", Reason.UNITS)  # `\frac{1}{2} mg` may be half a milligram, or a force
    return decision


def _by_angle(gold: str, answer: str, deeper: "partial[Decision]") -> Decision | None:
    """Compare an angle in degrees with one in radians; None for other pairs."""
    has_degrees = bool(DEGREES.search(gold)), bool(DEGREES.search(answer))
    if has_degrees[0] == has_degrees[1]:
        return None
    radians = answer if has_degrees[0] else gold
    if "\\pi" not in radians or re.search(r"\\(?:sin|cos|tan)", gold + answer):
        return None
    converted = [
        f"({DEGREES.sub('', text).strip()})\\cdot\\frac{{\\pi}}{{180}}" if degrees else text
        for text, degrees in zip((gold, answer), has_degrees, strict=True)
    ]
    return deeper(*converted)
