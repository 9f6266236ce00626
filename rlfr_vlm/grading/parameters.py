"""Names that an answer binds: the integer k of `k\\pi`, with or without the words that say so."""

import re

LETTER = r"[jklmn]"
CONDITION = re.compile(
    rf"\s*[,;]?\s*\(?\s*(?:\\text\s*\{{\s*,?\s*(?:where|for|with|and)[^{{}}]*\}}|where|for|with)?\s*{LETTER}\s*"
    r"(?:\\in\s*(?:\\mathbb\{Z\}|Z)(?:\^\+|_\{?>0\}?)?|\\text\s*\{[^{}]*integer[^{}]*\}|is\s+an?y?\s+integer|any\s+integer)\s*\)?\s*$"
)
LONE = re.compile(rf"(?<![\\A-Za-z]){LETTER}(?![A-Za-z])")


def same_parameter(gold: str, answer: str) -> tuple[str, str]:
    r"""Return the texts without the condition on an integer, and with one name for it.

    >>> same_parameter(r"x = k\pi", r"x = n\pi, n \in \mathbb{Z}")
    ('x = k\\pi', 'x = k\\pi')
    """
    bare_gold, bare_answer = CONDITION.sub("", gold), CONDITION.sub("", answer)
    conditions = (bare_gold != gold) + (bare_answer != answer)
    letters = set(LONE.findall(bare_gold)), set(LONE.findall(bare_answer))
    new, old = letters[0] - letters[1], letters[1] - letters[0]
    is_periodic = "\\pi" in gold and "\\pi" in answer
    if len(new) == len(old) == 1 and (is_periodic or conditions):
        bare_answer = re.sub(rf"(?<![\\A-Za-z]){old.pop()}(?![A-Za-z])", new.pop(), bare_answer)
    return (bare_gold, bare_answer) if bare_gold.strip() and bare_answer.strip() else (gold, answer)
