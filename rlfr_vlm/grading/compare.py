"""Compare two answers with computer algebra (math-verify). Runs in a worker process, which can be killed."""

import re

from rlfr_vlm.grading.answer_parts import (
    MAX_PARTS,
    ascending,
    both_signs,
    is_equation,
    is_malformed,
    is_relation,
    name_of,
    right_side,
    split_bracketed,
    split_list,
)
from rlfr_vlm.grading.normalise import compact, fold
from rlfr_vlm.grading.numbers import mentions, read_quantity
from rlfr_vlm.grading.rules import apply_rules
from rlfr_vlm.grading.units import split_unit
from rlfr_vlm.grading.verdict import Decision, Reason, Verdict, decided, right, undecided, wrong

MAX_DEPTH = 4
BASED = re.compile(r"^\(?([0-9A-Z]+)\)?_\{?(\d{1,2})\}?$")


def compare(gold: str, answer: str, tolerance: float = 0.0, depth: int = 0) -> Decision:
    """The verdict on one pair: rules first, then part by part, then algebra on what cannot be taken apart."""
    decision = apply_rules(gold, answer, tolerance=tolerance)
    if decision is not None:
        return decision
    gold, answer = ascending(fold(gold)), ascending(fold(answer))
    if (decision := _by_base(gold, answer)) is not None:
        return decision
    bare_gold, bare_answer = gold, answer
    if is_equation(gold) != is_equation(answer) and not (_listed(gold) or _listed(answer)):
        bare_gold, bare_answer = right_side(gold), right_side(answer)
        equation = bare_gold if is_equation(bare_gold) else bare_answer
        if is_equation(equation):
            if not _is_derivation(equation, tolerance, depth):
                return wrong("equation")  # an equation that names nothing is not its own right side
            last = equation.rsplit("=", 1)[1]
            bare_gold, bare_answer = (last, bare_answer) if equation == bare_gold else (bare_gold, last)
    bare_gold, gold_unit = split_unit(bare_gold)
    bare_answer, unit = split_unit(bare_answer)
    if (bare_gold, bare_answer) != (gold, answer):
        decision = (
            compare(bare_gold, bare_answer, tolerance, depth + 1)
            if depth < MAX_DEPTH
            else undecided("parts", Reason.BAD_ANSWER)
        )
        if unit and gold_unit and unit != gold_unit:
            return wrong("unit") if decision.right else undecided("unit", Reason.UNITS)
        return decision
    if depth < MAX_DEPTH:
        decision = _by_parts(gold, answer, tolerance, depth + 1)
        if decision is not None:
            return decision
    return _by_algebra(gold, answer, tolerance)


def _by_parts(gold: str, answer: str, tolerance: float, depth: int) -> Decision | None:
    if is_relation(gold) or is_relation(answer):
        return None  # conditions on numbers, joined by and or or: algebra makes sets of them
    gold_parts, parts = _list_of(gold), _list_of(answer)
    gold_tuple, answer_tuple = split_bracketed(gold), split_bracketed(answer)
    if len(gold_parts) > 1 or len(parts) > 1:
        if answer_tuple is not None and answer_tuple[0] == "{":
            parts = answer_tuple[1]
        if gold_tuple is not None and gold_tuple[0] == "{":
            gold_parts = gold_tuple[1]
        return _match_named(gold_parts, parts, tolerance, depth)
    if gold_tuple is None or answer_tuple is None:
        return None
    if gold_tuple[0] == "{" and answer_tuple[0] == "{":
        return _match(_unique(gold_tuple[1]), _unique(answer_tuple[1]), tolerance, depth)
    if (gold_tuple[0], gold_tuple[2]) != (answer_tuple[0], answer_tuple[2]):
        return wrong("brackets")
    if len(gold_tuple[1]) != len(answer_tuple[1]):
        return wrong("parts")
    return _in_order(gold_tuple[1], answer_tuple[1], tolerance, depth)


def _listed(text: str) -> bool:
    return len(split_list(text)) > 1


