"""Tell words from products of variables, and compare short texts of words."""

import re

from rlfr_vlm.grading.normalise import compact, unwrap
from rlfr_vlm.grading.spelling import MATH_NAMES
from rlfr_vlm.grading.verdict import Decision, Reason, right, undecided, wrong

NOTHING = frozenset(["none", "nothing", "no", "neither", "null", "empty", "zero", "never", "无", "无解", "不存在"])
WORD = r"[A-Za-z'\u00c0-\u024f-]{2,}|[\u4e00-\u9fff]+"
WORD_GAP = re.compile(r"[\s,.;:!?()/\"]+")
A_WORD = re.compile(r"[A-Za-z'\u00c0-\u024f\u4e00-\u9fff-]{2,}|[AaI\u4e00-\u9fff]")
ARTICLES = frozenset(["a", "an", "the"])
# Words of two or three letters, which would otherwise be products of variables.
_SHORT_WORDS = (
    "yes no odd two one six ten red all any dog cat cow pig hen bee ant owl fox bat rat bug car bus van cab bin "
    "cup mug pan pot jar can box bag bed mat rug lid key map pen ink hat cap tie bow zip leg arm eye ear lip toe "
    "hip jaw man men boy kid mom dad son guy sun sky sea bay mud ice air gas oil day egg ham jam pie tea nut fig "
    "pea top new old big wet dry hot blue low high fat thin sad not net ski toy win sum row oak elm ivy fly cry "
    "run sit eat hug nap bar gym zoo tv usa"
)
SHORT_WORDS = frozenset(_SHORT_WORDS.split())
OPPOSITES = [
    {"yes", "no"},
    {"true", "false"},
    {"正确", "错误"},
    {"是", "否"},
    {"对", "错"},
    {"是", "不是"},
    {"正确", "不正确"},
]
# Endings of singular and plural words, other than an s that is added.
PLURALS = (
    ("y", "ies"), ("f", "ves"), ("fe", "ves"), ("man", "men"), ("foot", "feet"), ("tooth", "teeth"),
    ("goose", "geese"), ("mouse", "mice"),
    ("person", "people"), ("is", "es"), ("us", "i"), ("um", "a"), ("ex", "ices"), ("ix", "ices"),
)  # fmt: skip
CALL = re.compile(r"[a-z]\(")
COMMAND = re.compile(r"\\(?:begin|end)\s*\{[^{}]*\}|\\[a-zA-Z]+")
MAX_WORDS = 12  # of three letters or more in an answer
PROSE = re.compile(r"[A-Za-z0-9\s,.;:!?'()$-]+")
LONG_RUN = re.compile(r"[A-Za-z]{3,}")


def is_words(text: str) -> bool:
    """Return whether the text consists of ordinary words and is not a product of variables."""
    plain = unwrap(text).strip()
    if CALL.search(plain):
        return False
    words = [word for word in WORD_GAP.split(plain) if word.strip("-'")]
    if not words or not all(A_WORD.fullmatch(word) for word in words):
        return False
    if all(word in MATH_NAMES for word in words):
        return False
    is_long = len(plain) > 3 or plain.casefold() in SHORT_WORDS or not plain.isascii()
    return plain != text.strip() or is_long


def compare_words(gold: str, answer: str) -> Decision | None:
    """Return the verdict on two texts of which at least one consists of words; None if neither does."""
    gold_words, answer_words = _words(gold), _words(answer)
    if gold_words is None and answer_words is None:
        return None
    if gold_words is None or answer_words is None:
        words, expression = (gold_words, answer) if gold_words is not None else (answer_words or [], gold)
        if NOTHING & set(words) and compact(expression) in ("0", "\\emptyset"):  # "none" may mean either
            return undecided("words", Reason.FREE_TEXT)
        return wrong("words")
    if gold_words == answer_words:
        return right("words")
    if any({w[0] for w in (gold_words, answer_words)} == pair for pair in OPPOSITES):
        return wrong("words")
    if len(gold_words) == len(answer_words) == 1 and not (NOTHING & {gold_words[0], answer_words[0]}):
        first, second = gold_words[0], answer_words[0]
        if not may_be_forms(first, second) and first.isascii() and second.isascii():
            return wrong("words")
    return undecided("words", Reason.FREE_TEXT)


def may_be_forms(first: str, second: str) -> bool:
    """Return whether two words may be forms of one word, such as singular and plural. Only their meaning shows it.

    >>> may_be_forms("cat", "cats"), may_be_forms("cities", "city"), may_be_forms("cat", "dog")
    (True, True, False)
    """
    if first.startswith(second) or second.startswith(first):
        return True
    return any(
        one.endswith(singular) and one.removesuffix(singular) + plural == other
        for one, other in ((first, second), (second, first))
        for singular, plural in PLURALS
    )


def _words(text: str) -> list[str] | None:
    """Return the words without a leading article; None if the text is not words."""
    if not is_words(text):
        return None
    words = re.findall(WORD, unwrap(text).casefold())
    return words[1:] if len(words) > 1 and words[0] in ARTICLES else words


def is_prose(text: str) -> bool:
    """Return whether the text consists of words and numbers alone, without operators."""
    return PROSE.fullmatch(unwrap(text)) is not None and LONG_RUN.search(text) is not None


def is_long_prose(text: str) -> bool:
    """Return whether the text has so many words that it explains an answer instead of being one."""
    return len(LONG_RUN.findall(COMMAND.sub(" ", text))) > MAX_WORDS


def has_long_words(text: str) -> bool:
    """Return whether the text has a word of four letters or more that is no mathematical name."""
    plain = COMMAND.sub(" ", text if "\\" not in text else unwrap(text))
    return any(len(run) > 3 and run not in MATH_NAMES for run in LONG_RUN.findall(plain))


def has_foreign_words(gold: str, answer: str) -> bool:
    """Return whether either text has a word that is no product of the other text's letters."""
    plain = [COMMAND.sub(" ", unwrap(text)) for text in (gold, answer)]
    for text, other in (plain, reversed(plain)):
        for run in LONG_RUN.findall(text):
            if (len(run) > 3 or run.casefold() in SHORT_WORDS) and not set(run) <= set(other):
                return True
    return False
