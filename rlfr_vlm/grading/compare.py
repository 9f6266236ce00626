"""Compare two answers with computer algebra (math-verify), in a worker process that can be killed."""

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
from rlfr_vlm.grading.normalise import compact, normalise
from rlfr_vlm.grading.numbers import mentions, read_quantity
from rlfr_vlm.grading.rules import apply_rules
from rlfr_vlm.grading.units import split_unit
from rlfr_vlm.grading.verdict import Decision, Reason, Verdict, decided, right, undecided, wrong

MAX_DEPTH = 4
BASED = re.compile(r"^\(?([0-9A-Z]+)\)?_\{?(\d{1,2})\}?$")


def compare(gold: str, answer: str, tolerance: float = 0.0, depth: int = 0) -> Decision:
    """Grade one pair: first by rules, then part by part, then by algebra for expressions without parts."""
    decision = apply_rules(gold, answer, tolerance=tolerance)
    if decision is not None:
        return decision
    gold, answer = ascending(normalise(gold)), ascending(normalise(answer))
    if (decision := _by_base(gold, answer)) is not None:
        return decision
    bare_gold, bare_answer = gold, answer
    if is_equation(gold) != is_equation(answer) and not (_is_list(gold) or _is_list(answer)):
        bare_gold, bare_answer = right_side(gold), right_side(answer)
        equation = bare_gold if is_equation(bare_gold) else bare_answer
        if is_equation(equation):
            if not _is_derivation(equation, tolerance, depth):
                return wrong("equation")  # `2x = 6` does not answer `6`: its left side is not a name
            last = equation.rsplit("=", 1)[1]
            bare_gold, bare_answer = (last, bare_answer) if equation == bare_gold else (bare_gold, last)
    bare_gold, gold_unit = split_unit(bare_gold)
    bare_answer, answer_unit = split_unit(bare_answer)
    if (bare_gold, bare_answer) != (gold, answer):
        decision = (
            compare(bare_gold, bare_answer, tolerance, depth + 1)
            if depth < MAX_DEPTH
            else undecided("parts", Reason.BAD_ANSWER)
        )
        if answer_unit and gold_unit and answer_unit != gold_unit:
            return wrong("unit") if decision.right else undecided("unit", Reason.UNITS)
        return decision
    if depth < MAX_DEPTH:
        decision = _by_parts(gold, answer, tolerance, depth + 1)
        if decision is not None:
            return decision
    return _by_algebra(gold, answer, tolerance)


def _by_parts(gold: str, answer: str, tolerance: float, depth: int) -> Decision | None:
    if is_relation(gold) or is_relation(answer):
        return None  # conditions joined by and/or: algebra turns them into sets
    gold_parts, answer_parts = _signed_parts(gold), _signed_parts(answer)
    gold_tuple, answer_tuple = split_bracketed(gold), split_bracketed(answer)
    if len(gold_parts) > 1 or len(answer_parts) > 1:
        if answer_tuple is not None and answer_tuple[0] == "{":
            answer_parts = answer_tuple[1]
        if gold_tuple is not None and gold_tuple[0] == "{":
            gold_parts = gold_tuple[1]
        return _match_named(gold_parts, answer_parts, tolerance, depth)
    if gold_tuple is None or answer_tuple is None:
        return None
    if gold_tuple[0] == "{" and answer_tuple[0] == "{":
        return _match(_unique(gold_tuple[1]), _unique(answer_tuple[1]), tolerance, depth)
    if (gold_tuple[0], gold_tuple[2]) != (answer_tuple[0], answer_tuple[2]):
        return wrong("brackets")
    if len(gold_tuple[1]) != len(answer_tuple[1]):
        return wrong("parts")
    return _in_order(gold_tuple[1], answer_tuple[1], tolerance, depth)


def _is_list(text: str) -> bool:
    return len(split_list(text)) > 1


def _is_derivation(equation: str, tolerance: float, depth: int) -> bool:
    """Return whether an equation such as `1 + 1 = 2` is true and has no variables; its last member is the answer."""
    first, last = equation.split("=", 1)[0], equation.rsplit("=", 1)[1]
    if depth >= MAX_DEPTH or not first.strip() or re.search(r"(?<![\\a-zA-Z])[a-zA-Z](?![a-zA-Z])", first):
        return False
    return compare(last, first, tolerance, MAX_DEPTH).right


def _signed_parts(text: str) -> list[str]:
    """Return the parts of a list without brackets, with plus-minus expanded. A set in braces is one part."""
    return [sign for part in split_list(text) for sign in both_signs(part)]


