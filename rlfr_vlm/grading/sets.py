"""Sets of numbers: read them from intervals, sets and conditions on one variable, and compare them."""

import re

from sympy import And, FiniteSet, Intersection, Interval, Set, Symbol, Union
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from rlfr_vlm.grading.algebra import parse_latex
from rlfr_vlm.grading.answer_parts import is_relation
from rlfr_vlm.grading.equality import all_equal, equal_values
from rlfr_vlm.grading.size import is_too_large

MEMBER = re.compile(r"^\s*([A-Za-z]|\\[A-Za-z]+)\s*\\in(?![a-zA-Z])\s*")
OR = re.compile(r"\\text\s*\{\s*,?\s*or\s*\}|\\lor(?![a-zA-Z])|\bor\b|或")
AND = re.compile(r"\\text\s*\{\s*,?\s*and\s*\}|\\land(?![a-zA-Z])|\band\b|且|,")


def number_set(text: str) -> tuple[str, Set] | None:
    """Return the set of numbers that a text describes, as a set or as conditions on one variable (`x < -1 or x > 3`).

    Returns:
        The variable's name (empty for a plain set) and the set; None for any other text.
    """
    if not is_relation(text):
        member = MEMBER.match(text)
        parsed = parse_latex(text[member.end() :] if member else text)
        is_set = isinstance(parsed, Set) and not isinstance(parsed, FiniteSet)
        return (member[1] if member else "", parsed) if is_set else None
    alternatives = []
    names: set[str] = set()
    for alternative in OR.split(text):
        parts = AND.split(alternative)
        parsed_parts = [parse_latex(part.strip()) for part in parts]
        conditions = [_one_symbol(part) for part in parsed_parts if isinstance(part, Relational | And)]
        if len(conditions) < len(parts) or any(map(is_too_large, conditions)):
            return None
        names |= {symbol.name for condition in conditions for symbol in condition.free_symbols}
        if len(names) != 1:
            return None
        alternatives.append(Intersection(*[condition.as_set() for condition in conditions]))
    return names.pop(), Union(*alternatives)


def _one_symbol(condition: Relational | And) -> Relational | And:
    """Return the condition with symbols for functions such as f(x), which is the variable of `0 < f(x) < 1`."""
    functions = condition.atoms(AppliedUndef)
    return condition.xreplace({node: Symbol(str(node), real=True) for node in functions}) if functions else condition


def equal_sets(gold: Set, answer: Set) -> bool | None:
    """Return whether two sets of numbers have the same members; None if neither can be shown."""
    if gold == answer:
        return True
    gold_pieces, answer_pieces = _pieces(gold), _pieces(answer)
    if gold_pieces is not None and answer_pieces is not None and len(gold_pieces) == len(answer_pieces):
        rest = list(answer_pieces)
        for piece in gold_pieces:
            match = next((other for other in rest if _equal_pieces(piece, other)), None)
            if match is None:
                break
            rest.remove(match)
        else:
            return True
    empty = gold.symmetric_difference(answer).is_empty
    return bool(empty) if empty is not None else None


def _pieces(numbers: Set) -> list[Set] | None:
    """Return the intervals and single numbers of a set; None if it has other parts."""
    parts = numbers.args if isinstance(numbers, Union) else (numbers,)
    pieces: list[Set] = []
    for part in parts:
        if isinstance(part, FiniteSet):
            pieces += [FiniteSet(element) for element in part.args]
        elif isinstance(part, Interval):
            pieces.append(part)
        else:
            return None
    return pieces


def _equal_pieces(gold: Set, answer: Set) -> bool:
    if isinstance(gold, Interval) and isinstance(answer, Interval):
        same_ends = (gold.left_open, gold.right_open) == (answer.left_open, answer.right_open)
        pairs = ((gold.start, answer.start), (gold.end, answer.end))
        return same_ends and all_equal([equal_values(*pair) for pair in pairs]) is True
    if isinstance(gold, FiniteSet) and isinstance(answer, FiniteSet):
        return equal_values(gold.args[0], answer.args[0]) is True
    return False