def _is_derivation(equation: str, tolerance: float, depth: int) -> bool:
    """`1 + 1 = 2`: a true statement about constants, whose last member is the answer."""
    first, last = equation.split("=", 1)[0], equation.rsplit("=", 1)[1]
    if depth >= MAX_DEPTH or not first.strip() or re.search(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", first):
        return False
    return compare(last, first, tolerance, MAX_DEPTH).right


def _list_of(text: str) -> list[str]:
    """Parts of a bare list, both signs of a plus-minus apart; braces of a set are not looked into."""
    return [sign for part in split_list(text) for sign in both_signs(part)]


def _match_named(gold: list[str], answer: list[str], tolerance: float, depth: int) -> Decision:
    """Parts of lists. `x = 1 or x = 2` are two values of one thing; `x = 1, y = 2` are values of two."""
    names, answer_names = [name_of(part) for part in gold], [name_of(part) for part in answer]
    values, answer_values = [right_side(part) for part in gold], [right_side(part) for part in answer]
    different = [len(set(own)) > 1 and None not in own for own in (names, answer_names)]
    if all(different):
        if sorted(map(str, names)) != sorted(map(str, answer_names)):
            return wrong("parts")
        of_name = [
            _match(
                [value for own, value in zip(names, values, strict=True) if own == name],
                [value for own, value in zip(answer_names, answer_values, strict=True) if own == name],
                tolerance, depth,
            )
            for name in dict.fromkeys(names)
        ]  # fmt: skip
        return _all_of(of_name, "parts")
    if any(different) and len(values) == len(answer_values):
        return _in_order(values, answer_values, tolerance, depth)
    return _match(values, answer_values, tolerance, depth)


def _in_order(gold: list[str], answer: list[str], tolerance: float, depth: int) -> Decision:
    return _all_of([compare(g, a, tolerance, depth) for g, a in zip(gold, answer, strict=True)], "parts")


def _unique(parts: list[str]) -> list[str]:
    return list(dict.fromkeys(part for part in parts if part))


def _match(gold: list[str], answer: list[str], tolerance: float, depth: int) -> Decision:
    """Whether the parts of two unordered collections can be paired off; all are needed."""
    if len(gold) != len(answer):
        return wrong("parts")
    if len(gold) > MAX_PARTS:
        return _in_order(gold, answer, tolerance, depth)
    left = list(answer)
    open_parts = 0
    for part in gold:
        decisions = [compare(part, candidate, tolerance, depth) for candidate in left]
        found = next((i for i, decision in enumerate(decisions) if decision.right), None)
        if found is not None:
            left.pop(found)
        elif any(decision.verdict is Verdict.UNDECIDED for decision in decisions):
            open_parts += 1
        else:
            return wrong("parts")
    return undecided("parts", Reason.BAD_ANSWER) if open_parts else right("parts")


def _all_of(decisions: list[Decision], path: str) -> Decision:
    if any(decision.verdict is Verdict.WRONG for decision in decisions):
        return wrong(path)
    unknown = next((decision for decision in decisions if decision.verdict is Verdict.UNDECIDED), None)
    return undecided(path, unknown.reason) if unknown else right(path)


def _by_base(gold: str, answer: str) -> Decision | None:
    """Numbers in a stated base; None when neither states one. Without its base a number could be decimal."""
    gold_base, answer_base = BASED.match(compact(gold)), BASED.match(compact(answer))
    if gold_base is None and answer_base is None:
        return None
    if gold_base is None or answer_base is None:
        return undecided("base", Reason.BASE)
    return decided(gold_base.groups() == answer_base.groups(), "base")


def _by_algebra(gold: str, answer: str, tolerance: float) -> Decision:
    from rlfr_vlm.grading.algebra import agree, number_set, read, same_set

    if is_relation(gold) or is_relation(answer):
        gold_set, answer_set = number_set(gold), number_set(answer)
        if gold_set and answer_set:
            same_variable = "" in (gold_set[0], answer_set[0]) or gold_set[0] == answer_set[0]
            return decided(same_variable and same_set(gold_set[1], answer_set[1]), "sets")
        if _listed(gold) and _listed(answer):  # conditions on several variables, one by one
            return _match(split_list(gold), split_list(answer), tolerance, MAX_DEPTH)
    parsed_gold = read(gold)
    if parsed_gold is None:
        return undecided("algebra", Reason.BAD_GOLD)
    if is_malformed(answer):
        return wrong("algebra")
    if compact(gold) != compact(answer) and compact(gold).casefold() == compact(answer).casefold():
        return undecided("algebra", Reason.CASE)  # R and r may be two things, or a slip
    if gold.count("'") != answer.count("'"):  # derivatives, feet or minutes, which algebra would not see
        return undecided("primes", Reason.UNITS) if re.search(r"\d'", gold + answer) else wrong("primes")
    parsed = read(answer)
    if parsed is None:
        number = read_quantity(gold)
        # A number can be written in many ways, but not without itself.
        if number is not None and not mentions(answer, number):
            return wrong("algebra")
        return undecided("algebra", Reason.BAD_ANSWER)
    return decided(agree(parsed_gold, parsed, tolerance), "algebra")