def _match_named(gold: list[str], answer: list[str], tolerance: float, depth: int) -> Decision:
    """Match lists whose parts may be named: `x = 1 or x = 2` has two values of x, `x = 1, y = 2` one of each."""
    names, answer_names = [name_of(part) for part in gold], [name_of(part) for part in answer]
    values, answer_values = [right_side(part) for part in gold], [right_side(part) for part in answer]
    different = [len(set(side)) > 1 and None not in side for side in (names, answer_names)]
    if all(different):
        if sorted(map(str, names)) != sorted(map(str, answer_names)):
            return wrong("parts")
        by_name = [
            _match(
                [value for key, value in zip(names, values, strict=True) if key == name],
                [value for key, value in zip(answer_names, answer_values, strict=True) if key == name],
                tolerance,
                depth,
            )
            for name in dict.fromkeys(names)
        ]
        return _all_of(by_name, "parts")
    if any(different) and len(values) == len(answer_values):
        return _in_order(values, answer_values, tolerance, depth)
    return _match(values, answer_values, tolerance, depth)


def _in_order(gold: list[str], answer: list[str], tolerance: float, depth: int) -> Decision:
    return _all_of([compare(g, a, tolerance, depth) for g, a in zip(gold, answer, strict=True)], "parts")


def _unique(parts: list[str]) -> list[str]:
    return list(dict.fromkeys(part for part in parts if part))


def _match(gold: list[str], answer: list[str], tolerance: float, depth: int) -> Decision:
    """Match two unordered collections: right if every gold part can be paired with a different answer part."""
    if len(gold) != len(answer):
        return wrong("parts")
    if len(gold) > MAX_PARTS:
        return _in_order(gold, answer, tolerance, depth)
    unmatched = list(answer)
    num_undecided = 0
    for part in gold:
        decisions = [compare(part, candidate, tolerance, depth) for candidate in unmatched]
        match = next((i for i, decision in enumerate(decisions) if decision.right), None)
        if match is not None:
            unmatched.pop(match)
        elif any(decision.verdict is Verdict.UNDECIDED for decision in decisions):
            num_undecided += 1
        else:
            return wrong("parts")
    return undecided("parts", Reason.BAD_ANSWER) if num_undecided else right("parts")


def _all_of(decisions: list[Decision], path: str) -> Decision:
    if any(decision.verdict is Verdict.WRONG for decision in decisions):
        return wrong(path)
    first_undecided = next((decision for decision in decisions if decision.verdict is Verdict.UNDECIDED), None)
    return undecided(path, first_undecided.reason) if first_undecided else right(path)


def _by_base(gold: str, answer: str) -> Decision | None:
    """Compare numbers with a stated base; None if neither states one. If only one does, the other may be decimal."""
    gold_base, answer_base = BASED.match(compact(gold)), BASED.match(compact(answer))
    if gold_base is None and answer_base is None:
        return None
    if gold_base is None or answer_base is None:
        return undecided("base", Reason.BASE)
    return decided(gold_base.groups() == answer_base.groups(), "base")


def _by_algebra(gold: str, answer: str, tolerance: float) -> Decision:
    from rlfr_vlm.grading.algebra import are_equal, are_equal_sets, number_set, parse_latex

    if is_relation(gold) or is_relation(answer):
        gold_set, answer_set = number_set(gold), number_set(answer)
        if gold_set and answer_set:
            same_variable = "" in (gold_set[0], answer_set[0]) or gold_set[0] == answer_set[0]
            return decided(same_variable and are_equal_sets(gold_set[1], answer_set[1]), "sets")
        if _is_list(gold) and _is_list(answer):  # match conditions on several variables one by one
            return _match(split_list(gold), split_list(answer), tolerance, MAX_DEPTH)
    parsed_gold = parse_latex(gold)
    if parsed_gold is None:
        return undecided("algebra", Reason.BAD_GOLD)
    if is_malformed(answer):
        return wrong("algebra")
    if compact(gold) != compact(answer) and compact(gold).casefold() == compact(answer).casefold():
        return undecided("algebra", Reason.CASE)  # R and r may be two variables or a typing error
    if gold.count("'") != answer.count("'"):  # derivatives, feet or minutes; the parser drops primes
        return undecided("primes", Reason.UNITS) if re.search(r"\d'", gold + answer) else wrong("primes")
    parsed_answer = parse_latex(answer)
    if parsed_answer is None:
        number = read_quantity(gold)
        # An answer that equals the gold number must mention it, even if the answer cannot be parsed.
        if number is not None and not mentions(answer, number):
            return wrong("algebra")
        return undecided("algebra", Reason.BAD_ANSWER)
    return decided(are_equal(parsed_gold, parsed_answer, tolerance), "algebra")
