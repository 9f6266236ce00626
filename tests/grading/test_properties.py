"""Properties that hold for all answers: symmetry, harmless rewritings are never wrong, mutated answers never right."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlfr_vlm.grading import Item, Verdict, grade_many

FEW = settings(max_examples=10, derandomize=True, deadline=None)
R, W, U = Verdict.RIGHT, Verdict.WRONG, Verdict.UNDECIDED

numbers = st.integers(2, 60)
roots = st.builds(r"{}\sqrt{{{}}}".format, numbers, st.sampled_from([2, 3, 5, 7]))
fractions = st.builds(r"\frac{{{}}}{{{}}}".format, numbers, st.integers(61, 97))
polynomials = st.builds("{}x^2+{}x+{}".format, numbers, numbers, numbers)
values = st.one_of(numbers.map(str), roots, fractions, polynomials, st.builds(r"{}\pi".format, numbers))
REWRITINGS = (
    "{}", "$ {} $", r"\({}\)", "  {}  ", "{}.", "**{}**", r"\boxed{{{}}}", r"\displaystyle {}", "{{{}}}", "+{}",
    "The answer is {}", "Final answer: {}", r"x = {}", r"{} + 0", r"1 \cdot ({})", r"\left( {} \right)",
)  # fmt: skip
MUTATIONS = (
    "-({})",
    "{} + 1",
    "2({})",
    "{} x",
    "({})^2",
    r"\frac{{1}}{{{}}}",
    "{}, 1",
    "({}, 1)",
    "x > {}",
    r"{}\%\%",
)


def verdicts(pairs):
    return [grade.verdict for grade in grade_many([Item(gold, answer=answer) for gold, answer in pairs])]


@FEW
@given(values)
def test_a_harmless_rewriting_is_never_wrong(value):
    answers = [pattern.format(value) for pattern in REWRITINGS]
    items = [Item(value, answer) if "boxed" in answer else Item(value, answer=answer) for answer in answers]
    assert [a for a, g in zip(answers, grade_many(items), strict=True) if g.verdict is not R] == []


@FEW
@given(values)
def test_a_mutated_gold_is_never_right(value):
    pairs = [(value, pattern.format(value)) for pattern in MUTATIONS]
    pairs += [(mutated, gold) for gold, mutated in pairs]
    assert [pair for pair, verdict in zip(pairs, verdicts(pairs), strict=True) if verdict is R] == []


@FEW
@given(values, values)
def test_equality_of_values_is_symmetric(first, second):
    one, other = verdicts([(first, second), (second, first)])
    assert one is other


@FEW
@given(st.lists(numbers, min_size=2, max_size=4, unique=True))
def test_order_matters_in_tuples_and_not_in_sets(parts):
    forward, backward = (",".join(map(str, row)) for row in (parts, parts[::-1]))
    pairs = [
        (f"({forward})", f"({forward})"), (f"({forward})", f"({backward})"), (f"({forward})", f"({forward},1)"),
        (rf"\{{{forward}\}}", rf"\{{{backward}\}}"), (rf"\{{{forward}\}}", rf"\{{{forward},1\}}"),
    ]  # fmt: skip
    assert verdicts(pairs) == [R, W, W, R, W]


@FEW
@given(st.integers(1, 12), st.integers(0, 59), st.integers(1, 12), st.integers(0, 59))
def test_clock_times_are_equal_only_if_they_are_the_same(hour, minute, other_hour, other_minute):
    first, second = f"{hour}:{minute:02}", f"{other_hour}:{other_minute:02}"
    assert (verdicts([(first, second)]) == [R]) == (first == second)


@FEW
@given(st.lists(st.integers(1, 9), min_size=3, max_size=3), st.integers(2, 5))
def test_ratios_of_three_are_proportional(terms, factor):
    gold = ":".join(map(str, terms))
    scaled = ":".join(str(factor * term) for term in terms)
    other = ":".join(map(str, [terms[0], terms[1], terms[2] + 1]))
    assert verdicts([(gold, scaled), (scaled, gold), (gold, other), (other, gold)]) == [R, R, W, W]


@FEW
@given(st.dates(), st.dates())
def test_dates_are_equal_only_if_they_are_the_same(first, second):
    pairs = [(first.isoformat(), first.isoformat()), (first.isoformat(), second.isoformat())]
    assert verdicts(pairs)[0] is R
    assert (verdicts(pairs)[1] is R) == (first == second)


@FEW
@given(numbers, numbers)
def test_a_degree_is_a_180th_of_pi(angle, other):
    gold, radians = rf"{angle}^\circ", rf"\frac{{{other}\pi}}{{180}}"
    expected = R if angle == other else W
    assert verdicts([(gold, radians), (radians, gold)]) == [expected, expected]


@FEW
@given(numbers, numbers, st.sampled_from([2, -3, 5]))
def test_a_multiple_of_an_equation_is_the_same_equation(slope, intercept, factor):
    gold = f"y={slope}x+{intercept}"
    multiple = f"{factor}y = {factor * slope}x + {factor * intercept}".replace("+ -", "- ")
    other = f"{factor}y = {factor * slope}x + {factor * intercept + 1}".replace("+ -", "- ")
    assert verdicts([(gold, multiple), (multiple, gold), (gold, other)]) == [R, R, W]


@FEW
@given(
    st.text(alphabet="0123456789,. :-/()xyABT^\\", max_size=12),
    st.text(alphabet="0123456789,. :-/()xyABT^\\", max_size=12),
)
def test_no_text_crashes_the_grader(first, second):
    for grade in grade_many([Item(first, answer=second), Item(second, answer=first), Item(first, answer=first)]):
        assert grade.reason != "grader crashed", (first, second, grade.path)


def suite_golds(shared):
    files = sorted((shared / "data" / "math_suites").glob("*.jsonl"))
    answers = [json.loads(line)["answer"] for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(str(answer[0] if isinstance(answer, list) else answer) for answer in answers))


def plus_one(gold):
    """Add one to the last whole number that is no exponent, index or part of a decimal."""
    found = list(re.finditer(r"(?<![\w.^_{])\d+(?![\d.])", gold))
    return None if not found else gold[: found[-1].start()] + str(int(found[-1][0]) + 1) + gold[found[-1].end() :]


def negative(gold):
    """Return the negative of a gold that is one expression other than 0."""
    text = gold.strip().strip("$").strip()
    if re.search(r",|=|\\(?:pm|cup|in|ge|le|text|begin)", text) or not text.strip("0."):
        return None
    return text[1:] if text.startswith("-") else f"-({text})"


def exchanged(gold):
    """Exchange the parts of a pair."""
    pair = re.fullmatch(r"\s*\$?(?:\\left)?\s*\(([^(),]+),([^(),]+?)(?:\\right)?\s*\)\$?\s*", gold)
    return f"({pair[2]},{pair[1]})" if pair and pair[1].strip() != pair[2].strip() else None


@pytest.mark.parametrize(
    ("mutation", "every"),
    [
        (plus_one, 4), (negative, 4), (exchanged, 1),
        pytest.param(plus_one, 1, marks=pytest.mark.slow), pytest.param(negative, 1, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_mutated_gold_of_the_math_suites_is_wrong(shared, mutation, every):
    golds = suite_golds(shared)[::every]
    pairs = [(gold, mutated) for gold in golds if (mutated := mutation(gold)) not in (None, gold)]
    found = verdicts(pairs)
    assert [pair for pair, verdict in zip(pairs, found, strict=True) if verdict is R] == []
    assert found.count(W) >= 0.98 * len(pairs) and len(pairs) >= 15


REWRITES = {
    "no spaces": lambda gold: re.sub(r"(?<![a-zA-Z]) | (?![a-zA-Z])", "", gold.strip()),
    "unicode": lambda gold: gold.replace("-", "−").replace("\\pi", "π").replace("^\\circ", "°"),
    "full width": lambda gold: gold.replace("(", "（").replace(")", "）").replace(",", "，"),
    "escaped twice": lambda gold: gold if "\\\\" in gold else gold.replace("\\", "\\\\"),
    "lead-in": lambda gold: f"Final answer: {gold.strip()}",
}


@pytest.mark.parametrize("name", REWRITES)
def test_a_rewritten_gold_of_the_math_suites_is_right(shared, name):
    golds = suite_golds(shared)
    pairs = [(gold, REWRITES[name](gold)) for gold in golds]
    found = verdicts(pairs)
    assert [pair for pair, verdict in zip(pairs, found, strict=True) if verdict is W] == []
    assert found.count(R) >= 0.995 * len(golds)
