"""Compare two answers with computer algebra. Only worker processes import this module."""

from sympy import And, Basic, Eq, Expr, FiniteSet, Float, MatrixBase, Rational, Set, Symbol, Tuple, nan, zoo
from sympy.core.relational import Relational

from rlfr_vlm.grading.algebra import Parsed, parse_latex
from rlfr_vlm.grading.answer_parts import is_malformed, is_relation, split_list
from rlfr_vlm.grading.by_parts import match
from rlfr_vlm.grading.equality import DIGITS, TooLarge, equal_values
from rlfr_vlm.grading.normalise import compact
from rlfr_vlm.grading.numbers import mentions, read_quantity
from rlfr_vlm.grading.opaque import Masked, mask
from rlfr_vlm.grading.relations import equal_relations
from rlfr_vlm.grading.sets import equal_sets, number_set
from rlfr_vlm.grading.verdict import Decision, Reason, decided, undecided, wrong
from rlfr_vlm.grading.words import has_foreign_words, has_long_words, is_prose

PATH = "algebra"


def by_algebra(gold: str, answer: str, tolerance: float = 0.0) -> Decision:
    """Return the verdict on two normalised texts that have no parts."""
    if is_malformed(gold):
        return undecided(PATH, Reason.BAD_GOLD)
    if is_malformed(answer):
        return wrong(PATH)
    if compact(gold) != compact(answer) and compact(gold).casefold() == compact(answer).casefold():
        return undecided(PATH, Reason.CASE)  # R and r may be two variables or a typing error
    if gold.count("'") != answer.count("'"):  # derivatives, feet or minutes; the parser drops primes
        return undecided("primes", Reason.UNITS) if any(map(_has_minutes, (gold, answer))) else wrong("primes")
    masked = mask(gold, answer)
    try:
        decision = _compare(masked.gold, masked.answer, tolerance)
    except TooLarge:
        return undecided(PATH, Reason.TOO_LARGE)
    return _with_notation(masked, decision)


def _with_notation(masked: Masked, decision: Decision) -> Decision:
    """Leave a pair undecided where the algebra does not know a notation that matters."""
    if decision.right and masked.order_matters:
        return undecided(PATH, Reason.NOTATION)
    if decision.right and (has_long_words(masked.gold) or has_long_words(masked.answer)):
        return undecided(PATH, Reason.FREE_TEXT)  # the parser skips what it cannot read
    if decision.verdict.value == "wrong" and masked.unknown:
        return undecided(PATH, Reason.NOTATION)
    return decision


def _has_minutes(text: str) -> bool:
    return any(text[i - 1].isdigit() for i, character in enumerate(text) if character == "'" and i)


def _compare(gold: str, answer: str, tolerance: float) -> Decision:
    if is_relation(gold) or is_relation(answer):
        gold_set, answer_set = number_set(gold), number_set(answer)
        if gold_set and answer_set:
            same_variable = "" in (gold_set[0], answer_set[0]) or gold_set[0] == answer_set[0]
            return _verdict(equal_sets(gold_set[1], answer_set[1]) if same_variable else False, "sets")
        gold_parts, answer_parts = split_list(gold), split_list(answer)
        if len(gold_parts) > 1 and len(answer_parts) > 1:  # conditions on several variables
            return match(gold_parts, answer_parts, lambda g, a: _compare(g, a, tolerance))
    parsed_gold = _parsed(gold)
    if parsed_gold is None:
        return undecided(PATH, Reason.BAD_GOLD)
    if parsed_gold.has(zoo, nan):
        return undecided(PATH, Reason.BAD_GOLD)
    number = read_quantity(gold)
    parsed_answer = _parsed(answer)
    if parsed_answer is None or (number is not None and is_prose(answer)):
        # An answer that equals the gold number must mention it, even if the answer cannot be parsed.
        if number is not None and not mentions(answer, number):
            return wrong(PATH)
        return undecided(PATH, Reason.BAD_ANSWER)
    if parsed_answer.has(zoo, nan):
        return undecided(PATH, Reason.BAD_ANSWER)
    decision = _verdict(equal_parsed(parsed_gold, parsed_answer, tolerance), PATH)
    if decision.verdict.value == "wrong" and has_foreign_words(gold, answer):
        return undecided(PATH, Reason.FREE_TEXT)
    if decision.verdict.value == "wrong" and _rounds_to(parsed_answer, gold):
        return undecided(PATH, Reason.ROUNDED)
    return decision


def _rounds_to(answer: Parsed, gold: str) -> bool:
    """Return whether an exact answer, such as a root, rounds to a gold that is written as a decimal."""
    number = read_quantity(gold)
    if number is None or number.step is None or not isinstance(answer, Expr) or answer.has(Float):
        return False
    value = answer.evalf(DIGITS) if answer.is_number else None
    if value is None or not value.is_Float:
        return False
    return bool(abs(value - Rational(number.value)) <= Rational(number.step) / 2)


def _parsed(text: str) -> Parsed | None:
    numbers = number_set(text) if "\\in" in text else None
    return numbers[1] if numbers else parse_latex(text)


def _verdict(equal: bool | None, path: str) -> Decision:
    return undecided(path, Reason.NOT_PROVED) if equal is None else decided(equal, path)


def equal_parsed(gold: Parsed, answer: Parsed, tolerance: float) -> bool | None:
    """Return whether two parsed answers are equal; None if neither can be shown.

    Raises:
        TooLarge: a value would be enormous.
    """
    if isinstance(gold, Relational) and isinstance(answer, Relational):
        return equal_relations(gold, answer, tolerance)
    if isinstance(gold, And) and isinstance(answer, And):
        return _equal_chains(gold, answer)
    if isinstance(gold, Relational | And) or isinstance(answer, Relational | And):
        return _equal_to_value(gold, answer, tolerance)
    gold, answer = _without_single_set(gold), _without_single_set(answer)
    if isinstance(gold, Set) and isinstance(answer, Set):
        return equal_sets(gold, answer)
    kinds = [_kind(gold), _kind(answer)]
    if kinds[0] != kinds[1]:
        return False if None not in kinds else None
    return equal_values(gold, answer, tolerance)


def _kind(parsed: Parsed) -> str | None:
    for name, types in (("matrix", MatrixBase), ("value", Expr), ("set", Set), ("tuple", Tuple)):
        if isinstance(parsed, types):
            return name
    return None


def _without_single_set(parsed: Parsed) -> Basic | MatrixBase:
    """Return the element of a set of one: the parser reads some parentheses as sets."""
    return parsed.args[0] if isinstance(parsed, FiniteSet) and len(parsed.args) == 1 else parsed


def _equal_chains(gold: And, answer: And) -> bool | None:
    """Compare chains of inequalities such as a < x < b link by link."""
    rest = [link for link in answer.args if isinstance(link, Relational)]
    links = [link for link in gold.args if isinstance(link, Relational)]
    if len(rest) != len(links):
        return None
    for link in links:
        match = next((other for other in rest if equal_relations(link, other)), None)
        if match is None:
            return None
        rest.remove(match)
    return True


def _equal_to_value(gold: Parsed, answer: Parsed, tolerance: float) -> bool | None:
    """Compare an equation that names a value, such as y = 2x, with a value."""
    equation, value, gold_first = (gold, answer, True) if isinstance(gold, Relational | And) else (answer, gold, False)
    if not isinstance(equation, Eq) or not isinstance(equation.lhs, Symbol) or not isinstance(value, Expr):
        return False if isinstance(value, Expr) and value.is_number else None
    pair = (equation.rhs, value) if gold_first else (value, equation.rhs)
    return equal_values(*pair, tolerance)
