"""Compare answers part by part: lists, sets, tuples, vectors, and values with names."""

from collections.abc import Callable, Sequence
from itertools import product

from rlfr_vlm.grading.answer_parts import MAX_PARTS, PLUS_MINUS, both_signs, is_relation, split_bracketed, split_list
from rlfr_vlm.grading.left_sides import name_of, right_side
from rlfr_vlm.grading.vectors import column_entries
from rlfr_vlm.grading.verdict import Decision, Reason, Verdict, right, undecided, wrong

Compare = Callable[[str, str], Decision]
Bracketed = tuple[str, list[str], str]
VECTOR_BRACKETS = ("()", "⟨⟩", "||")  # that write the same vector, in different notations


def by_parts(gold: str, answer: str, compare: Compare) -> Decision | None:
    """Return the verdict on two texts of which one has parts; None if neither has.

    Args:
        gold, answer: normalised texts.
        compare: compares two parts.
    """
    if is_relation(gold) or is_relation(answer):
        return None  # conditions joined by and/or: algebra turns them into sets
    if (decision := _by_signs(gold, answer, compare)) is not None:
        return decision
    gold_parts, answer_parts = _groups(gold) or signed_parts(gold), _groups(answer) or signed_parts(answer)
    gold_tuple, answer_tuple = _named_tuple(gold), _named_tuple(answer)
    if len(gold_parts) > 1 or len(answer_parts) > 1:
        if (decision := _tuple_and_list(gold_tuple, answer_tuple, gold_parts, answer_parts, compare)) is not None:
            return decision
        if answer_tuple is not None and answer_tuple[0] == "{":
            answer_parts = _elements(answer_tuple)
        if gold_tuple is not None and gold_tuple[0] == "{":
            gold_parts = _elements(gold_tuple)
        return match_named(gold_parts, answer_parts, compare)
    if gold_tuple is None or answer_tuple is None or gold_tuple[0] == answer_tuple[0] == "|":
        return None
    if gold_tuple[0] == "{" and answer_tuple[0] == "{":
        return match(unique(_elements(gold_tuple)), unique(_elements(answer_tuple)), compare)
    if not _same_brackets(gold_tuple, answer_tuple):
        return wrong("brackets")
    if len(gold_tuple[1]) != len(answer_tuple[1]):
        return wrong("parts")
    return in_order(gold_tuple[1], answer_tuple[1], compare)


def bracketed(text: str) -> Bracketed | None:
    """Return brackets and parts of a tuple, set or interval; a matrix with one column or row has brackets `||`."""
    entries = column_entries(text)
    return ("|", entries[0], "|") if entries else split_bracketed(text)


def _named_tuple(text: str) -> Bracketed | None:
    """Return the tuple of a text such as `(x, y) = (1, 2)` or `(1, 2)`."""
    return bracketed(text) or (bracketed(right_side(text)) if len(split_list(text)) == 1 else None)


def _same_brackets(gold: Bracketed, answer: Bracketed) -> bool:
    pair = gold[0] + gold[2], answer[0] + answer[2]
    if pair[0] == pair[1] or set(pair) <= set(VECTOR_BRACKETS):
        return True
    return ("||" in pair and "[]" in pair) or ("⟨⟩" in pair and "[]" in pair)


def _by_signs(gold: str, answer: str, compare: Compare) -> Decision | None:
    r"""Compare tuples such as `(\pm 1, \pm 2)`, whose signs may be chosen together or one by one."""
    if not any(_has_several_signs(text) for text in (gold, answer)):
        return None
    readings = [
        [signed_parts(text), [p for part in split_list(text) for p in _independent(part)]] for text in (gold, answer)
    ]
    decisions = [match(first, second, compare) for first, second in product(*readings)]
    if all(decision.right for decision in decisions):
        return right("parts")
    return (
        undecided("parts", Reason.NOTATION)
        if any(d.verdict is not Verdict.WRONG for d in decisions)
        else wrong("parts")
    )


def _has_several_signs(text: str) -> bool:
    return any(split_bracketed(part) and len(PLUS_MINUS.findall(part)) > 1 for part in split_list(text))


def _independent(part: str) -> list[str]:
    """Return a tuple with every combination of its signs."""
    split = split_bracketed(part)
    if split is None or len(PLUS_MINUS.findall(part)) > 4:
        return both_signs(part)
    opening, parts, closing = split
    return [opening + ",".join(choice) + closing for choice in product(*map(both_signs, parts))]


def _tuple_and_list(
    gold: Bracketed | None, answer: Bracketed | None, gold_parts: list[str], answer_parts: list[str], compare: Compare
) -> Decision | None:
    """Compare a tuple with values by name, or with a list without brackets; None for other pairs."""
    if (gold is None) == (answer is None):
        return None
    bracket, parts = (gold, answer_parts) if gold is not None else (answer, gold_parts)
    assert bracket is not None
    if bracket[0] == "{" or len(parts) == 1 or len(bracket[1]) != len(parts):
        return None
    if any(PLUS_MINUS.search(part) for part in bracket[1]) or any(map(split_bracketed, parts)):
        return None  # a list of tuples
    names = [name_of(part) for part in parts]
    named = None not in names and len(set(names)) == len(names)
    order = sorted(range(len(parts)), key=lambda i: str(names[i])) if named else list(range(len(parts)))
    values = [right_side(parts[i]) for i in order]
    pair = (bracket[1], values) if gold is not None else (values, bracket[1])
    decision = in_order(*pair, compare)
    if not named or order != list(range(len(parts))):  # brackets left out, or names in another order
        return undecided("parts", Reason.NOTATION) if decision.right else decision
    return decision


def _groups(text: str) -> list[str] | None:
    """Return `(5,2)` and `(7,2)` for `p=5, q=2; p=7, q=2`; None for other text."""
    groups = [split_list(group) for group in text.split(";")]
    names = [[name_of(part) for part in group] for group in groups]
    if len(groups) < 2 or len(names[0]) < 2 or None in names[0] or any(other != names[0] for other in names):
        return None
    return ["(" + ",".join(right_side(part) for part in group) + ")" for group in groups]


def _elements(parts: Bracketed) -> list[str]:
    return [sign for part in parts[1] for sign in both_signs(part)]


def signed_parts(text: str) -> list[str]:
    """Return the parts of a list without brackets, with plus-minus expanded. A set in braces is one part."""
    return [sign for part in split_list(text) for sign in _signs_outside_sets(part)]


def _signs_outside_sets(part: str) -> list[str]:
    return [part] if part.startswith("\\{") else both_signs(part)


def match_named(gold: list[str], answer: list[str], compare: Compare) -> Decision:
    """Match lists whose parts may be named: `x = 1 or x = 2` has two values of x, `x = 1, y = 2` one of each."""
    names, answer_names = [name_of(part) for part in gold], [name_of(part) for part in answer]
    values, answer_values = [right_side(part) for part in gold], [right_side(part) for part in answer]
    different = [len(set(side)) > 1 and None not in side for side in (names, answer_names)]
    if all(different):
        if sorted(map(str, names)) != sorted(map(str, answer_names)):
            return _other_names(values, answer_values, compare)
        by_name = [
            match(
                [value for key, value in zip(names, values, strict=True) if key == name],
                [value for key, value in zip(answer_names, answer_values, strict=True) if key == name],
                compare,
            )
            for name in dict.fromkeys(names)
        ]
        return all_of(by_name, "parts")
    if any(different) and len(values) == len(answer_values):
        return in_order(values, answer_values, compare)
    return match(values, answer_values, compare)


def _other_names(gold: list[str], answer: list[str], compare: Compare) -> Decision:
    """Two lists with different names: undecided if their values are the same."""
    decision = match(gold, answer, compare)
    return undecided("parts", Reason.LEFT_SIDE) if decision.right else decision


def in_order(gold: Sequence[str], answer: Sequence[str], compare: Compare) -> Decision:
    """Compare parts at the same places."""
    return all_of([compare(g, a) for g, a in zip(gold, answer, strict=True)], "parts")


def unique(parts: list[str]) -> list[str]:
    return list(dict.fromkeys(part for part in parts if part))


def match(gold: list[str], answer: list[str], compare: Compare) -> Decision:
    """Match two unordered collections: right if every gold part can be paired with a different answer part."""
    if len(gold) != len(answer):
        return wrong("parts")
    if len(gold) > MAX_PARTS:
        return in_order(gold, answer, compare)
    unmatched = list(answer)
    num_undecided = 0
    for part in gold:
        decisions = [compare(part, candidate) for candidate in unmatched]
        found = next((i for i, decision in enumerate(decisions) if decision.right), None)
        if found is not None:
            unmatched.pop(found)
        elif any(decision.verdict is Verdict.UNDECIDED for decision in decisions):
            num_undecided += 1
        else:
            return wrong("parts")
    return undecided("parts", Reason.BAD_ANSWER) if num_undecided else right("parts")


def all_of(decisions: list[Decision], path: str) -> Decision:
    if any(decision.verdict is Verdict.WRONG for decision in decisions):
        return wrong(path)
    first_undecided = next((decision for decision in decisions if decision.verdict is Verdict.UNDECIDED), None)
    return undecided(path, first_undecided.reason) if first_undecided else right(path)
